"""Heads on image features: ``torch.nn.Linear``, stacks of it, attributes of scikit-learn's linear models.

Letters: D width of the features, C outputs. What an activation does not part becomes one layer, exactly: a
standardisation before the first layer, layers without an activation between them, a scale behind the last.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from carryover.bench.errors import UserError, quoted
from carryover.bench.imports.base import BACKBONE, CLASSES, Fact, Facts, Foreign, Format, Imported, register
from carryover.methods.base import Shape
from carryover.methods.elsewhere.head import ACTIVATIONS

WEIGHTS = ("weight", "coef_", "kernel", "coefs_", "coefs")
BIASES = {"weight": "bias", "coef_": "intercept_", "kernel": "bias", "coefs_": "intercepts_", "coefs": "intercepts"}
MEANS, VARIANCES, DEVIATIONS = ("mean", "mean_"), ("variance", "var", "var_"), ("std", "scale_")
LABELS = "classes_"
# Attributes of scikit-learn's models that say how they were fitted, and of layers that count batches.
PASSED_OVER = ("n_iter_", "n_features_in_", "n_samples_seen_", "feature_names_in_", "C_", "alpha_", "l1_ratio_")
SMALLEST = 1e-10  # added to deviations, as LAION's heads do
UNIT_NORM = 1e-3  # how far from 1 the length of a row of length 1 may be


def one_of(*known: str):
    def read(text: str) -> str:
        if text.lower() not in known:
            raise ValueError(" or ".join(known))
        return text.lower()

    return read


def yes_or_no(text: str) -> bool:
    return {"yes": True, "true": True, "no": False, "false": False}[one_of("yes", "no", "true", "false")(text)]


def activations(text: str) -> list[str]:
    """One for all, or one for each place between two layers."""
    names = [name.strip().lower() for name in text.split(",")]
    if not all(name in ACTIVATIONS for name in names):
        raise ValueError(f"{', '.join(ACTIVATIONS)}, or one of these for each place between two layers: relu,relu,none")
    return names


def positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ValueError("a number above 0")
    return value


INPUTS = Fact(
    "inputs",
    "unit, if its features were divided by their length before it saw them (look for 'normalize' or '/ norm' in the "
    "code that trained it; LAION's heads are), raw, if it took them as encode_image gives them",
    one_of("unit", "raw"),
)
OUTPUTS = Fact(
    "outputs",
    "scores, if its number is a score (a regressor), classes, if it tells two classes, which --classes then names, the "
    "one of large numbers last",
    one_of("scores", "classes"),
)
NAMES = replace(CLASSES, about="names of its rows in their order: classes, or of a regressor what each row scores")
ACTIVATION = Fact(
    "activation",
    "what stands between its layers in the code that trained it: none or dropout alone (none), relu, gelu, …",
    activations,
)
SIGMOID = Fact("sigmoid", "whether it ends in a sigmoid, yes or no", yes_or_no)
SCALE = Fact("scale", "what its outputs are multiplied by", positive, default=1.0)
LAYOUT = Fact("layout", "what its weight holds for an output, a row or a column", one_of("rows", "columns"), default="")


@dataclass(frozen=True)
class Layer:
    """weight (out, in), bias (out,) or None. ``position``: the number that ends its name, or None."""

    name: str
    weight: Tensor
    bias: Tensor | None
    position: int | None = None


@dataclass(frozen=True)
class Stack:
    """What a file holds of a head. ``sure``: whether names or sizes say that weights are (out, in); ``mean`` and
    ``deviation`` (D,) of a standardisation before it; ``labels``: scikit-learn's classes_."""

    layers: list[Layer]
    sure: bool
    mean: Tensor | None = None
    deviation: Tensor | None = None
    labels: list[Any] | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def outputs(self) -> int:
        """C; where weights may lie either way 1 stands for one, and any other number for several."""
        weight = self.layers[-1].weight
        return len(weight) if self.sure else min(weight.shape)

    @property
    def names(self) -> list[str] | None:
        """Class names that the file itself holds."""
        return self.labels if self.labels and all(isinstance(one, str) for one in self.labels) else None

    @property
    def unit(self) -> bool:
        """Whether the statistics of its features show that these were of length 1: |mean|² + the sum of variances is
        then 1. Of CLIP's features as they are it is about 100. Numbers that no entry of such a row has are left out
        (LAION's statistics hold a few); what they stood for is then missing of the 1."""
        if self.mean is None or self.deviation is None:
            return False
        variance = self.deviation.square()
        usual = (self.mean.abs() <= 1) & (variance <= 1)
        total = float((self.mean.square() + variance)[usual].sum())
        return 0.5 <= total <= 1.1 and float((~usual).float().mean()) <= 0.02


