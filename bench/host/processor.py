"""Which of its kernels MKL may choose among, so that a sum does not depend on what is computed beside it.

Left to itself MKL takes another kernel for another number of rows, and each sums in an order of its own. Its mode
(``MKL_CBWR``) is read when torch first multiplies, so it is chosen when this package is imported, before torch is.
Nothing here imports torch but to ask what it does. Whether a mode is enough, `bench.backbones.probe` finds out.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import sys
from functools import cache
from pathlib import Path

VARIABLE = "MKL_CBWR"
AVX512 = {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}  # what MKL's branch of that name uses
BRANCHES = {
    2: "AUTO", 3: "COMPATIBLE", 4: "SSE2", 5: "SSE3", 6: "SSSE3", 7: "SSE4_1", 8: "SSE4_2", 9: "AVX", 10: "AVX2",
    11: "AVX512_MIC", 12: "AVX512", 13: "AVX512_MIC_E1", 14: "AVX512_E1",
}  # fmt: skip
STRICT, EVERYTHING = 0x10000, -1  # mkl_types.h: MKL_CBWR_STRICT, MKL_CBWR_ALL
GETTERS = ("mkl_serv_cbwr_get", "MKL_CBWR_Get")  # within torch's own library, or in an MKL beside it
LIBRARIES = {"mkl": "MKL", "open": "OpenBLAS", "accelerate": "Accelerate"}  # torch's names -> theirs
CAPS = (
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
)  # by which a user holds oneDNN, which convolves, to older instructions
NONE, NO_MKL, UNKNOWN = "none", "no MKL", "unknown"
late = False  # whether torch was there first, so that nothing was chosen


def choose() -> None:
    """Set the mode, unless the user did or torch is loaded already. Processes that are started later inherit it."""
    global late
    late = "torch" in sys.modules
    if VARIABLE not in os.environ and not late and (mode := offered()):
        os.environ[VARIABLE] = mode


@cache
def offered() -> str:
    """The strictest mode that MKL offers on this processor; empty where there is none. To processors of other makers
    than Intel it offers no fixed branch, but it honours STRICT."""
    found = described()
    flags = set(found.get("flags", "").split())
    if "avx2" not in flags:
        return ""
    if found.get("vendor_id") != "GenuineIntel":
        return f"{BRANCHES[2]},STRICT"
    return f"{'AVX512' if flags >= AVX512 else 'AVX2'},STRICT"


@cache
def described(path: str = "/proc/cpuinfo") -> dict[str, str]:
    """What Linux says of the first core; empty elsewhere."""
    found: dict[str, str] = {}
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as lines:
        for line in lines:  # as many as are needed: there is a paragraph for each core
            name, colon, value = line.partition(":")
            if not colon:
                break
            found[name.strip()] = value.strip()
    return found


def name() -> str:
    """Maker and model."""
    found = described()
    parts = (found.get("vendor_id"), found.get("model name"))
    return " ".join(part for part in parts if part) or platform.processor() or platform.machine() or UNKNOWN


def kind() -> str:
    """What decides which kernels torch itself takes: the maker, the instructions that it uses, and the user's caps."""
    import torch

    maker = described().get("vendor_id") or platform.machine()
    return " ".join([maker, torch.backends.cpu.get_cpu_capability(), *caps()])


def caps() -> list[str]:
    """What the user holds oneDNN to."""
    return [f"{name}={os.environ[name]}" for name in CAPS if os.environ.get(name)]


@cache
def library() -> str:
    """What this build of torch multiplies matrices with."""
    import torch

    if torch.backends.mkl.is_available():
        return LIBRARIES["mkl"]
    _, _, after = torch.__config__.show().partition("BLAS_INFO=")
    found = after.split(",")[0].strip()
    return LIBRARIES.get(found, found) or UNKNOWN


@cache
def mode() -> str:
    """The mode that MKL is in, as it says itself: it passes over a value that it does not offer, without a word."""
    import torch

    if library() != LIBRARIES["mkl"]:
        return NO_MKL
    for path in sorted(Path(torch.__file__).parent.glob("lib/*torch_cpu.*")):
        with contextlib.suppress(OSError):
            loaded = ctypes.CDLL(str(path))
            for getter in GETTERS:
                if hasattr(loaded, getter):
                    return named(getattr(loaded, getter)(EVERYTHING))
    return UNKNOWN


def named(code: int) -> str:
    branch = BRANCHES.get(code & (STRICT - 1), NONE)
    return f"{branch},STRICT" if code & STRICT else branch


def chosen_by() -> str:
    """ "suite", "user" or "nobody". A user's value that is the suite's own is the suite's."""
    value = os.environ.get(VARIABLE)
    return "nobody" if value is None else "suite" if value and value == offered() else "user"


def users_own() -> dict[str, str]:
    """The variable where the user set it, for processes that do not inherit it."""
    return {VARIABLE: os.environ[VARIABLE]} if chosen_by() == "user" else {}


def told() -> str:
    """The mode and who chose it, in one sentence."""
    if mode() == NO_MKL:
        return f"torch multiplies with {library()}, which has no mode to choose"
    found = f"MKL's mode is {mode()}"
    match chosen_by():
        case "suite":
            return f"{found}, chosen here before torch was loaded"
        case "user":
            return f"{found}, by your own {VARIABLE}='{os.environ[VARIABLE]}'"
    return f"{found}; {'torch was loaded before this suite' if late else 'it offers none here'}, so none was chosen"
