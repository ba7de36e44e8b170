"""Ports for people who store embeddings: two files of features, and a linear head on the old ones.

A head (C, Do) with bias on old features becomes one (C, Dn) on new features that gives the same outputs as the old one
behind the map: with x_old = (x_new - mean_new) M + mean_old,

    W' = W M^T        b' = b + W mean_old - W' mean_new
"""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from carryover.bench.errors import UserError, quoted, unknown
from carryover.bench.host.array_files import of_stream
from carryover.bench.host.files import check_regular, read_arrays, whole
from carryover.bench.plugins.head_names import is_bias
from carryover.bench.ports.maps import Map

ARRAYS, TENSORS = ".npz", ".safetensors"
ROWS = re.compile(r"(.+)\[(-?\d*):(-?\d*)(?::([1-9]\d*))?\]")
TOLD = ("classes_", "C_", "alpha_", "l1_ratio_")  # what scikit-learn's models tell of how they were fitted
FEATURES, IDS, WEIGHT, BIAS = "features", "ids", "weight", "bias"


@dataclass(frozen=True)
class Stored:
    """features (N, D); ids (N,), or None."""

    path: str
    features: np.ndarray
    ids: np.ndarray | None


@dataclass(frozen=True)
class Head:
    """weight (C, D), bias (C,) in float64, under their names in the file; ``rest``, what else the file holds."""

    path: str
    weight: np.ndarray
    bias: np.ndarray
    names: tuple[str, str | None]
    dtype: np.dtype
    rest: dict[str, np.ndarray]
    metadata: dict[str, str]

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """(N, D) -> (N, C)."""
        return features.astype(np.float64) @ self.weight.T + self.bias

    def behind(self, fitted: Map) -> Head:
        """The head on new features, (C, Dn)."""
        parts = (fitted.matrix, fitted.mean_new, fitted.mean_old)
        matrix, mean_new, mean_old = (part.double().numpy() for part in parts)
        weight = self.weight @ matrix.T
        bias = self.bias + self.weight @ mean_old - weight @ mean_new
        return Head(
            self.path, weight, bias, (self.names[0], self.names[1] or BIAS), self.dtype, self.rest, self.metadata
        )


