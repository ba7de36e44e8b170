"""Foreign files as tensors and plain values. Nothing in them is run: no pickle makes an object that it names."""

from __future__ import annotations

import json
import os
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from carryover.bench.backbones.loading import first_line
from carryover.bench.errors import UserError, quoted
from carryover.bench.host import array_files
from carryover.bench.host.files import check_regular
from carryover.bench.host.identity import sha256_of
from carryover.bench.imports.base import Foreign
from carryover.bench.imports.torch_files import LEGACY, SAVE_ARRAYS, SAVE_STATE, read_torch

KINDS = ".safetensors, .npz, .npy, what torch.save wrote, or a folder of peft, Tip-Adapter or Dassl"
CONFIG, ADAPTERS = "adapter_config.json", ("adapter_model.safetensors", "adapter_model.bin")
CACHED = re.compile(r"(keys|values|best_F)_(\d+)shots\.pt")
BEST, EPOCH = "model-best.pth.tar", re.compile(r"model\.pth\.tar-(\d+)")
LOG = 100_000  # characters of a training log, which begins with its configuration
LARGEST_PACKED, MOST_PACKED, SMALL = 4 << 30, 100, 64 << 20  # what packed arrays unpack to: bytes, times, always
LONGEST_JSON, LONGEST_HEADER = 10**7, 10**8  # bytes

Parts = tuple[dict[str, Tensor], dict[str, Any], list[str]]  # tensors, plain values, notes


def read(path: str | Path) -> Foreign:
    """Raises UserError, in one line, for a file that is not there or cannot be read without running it."""
    path = Path(path).expanduser()
    try:
        if path.is_dir():
            return folder(path)
        check_regular(path)
        if path.name in (CONFIG, *ADAPTERS) and (path.parent / CONFIG).is_file():
            return folder(path.parent)
        if CACHED.fullmatch(path.name):
            return cache(path)
        return dassl(path, []) if is_dassl(path) else one(path, read_file(path))
    except FileNotFoundError:
        raise UserError(f"import: no file or folder '{path}'; expected {KINDS}") from None
    except OSError as error:
        why = error.strerror or first_line(error)
        raise UserError(f"import: '{path}' cannot be read ({why}); expected {KINDS}") from None


def one(path: Path, parts: Parts, sha256: str = "") -> Foreign:
    tensors, plain, notes = parts
    return Foreign(path, tensors, plain, tuple(notes), sha256 or sha256_of(path))


# ---- one file --------------------------------------------------------------------------------------------------------


def read_file(path: Path) -> Parts:
    """By what it starts with; its name says nothing."""
    with open(path, "rb") as file:
        start = file.read(512)
    if not start:
        raise UserError(f"import: '{path}' is empty; get it again")
    if start.startswith(b"PK\x03\x04"):
        return archive(path)
    if start.startswith(LEGACY):
        return read_torch(path)
    if start.startswith(b"\x93NUMPY"):
        return array(path)
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < LONGEST_HEADER:
        return tensors_of(path)
    raise UserError(f"import: '{path}' {strange(path, start)}")


def strange(path: Path, start: bytes) -> str:
    """What is no tensor file: in words what it is, and what to do."""
    told = start.lstrip().lower()
    if re.match(rb"\x80[\x00-\x05]", start):
        with open(path, "rb") as file:
            learned = b"sklearn" in file.read(1 << 20)
        what = "of scikit-learn " if learned else ""
        return (
            f"is a pickle {what}(pickle or joblib), which is a program and is not run; "
            f"{SAVE_ARRAYS if learned else SAVE_STATE}"
        )
    if start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x04\x22\x4d\x18", b"x\x01", b"x\x9c", b"x\xda")):
        return f"is packed (gzip, bz2, xz or joblib's own): unpack it; if it is a pickle, {SAVE_ARRAYS}"
    if start.startswith(b"\x89HDF"):
        return "is an HDF5 file, as Keras writes; save its weights and biases by numpy.savez and give the .npz"
    if start[257:262] == b"ustar":
        return "is a tar archive: unpack it and give one of its files"
    if start.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS and not the file itself; fetch it by 'git lfs pull'"
    if told.startswith((b"<!doctype", b"<html")):
        return "is a web page, not the file it should be; download it again"
    if start[8:9] == b"{":
        return f"is damaged: its header should have {int.from_bytes(start[:8], 'little')} bytes; get it again"
    return f"is no file of a kind that is read; expected {KINDS}"