@register("head")
class HeadFile(Format):
    name = "a head on image features"
    source = "torch.nn.Linear; scikit-learn"

    @classmethod
    def recognises(cls, file: Foreign) -> bool:
        return stack_of(file) is not None

    @classmethod
    def facts(cls, file: Foreign) -> Sequence[Fact]:
        stack = known(file)
        one, several = stack.outputs == 1, len(stack.layers) > 1
        return (
            BACKBONE,
            replace(INPUTS, default="unit") if stack.unit else INPUTS,
            replace(OUTPUTS, default="classes") if stack.labels or not one else OUTPUTS,
            replace(NAMES, default=()) if stack.names or (one and not stack.labels) else NAMES,
            *([ACTIVATION] if several else []),
            SIGMOID if one and several and not stack.labels else replace(SIGMOID, default=False),
            SCALE,
            LAYOUT,
        )

    @classmethod
    def made(cls, file: Foreign, facts: Facts) -> Imported:
        where, wanted = f"import: '{file.path}'", {fact.name: fact for fact in cls.facts(file)}
        stack, proven = known(file), []
        tower, inputs = facts.tower, facts[wanted["inputs"]]
        if stack.unit and inputs == "raw":
            raise UserError(
                f"{where} holds statistics of features of length 1, and inputs is raw; expected inputs=unit (leave it "
                "out)"
            )
        proven += ["features of length 1"] if stack.unit else []
        layers = lying(where, stack, tower.dim, tower.label, facts[LAYOUT])
        notes = list(stack.notes)
        if stack.mean is not None and stack.deviation is not None:
            layers = [standardised(layers[0], stack.mean, stack.deviation), *layers[1:]]
            notes.append("the standardisation that the file holds became part of the first layer")
        acts = between(where, layers, facts[ACTIVATION], notes) if len(layers) > 1 else []
        layers, acts = folded(layers, acts, notes)
        outputs, sigmoid, scale = facts[wanted["outputs"]], facts[wanted["sigmoid"]], facts[SCALE]
        last = layers[-1]
        count = len(last.weight)
        names = named(where, stack, facts, outputs, count, proven)
        if outputs == "classes":
            outputs, sigmoid = ("binary" if count == 1 else "classes"), False
            notes += of_rows(last, scale, inputs)
        layers[-1] = replace(last, weight=last.weight * scale, bias=bias_of(last) * scale)
        config = {
            "inputs": inputs,
            "hidden": [len(layer.weight) for layer in layers[:-1]],
            "activation": acts[0] if acts else "none",
            "outputs": outputs,
            "sigmoid": sigmoid,
        }
        tensors = {f"weights.{i}": layer.weight.float() for i, layer in enumerate(layers)}
        tensors |= {f"biases.{i}": bias_of(layer).float() for i, layer in enumerate(layers)}
        shape = Shape(tower.width, tower.dim, tuple(names), 0)
        return Imported("head", config, tensors, shape, tuple(proven), tuple(notes))


# ---- what a file holds -----------------------------------------------------------------------------------------------


def known(file: Foreign) -> Stack:
    """Raises UserError where it is none, as --kind may say that it is one."""
    if (stack := stack_of(file)) is None:
        shown = ", ".join(f"{quoted(name, 60)} {tuple(value.shape)}" for name, value in list(file.tensors.items())[:6])
        raise UserError(
            f"import: '{file.path}' is no head: expected weights of linear layers that fit one another, with or "
            f"without their biases, and nothing else; it holds {shown or 'no tensor'}"
        )
    return stack


def stack_of(file: Foreign) -> Stack | None:
    """None where there is more or less than the layers of one head."""
    left, notes, labels = {}, [], file.plain.get(LABELS)
    for name, value in file.tensors.items():
        if last(name) == LABELS:
            labels = value.flatten().tolist()
        elif last(name) in PASSED_OVER or last(name) == "num_batches_tracked":
            notes.append(f"passed over: {name}")
        elif not value.is_floating_point() and value.numel() > 1:
            return None
        else:
            left[name] = value
    mean, deviation = (taken(left, names) for names in (MEANS, DEVIATIONS))
    variance = taken(left, VARIANCES)
    if deviation is None and variance is not None:
        deviation = variance.clamp(min=0).sqrt() + SMALLEST
        deviation[variance <= 0] = 1.0
    if (mean is None) != (deviation is None):
        return None
    if labels is not None and not isinstance(labels, list):
        labels = None
    layers = single(left) or several(left)
    if layers is None:
        return None
    found, sure = layers
    if mean is not None and deviation is not None:
        width = {found[0].weight.shape[1]} if sure else set(found[0].weight.shape)
        if mean.shape != deviation.shape or mean.dim() != 1 or len(mean) not in width:
            return None
    return Stack(found, sure, mean, deviation, labels, notes)


