"""Checkpoints of CLIP-Adapter as Dassl.pytorch writes them: two matrices, and nothing that proves a backbone."""

from __future__ import annotations

from torch import Tensor

from carryover.bench.errors import UserError
from carryover.bench.imports.base import BACKBONE, CLASSES, TEMPLATES, Fact, Foreign, Format, Imported, register
from carryover.bench.imports.dassl import has, reduction, spaced, where_of
from carryover.methods.base import Shape
from carryover.methods.clip_adapter import RELEASED_RATIO


def share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ValueError("a number from 0 to 1")
    return value


@register("clip-adapter")
class CLIPAdapter(Format):
    name = "CLIP-Adapter"
    source = "gaopengcuhk/CLIP-Adapter, clip_adapter.py"
    RATIO = Fact("ratio", f"share of the adapter's output in the blend, {RELEASED_RATIO} in the released code", share)

    @classmethod
    def recognises(cls, file):
        own = adapters(file)
        if set(own) != {"fc.0.weight", "fc.2.weight"} or not has(own, "fc.0.weight fc.2.weight", 2):
            return False
        return own["fc.0.weight"].shape == own["fc.2.weight"].shape[::-1]

    @classmethod
    def facts(cls, file):
        return BACKBONE, CLASSES, TEMPLATES, cls.RATIO

    @classmethod
    def made(cls, file, facts):
        where, own, tower = where_of(file, cls.name), adapters(file), facts.tower
        if not cls.recognises(file):
            raise UserError(f"{where}: expected the tensors fc.0.weight (h, D) and fc.2.weight (D, h), and no others")
        hidden, dim = own["fc.0.weight"].shape
        if dim != tower.dim:
            raise UserError(
                f"{where}: it adapts features of width {dim}, {tower.label} has {tower.dim}; give the backbone that it "
                "was trained on by --backbone"
            )
        config = {"ratio": facts[cls.RATIO], "reduction": reduction(where, dim, hidden)}
        tensors = {f"adapter.{i}.weight": own[f"fc.{i}.weight"] for i in (0, 2)}
        shape = Shape(tower.width, tower.dim, spaced(facts.classes), 0)
        return Imported("clip-adapter", config, tensors, shape, templates=facts.templates)


def adapters(file: Foreign) -> dict[str, Tensor]:
    return {name.removeprefix("adapter."): value for name, value in file.tensors.items()}
