"""What ``torch.save`` wrote, as tensors and plain values, without making an object of any class that the file names.

torch reads with ``weights_only``: a list of harmless names, all else an error. Dassl's checkpoints hold a live
scheduler and through it an optimiser, which that refuses; such names get stand-ins that take what they are given and do
nothing.
"""

from __future__ import annotations

import math
import pickletools
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from carryover.bench.backbones.loading import first_line
from carryover.bench.errors import UserError, quoted

LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # how files start that torch.save wrote before its archives
LEGACY_PICKLES = 4  # magic number, version, system, the object itself
WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "weights",
    "model",
)  # what tensors stand under, by name, first choice first
TRAINING = re.compile(r"optim|sched|scaler|rng", re.I)  # entries that only training goes on from
IDLE = re.compile(r"(torch|dassl)\.optim(\.\w+)+")
SCALARS = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype")
MODULES = ("torch.nn.modules.", "torch.jit.", "__main__.", "transformers.", "peft.")
RENAMED = {"__builtin__": "builtins"}  # modules of Python 2, which pickles of torch name
DEEPEST, MOST = 40, 10**6  # of containers within each other; entries of a file in all
SAVE_STATE = "save the state_dict() alone by torch.save, or its tensors as safetensors"
SAVE_ARRAYS = "save coef_ and intercept_ by numpy.savez and give the .npz"


