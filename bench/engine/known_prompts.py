"""open_clip's own prompts over the test features that the runs left in the cache, for the known answer.

open_clip's published results were not measured with the prompts that the field uses for a dataset, but with its 80
ImageNet prompts. On ImageNet and its shifted sets everything else is the same, so those prompts must give its numbers.
The accuracy is stored in `known/`, so that a report is made again from stored files alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from carryover.bench.backbones.loading import Backbone
from carryover.bench.engine.evaluator import ROWS, score
from carryover.bench.engine.few_shot import as_labels
from carryover.bench.engine.session import Session
from carryover.bench.host.files import write_text
from carryover.bench.host.identity import canonical
from carryover.bench.plan.runs import NUMBERS_VERSION
from carryover.bench.records.printed import published_for, read_stored, stored_path
from carryover.methods.base import Classes


def templates() -> tuple[str, ...]:
    """open_clip's 80 ImageNet prompts, in which its published results were measured, with ``{}`` for the name."""
    from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES

    return tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)


def classify(backbone: Backbone, features: Tensor, names: Sequence[str]) -> Tensor:
    """Features (N, D) -> the class (N,) that open_clip's prompts choose."""
    classifier = backbone.zero_shot(Classes("imagenet", tuple(names), templates()))
    return torch.cat([(F.normalize(part, dim=-1) @ classifier.T).argmax(-1) for part in features.split(ROWS)])


def measure(session: Session, datasets: Iterable[str]) -> list[Path]:
    """Writes `known/<dataset>-<role>.json` for those of the datasets that open_clip's results can be compared on, where
    their full test features are in the cache; returns the files written. What is stored already is not done again."""
    published, wanted, written = published_for(session.options.arch.id), set(datasets), []
    for dataset, role in published:
        if dataset not in wanted:
            continue
        data, backbone = session.data(dataset), session.backbone(role)
        identity = {
            "backbone": backbone.fingerprint,
            "pictures": data.test.content_sha256(data.classnames),
            "templates": hashlib.sha256(canonical(templates()).encode()).hexdigest(),
            "precision": session.options.precision,
            "numbers": NUMBERS_VERSION,
        }
        path = stored_path(session.store.folder, dataset, role)
        if (read_stored(path) or {}).get("identity") == identity:
            continue
        features = session.features(role).stored(data.test, data.classnames)
        if features is None:
            continue
        if session.progress:
            session.progress(f"open_clip's prompts, {dataset} {role}", 0, 1)
        found = classify(backbone, features, data.classnames)
        labels = as_labels(data.test, found.device)
        stored: dict[str, Any] = {"dataset": dataset, "name": data.name, "role": role, "backbone": backbone.label}
        stored |= {"identity": identity, "prompts": len(templates()), **score({"predicted": found, "label": labels})}
        write_text(path, json.dumps(stored, indent=1, sort_keys=True) + "\n")
        written.append(path)
    return written
