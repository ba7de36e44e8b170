"""Layer drift of an arch: which pairs are compared, over which prompts, and where what was measured is kept.

`drift/<key>.json` holds one pair; `drift/current.json` says which files the last `measure_all` used, so that a table
made again from the store never mixes in those of other weights or prompts. Each file holds the sha256 of its own
content: numbers changed by hand are refused. It is no signature; whoever changes a number can hash it anew.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from carryover.bench.backbones import loading
from carryover.bench.backbones.archs import OTHER_ACTIVATION
from carryover.bench.backbones.drift import measure, other_activation, vision_blocks
from carryover.bench.backbones.drift_names import DRIFT_VERSION
from carryover.bench.backbones.loading import Backbone
from carryover.bench.engine.session import Session
from carryover.bench.errors import UserError
from carryover.bench.host import environment
from carryover.bench.host.device import device_name
from carryover.bench.host.files import write_text
from carryover.bench.host.identity import digest, sealed, unsealed
from carryover.bench.records.drift_files import read
from carryover.datasets.base import Dataset, Split

PICTURES = 64  # over all datasets together; only for two vision transformers that read a class token


def class_prompts(data: Dataset) -> tuple[str, ...]:
    """The dataset's first template, filled with each class name."""
    return tuple(data.templates[0].format(name) for name in data.classnames)


def pairs_of(session: Session) -> list[str]:
    """What the base is compared with: its updates, itself under the other activation, the arch's controls."""
    arch = session.options.arch
    return [*(role for role in arch.towers if role != "base"), OTHER_ACTIVATION, *arch.controls]


def drift_of(session: Session, name: str, dataset_ids: Sequence[str]) -> dict:
    """Change from the base to ``name`` (one of ``pairs_of``) over the class prompts of these datasets: read from the
    store, or measured and stored. Raises UserError where the backbone cannot be loaded."""
    arch, base = session.options.arch, session.backbone("base")
    if name == OTHER_ACTIVATION:
        other = other_activation(base)
    elif name in arch.controls:
        other = loading.load(arch.controls[name], session.options.device, session.options.hub_cache)
    else:
        other = session.backbone(name)
    prompts = {id: class_prompts(session.data(id)) for id in dataset_ids}
    pictures = sample_pictures(session, dataset_ids) if _have_blocks(base, other) else {}
    identity = {
        "version": DRIFT_VERSION,
        "base": base.fingerprint,
        "other": other.fingerprint,
        "prompts": digest(prompts),
        "pictures": {id: split.content_sha256(session.data(id).classnames) for id, split in pictures.items()},
    }
    key = digest(identity)[:16]
    kind = "update" if name in arch.towers else "control"
    path = session.store.path("drift", key)
    measured = unsealed(read(path))
    if measured is None or measured.get("identity") != identity:
        was, now = _pixels(pictures, base), _pixels(pictures, other)
        measured = {
            **measure(base, other, prompts, None if was is None or now is None else (was, now)),
            "key": key,
            "identity": identity,
            "versions": environment.versions(),
            "device": device_name(torch.device(session.options.device)),
        }
        write_text(path, json.dumps(sealed(measured), indent=1, sort_keys=True, allow_nan=False) + "\n")
    return {**measured, "pair": name, "kind": kind}


def measure_all(session: Session, dataset_ids: Sequence[str]) -> list[dict]:
    """Every pair of the arch. A control that cannot be had is left out, with its reason under "left_out"."""
    found = []
    for name in pairs_of(session):
        try:
            found.append(drift_of(session, name, dataset_ids))
        except UserError as error:
            if name not in (OTHER_ACTIVATION, *session.options.arch.controls):
                raise
            found.append({"pair": name, "kind": "control", "left_out": str(error)})
    entries = [{k: each[k] for k in ("pair", "kind", "key", "left_out") if k in each} for each in found]
    write_text(session.store.folder / "drift" / "current.json", json.dumps(entries, indent=1) + "\n")
    return found


def sample_pictures(session: Session, dataset_ids: Sequence[str]) -> dict[str, Split]:
    """About `PICTURES` training pictures, evenly spaced through each dataset's list; test pictures are left alone."""
    trains = {id: session.data(id).train for id in dataset_ids if len(session.data(id).train)}
    each = -(-PICTURES // len(trains)) if trains else 0
    return {
        id: train.take(np.unique(np.linspace(0, len(train) - 1, each).astype(int)).tolist())
        for id, train in trains.items()
    }


def _pixels(pictures: dict[str, Split], backbone: Backbone) -> Tensor | None:
    images = [image for split in pictures.values() for image in split.read(range(len(split)))]
    return torch.stack([backbone.preprocess(image) for image in images]) if images else None


def _have_blocks(base: Backbone, other: Backbone) -> bool:
    if base.model.visual is other.model.visual:
        return False
    blocks = [vision_blocks(backbone.model.visual) for backbone in (base, other)]
    return blocks[0] is not None and blocks[1] is not None
