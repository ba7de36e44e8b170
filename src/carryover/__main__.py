"""``python -m carryover``: the same as ``run_all.py`` and the console script."""

import sys
from pathlib import Path

from carryover.bench.cli.start import start
from carryover.bench.host.paths import CHECKOUT

# Python puts the folder it was called in on the path; the checkout's would hide the package `datasets` from libraries.
if CHECKOUT:
    sys.path[:] = [place for place in sys.path if Path(place).resolve() != CHECKOUT]

if __name__ == "__main__":
    start()