class Inert:
    """Where the file has an object of a class: whatever it is made of or set to is dropped."""

    def __new__(cls, *args: Any, **more: Any) -> Inert:
        return super().__new__(cls)

    def __init__(self, *args: Any, **more: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def stand_in(name: str) -> Callable[..., Any] | None:
    """What the name ``module.object`` stands for here; None for what is left to torch's own list. torch finds it by
    its own module and name (2.6 by ``__name__``, later versions by ``__qualname__``)."""
    module, _, own = name.rpartition(".")
    if name == "builtins.dict":
        return dict
    if name == "collections.defaultdict":

        def empty(*args: Any) -> dict[Any, Any]:
            return {}

        empty.__module__, empty.__name__, empty.__qualname__ = module, own, own
        return empty
    if IDLE.fullmatch(name) or name in SCALARS or name == "argparse.Namespace":
        return type(own, (Inert,), {"__module__": module, "__qualname__": own})
    return None


def asked_for(path: Path) -> list[str]:
    """Names of modules' objects that the file's pickles ask for; nothing is made of them."""
    with open(path, "rb") as file:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                (record,) = [name for name in archive.namelist() if name.split("/")[-1] == "data.pkl"][:1]
                with archive.open(record) as part:
                    return names_in(part, 1)  # type: ignore[arg-type]
        file.seek(0)
        return names_in(file, LEGACY_PICKLES)


def names_in(file: BinaryIO, pickles: int) -> list[str]:
    found: dict[str, None] = {}
    for _ in range(pickles):
        for code, value, _ in pickletools.genops(file):
            if code.name in ("GLOBAL", "INST"):
                module, _, own = str(value).partition(" ")
                found[f"{RENAMED.get(module, module)}.{own}"] = None
    return list(found)


def read_torch(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], list[str]]:
    """Tensors and plain values by name, and what was passed over. Raises UserError, in one line."""
    try:
        check_archive(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            idle: list[Any] = [one for one in map(stand_in, asked_for(path)) if one is not None]
        with warnings.catch_warnings(), torch.serialization.safe_globals(idle), open(path, "rb") as file:
            warnings.simplefilter("ignore")
            held = torch.load(file, map_location="cpu", weights_only=True)  # of a path it would go by the name's ending
    except UserError:
        raise
    except Exception as error:  # a file that nobody vouches for makes readers raise all kinds
        raise UserError(f"import: '{path}' {refused(error)}") from None
    try:
        return Walk(path).taken(held)
    except RecursionError:
        raise UserError(f"import: '{path}' is nested too deep; {SAVE_STATE}") from None


def check_archive(path: Path) -> None:
    """Raises UserError for an archive that is packed, which torch.save never does: it could unpack to any size."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(one.compress_type != zipfile.ZIP_STORED for one in archive.infolist()):
                raise UserError(f"import: '{path}' is a packed archive, which torch.save does not write; {SAVE_STATE}")


def refused(error: Exception) -> str:
    """In words, what an error of torch says of the file."""
    told = " ".join(str(error).split())
    found = re.search(r"GLOBAL (\S+)", told)
    if not found:
        what = first_line(error).partition("weights_only")[0] if "weights_only" in told else first_line(error)
        return f"cannot be read without running it, or is damaged ({quoted(what, 120)[1:-1]}); {SAVE_STATE}"
    name = found[1] if "." in found[1] else f"builtins.{found[1]}"
    asks = f"asks for {quoted(name, 60)[1:-1]}, which tensors do not need; nothing of it was run."
    if name.startswith(("sklearn.", "joblib.")):
        return f"{asks} It is a pickled scikit-learn model: {SAVE_ARRAYS}"
    if name.startswith("numpy."):
        return f"{asks} It holds arrays of numpy: save them by numpy.savez and give the .npz"
    if name.startswith(MODULES):
        return f"{asks} It is a whole module: {SAVE_STATE}"
    return f"{asks} If you trust who made it, load it there and {SAVE_STATE}"


class Walk:
    """Through what a file holds: tensors by dotted names, plain values, and which entries were passed over."""

    def __init__(self, path: Path):
        self.path = path
        self.tensors: dict[str, Tensor] = {}
        self.plain: dict[str, Any] = {}
        self.over: dict[str, None] = {}
        self.second: dict[str, None] = {}  # tensors beside those that were taken
        self.inner = ""
        self.left = MOST

    def taken(self, held: Any) -> tuple[dict[str, Tensor], dict[str, Any], list[str]]:
        if isinstance(held, Tensor):
            return {"tensor": self.dense("tensor", held)}, {}, []
        if not isinstance(held, dict):
            raise UserError(f"import: '{self.path}' holds one {type(held).__name__}; expected tensors by name")
        self.top(held)
        notes = [f"passed over, as only training needs it: {', '.join(self.over)}"] if self.over else []
        notes += [f"passed over, as '{self.inner}' was taken: {', '.join(self.second)}"] if self.second else []
        return self.tensors, self.plain, notes

    def top(self, held: dict[Any, Any], levels: int = 3) -> None:
        inner = next((name for name in WRAPPERS if isinstance(held.get(name), dict) and held[name]), None)
        for key, value in held.items():
            name = str(key)
            if key == inner and isinstance(key, str):
                continue
            if TRAINING.search(name) and not isinstance(value, Tensor):
                self.over[quoted(name, 40)[1:-1]] = None
            elif inner is None or not isinstance(value, (dict, list, tuple)) or not self.holds_tensors(value):
                self.walk(name, value, name, 1)
            elif self.holds_tensors(value, kinds=(Tensor,)):
                self.second[quoted(name, 40)[1:-1]] = None
            else:
                self.over[quoted(name, 40)[1:-1]] = None
        if inner is not None and levels:
            self.inner = inner
            self.top(held[inner], levels - 1)

    def holds_tensors(self, value: Any, levels: int = 4, kinds: tuple[type, ...] = (Tensor, Inert)) -> bool:
        self.count()
        inside = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
        return isinstance(value, kinds) or (
            levels > 0 and any(self.holds_tensors(v, levels - 1, kinds) for v in inside)
        )

    def count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise UserError(f"import: '{self.path}' holds more than {MOST} entries; {SAVE_STATE}")

    def walk(self, name: str, value: Any, entry: str, depth: int) -> None:
        self.count()
        if depth > DEEPEST:
            raise UserError(f"import: '{self.path}' is nested more than {DEEPEST} deep; {SAVE_STATE}")
        if isinstance(value, Tensor):
            own = name.removeprefix("module.")
            if own in self.tensors:
                raise UserError(f"import: '{self.path}' has two tensors {quoted(own)}; {SAVE_STATE}")
            self.tensors[own] = self.dense(own, value)
        elif isinstance(value, Inert):
            self.over[quoted(entry, 40)[1:-1]] = None
        elif isinstance(value, (dict, list, tuple)):
            items = value.items() if isinstance(value, dict) else enumerate(value)
            if self.holds_tensors(value, DEEPEST):
                for key, one in items:
                    self.walk(f"{name}.{key}", one, entry, depth + 1)
            else:
                self.plain[name] = self.plainly(value, depth)
        elif value is None or isinstance(value, (bool, int, float, str)):
            self.plain[name] = value
        else:
            self.plain[name] = str(value)  # a size, a type, a device of torch

    def plainly(self, value: Any, depth: int) -> Any:
        self.count()
        if depth > DEEPEST:
            raise UserError(f"import: '{self.path}' is nested more than {DEEPEST} deep; {SAVE_STATE}")
        if isinstance(value, dict):
            return {str(key): self.plainly(one, depth + 1) for key, one in value.items()}
        if isinstance(value, (list, tuple, set)):
            return [self.plainly(one, depth + 1) for one in value]
        return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)

    def dense(self, name: str, value: Tensor) -> Tensor:
        """Detached. Raises UserError for what has no numbers of its own in the file."""
        if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
            raise UserError(f"import: '{self.path}': tensor {quoted(name)} is no dense tensor of numbers; {SAVE_STATE}")
        if math.prod(value.shape) * value.element_size() > value.untyped_storage().nbytes():
            raise UserError(
                f"import: '{self.path}': tensor {quoted(name)} of shape {tuple(value.shape)} is larger than what the "
                "file holds; save a copy of it (.clone())"
            )
        return Tensor.detach(value).as_subclass(Tensor)