def archive(path: Path) -> Parts:
    try:
        with zipfile.ZipFile(path) as file:
            names = file.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise UserError(f"import: '{path}' is a damaged or cut archive ({first_line(error)}); get it again") from None
    last = {name.split("/")[-1] for name in names}
    if "constants.pkl" in last or any("/code/" in name for name in names):
        raise UserError(f"import: '{path}' is a TorchScript archive, which is a program and is not run; {SAVE_STATE}")
    if last & {"saved_model.pb", "keras_metadata.pb", "model.weights.h5"}:
        raise UserError(
            f"import: '{path}' is a Keras model, whose graph is a program and is not run; save its weights and biases "
            "by numpy.savez and give the .npz"
        )
    if "data.pkl" in last:
        return read_torch(path)
    if names and all(name.endswith(".npy") for name in names):
        return arrays(path)
    raise UserError(f"import: '{path}' is an archive of something else ({len(names)} files); expected {KINDS}")


def tensors_of(path: Path) -> Parts:
    try:
        with safe_open(path, "pt") as file:
            plain = {"metadata": dict(file.metadata())} if file.metadata() else {}
            if "plugin" in plain.get("metadata", {}):
                raise UserError(f"import: '{path}' is a plug-in of this suite already; give it to evaluate or port")
            return {name: file.get_tensor(name) for name in file.keys()}, plain, []
    except UserError:
        raise
    except Exception as error:  # safetensors' own, or a type that torch has not
        raise UserError(f"import: '{path}' is damaged ({first_line(error)}); get it again") from None


def array(path: Path) -> Parts:
    with open(path, "rb") as file:
        return numbers(path, {"tensor": of_stream(path, file, path.stat().st_size)})


def arrays(path: Path) -> Parts:
    found = {}
    try:
        with zipfile.ZipFile(path) as file:
            check_size(path, file.infolist())
            for member in file.infolist():
                with file.open(member) as part:
                    found[member.filename.removesuffix(".npy")] = of_stream(path, part, member.file_size)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"import: '{path}' is a damaged or cut archive ({first_line(error)}); get it again") from None
    return numbers(path, found)


def check_size(path: Path, members: list[zipfile.ZipInfo]) -> None:
    """Raises UserError, before anything is read, for packed arrays that unpack to more than is sensible."""
    packed = [one for one in members if one.compress_type != zipfile.ZIP_STORED]
    size = sum(one.file_size for one in packed)
    held = sum(one.compress_size for one in packed)
    if size > LARGEST_PACKED or size > max(SMALL, MOST_PACKED * held):
        raise UserError(
            f"import: '{path}' is {held / 2**20:.1f} MB that would unpack to {size / 2**20:.0f} MB: at most "
            f"{LARGEST_PACKED >> 30} GB and {MOST_PACKED} times its size are read; save it by numpy.savez, unpacked"
        )


def of_stream(path: Path, stream: Any, size: int) -> np.ndarray:
    try:
        return array_files.of_stream(stream, size)
    except ValueError as error:
        raise UserError(f"import: '{path}' {error}") from None


def numbers(path: Path, found: dict[str, np.ndarray]) -> Parts:
    """Numbers become tensors, texts plain lists."""
    tensors, plain = {}, {}
    for name, value in found.items():
        if value.dtype.kind == "U":
            plain[name] = value.tolist()
        elif value.dtype.kind in "fiub" and value.dtype.itemsize <= 8:
            native = np.array(value, dtype=value.dtype.newbyteorder("="), order="C")
            tensors[name] = torch.from_numpy(native)
        else:
            raise UserError(f"import: '{path}': array {quoted(name)} is of type {value.dtype}; expected numbers")
    return tensors, plain, []


# ---- folders ---------------------------------------------------------------------------------------------------------


