"""Which files lie below one image folder: each folder is read once, with no look at single files (ImageNet has 1.28 M).

A listing lives as long as the loading of one dataset, so it is never stale.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from carryover.bench.errors import UserError, quoted
from carryover.datasets.formats import MISSING, ending_of, is_picture

BARE, ODD = "without an ending", "that are no files (pipes, devices, broken links)"
MOST = 5  # endings that one line names


class Listing:
    """Files and folders under ``root``; paths are relative to it, with "/". Hidden ones (".name") are not listed."""

    def __init__(self, root: str | Path):
        self.root = Path(root)
        self._real = os.path.realpath(root)
        self._read: dict[str, tuple[dict[str, bool], list[str]]] = {}
        self._odd: Counter[str] = Counter()
        self._pictures: dict[str, tuple[list[str], Counter[str]]] = {}
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
                        else:
                            self._odd[folder] += 1
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
        """Sorted names of the files that are pictures, by ending or by content."""
        return self._sorted_out(folder)[0]

    def passed_over(self, folders: Iterable[str]) -> str:
        """What else lies in the folders, by ending: "2 .heic, 1 without an ending"; empty where nothing does."""
        found: Counter[str] = Counter()
        for folder in folders:
            found += self._sorted_out(folder)[1]
        told = [
            f"{count} {ending}" + (f" ({MISSING[ending]} reads them)" if ending in MISSING else "")
            for ending, count in sorted(found.items(), key=lambda item: (-item[1], item[0]))
        ]
        return ", ".join(told[:MOST] + ([f"{len(told) - MOST} other endings"] if len(told) > MOST else []))

    def _sorted_out(self, folder: str) -> tuple[list[str], Counter[str]]:
        if folder not in self._pictures:
            names, place = sorted(self.look(folder)[0]), os.path.join(self.root, folder, "")
            found, passed = [], Counter({ODD: self._odd[folder]} if self._odd[folder] else {})
            for name in names:
                if is_picture(f"{place}{name}"):  # no Path a file: ImageNet has 1.28 M
                    found.append(name)
                else:
                    passed[ending_of(name) or BARE] += 1
            self._pictures[folder] = found, passed
        return self._pictures[folder]

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
