"""A plug-in as it is bound, without its backbone: a function of image features that is enough by itself.

A port that maps new features into the old space hands them to the old plug-in, which must then answer without the old
towers. What a method derives from a backbone when it is bound are tensors (a classifier, a scale); they are kept beside
what it learned. Prompts are kept as the class features that the old text tower made of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from carryover.bench.backbones.loading import Backbone
from carryover.bench.errors import UserError
from carryover.bench.ports.files import ported_of
from carryover.methods.base import METHODS, Classes, Method, Shape, cosine_logits

UNCHANGED: dict[Method, Any] = {}  # -> Head
CPU = torch.device("cpu")
TRIAL_ROWS = 5  # random features on which the kept plug-in must answer as the bound one does


class Head(nn.Module):
    """Old image features (B, Do), not normalised -> (B, C)."""

    def logits(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def inner(self) -> Method | None:
        """The method itself, where it is kept."""
        return None

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        raise NotImplementedError


class ClassRows(Head):
    """Cosines to a row a class, as prompts end up: ``scale * cos(x, rows)``."""

    rows: Tensor
    scale: Tensor

    def __init__(self, rows: Tensor, scale: Tensor):
        super().__init__()
        self.register_buffer("rows", rows.detach().clone())
        self.register_buffer("scale", scale.detach().clone())

    def logits(self, x: Tensor) -> Tensor:
        return cosine_logits(self.scale, x, self.rows)

    def state(self):
        return {"rows": self.rows, "scale": self.scale}, {"head": "class rows"}


class KeptMethod(Head):
    """A method whose bound state is tensors alone."""

    def __init__(self, method: Method):
        super().__init__()
        self.method = method

    def logits(self, x: Tensor) -> Tensor:
        return self.method.logits(x)

    def inner(self) -> Method | None:
        return self.method

    def _apply(self, fn, recurse=True):  # what ``to`` calls; it knows nothing of tensors that are no buffers
        super()._apply(fn, recurse)
        for name, value in derived(self.method).items():
            setattr(self.method, name, fn(value))
        return self

    def state(self):
        method = self.method
        tensors = {f"learned.{name}": value for name, value in method.learned().items()}
        tensors |= {f"derived.{name}": value.detach().cpu().contiguous() for name, value in derived(method).items()}
        id = next(id for id in METHODS if METHODS[id] is type(method))
        shape = asdict(method.shape)
        return tensors, {"head": "method", "method": id, "config": asdict(method.config), "shape": shape}


def derived(method: Method) -> dict[str, Tensor]:
    """What ``bind`` left on the method, tensors by name."""
    return {name: value for name, value in vars(method).items() if isinstance(value, Tensor)}


def device_of(method: Method) -> torch.device:
    """Of a bound method: where what it has learned lies, and what it derived."""
    return next((value.device for value in (*method.state_dict().values(), *derived(method).values())), CPU)


class Nested(Head):
    """What was ported before, as the plug-in of a second port."""

    def __init__(self, ported: Any):
        super().__init__()
        self.ported = ported

    def logits(self, x: Tensor) -> Tensor:
        return self.ported.logits(x)

    def state(self):
        tensors, header = self.ported.state()
        return tensors, {"head": "ported", "kind": self.ported.kind, "ported": header}


def kept(plugin: Any, classes: Classes) -> Head:
    """The plug-in as it is bound now, without its backbone. Raises UserError where it cannot answer without one."""
    if not isinstance(plugin, Method):
        return Nested(plugin)
    if plugin in UNCHANGED:
        return UNCHANGED[plugin]
    name, head = plugin.name or type(plugin).__name__, without_backbone(plugin, classes)
    trial = torch.randn(TRIAL_ROWS, plugin.shape.dim, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        try:
            trial = trial.to(device_of(plugin))
            alike = torch.allclose(plugin.predict(trial), head.logits(trial), rtol=1e-4, atol=1e-4)
        except Exception as error:  # a method of anyone's raises what it likes
            raise UserError(
                f"{name} cannot answer without its backbone ({error}): keep what bind derives as tensors on the method"
            ) from error
    if not alike:
        raise UserError(f"{name} answers otherwise without its backbone")
    return head


@contextlib.contextmanager
def unchanged(plugin: Method, classes: Classes) -> Iterator[None]:
    """Within, it is neither bound nor trained, so it is kept once for all ports that ask (a prompt's text pass is
    dear). One that cannot be kept is asked again and says why."""
    try:
        UNCHANGED[plugin] = kept(plugin, classes)
    except UserError:
        pass
    try:
        yield
    finally:
        UNCHANGED.pop(plugin, None)


def without_backbone(plugin: Any, classes: Classes) -> Head:
    if plugin.needs != "features":
        raise UserError(f"{plugin.name} works inside the towers, so it cannot answer without them")
    if not hasattr(plugin, "class_features"):
        made = rebuilt(type(plugin), plugin.config, plugin.shape, plugin.learned(), derived(plugin))
        return KeptMethod(made.to(device_of(plugin))).eval()
    with torch.no_grad():
        rows = plugin.class_features(torch.zeros(1, plugin.shape.dim, device=plugin.backbone.device))
    if rows.shape != (len(classes), plugin.shape.dim):
        raise UserError(f"{plugin.name}: its prompts depend on each picture, so the old text tower would be needed")
    return ClassRows(rows, plugin.backbone.scale).eval()


def rebuilt(
    kind: type[Method], config: Any, shape: Shape, learned: dict[str, Tensor], bound: dict[str, Tensor]
) -> Method:
    with torch.random.fork_rng(devices=[]):
        method = kind(config, shape)
    method.load_learned(learned)
    for name, value in bound.items():
        setattr(method, name, value.detach().clone())
    return method.eval()


def restored(tensors: dict[str, Tensor], header: dict[str, Any]) -> Head:
    """From what ``Head.state`` gave, by whoever wrote it. Raises UserError for a head or a method that is not known,
    for tensors that are not the method's, and for a name that would change more than a tensor."""
    if header["head"] == "ported":
        return Nested(ported_of(tensors, header["kind"], header["ported"]))
    if header["head"] == "class rows":
        return ClassRows(tensors["rows"], tensors["scale"]).eval()
    if header["head"] != "method":
        raise UserError(f"a head '{header['head']}', expected 'method', 'class rows' or 'ported'")
    kind = METHODS[header["method"]]
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in header["config"].items()}
    config = kind.Config(**values)
    shape = Shape(**{**header["shape"], "classnames": tuple(header["shape"]["classnames"])})
    parts: dict[str, dict[str, Tensor]] = {"learned": {}, "derived": {}}
    for name, value in tensors.items():
        part, _, own = name.partition(".")
        if part not in parts:
            raise UserError(f"a tensor '{name}', expected learned.… or derived.…")
        parts[part][own] = value
    check_learned(kind, config, shape, parts["learned"])
    made = rebuilt(kind, config, shape, parts["learned"], {})
    for name, value in parts["derived"].items():
        if not is_free(made, name):
            raise UserError(f"a derived tensor '{name}', which is no name that {header['method']} has free for one")
        setattr(made, name, value.detach().clone())
    return KeptMethod(made).eval()


