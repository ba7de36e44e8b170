"""Which files lie below one image folder: each folder is read once, with no look at single files (ImageNet has 1.28 M).

A listing lives as long as the loading of one dataset, so it is never stale.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from carryover.bench.errors import UserError, quoted

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")


class Listing:
    """Files and folders under ``root``; paths are relative to it, with "/". Hidden ones (".name") are not listed."""

    def __init__(self, root: str | Path):
        self.root = Path(root)
        self._real = os.path.realpath(root)
        self._read: dict[str, tuple[dict[str, bool], list[str]]] = {}
        self._inside: dict[str, bool] = {}

    def look(self, folder: str = "") -> tuple[dict[str, bool], list[str]]:
        """({file name: is a link}, sorted folder names), both empty where there is no such folder."""
        if folder not in self._read:
            files, folders = {}, []
            try:
                with os.scandir(self.root / folder) as entries:
                    for entry in entries:
                        if entry.name.startswith("."):
                            continue
                        entry.name.encode()  # manifests are UTF-8
                        # The kind comes with the entry; only links cost a system call of their own.
                        if entry.is_dir():
                            folders.append(entry.name)
                        elif entry.is_file():
                            files[entry.name] = entry.is_symlink()
            except (FileNotFoundError, NotADirectoryError):
                pass
            except UnicodeEncodeError as error:
                raise UserError(
                    f"the name {quoted(error.object)} in '{self.root / folder}' is not UTF-8; rename it"
                ) from error
            except OSError as error:
                raise UserError(f"cannot list folder '{self.root / folder}': {error.strerror or error}") from error
            self._read[folder] = files, sorted(folders)
        return self._read[folder]

    def subfolders(self, folder: str = "") -> list[str]:
        return self.look(folder)[1]

    def pictures(self, folder: str = "") -> list[str]:
        """Sorted names of the files with a picture's ending."""
        return sorted(name for name in self.look(folder)[0] if name.lower().endswith(ENDINGS))

    def check(self, id: str, source: str | Path, paths: Iterable[str]) -> None:
        """Raises UserError unless every path that ``source`` (a split file or list) names is a file inside ``root``,
        links followed."""
        paths = list(paths)
        missing = []
        for path in paths:
            if not self._allowed(path):
                raise UserError(
                    f"{id}: '{source}' names {quoted(path)}, which is outside the image folder '{self.root}'; take the "
                    "published file, and link whole folders only"
                )
            parent, name = split_path(path)
            if name not in self.look(parent)[0]:
                missing.append(path)
        if missing:
            raise UserError(
                f"{id}: {len(missing)} of {len(paths)} images that '{source}' names are missing, the first is "
                f"{quoted(f'{self.root}/{missing[0]}', 200)}; complete the images or take the split file that belongs "
                "to them"
            )

    def _allowed(self, path: str) -> bool:
        parent, name = split_path(path)
        if path.startswith("/") or name in ("", ".", ".."):
            return False
        if parent not in self._inside:
            plain = ".." not in parent.split("/") and "\0" not in parent
            self._inside[parent] = plain and self._holds(parent)
        return self._inside[parent] and (not self.look(parent)[0].get(name) or self._holds(path))

    def _holds(self, path: str) -> bool:
        real = os.path.realpath(self.root / path)
        return real == self._real or real.startswith(self._real.rstrip(os.sep) + os.sep)


def split_path(path: str) -> tuple[str, str]:
    """(folder, file name); the folder is "" for a file directly under the root."""
    parent, _, name = path.rpartition("/")
    return parent, name
