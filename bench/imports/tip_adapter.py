"""Caches that Tip-Adapter's own code saves (gaopengcuhk/Tip-Adapter, utils.py and main.py): keys, one-hot values, and
the keys as Tip-Adapter-F has trained them.

Letters: C classes, D joint width, N cached images.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from carryover.bench.backbones.weight_sources import DOWNLOAD, find
from carryover.bench.errors import UserError
from carryover.bench.imports.base import (
    BACKBONE,
    CLASSES,
    TEMPLATES,
    Fact,
    Facts,
    Foreign,
    Format,
    Imported,
    is_number,
    register,
)
from carryover.methods.base import Classes, Shape

CACHED, TRAINED = "cached", "trained"
SLACK = 0.01  # of a length of 1, in half precision
CHANCE = 0.01  # a share of keys named right is above chance where chance gives as many this rarely
SURE = 1e-6  # and proves the backbone here
FEWEST = 30  # keys that tell anything
SAME = 0.5  # share of a class's keys that name one other class, where names stand in another order
SHOWN = 3  # classes that a message names


def number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise ValueError("a number of at least 0, e.g. 1.17")
    return value


def one_of(*allowed: str):
    def read(text: str) -> str:
        if text not in allowed:
            raise ValueError(" or ".join(allowed))
        return text

    return read


def where(file: Foreign) -> str:
    return f"import: '{file.path}' (Tip-Adapter)"


UNPROVEN = Fact(
    "unproven",
    "yes, to import keys that the backbone's texts name no better than chance",
    one_of("yes", "no"),
    default="no",
)


@register("tip-adapter")
class TipAdapterCache(Format):
    name = "Tip-Adapter"
    source = "gaopengcuhk/Tip-Adapter"

    @classmethod
    def recognises(cls, file):
        return "values" in file.tensors and bool({"keys", "best_F"} & set(file.tensors))

    @classmethod
    def facts(cls, file):
        if not cls.recognises(file):
            raise UserError(f"{where(file)} holds no values with keys or best_F beside them; expected keys_Nshots.pt")
        found = searched(file)
        log = "in the log of its run, 'New best setting, beta: …, alpha: …', or init_{} of its config"
        return (
            BACKBONE,
            CLASSES,
            TEMPLATES,
            Fact("alpha", f"weight of the cache ({log.format('alpha')})", number, default=found.get("alpha")),
            Fact("beta", f"sharpness of the cache ({log.format('beta')})", number, default=found.get("beta")),
            Fact(
                "keys", "which keys", one_of(TRAINED, CACHED), default=TRAINED if "best_F" in file.tensors else CACHED
            ),
            UNPROVEN,
        )

    @classmethod
    def made(cls, file, facts):
        alpha, beta, kind, _ = (facts[fact] for fact in cls.facts(file)[3:])
        labels = labels_in(file, facts)
        cached, trained = rows_in(file, facts, len(labels))
        keys = trained if kind == TRAINED else cached
        if keys is None:
            name = "best_F" if kind == TRAINED else "keys"
            raise UserError(f"{where(file)} holds no {name}, and keys={kind} asks for them; leave keys out")
        notes = []
        if kind == TRAINED:
            notes.append(
                "keys: best_F, which its code trained and kept at the epoch that was best on the test set; numbers on "
                "those test images flatter it (--fact keys=cached takes the untrained ones)"
            )
        if cached is not None and (cached.norm(dim=1) - 1).abs().max() > SLACK:
            notes.append(
                "its cached keys are not of length 1, as Tip-Adapter's code makes them; they are taken as they are"
            )
        proven, more, fingerprint = checked(file, facts, keys if cached is None else cached, labels)
        shape = Shape(facts.tower.width, facts.tower.dim, names_of(facts), len(labels))
        tensors = {"keys": keys, "labels": labels, "alpha": torch.tensor(alpha), "beta": torch.tensor(beta)}
        config = {"alpha": alpha, "beta": beta, "selection": "published" if kind == TRAINED else "clean"}
        return Imported(
            "tip-adapter-f",
            config,
            tensors,
            shape,
            proven=(f"{len(labels)} rows of {len(shape.classnames)} classes", *proven),
            notes=(*notes, *more),
            templates=facts.templates,
            fingerprint=fingerprint,
        )


def searched(file: Foreign) -> dict[str, float]:
    """alpha and beta of a file that some forks save beside the keys; those that are numbers."""
    told = file.plain.get("best_F_hp")
    found = {}
    for name in ("alpha", "beta"):
        value = (told if isinstance(told, dict) else file.plain).get(f"best_{name}")
        if isinstance(value, (int, float)) and is_number(value) and value >= 0:
            found[name] = float(value)
    return found


def names_of(facts: Facts) -> tuple[str, ...]:
    """As its code reads them in prompts."""
    return tuple(name.replace("_", " ") for name in facts.classes)


def labels_in(file: Foreign, facts: Facts) -> Tensor:
    """(N,) of values (N, C). Raises UserError for rows that are not one-hot, or of another number of classes."""
    values = file.tensors["values"]
    if values.dim() != 2 or not values.numel():
        raise UserError(f"{where(file)}: values have shape {tuple(values.shape)}, expected (images, classes)")
    if values.shape[1] != len(facts.classes):
        raise UserError(
            f"{where(file)} has {values.shape[1]} classes (columns of values), {len(facts.classes)} names were given; "
            "give those of its training, in its order (--classes FILE, or --dataset ID)"
        )
    wrong = ~(((values == 0) | (values == 1)).all(1) & (values.float().sum(1) == 1))
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise UserError(
            f"{where(file)}: row {row} of values is not one-hot (sum {float(values[row].float().sum()):g}), nor are "
            f"{int(wrong.sum()) - 1} others; expected one 1 a row, as Tip-Adapter's code writes them"
        )
    return values.float().argmax(1)


def rows_in(file: Foreign, facts: Facts, count: int) -> tuple[Tensor | None, Tensor | None]:
    """Keys as they were cached and as they were trained, (N, D) each. Raises UserError where their shapes disagree with
    one another, with the values or with the backbone, and for trained keys that are not of the cached ones."""
    given = {name: file.tensors[name].float() for name in ("keys", "best_F") if name in file.tensors}
    for name, value in given.items():
        side = 1 if name == "keys" else 0
        if value.dim() != 2 or value.shape[side] != count:
            form = "(width, images)" if name == "keys" else "(images, width)"
            raise UserError(f"{where(file)}: {name} has shape {tuple(value.shape)}, expected {form} for {count} images")
        if not torch.isfinite(value).all():
            raise UserError(f"{where(file)}: {name} holds NaN or infinity")
    rows = {name: value.T.contiguous() if name == "keys" else value for name, value in given.items()}
    widths = {name: value.shape[1] for name, value in rows.items()}
    if len(set(widths.values())) > 1:
        raise UserError(
            f"{where(file)}: its keys are {widths['keys']} wide and its best_F {widths['best_F']}: they are of two "
            "backbones; give the two files of one run"
        )
    width = next(iter(widths.values()))
    if width != facts.tower.dim:
        raise UserError(
            f"{where(file)}: its keys are {width} wide, the joint width of {facts.tower.label} is {facts.tower.dim}: "
            "another backbone made them, whatever its folder and config say; name that one by --backbone"
        )
    cached, trained = rows.get("keys"), rows.get("best_F")
    if cached is not None and trained is not None and count > 1:
        near = F.normalize(trained, dim=1) @ F.normalize(cached, dim=1).T
        own, others = near.diag().mean(), (near.sum() - near.diag().sum()) / (count * (count - 1))
        if own <= others:
            raise UserError(
                f"{where(file)}: its best_F was not trained from its keys: a row is no nearer to its own key (cosine "
                f"{own:.2f}) than to others ({others:.2f}); give the two files of one run"
            )
    return cached, trained


def checked(file: Foreign, facts: Facts, keys: Tensor, labels: Tensor) -> tuple[list[str], list[str], str | None]:
    """(what is proven, notes, the backbone's fingerprint). The backbone's own texts name the keys, which are features
    of images: above chance proves the backbone; a name's place is proven where its own keys name it most often. Raises
    UserError for names no better than chance, or in another order."""
    source = find(facts.tower)
    if source.problem or source.text == DOWNLOAD or source.size is None:
        return [], [f"whether {facts.tower.label} made the keys was not checked: its weights are not here"], None
    backbone, names, anyway = facts.backbone, names_of(facts), facts[UNPROVEN] == "yes"
    texts = backbone.zero_shot(Classes("import", names, facts.templates)).cpu()
    named = (F.normalize(keys, dim=1) @ texts.T).argmax(1)
    counts = counted(named, labels, len(names))
    count, right = len(labels), int(counts.trace())
    told = (
        f"{right} of {count} keys are named right by the texts of {facts.tower.label}, chance is "
        f"{count / len(names):.0f}"
    )
    rare = tail(right, count, 1 / len(names))
    if rare > CHANCE and count >= FEWEST and not anyway:
        raise UserError(
            f"{where(file)}: {told}: {order(counts, names)}. Name the backbone that made them and its "
            "class names in the order of training, or give --fact unproven=yes if CLIP knows nothing of such pictures"
        )
    turned = exchanged(counts)
    if turned and not anyway:
        pairs = zip(turned, [*turned[1:], turned[0]], strict=True)
        looks = " and ".join(f"of '{names[row]}' look like '{names[other]}'" for row, other in [*pairs][:SHOWN])
        raise UserError(
            f"{where(file)}: {len(turned)} of its {len(names)} names stand in each other's places: keys {looks}. Give "
            "the class names in the order of training, or --fact unproven=yes if the order is right and CLIP takes "
            "these for one another"
        )
    if rare >= SURE:
        return [], [f"backbone and order of the names are not proven: {told}"], backbone.fingerprint
    open_ = unsettled(counts)
    if not open_:
        return [f"backbone and order of the names ({told})"], [], backbone.fingerprint
    other = int(counts[open_[0]].argmax())
    looks = f", whose keys look like '{names[other]}'" if other != open_[0] and counts[open_[0], other] else ""
    more = f", nor of {len(open_) - 1} others" if len(open_) > 1 else ""
    note = f"the order of the names is not proven: not the place of '{names[open_[0]]}'{looks}{more}"
    settled = len(names) - len(open_)
    places = [f"the places of {settled} of {len(names)} names"] if settled else []
    return [f"backbone ({told})", *places], [note], backbone.fingerprint


def counted(named: Tensor, labels: Tensor, classes: int) -> Tensor:
    """(C, C): how many keys of each class (row) have each name (column)."""
    counts = torch.zeros(classes, classes)
    return counts.index_put_((labels, named), torch.ones(len(labels)), accumulate=True)


def exchanged(counts: Tensor) -> list[int]:
    """Classes whose keys name the next of them, those of the last the first, more often than chance and confusion of
    two names would have it (a sign test); empty where there are none."""
    best = counts.argmax(1).tolist()
    goes = {row: other for row, other in enumerate(best) if counts[row, other] > counts[row, row]}
    for start in goes:
        ring = [start]
        while (following := goes.get(ring[-1])) is not None and following not in ring:
            ring.append(following)
        if following == start:
            moved, own = (int(sum(counts[row, to[row]] for row in ring)) for to in (best, range(len(best))))
            if tail(moved, moved + own, 0.5) < CHANCE:
                return ring
    return []


def unsettled(counts: Tensor) -> list[int]:
    """Classes that their own keys do not name more often than each other one."""
    others = counts.clone().fill_diagonal_(0)
    rest = others.max(1).values
    return (counts.diag() <= rest).nonzero().flatten().tolist()


def order(counts: Tensor, names: tuple[str, ...]) -> str:
    """What is wrong, as far as the keys tell: each class's keys have one other name, or none at all."""
    best = counts.max(1)
    share = best.values.sum() / counts.sum()
    if counts.sum(1).max() > 1 and share >= SAME and len(best.indices.unique()) > len(names) / 2:
        other = next((i for i in range(len(names)) if int(best.indices[i]) != i), 0)
        return (
            f"the names stand in another order (the keys of row '{names[other]}' look like "
            f"'{names[int(best.indices[other])]}')"
        )
    return "another backbone made them, or the names stand in another order"


def tail(right: int, count: int, chance: float) -> float:
    """How often chance gives at least so many right: a binomial tail."""
    if chance >= 1:
        return 1.0
    logs = [
        math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
        + k * math.log(chance) + (count - k) * math.log1p(-chance)
        for k in range(right, count + 1)
    ]  # fmt: skip
    return min(1.0, math.fsum(math.exp(one) for one in logs))
