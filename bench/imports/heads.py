"""Heads on image features: ``torch.nn.Linear``, stacks of it, attributes of scikit-learn's linear models.

Letters: D width of the features, C outputs. What an activation does not part becomes one layer, exactly: a
standardisation before the first layer, layers without an activation between them, a scale behind the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from carryover.bench.errors import UserError, quoted
from carryover.bench.imports.base import BACKBONE, CLASSES, Fact, Facts, Foreign, Format, Imported, register
from carryover.bench.imports.head_layers import LABELS, Layer, Stack, beside, bias_of, known, stack_of
from carryover.methods.base import Shape
from carryover.methods.elsewhere.head import ACTIVATIONS

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
NAMES = replace(
    CLASSES,
    about="names of its rows in their order: classes, or of a regressor what each row scores",
    unless=("outputs", "scores"),
)
ACTIVATION = Fact(
    "activation",
    "what stands between its layers in the code that trained it: none or dropout alone (none), relu, gelu, …",
    activations,
)
SIGMOID = Fact("sigmoid", "whether it ends in a sigmoid, yes or no", yes_or_no)
SCALE = Fact("scale", "what its outputs are multiplied by", positive, default=1.0)
LAYOUT = Fact("layout", "what its weight holds for an output, a row or a column", one_of("rows", "columns"), default="")


@register("head")
class HeadFile(Format):
    name = "a head on image features"
    source = "torch.nn.Linear; scikit-learn"

    @classmethod
    def recognises(cls, file: Foreign) -> bool:
        return stack_of(file) is not None

    @classmethod
    def beside(cls, file: Foreign) -> str:
        return beside(file)

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
        notes = list(stack.notes)
        if stack.unit and inputs == "raw":
            notes.append("its statistics look like those of features of length 1, and it was told inputs=raw")
        proven += ["features of length 1"] if stack.unit and inputs == "unit" else []
        layers = lying(where, stack, tower.dim, tower.label, facts[LAYOUT])
        if stack.mean is not None and stack.deviation is not None:
            layers = [standardised(layers[0], stack.mean, stack.deviation), *layers[1:]]
            notes.append("the standardisation that the file holds became part of the first layer")
        acts = between(where, layers, facts[ACTIVATION], notes) if len(layers) > 1 else []
        layers, acts = folded(layers, acts, notes)
        outputs, sigmoid, scale = facts[wanted["outputs"]], facts[wanted["sigmoid"]], facts[SCALE]
        last = layers[-1]
        count = len(last.weight)
        if sigmoid and scale != 1:
            raise UserError(
                f"{where}: sigmoid=yes and scale={scale:g} do not go together, as a scale stands in front of the "
                "sigmoid here; leave one of them out"
            )
        if sigmoid and outputs == "classes" and count > 1:
            raise UserError(
                f"{where}: sigmoid=yes is of scores, and its {count} outputs are classes; leave it out, or give "
                "outputs=scores"
            )
        names = named(where, stack, facts, outputs, count, proven, notes)
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


# ---- what becomes of it ----------------------------------------------------------------------------------------------


def lying(where: str, stack: Stack, dim: int, label: str, layout: str) -> list[Layer]:
    """The layers with weights (out, in). Raises UserError where the first does not take the backbone's features."""
    first = stack.layers[0]
    rows, columns = first.weight.shape
    square = rows == columns == dim and len(stack.layers) == 1
    if not stack.sure and square and not layout:
        raise UserError(
            f"{where}: its weight is square ({rows}, {columns}); say what it holds for an output, a row or a column: "
            "--fact layout=rows or layout=columns"
        )
    turn = layout == "columns" if square else not stack.sure and columns != dim and rows == dim
    if columns != dim and not turn:
        width = f"{columns}" if stack.sure else f"{rows} or {columns}"
        both = (
            "; one of twice the width, as of image and text side by side, cannot be read" if columns == 2 * dim else ""
        )
        raise UserError(
            f"{where} takes features of width {width}, {label} gives {dim}; name the backbone that it was trained on "
            f"by --backbone{both}"
        )
    held = "columns" if turn or first.turned else "rows"
    if layout and layout != held:
        raise UserError(
            f"{where}: layout is {layout}, and sizes say that it holds {held} for its outputs; leave it out"
        )
    return [replace(first, weight=first.weight.T), *stack.layers[1:]] if turn else list(stack.layers)


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


def named(
    where: str, stack: Stack, facts: Facts, outputs: str, count: int, proven: list[str], notes: list[str]
) -> list[str]:
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
        elif labels and any(not isinstance(one, (int, float)) for one in labels):
            raise UserError(f"{where}: {LABELS} holds texts and numbers; expected one kind")
        elif labels and any(one >= other for one, other in zip(labels, labels[1:], strict=False)):
            raise UserError(
                f"{where}: {LABELS} is {quoted(str(labels), 60)}, and scikit-learn keeps it ascending, as its rows "
                "stand; leave it out and name the classes in the order of the rows"
            )
        elif labels and len(given) > wanted and all(isinstance(one, int) and 0 <= one < len(given) for one in labels):
            names = [given[one] for one in labels]
            if 0 in labels:
                proven.append(f"which {wanted} of the {len(given)} classes")
            else:
                notes.append(
                    f"{LABELS} was taken to count from 0, which the file does not show: {quoted(names[0], 30)} to "
                    f"{quoted(names[-1], 30)}; if it counts from 1, name its {wanted} classes alone"
                )
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
