"""Where the program's own files lie, in a checkout and installed."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).absolute().parents[2]  # by the name it was imported under: a checkout links its folders
_ABOVE = PACKAGE.parent.parent
CHECKOUT = _ABOVE if PACKAGE.parent.name == "src" and (_ABOVE / "run_all.py").is_file() else None
MICRO_WEIGHTS = PACKAGE / "datasets" / "micro" / "weights"
PRINTED = (CHECKOUT or PACKAGE) / "results"  # the folders `paper` and `published`: numbers that others printed
RESULTS = CHECKOUT / "results" if CHECKOUT else Path("results")  # where runs write unless told otherwise
