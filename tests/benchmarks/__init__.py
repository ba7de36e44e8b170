"""Measurements, run from the checkout as ``python -m tests.benchmarks.NAME``."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:] = [str(ROOT / "src"), str(ROOT / "tests"), *(p for p in sys.path if Path(p).resolve() != ROOT)]
