"""Measurements, run from the checkout as ``python -m tests.benchmarks.NAME``."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
ADDED = [str(ROOT / folder) for folder in ("src", "tests/support", "tests")]
sys.path[:] = [*ADDED, *(p for p in sys.path if Path(p).resolve() != ROOT)]