def last(name: str) -> str:
    return name.rpartition(".")[2]


def taken(left: dict[str, Tensor], names: Sequence[str]) -> Tensor | None:
    """The tensor of that last name, out of ``left``, in float64."""
    found = [name for name in left if last(name) in names]
    return left.pop(found[0]).double() if len(found) == 1 else None


def single(left: dict[str, Tensor]) -> tuple[list[Layer], bool] | None:
    """One weight, of whatever name, and perhaps the bias of its outputs."""
    wide = {name: value for name, value in left.items() if value.dim() == 2}
    if not wide:  # a regressor of one target: scikit-learn keeps it flat
        wide = {name: value[None] for name, value in left.items() if value.dim() == 1 and last(name) in WEIGHTS}
    if len(wide) != 1:
        return None
    name, weight = next(iter(wide.items()))
    rest = [value for other, value in left.items() if other != name]
    if len(rest) > 1 or (rest and rest[0].dim() > 1) or "lora" in name.lower():
        return None
    weight = weight.double()
    sure = left[name].dim() == 1 or (last(name) in WEIGHTS[:2] and weight.shape[0] == weight.shape[1])
    if not rest:
        return [Layer(name, weight, None)], sure
    bias = rest[0].double().flatten()
    if len(bias) == 1 and float(bias) == 0:  # scikit-learn's, where none was fitted
        return [Layer(name, weight, None)], sure
    if len(bias) == len(weight):
        return [Layer(name, weight, bias)], len(bias) != weight.shape[1] or sure
    return ([Layer(name, weight.T, bias)], True) if len(bias) == weight.shape[1] else None


def several(left: dict[str, Tensor]) -> tuple[list[Layer], bool] | None:
    """Numbered layers that fit one another. An adapter, which ends in the width that it begins with, is no head."""
    layers, used = [], set()
    for name in sorted(left, key=natural):
        if left[name].dim() != 2:
            continue
        own = next((part for part in (*WEIGHTS, "") if part and part in name), "")
        if not own or "lora" in name.lower():
            return None
        bias = BIASES[own].join(name.rsplit(own, 1))
        used |= {name, bias}
        number = re.search(r"(\d+)\D*$", name)
        given = left[bias].double().flatten() if bias in left else None
        layers.append(Layer(name, left[name].double(), given, int(number[1]) if number else None))
    if len(layers) < 2 or set(left) - used:
        return None
    turned = [replace(layer, weight=layer.weight.T) for layer in layers]
    for chain in (layers, turned):
        if fits(chain):
            ends = len(chain[-1].weight), chain[0].weight.shape[1]
            return None if ends[0] == ends[1] else (chain, True)
    return None


def fits(layers: Sequence[Layer]) -> bool:
    inner = all(len(one.weight) == other.weight.shape[1] for one, other in zip(layers, layers[1:], strict=False))
    return inner and all(layer.bias is None or len(layer.bias) == len(layer.weight) for layer in layers)


def natural(name: str) -> list[tuple[int, int | str]]:
    """Numbers in a name by their size."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", name)]


# ---- what becomes of it ----------------------------------------------------------------------------------------------


def lying(where: str, stack: Stack, dim: int, label: str, layout: str) -> list[Layer]:
    """The layers with weights (out, in). Raises UserError where the first does not take the backbone's features."""
    first = stack.layers[0]
    rows, columns = first.weight.shape
    turned = [replace(first, weight=first.weight.T), *stack.layers[1:]]
    if not stack.sure and rows == columns == dim and not layout:
        raise UserError(
            f"{where}: its weight is square ({rows}, {columns}); say what it holds for an output, a row or a column: "
            "--fact layout=rows or layout=columns"
        )
    if not stack.sure and (layout == "columns" or (columns != dim and rows == dim)):
        return turned
    if columns != dim:
        width = f"{columns}" if stack.sure else f"{rows} or {columns}"
        raise UserError(
            f"{where} takes features of width {width}, {label} gives {dim}; name the backbone that it was trained on "
            "by --backbone"
        )
    return list(stack.layers)


