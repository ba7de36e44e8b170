"""Checkpoints of CoOp's family as Dassl.pytorch writes them: CoOp, CoCoOp, KgCoOp, MaPLe; and CLIP-Adapter.

A learner of prompts keeps the token embeddings that stand around its context. They say which text tower it was trained
on, and the class names in their order (``class_names``), so that little has to be asked.

Letters: n context tokens, C classes, W text width, D joint width, V width of the image tower, J blocks with prompts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from carryover.bench.backbones.loading import Backbone
from carryover.bench.errors import UserError, quoted
from carryover.bench.imports import class_names
from carryover.bench.imports.base import BACKBONE, CLASSES, TEMPLATES, Fact, Facts, Foreign, Format, Imported, register
from carryover.methods.base import Shape
from carryover.methods.clip_adapter import RELEASED_RATIO

POSITIONS = ("end", "middle", "front")
PREFIX, SUFFIX = "token_prefix", "token_suffix"
LEARNER = "prompt_learner."
IN_PATH = re.compile(r"(?:^|[_/\\-])ctp(end|middle|front)(?=$|[_/\\-])")
IN_LOG = re.compile(r"CLASS_TOKEN_POSITION:\s*['\"]?(end|middle|front)\b")
TCP_ROWS = 4  # of its meta-net's output, in text widths: a row for each of its tokens
MAPLES_WORDS = "a photo of a"


def position(text: str) -> str:
    if text not in POSITIONS:
        raise ValueError(" or ".join(POSITIONS))
    return text


def share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ValueError("a number from 0 to 1")
    return value


def tensors_of(file: Foreign) -> Mapping[str, Tensor]:
    """Of the prompt learner, whether it was saved alone or with its towers. Raises UserError for a method of this
    family that the suite does not have."""
    own = {name.removeprefix(LEARNER): value for name, value in file.tensors.items()}
    other = ""
    if any(name.startswith("ZS_image_encoder.") for name in own):
        other = "PromptSRC"
    elif any(name.endswith((".VPT", ".VPT_shallow")) for name in own):
        other = "VPT or IVLP"
    elif (
        has(own, "ctx meta_net.linear2.weight", 2)
        and own["meta_net.linear2.weight"].shape[0] == TCP_ROWS * own["ctx"].shape[1]
    ):
        other = "TCP"
    if other:
        raise UserError(f"import: '{file.path}' is a checkpoint of {other}, which is no method of this suite")
    return own


def has(own: Mapping[str, Tensor], names: str, dims: int) -> bool:
    return all(name in own and own[name].dim() == dims for name in names.split())


def need(where: str, own: Mapping[str, Tensor], names: Sequence[str], *dims: int) -> None:
    """Raises UserError for a tensor that is missing, or not of so many dimensions."""
    for name in names:
        if name not in own:
            raise UserError(f"{where}: tensor '{name}' is missing")
        if own[name].dim() not in dims or not own[name].is_floating_point():
            kind, shape = str(own[name].dtype).removeprefix("torch."), tuple(own[name].shape)
            raise UserError(
                f"{where}: tensor '{name}' is {kind} of shape {shape}; expected floating-point numbers of "
                f"{' or '.join(map(str, dims))} dimensions"
            )


class Prompts(Format):
    """What the learners of prompts share: class names are asked for only where the file does not prove them."""

    @classmethod
    def facts(cls, file: Foreign) -> Sequence[Fact]:
        return (BACKBONE,) if SUFFIX in tensors_of(file) else (BACKBONE, CLASSES)


def where_of(file: Foreign, name: str) -> str:
    return f"import: '{file.path}' ({name})"


def check_width(where: str, ctx: Tensor, facts: Facts) -> None:
    if ctx.shape[-1] != facts.tower.width:
        raise UserError(
            f"{where}: its context has width {ctx.shape[-1]}, the text tower of {facts.tower.label} "
            f"{facts.tower.width}; give the backbone that it was trained on by --backbone"
        )


def check_buffers(where: str, own: Mapping[str, Tensor], ctx: Tensor) -> int:
    """The number of classes; 0 where the file does not say it. Raises UserError where its tensors contradict each
    other."""
    there = [name for name in (PREFIX, SUFFIX) if name in own]
    need(where, own, there, 3)
    counts = {name: own[name].shape[0] for name in there}
    if ctx.dim() == 3:
        counts["ctx"] = ctx.shape[0]
    odd = [name for name in there if own[name].shape[2:] != ctx.shape[-1:]]
    odd += [PREFIX] if PREFIX in own and own[PREFIX].shape[1] != 1 else []
    if odd or len(set(counts.values())) > 1 or not all(counts.values()):
        shapes = ", ".join(f"{name} {tuple(own[name].shape)}" for name in ("ctx", PREFIX, SUFFIX) if name in own)
        raise UserError(f"{where}: its tensors are not of one model: {shapes}")
    return next(iter(counts.values()), 0)


def proven(
    where: str, own: Mapping[str, Tensor], ctx: Tensor, facts: Facts
) -> tuple[Backbone | None, list[list[int]], list[str]]:
    """The backbone, loaded where there is something to compare; tokens of each class (none without the buffer); and
    what that proves."""
    check_width(where, ctx, facts)
    check_buffers(where, own, ctx)
    if PREFIX not in own and SUFFIX not in own:
        return None, [], []
    backbone = facts.backbone
    exact = class_names.check_start(where, own[PREFIX], backbone) if PREFIX in own else True
    rows = class_names.rows_of(where, own[SUFFIX], backbone) if SUFFIX in own else []
    rounded = "" if exact else ", to the rounding of half precision,"
    told = [f"the text tower's token embeddings are{rounded} those of {backbone.label}"]
    return backbone, rows, told + [f"names of {len(rows)} classes in their order"] * bool(rows)


def named(
    where: str, rows: Sequence[Sequence[int]], ctx: Tensor, own: Mapping[str, Tensor], facts: Facts
) -> tuple[str, ...]:
    if rows:
        return class_names.names(where, rows, facts.classes, facts.backbone)
    names, count = spaced(facts.classes), check_buffers(where, own, ctx)
    if count and count != len(names):
        raise UserError(
            f"{where}: the file has {count} classes, --classes {len(names)}; expected the classes of training"
        )
    return names


def spaced(names: Sequence[str]) -> tuple[str, ...]:
    """As all of this family read them."""
    return tuple(name.replace("_", " ") for name in names)


def notes_of(rows: Sequence[Any], facts: Facts) -> list[str]:
    if rows and not facts.classes:
        return ["class names are read from tokens, in lower case; --classes gives them another spelling"]
    return []


def shared(
    cls: type[Format], file: Foreign, facts: Facts, method: str, config: dict[str, Any], more: Mapping[str, Tensor]
) -> Imported:
    """A context, and what else is learned (``more``)."""
    where, own = where_of(file, cls.name), tensors_of(file)
    need(where, own, ["ctx"], *((2, 3) if method == "coop-prompts" else (2,)))
    ctx = own["ctx"]
    backbone, rows, told = proven(where, own, ctx, facts)
    names = named(where, rows, ctx, own, facts)
    tower = facts.tower
    return Imported(
        method,
        {"context_length": ctx.shape[-2], **config},
        {"context": ctx, **more},
        Shape(tower.width, tower.dim, names, 0),
        tuple(told),
        tuple(notes_of(rows, facts)),
        fingerprint=backbone.fingerprint if backbone else None,
    )


@register("coop")
class CoOp(Prompts):
    name = "CoOp"
    source = "KaiyangZhou/CoOp, trainers/coop.py"

    @classmethod
    def recognises(cls, file):
        own = tensors_of(file)
        context = has(own, "ctx", 2) or has(own, "ctx", 3)
        return context and set(own) <= {"ctx", PREFIX, SUFFIX, "token_midfix"}

    @classmethod
    def facts(cls, file):
        where = "where the class name stands: end, middle or front (TRAINER.COOP.CLASS_TOKEN_POSITION)"
        return (*super().facts(file), Fact("position", where, position, default=said_position(file)))

    @classmethod
    def made(cls, file, facts):
        fact, per_class = cls.facts(file)[-1], has(tensors_of(file), "ctx", 3)
        place, said = facts[fact], fact.default
        if place == "end" and not per_class:
            found = shared(cls, file, facts, "coop", {}, {})
        else:
            found = shared(cls, file, facts, "coop-prompts", {"position": place, "per_class": per_class}, {})
        notes = list(found.notes)
        if said and said != place:
            notes.append(f"the path or the log of the file says position {said}, it was told {place}")
        elif said and fact.name not in facts.given:
            notes.append(f"position {said}, as the path or the log of the file says")
        return replace(found, notes=tuple(notes))


def said_position(file: Foreign) -> str | None:
    """Of the class name: from the log of the training, else from the folders' names; None where neither says one."""
    for found in (IN_LOG.findall(str(file.plain.get("log", ""))), IN_PATH.findall(str(file.path.absolute()))):
        if len(set(found)) == 1:
            return found[0]
    return None


