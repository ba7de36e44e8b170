"""Where the checkout lies, and the environment in which a process of its own imports ``carryover`` from there."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FROM_HERE = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")])),
}
