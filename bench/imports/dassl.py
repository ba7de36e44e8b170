"""Checkpoints of CoOp, CoCoOp and KgCoOp as Dassl.pytorch writes them, and what MaPLe's share with them.

A learner of prompts keeps the token embeddings that stand around its context. They say which text tower it was trained
on, and the class names in their order (``class_names``), so that little has to be asked.

Letters: n context tokens, C classes, W text width, D joint width.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from carryover.bench.backbones.loading import Backbone
from carryover.bench.errors import UserError, quoted
from carryover.bench.imports import class_names
from carryover.bench.imports.base import BACKBONE, CLASSES, Fact, Facts, Foreign, Format, Imported, register
from carryover.methods.base import Shape

POSITIONS = ("end", "middle", "front")
PREFIX, SUFFIX = "token_prefix", "token_suffix"
LEARNER = "prompt_learner."
IN_PATH = re.compile(r"(?:^|[_/\\-])ctp(end|middle|front)(?=$|[_/\\-])")
IN_LOG = re.compile(r"CLASS_TOKEN_POSITION:\s*['\"]?(end|middle|front)\b")
TCP_ROWS = 4  # of its meta-net's output, in text widths: a row for each of its tokens


def position(text: str) -> str:
    if text not in POSITIONS:
        raise ValueError(" or ".join(POSITIONS))
    return text


def tensors_of(file: Foreign) -> Mapping[str, Tensor]:
    """Of the prompt learner, whether it was saved alone or with its towers. Raises UserError for a method of this
    family that is not read."""
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
        raise UserError(f"import: '{file.path}' is a checkpoint of {other}, which is not read")
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
    """What the learners of prompts share: class names are asked for only where the file does not prove them. OWN:
    names of what its code saves beside context and token embeddings, a pattern."""

    OWN = ""

    @classmethod
    def facts(cls, file: Foreign) -> Sequence[Fact]:
        known = rf"ctx|{PREFIX}|{SUFFIX}|logit_scale|(image_encoder|text_encoder)\..+|{cls.OWN}"
        own = tensors_of(file)
        strange = [name for name in own if not re.fullmatch(known, name)]
        if strange and "ctx" in own:
            more = f" and {len(strange) - 1} more" if len(strange) > 1 else ""
            raise UserError(
                f"{where_of(file, cls.name)}: tensor {quoted(strange[0])}{more} is none that {cls.name}'s own code "
                "writes: it is another method's, and is not read"
            )
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
        repeats=bool(rows) and ctx.dim() == 2,
    )


@register("coop")
class CoOp(Prompts):
    name = "CoOp"
    source = "KaiyangZhou/CoOp, trainers/coop.py"
    OWN = "token_midfix"

    @classmethod
    def recognises(cls, file):
        own = tensors_of(file)
        context = has(own, "ctx", 2) or has(own, "ctx", 3)
        return context and set(own) <= {"ctx", PREFIX, SUFFIX, "token_midfix"}

    @classmethod
    def facts(cls, file):
        where = "where the class name stands: end, middle or front (TRAINER.COOP.CLASS_TOKEN_POSITION)"
        if len(said := positions(file)) > 1:
            where += f"; its path and its logs say {' and '.join(said)}"
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
    """Of the class name, as logs of the training and folders say; None where neither says one, or they differ."""
    found = positions(file)
    return found[0] if len(found) == 1 else None


def positions(file: Foreign) -> list[str]:
    said = {*IN_LOG.findall(str(file.plain.get("log", ""))), *IN_PATH.findall(str(file.path.absolute()))}
    return [place for place in POSITIONS if place in said]


@register("cocoop")
class CoCoOp(Prompts):
    name = "CoCoOp"
    source = "KaiyangZhou/CoOp, trainers/cocoop.py"
    OWN = r"meta_net\.linear[12]\.(weight|bias)"

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
    OWN = r"bias_vectors|meta_net\.linear1\.(weight|bias)"

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