@register("cocoop")
class CoCoOp(Prompts):
    name = "CoCoOp"
    source = "KaiyangZhou/CoOp, trainers/cocoop.py"

    @classmethod
    def recognises(cls, file):
        return has(tensors_of(file), "meta_net.linear1.weight meta_net.linear2.weight ctx", 2)

    @classmethod
    def made(cls, file, facts):
        where, own = where_of(file, cls.name), tensors_of(file)
        need(where, own, ["ctx", "meta_net.linear1.weight", "meta_net.linear2.weight"], 2)
        need(where, own, ["meta_net.linear1.bias", "meta_net.linear2.bias"], 1)
        hidden, dim = own["meta_net.linear1.weight"].shape
        if dim != facts.tower.dim:
            raise UserError(
                f"{where}: its meta-net reads image features of width {dim}, {facts.tower.label} has "
                f"{facts.tower.dim}; give the backbone that it was trained on by --backbone"
            )
        config = {"initial_words": "", "reduction": reduction(where, dim, hidden)}
        return shared(cls, file, facts, "cocoop", config, {new: own[old] for old, new in META.items()})


META = {
    f"meta_net.linear{old}.{part}": f"meta_net.{new}.{part}"
    for old, new in ((1, 0), (2, 2))
    for part in ("weight", "bias")
}


