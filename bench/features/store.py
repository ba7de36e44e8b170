"""Feature store and view bank: each picture, and each augmented view of it, is encoded once for all methods.

A feature file's identity is everything that can change it: weights, architecture and activation (the backbone's
fingerprint), preprocessing, decoder, numeric type, the split's manifest, the view recipe and its seed. It is hashed
into the file's name and repeated in its header.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import PIL
import torch
from torch import Tensor

from carryover.bench.backbones.loading import Backbone
from carryover.bench.errors import UserError
from carryover.bench.features.decoding import Loader
from carryover.bench.features.transforms import FLIP, RATIO, Plain, Recipe, View, halves, look_up, value_table
from carryover.bench.host.claims import Claims
from carryover.bench.host.device import send
from carryover.bench.host.identity import canonical, content_of
from carryover.bench.host.tensor_files import read_tensors, write_tensors
from carryover.datasets.base import Split

FEATURES_VERSION = 3  # raised whenever a change of the code changes features, so that older files are not read
TEST_RECIPE = {"recipe": "test"}
TOGETHER = 32  # views made from one decode: a batch of them is 600 MB at 224 pixels


def view_recipe(crop: tuple[float, float], seed: int, view: int) -> dict:
    return {"recipe": "view", "crop": list(crop), "ratio": list(RATIO), "flip": FLIP, "seed": seed, "view": view}


class FeatureStore:
    """Features of one backbone, on disk under ``cache`` and in memory for the splits in use.

    ``batch`` pictures are encoded at a time; ``precision`` "bf16" runs the image tower under autocast; ``loader``
    decodes them (default: in threads); ``progress`` is told (what, done, total).
    """

    def __init__(
        self,
        cache: str | Path,
        backbone: Backbone,
        precision: str = "fp32",
        batch: int = 128,
        progress: Callable[[str, int, int], None] | None = None,
        loader: Loader | None = None,
    ):
        self.cache, self.backbone, self.precision, self.batch = Path(cache), backbone, precision, batch
        self.progress = progress or (lambda what, done, total: None)
        self.loader = loader or Loader()
        steps, to_tensor = halves(backbone.preprocess)
        self.plain, self.values = Plain(steps), value_table(to_tensor).to(backbone.device)
        size = backbone.preprocess_config.size
        self.size: tuple[int, int] = (size[0], size[1]) if isinstance(size, (tuple, list)) else (size, size)
        self.memory: dict[str, Tensor] = {}
        self.contents: dict[str, str] = {}  # sha256 of what each file of ``memory`` holds
        self.used: dict[str, str] = {}  # of those that were asked for since this was emptied
        self.encoded = (0, 0.0)  # pictures (each view is one) and seconds, from file to file

    def features(self, split: Split, classnames: tuple[str, ...], what: str = "encoding") -> Tensor:
        """Test-transform features (N, D), fp32, not normalised. ``what`` is said in the progress."""
        return self._get([(TEST_RECIPE, self.plain)], split, classnames, what)[0]

    def stored(self, split: Split, classnames: tuple[str, ...]) -> Tensor | None:
        """What ``features`` gives, or None where that would have to encode."""
        identity = self.identity(TEST_RECIPE, split, classnames)
        path = self.path(identity)
        if path.stem in self.memory or not path.exists():
            return self.memory.get(path.stem)
        features = self._read(path, canonical(identity))
        return None if features is None else features.to(self.backbone.device)

    def views(
        self,
        split: Split,
        classnames: tuple[str, ...],
        count: int,
        crop: tuple[float, float],
        seed: int,
        what: str = "encoding",
    ) -> Tensor:
        """Augmented views (V, N, D): random resized crop of area ``crop``, horizontal flip. ``crop == (1, 1)`` means no
        augmentation: one view, the test transform. View v of a picture depends on (seed, v, its key) alone. Each
        picture is decoded once for every 32 views that are not yet there."""
        if tuple(crop) == (1.0, 1.0):
            return self.features(split, classnames, what)[None]
        wanted: list[tuple[dict, Recipe]] = [
            (view_recipe(crop, seed, v), View(self.size, (crop[0], crop[1]), seed, v)) for v in range(count)
        ]
        return torch.stack(self._get(wanted, split, classnames, what))

    def identity(self, recipe: dict, split: Split, classnames: tuple[str, ...]) -> dict:
        return {
            "backbone": self.backbone.fingerprint,
            "preprocess": asdict(self.backbone.preprocess_config),
            "decoder": f"pillow {PIL.__version__}",
            "precision": self.precision,
            "device": self.backbone.device.type,
            "version": FEATURES_VERSION,
            "content": split.content_sha256(classnames),
            **recipe,
        }

    def path(self, identity: dict) -> Path:
        """The file that features of this identity are kept in, there or not."""
        return self.cache / f"{hashlib.sha256(canonical(identity).encode()).hexdigest()[:24]}.safetensors"

    def _get(
        self, wanted: list[tuple[dict, Recipe]], split: Split, classnames: tuple[str, ...], what: str
    ) -> list[Tensor]:
        """Features by each recipe, from memory or disk; those that are in neither are made together."""
        shared = self.identity({}, split, classnames)
        names: list[str] = []
        missing: dict[Path, tuple[str, Recipe]] = {}
        for entries, recipe in wanted:
            identity = {**shared, **entries}
            path = self.path(identity)
            names.append(path.stem)
            if path.stem not in self.memory:
                features = self._read(path, canonical(identity)) if path.exists() else None
                if features is None:
                    missing[path] = canonical(identity), recipe
                else:
                    self.memory[path.stem] = features.to(self.backbone.device)
        if missing:
            with Claims(self.cache / "claims") as claims:  # another process may be at the same pictures
                claims.wait([path.stem for path in missing])
                self._make(missing, split, what)
        self.used |= {name: self.contents[name] for name in names}
        return [self.memory[name] for name in names]

    def _make(self, missing: dict[Path, tuple[str, Recipe]], split: Split, what: str) -> None:
        """Encode and store those that are still not there."""
        left = {}
        for path, (identity, recipe) in missing.items():
            if path.exists() and (features := self._read(path, identity, quietly=True)) is not None:
                self.memory[path.stem] = features.to(self.backbone.device)
            else:
                left[path] = identity, recipe
        paths = list(left)
        for group in (paths[i : i + TOGETHER] for i in range(0, len(paths), TOGETHER)):
            start = time.perf_counter()
            made = self._encode(split, [left[path][1] for path in group], what)
            for path, features in zip(group, made, strict=True):
                self.contents[path.stem] = content_of(features.numpy())
                header = {"identity": stamped(left[path][0], self.contents[path.stem])}
                write_tensors(path, {"features": features}, header)
                self.memory[path.stem] = features.to(self.backbone.device)
            images, seconds = self.encoded
            self.encoded = images + len(split) * len(group), seconds + time.perf_counter() - start

    def _read(self, path: Path, identity: str, quietly: bool = False) -> Tensor | None:
        """The stored features; None, with a warning (unless ``quietly``), where the file is damaged or its numbers were
        changed: it can be made again."""
        try:
            tensors, header = read_tensors(path)
        except UserError as error:
            if not quietly:
                logging.warning("%s: made again", error)
            return None
        found, noted = unstamped(header.get("identity", ""))
        if found != identity:
            raise UserError(
                f"feature file '{path}' is of another identity; delete it. Found {found}, expected {identity}"
            )
        if (content := content_of(tensors["features"].float().numpy())) != noted:
            if not quietly:
                logging.warning("'%s' holds features of sha256 %s, written as %s: made again", path, content, noted)
            return None
        self.contents[path.stem] = content
        return tensors["features"]

    def _encode(self, split: Split, recipes: list[Recipe], what: str) -> list[Tensor]:
        """(N, D) by each recipe. Batches hold the same pictures whatever else is encoded with them, so that a file's
        bytes do not depend on which others were missing."""
        rows: list[list[Tensor]] = [[] for _ in recipes]
        done, start = 0, time.perf_counter()
        for parts in self.loader.load(split, recipes, self.batch):
            for number, row in enumerate(rows):
                row.append(self._forward([part[number] for part in parts]))
            done += sum(part.shape[0] * part.shape[1] for part in parts)
            rate = done / max(time.perf_counter() - start, 1e-9)
            self.progress(f"{what}: {rate:.0f} images/s", done, len(split) * len(recipes))
        return [torch.cat(row).cpu() if row else torch.zeros(0, self.backbone.dim) for row in rows]

    def _forward(self, parts: list[Tensor]) -> Tensor:
        """Results stay on the device until the end, so that it never waits for this process to fetch them."""
        pictures = torch.cat([send(part, self.backbone.device) for part in parts])
        return self.forward(look_up(pictures, self.values))

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        """Preprocessed pixels (B, 3, H, H) -> features (B, D), fp32, on the device."""
        with torch.autocast(self.backbone.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            return self.backbone.encode_images(pixels)


def stamped(identity: str, content: str) -> str:
    """The identity with the features' sha256, as one header entry: safetensors writes several in no fixed order."""
    return canonical({**json.loads(identity), "sha256": content})


def unstamped(text: str) -> tuple[str, str | None]:
    """(identity, sha256) of a header entry; (the text, None) where it is none."""
    try:
        found = dict(json.loads(text))
    except (ValueError, TypeError):
        return text, None
    noted = found.pop("sha256", None)
    return canonical(found), noted
