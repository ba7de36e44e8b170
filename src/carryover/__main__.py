"""``python -m carryover``: the same as ``run_all.py`` and the console script."""

import sys

from carryover.bench.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