def bias_of(layer: Layer) -> Tensor:
    return torch.zeros(len(layer.weight), dtype=layer.weight.dtype) if layer.bias is None else layer.bias


def standardised(layer: Layer, mean: Tensor, deviation: Tensor) -> Layer:
    """The layer on features as they are: W ((x - m) / s) + b = (W / s) x + b - (W / s) m."""
    weight = layer.weight / deviation
    return replace(layer, weight=weight, bias=bias_of(layer) - weight @ mean)


def between(where: str, layers: Sequence[Layer], given: Sequence[str], notes: list[str]) -> list[str]:
    """The activation in each place between two layers. Places in ``nn.Sequential`` tell where there can be none: layers
    that follow one another, where others have something between them."""
    places = len(layers) - 1
    if len(given) > 1:
        if len(given) != places:
            raise UserError(
                f"{where} has {len(layers)} layers, and activation names {len(given)}; expected one for all, or one "
                f"for each of the {places} places between them"
            )
        acts = list(given)
    else:
        acts = list(given) * places
        at = [layer.position for layer in layers]
        steps = [b - a for a, b in zip(at, at[1:], strict=False) if a is not None and b is not None]
        if len(steps) == places and max(steps) > 1 and given[0] != "none":
            for place in (place for place, step in enumerate(steps) if step == 1):
                acts[place] = "none"
                notes.append(
                    f"'{layers[place].name}' and '{layers[place + 1].name}' follow one another, so no {given[0]} "
                    "stands between them"
                )
    if len(set(acts) - {"none"}) > 1:
        raise UserError(f"{where}: activation is {','.join(acts)}; a head has one kind of activation, beside none")
    return acts


def folded(layers: Sequence[Layer], acts: Sequence[str], notes: list[str]) -> tuple[list[Layer], list[str]]:
    """Layers without an activation between them as one, worked out in float64."""
    made, left = [layers[0]], []
    for layer, act in zip(layers[1:], acts, strict=True):
        if act == "none":
            inner = made[-1]
            bias = layer.weight @ bias_of(inner) + bias_of(layer)
            made[-1] = replace(layer, weight=layer.weight @ inner.weight, bias=bias)
        else:
            made.append(layer)
            left.append(act)
    if len(made) < len(layers):
        notes.append(f"{len(layers)} layers, not all with an activation between them, became {len(made)}; exactly so")
    return made, left


def named(where: str, stack: Stack, facts: Facts, outputs: str, count: int, proven: list[str]) -> list[str]:
    """Names of the outputs in their order. Raises UserError for too few or too many, and for others than the file's."""
    given, labels = list(facts.classes), stack.labels
    if outputs == "scores":
        given = [] if facts.dataset and len(given) != count else given
        names = given or (["score"] if count == 1 else [f"score {row + 1}" for row in range(count)])
        wanted = count
    else:
        names, wanted = given, max(count, 2)
        if labels and len(labels) != wanted:
            raise UserError(f"{where} has {count} rows, and {LABELS} with {len(labels)} entries; is it one model's?")
        if stack.names:
            differ = [(own, other) for own, other in zip(stack.names, given, strict=False) if own != other]
            if differ or (given and len(given) != wanted):
                own, other = differ[0] if differ else (f"{wanted} names", f"{len(given)}")
                raise UserError(f"{where} holds the class names itself: {quoted(own)}, where {quoted(other)} was given")
            proven.append("class names")
            names = stack.names
        elif labels and len(given) > wanted and all(isinstance(one, int) and 0 <= one < len(given) for one in labels):
            names = [given[one] for one in labels]
            proven.append(f"which {wanted} of the {len(given)} classes")
    if len(names) != wanted:
        rows = "1 row, which tells 2 classes" if outputs == "classes" and count == 1 else f"{count} rows"
        said = f"--classes names {len(names)}" if names else "no name is given; say them by --classes"
        what = f" ({quoted(names[0], 30)} to {quoted(names[-1], 30)})" if names else ""
        raise UserError(f"{where} has {rows}, {said}{what}; expected {wanted} names in the order of the rows")
    return names


def of_rows(layer: Layer, scale: float, inputs: str) -> list[str]:
    """What is noted where outputs are cosines: their probabilities are all alike."""
    lengths = layer.weight.norm(dim=1)
    if inputs == "unit" and layer.bias is None and scale == 1 and bool(((lengths - 1).abs() < UNIT_NORM).all()):
        return [
            "its rows are of length 1, so its outputs are cosines and probabilities lie close to one another; --fact "
            "scale=100 gives those of CLIP (the answers are the same)"
        ]
    return []