def folder(path: Path) -> Foreign:
    names = sorted(os.listdir(path))
    if CONFIG in names:
        return peft(path)
    shots = sorted({int(found[2]) for name in names if (found := CACHED.fullmatch(name)) and found[1] == "keys"})
    if len(shots) > 1:
        raise UserError(
            f"import: '{path}' holds caches of {', '.join(map(str, shots))} shots; give the keys file of one, e.g. "
            f"'{path / f'keys_{shots[-1]}shots.pt'}'"
        )
    if shots:
        return cache(path / f"keys_{shots[0]}shots.pt")
    places = [path, *(path / name for name in names if (path / name).is_dir())]
    places = [place for place in places if any(is_dassl(place / name) for name in os.listdir(place))]
    if len(places) > 1:
        raise UserError(
            f"import: '{path}' holds checkpoints in {', '.join(quoted(place.name) for place in places)}; give one of "
            "these folders"
        )
    if places:
        return latest(places[0])
    raise UserError(
        f"import: the folder '{path}' holds no {CONFIG}, no keys_*shots.pt and no {BEST} or model.pth.tar-N, itself or "
        "one folder below; give a file"
    )


def peft(path: Path) -> Foreign:
    """Tensors of the adapter, and its configuration as ``plain["adapter_config"]``."""
    file = next((path / name for name in ADAPTERS if (path / name).is_file()), None)
    if file is None:
        raise UserError(f"import: '{path}' holds {CONFIG} and no {ADAPTERS[0]}; expected both, as peft saves them")
    try:
        check_regular(path / CONFIG)
        if (path / CONFIG).stat().st_size > LONGEST_JSON:
            raise ValueError("it is too long")
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("it is no object")
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"import: '{path / CONFIG}' is no configuration of peft ({first_line(error)}); get it again"
        ) from None
    tensors, plain, notes = read_file(file)
    if all((path / name).is_file() for name in ADAPTERS):
        notes = [f"of the files there, '{file.name}' was taken", *notes]
    return Foreign(path, tensors, {**plain, "adapter_config": config}, tuple(notes), sha256_of(file))


def cache(path: Path) -> Foreign:
    """Of a Tip-Adapter cache the tensors ``keys``, ``values`` and, where it is there, ``best_F``, of one number of
    shots; ``path``: any of their files. ``plain["best_F_hp"]``: the alpha and beta that some forks save beside them."""
    found = CACHED.fullmatch(path.name)
    assert found is not None
    files = {part: path.parent / f"{part}_{found[2]}shots.pt" for part in ("keys", "values", "best_F")}
    for part in ("keys", "values"):
        if not files[part].is_file():
            raise UserError(f"import: '{path}' lacks '{files[part].name}' beside it; a cache has both keys and values")
    tensors: dict[str, Tensor] = {}
    notes: list[str] = []
    for part, file in files.items():
        if file.is_file():
            held, _, told = read_file(file)
            if len(held) != 1:
                raise UserError(f"import: '{file}' holds {len(held)} tensors; expected one, as Tip-Adapter saves it")
            tensors[part], notes = next(iter(held.values())), notes + told
    plain: dict[str, Any] = {"shots": int(found[2])}
    if (searched := path.parent / f"best_F_hp_{found[2]}shots.pt").is_file():
        plain["best_F_hp"] = read_file(searched)[1]
    return Foreign(files["keys"], tensors, plain, tuple(notes), sha256_of(files["keys"]))


def is_dassl(path: Path) -> bool:
    return path.name == BEST or EPOCH.fullmatch(path.name) is not None


def latest(place: Path) -> Foreign:
    """The best checkpoint of a trainer's folder, else that of the latest epoch."""
    epochs = sorted(int(found[1]) for name in os.listdir(place) if (found := EPOCH.fullmatch(name)))
    if (place / BEST).is_file():
        taken, of = place / BEST, "of the checkpoints there, " if epochs else ""
    else:
        taken = place / f"model.pth.tar-{epochs[-1]}"
        of = f"of the epochs {', '.join(map(str, epochs))} there, " if len(epochs) > 1 else ""
    return dassl(taken, [f"{of}'{place.name}/{taken.name}' was taken"])


def dassl(path: Path, notes: list[str]) -> Foreign:
    """A checkpoint, with the start of the training's logs, where they lie, as ``plain["log"]``."""
    tensors, plain, told = read_file(path)
    logs = []
    for log in sorted(path.absolute().parent.parent.glob("log.txt*")):
        if log.is_file():
            with open(log, encoding="utf-8", errors="replace") as file:
                logs.append(file.read(LOG))
    return one(path, (tensors, {**plain, **({"log": "\n".join(logs)} if logs else {})}, [*notes, *told]))