def check_learned(kind: type[Method], config: Any, shape: Shape, given: dict[str, Tensor]) -> None:
    """Raises UserError where a method of that shape learns other tensors: asked on torch's meta device where it can be
    made there, so that a header's large numbers take no memory."""
    try:
        with torch.device("meta"):
            method = kind(config, shape)
    except (NotImplementedError, RuntimeError):
        method = kind(config, shape)
    if callable(sized := getattr(method, "sized", None)):  # what it learns goes by more than its shape
        sized(given)
    own: dict[str, Tensor] = {name: value for name, value in method.named_parameters() if value.requires_grad}
    own |= {name: value for name, value in method.named_buffers() if name in kind.learned_buffers}
    sizes, found = ({name: tuple(value.shape) for name, value in all.items()} for all in (own, given))
    if sizes != found:
        raise UserError(f"learned tensors {found}, where the method's are {sizes}")


def is_free(method: Method, name: str) -> bool:
    """Whether a file may set that name to a tensor: none of the class, of torch, or of what ``__init__`` made."""
    if not name.isidentifier() or name.startswith("_") or getattr(type(method), name, None) is not None:
        return False
    now = getattr(method, name, None)
    return now is None or (isinstance(now, Tensor) and name in vars(method))


def zero_shot(backbone: Backbone, classes: Classes) -> ClassRows:
    return ClassRows(backbone.zero_shot(classes), backbone.scale)
