#!/usr/bin/env python3
"""The documented entry: ``python run_all.py`` runs the suite, ``python run_all.py --help`` says the rest."""

import signal
import sys
from pathlib import Path

# The checkout's own folder leaves the path, or its `datasets` would hide the package of that name from every library.
ROOT = Path(__file__).resolve().parent
sys.path[:] = [str(ROOT / "src"), *(p for p in sys.path if Path(p).resolve() not in (ROOT, ROOT / "src"))]

if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback of the imports that follow
    from carryover.bench.cli.start import start

    start()