def arrays_in(path: Path, flag: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays of a file by name, and a safetensors file's metadata. Pickled arrays are not opened."""
    if not path.is_file():
        raise UserError(f"{flag}: no file '{path}'; expected {ARRAYS} or {TENSORS}")
    if path.suffix == TENSORS:
        return read_arrays(path)
    found = {}
    try:
        check_regular(path)
        with zipfile.ZipFile(path) as file:
            for member in file.infolist():
                with file.open(member) as part:
                    found[member.filename.removesuffix(".npy")] = of_member(path, flag, part, member.file_size)
    except (OSError, ValueError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{flag}: '{path}' cannot be read ({error}); expected arrays of numbers, as numpy.savez writes them"
        ) from None
    return found, {}


def of_member(path: Path, flag: str, stream: Any, size: int) -> np.ndarray:
    """Writable, in memory of its own."""
    try:
        return of_stream(stream, size).copy()
    except ValueError as error:
        raise UserError(f"{flag}: '{path}' {error}") from None


def is_arrays(text: str) -> bool:
    """Whether a word names a file of arrays, or one of its arrays."""
    parts = (text, split_name(text)[0])  # MODEL=FILE.safetensors is a backbone
    return any(part.endswith(ARRAYS) or (part.endswith(TENSORS) and "=" not in part) for part in parts)


def split_name(text: str) -> tuple[str, str, str]:
    """The file, a colon, and the array's name, of whose own brackets may hold colons."""
    bracket = text.find("[", max(text.rfind(ARRAYS), text.rfind(TENSORS), 0))
    whole, rest = (text, "") if bracket < 0 else (text[:bracket], text[bracket:])
    file, colon, name = whole.rpartition(":")
    return (file, colon, name + rest) if colon else (text, "", "")


def some_rows(name: str) -> tuple[str, slice]:
    """``NAME[START:STOP:STEP]``, as Python has it: the array's name, and which of its rows."""
    if not (found := ROWS.fullmatch(name)):
        return name, slice(None)
    start, stop, step = (int(part) if part else None for part in found.groups()[1:])
    return found[1], slice(start, stop, step)


def stored(path: str, flag: str) -> Stored:
    """The array ``features``, or the only one of two dimensions, and ``ids`` if there; of ``FILE:NAME`` the array of
    that name, of ``FILE:NAME[0::2]`` some of its rows."""
    file, colon, name = split_name(path)
    name, rows = some_rows(name)
    named = bool(colon) and not Path(path).is_file() and file.endswith((ARRAYS, TENSORS))
    arrays, _ = arrays_in(Path(file if named else path), flag)
    if named and name not in arrays:
        raise unknown(f"array of {flag} '{file}'", name, arrays)
    ids = arrays.get(IDS)
    features = one_of(path, flag, {name: arrays[name]} if named else arrays, name if named else FEATURES, 2)
    if ids is not None and ids.shape != features.shape[:1]:
        raise UserError(
            f"{flag}: '{path}' has {IDS} of shape {ids.shape} for {len(features)} rows; expected one id a row"
        )
    check_size(path, flag, features)
    if named:
        features, ids = features[rows], ids if ids is None else ids[rows]
    return Stored(path, features, ids)


def check_size(path: str, flag: str, features: np.ndarray) -> None:
    """Raises UserError for numbers that fp32, in which features are computed with, has not."""
    largest = np.finfo(np.float32).max
    if features.dtype.itemsize > 4 and (np.isfinite(features) & (np.abs(features) > largest)).any():
        raise UserError(
            f"{flag}: '{path}' holds features beyond {largest:.1e}; expected them as a backbone gives them, in fp32"
        )


def one_of(path: str, flag: str, arrays: dict[str, np.ndarray], name: str, dims: int) -> np.ndarray:
    """The array of that name, else the only one of so many dimensions."""
    numbers = {key: value for key, value in arrays.items() if value.ndim == dims and value.dtype.kind in "fiu"}
    if name in numbers:
        return numbers[name]
    if name in arrays or len(numbers) != 1:
        found = ", ".join(f"{quoted(key)} {value.dtype}{value.shape}" for key, value in arrays.items()) or "nothing"
        several = " (one of several: FILE:NAME)" if len(numbers) > 1 and name == FEATURES else ""
        raise UserError(
            f"{flag}: '{path}' holds {found}; expected an array '{name}' of numbers in {dims} dimensions{several}"
        )
    return next(iter(numbers.values()))


def head_of(path: str, flag: str = "--head") -> Head:
    """``weight`` (C, D), or the only array of two dimensions, and ``bias`` (C,), if there."""
    arrays, metadata = arrays_in(Path(path), flag)
    weight = one_of(path, flag, arrays, WEIGHT, 2)
    name = next(key for key, value in arrays.items() if value is weight)
    own = next((key for key in arrays if key == BIAS), None) or next((k for k in arrays if is_bias(k, name)), None)
    odd = [key for key, value in arrays.items() if key not in (name, own, *TOLD) and value.dtype.kind == "f"]
    if odd:
        raise UserError(
            f"{flag}: '{path}' holds {quoted(odd[0])} {arrays[odd[0]].shape} beside its weight {quoted(name)}, by name "
            "no bias (bias, intercept_, b); save a bias under such a name, and leave out what is no part of the head"
        )
    bias = np.zeros(len(weight)) if own is None else arrays[own]
    if bias.shape != weight.shape[:1] or bias.dtype.kind not in "fiu":
        raise UserError(
            f"{flag}: '{path}' has a bias {bias.dtype}{bias.shape} for a weight of shape {weight.shape}; expected "
            f"{weight.shape[:1]} numbers"
        )
    for what, value in ((name, weight), (own, bias)):
        if not np.isfinite(value).all():
            raise UserError(f"{flag}: '{path}': array '{what}' holds NaN or infinite numbers")
    rest = {key: value for key, value in arrays.items() if key not in (name, own)}
    dtype = weight.dtype if weight.dtype.kind == "f" else np.dtype(np.float32)
    return Head(path, weight.astype(np.float64), bias.astype(np.float64), (name, own), dtype, rest, metadata)


def write(head: Head, to: str) -> None:
    """In the form of the file that it was read from, with what else that holds."""
    path, wanted = Path(to), Path(head.path).suffix
    wanted = wanted if wanted == TENSORS else ARRAYS
    if path.suffix != wanted:
        raise UserError(f"--to {to}: expected a file that ends in {wanted}, as the head's own does")
    weight, bias = head.names
    made = {weight: head.weight.astype(head.dtype), bias or BIAS: head.bias.astype(head.dtype)}
    arrays: dict[str, Any] = {**head.rest, **{name: np.ascontiguousarray(value) for name, value in made.items()}}
    with whole(path, "--to") as unfinished:
        if wanted == TENSORS:
            from safetensors.numpy import save_file

            save_file(arrays, unfinished, metadata=head.metadata or None)
        else:
            with open(unfinished, "wb") as file:
                np.savez(file, **arrays)


def carry_head(old: Stored, new: Stored, head: Head, fitted: Map) -> tuple[Head, dict[str, Any]]:
    """The head on new features, and what is told of it: rows that were matched, ``fit`` (R² of rows that the map was
    fitted without), ``agreement`` of the outputs on these (the same largest one; of a single output the correlation).
    """
    if head.weight.shape[1] != old.features.shape[1]:
        raise UserError(
            f"--head '{head.path}' takes features of width {head.weight.shape[1]}, --old '{old.path}' holds width "
            f"{old.features.shape[1]}: expected the head of these features"
        )
    both = old.ids is not None and new.ids is not None
    ids = {"old_ids": old.ids, "new_ids": new.ids} if both else {}
    fit: Any = fitted
    fit.fit(old.features, new.features, **ids)
    rows = slice(None)
    if both:
        theirs = set(new.ids.tolist())  # type: ignore[union-attr]
        rows = [row for row, one in enumerate(old.ids.tolist()) if one in theirs]  # type: ignore[assignment,union-attr]
    before, after = head(old.features[rows]), head(fit.held_out_)
    told = {
        "rows": len(before),
        "matched": "by id" if both else "by place",
        "left_out": (len(old.features) - len(before), len(new.features) - len(before)),
        "fit": fitted.score_,
        "agreement": agreement(before, after),
    }
    return head.behind(fitted), told


def agreement(before: np.ndarray, after: np.ndarray) -> float:
    """Of outputs (N, C)."""
    if before.shape[1] > 1:
        return float((before.argmax(1) == after.argmax(1)).mean())
    if min(before.std(), after.std()) == 0:
        return float("nan")
    return float(np.corrcoef(before[:, 0], after[:, 0])[0, 1])