def reduction(where: str, dim: int, hidden: int) -> int:
    """The whole number by which D is divided to so many hidden units."""
    found = dim // hidden if hidden else 0
    if not found or dim // found != hidden:
        raise UserError(f"{where}: {hidden} hidden units are no whole part of the width {dim}")
    return found


@register("kgcoop")
class KgCoOp(Prompts):
    name = "KgCoOp"
    source = "htyao89/KgCoOp, trainers/kgcoop.py"

    @classmethod
    def recognises(cls, file):
        own = tensors_of(file)
        return has(own, "ctx", 2) and "meta_net.linear2.weight" not in own and bool(UNUSED & set(own))

    @classmethod
    def made(cls, file, facts):
        found = shared(cls, file, facts, "kgcoop", {"initial_words": ""}, {})
        dropped = ", ".join(sorted(UNUSED & set(tensors_of(file))))
        note = (f"left out, as KgCoOp makes no use of it in predictions: {dropped}",) if dropped else ()
        return replace(found, notes=(*found.notes, *note))


UNUSED = {"bias_vectors", "meta_net.linear1.weight", "meta_net.linear1.bias"}


@register("maple")
class MaPLe(Prompts):
    name = "MaPLe"
    source = "muzairkhattak/multimodal-prompt-learning, trainers/maple.py"
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
        notes = tuple(notes_of(rows, facts))
        return Imported("maple", config, tensors, shape, tuple(told), notes, fingerprint=backbone.fingerprint)


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
