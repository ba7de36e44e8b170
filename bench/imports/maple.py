"""Checkpoints of MaPLe as Dassl.pytorch writes them: the whole model, so that its file proves both towers.

Letters: n context tokens, W text width, V width of the image tower, J blocks with prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from carryover.bench.backbones.loading import Backbone
from carryover.bench.errors import UserError, quoted
from carryover.bench.imports import class_names
from carryover.bench.imports.base import Fact, Facts, Imported, register
from carryover.bench.imports.dassl import Prompts, has, named, need, notes_of, proven, tensors_of, where_of
from carryover.methods.base import Shape

MAPLES_WORDS = "a photo of a"


@register("maple")
class MaPLe(Prompts):
    name = "MaPLe"
    source = "muzairkhattak/multimodal-prompt-learning, trainers/maple.py"
    OWN = r"proj\.(weight|bias)|compound_prompts_text\.\d+|compound_prompt_projections\.\d+\.(weight|bias)"
    WORDS = Fact(
        "initial_words",
        "TRAINER.MAPLE.CTX_INIT: those behind the first n tokens stay in front of each class name",
        default=MAPLES_WORDS,
    )

    @classmethod
    def recognises(cls, file):
        return has(tensors_of(file), "ctx proj.weight", 2)

    @classmethod
    def facts(cls, file):
        return (*super().facts(file), cls.WORDS)

    @classmethod
    def made(cls, file, facts):
        where, own = where_of(file, cls.name), tensors_of(file)
        tensors = maples(where, own)
        ctx, (blocks, there, _) = tensors["context"], tensors["coupling"].shape
        backbone, rows, told = proven(where, own, ctx, facts)
        backbone = backbone or facts.backbone
        shape = Shape.of(backbone, (), 0)
        if there != shape.image_width:
            raise UserError(
                f"{where}: its prompts of the image tower have width {there}, that of {backbone.label} "
                f"{shape.image_width or 'no transformer'}; give the backbone that it was trained on by --backbone"
            )
        if blocks > min(shape.text_layers, shape.image_layers):
            raise UserError(f"{where}: it has prompts for {blocks} blocks, {backbone.label} fewer")
        words = words_of(where, rows, len(ctx), facts, backbone)
        kept = len(backbone.text.tokens([words])[0][len(ctx) :]) if words else 0
        names = named(where, [row[kept:] for row in rows], ctx, own, facts)
        told += compared(where, file.tensors, backbone)
        config = {"context_length": len(ctx), "depth": blocks, "initial_words": words}
        shape = Shape.of(backbone, names, 0)
        return Imported(
            "maple",
            config,
            tensors,
            shape,
            tuple(told),
            tuple(notes_of(rows, facts)),
            fingerprint=backbone.fingerprint,
            repeats=bool(rows),
        )


def maples(where: str, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """context (n, W), deep (J - 1, n, W), coupling (J, V, W), coupling_bias (J, V)."""
    parts = "compound_prompt_projections"
    blocks = range(
        len({name.split(".")[1] for name in own if name.startswith(("compound_prompts_text.", f"{parts}."))})
    )
    layers = ["proj", *(f"{parts}.{i}" for i in blocks)]
    names = ["ctx", *(f"{layer}.weight" for layer in layers), *(f"compound_prompts_text.{i}" for i in blocks)]
    need(where, own, names, 2)
    need(where, own, [f"{layer}.bias" for layer in layers], 1)
    ctx = own["ctx"].float()
    texts = [own[f"compound_prompts_text.{i}"].float() for i in blocks]
    try:
        return {
            "context": ctx,
            "deep": torch.stack(texts) if texts else ctx.new_zeros(0, *ctx.shape),
            "coupling": torch.stack([own[f"{layer}.weight"].float() for layer in layers]),
            "coupling_bias": torch.stack([own[f"{layer}.bias"].float() for layer in layers]),
        }
    except RuntimeError:
        shapes = ", ".join(f"{name} {tuple(own[name].shape)}" for name in names[:6])
        raise UserError(f"{where}: its tensors are not of one model: {shapes}") from None


def words_of(where: str, rows: Sequence[Sequence[int]], n: int, facts: Facts, backbone: Backbone) -> str:
    """The words whose first n tokens the context replaced and whose others stand in every row; empty where none do."""
    given = MaPLe.WORDS.name in facts.given
    words = str(facts[MaPLe.WORDS])
    rest = backbone.text.tokens([words])[0][n:] if words else []
    if rest and all(list(row[: len(rest)]) == rest for row in rows):
        return words
    if not rest or (not given and len({tuple(row[:1]) for row in rows}) > 1):
        return ""
    start = quoted(class_names.name_of(rows[0], backbone), 40)
    raise UserError(
        f"{where}: behind its {n} tokens the first class reads {start}, which does not go on '{words}'; give the words "
        "that it started from by --fact initial_words='…' (empty for none)"
    )


def compared(where: str, tensors: Mapping[str, Tensor], backbone: Backbone) -> list[str]:
    """What the towers in the file prove. Raises UserError for one that is not the backbone's."""
    own, told = dict(backbone.model.state_dict()), []
    for tower, theirs, ours in (("image", "image_encoder.", "visual."), ("text", "text_encoder.", "text.")):
        both = {name: own.get(ours + name.removeprefix(theirs)) for name in tensors if name.startswith(theirs)}
        pairs = [(name, tensors[name], value.cpu()) for name, value in both.items() if value is not None]
        for name, given, value in pairs:
            if given.shape != value.shape or not distance(given, value) <= class_names.NEAR:
                raise UserError(
                    f"{where}: its {tower} tower is not that of {backbone.label} (tensor {quoted(name)} differs); give "
                    "the backbone that it was trained on by --backbone"
                )
        if pairs:
            told.append(f"{len(pairs)} tensors of the {tower} tower")
    return told


def distance(given: Tensor, own: Tensor) -> float:
    """Largest difference in units of the largest value."""
    given, own = given.float(), own.float()
    largest = own.abs().max().item() if own.numel() else 0.0
    return (given - own).abs().max().item() / (largest or 1.0) if own.numel() else 0.0
