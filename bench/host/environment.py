"""What a record says of where it was made: versions and commit."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from carryover.bench.host.paths import CHECKOUT

PACKAGES = {
    "torch": "torch",
    "torchvision": "torchvision",
    "open_clip": "open_clip_torch",
    "timm": "timm",
    "numpy": "numpy",
    "pillow": "pillow",
    "pandas": "pandas",
}

CHANGES = "+changes"


@cache
def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name, package in PACKAGES.items():
        try:
            found[name] = version(package)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


@cache
def git_commit() -> str:
    """The checkout's commit, with "+changes" where files differ from it; "unknown" outside a checkout."""
    if CHECKOUT is None:
        return "unknown"

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(CHECKOUT), *arguments], capture_output=True, text=True, check=True
        ).stdout

    try:
        dirty = git("status", "--porcelain", "--untracked-files=no").strip()
        return git("rev-parse", "HEAD").strip() + (CHANGES if dirty else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def git_dirty() -> bool | None:
    """Whether files of the checkout differ from that commit; None outside a checkout."""
    commit = git_commit()
    return None if commit == "unknown" else commit.endswith(CHANGES)
