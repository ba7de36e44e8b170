"""Which records a leaderboard is made of: results folders of one or several groups, each with its archs.

Records alone are read, never tables. What cannot be taken as a record is counted and named, without the place of the
folder on its owner's disk: the page is made to be published.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from carryover.bench.errors import UserError, printable, quoted
from carryover.bench.plan.runs import key_of
from carryover.bench.records.reading import Record, is_done
from carryover.bench.records.store import Store

# A path that starts at a root, as errors name one. In quotes it ends with them; elsewhere, as a folder's name may have
# blanks there too, rather a word too much is taken away than part of a name left.
ROOT = r"(?<![\w.…/\\])(?<!\w:(?=//))(?:file:/*|~\w*(?=[/\\])|[A-Za-z]:(?=[/\\]))?(?:(?:\.\./)+|[/\\]+)(?=[^\s/\\])"
PLACE = re.compile(
    rf"""(?<='){ROOT}(?:[^']|'(?=\w))*(?=')"""
    rf"""|(?<="){ROOT}[^"]*(?=")"""
    rf"""|{ROOT}(?:(?:(?! (?:[A-Za-z]:)?[/\\])[^'";,:()/\\])*[/\\]+)*[^\s'";,:()/\\]*"""
)
HOMES = ("home", "users")  # folders of folders that have people's names
NAME_LIMIT = 60  # characters of a group's name
REASON_LIMIT = 200  # characters of a reason that the page shows
ROUNDING = 1e-6  # points that an accuracy may be off its counts


@dataclass(frozen=True)
class Source:
    """One arch of one group: its sound records, and (file, reason) of what is none; ``unfinished`` files were left by
    a process that died while it wrote, or are being written now."""

    group: str
    arch: str
    records: tuple[Record, ...]
    faults: tuple[tuple[str, str], ...] = ()
    unfinished: int = 0


def read(words: Sequence[str | Path]) -> list[Source]:
    """What the folders hold that the command line names: ``FOLDER`` or ``NAME=FOLDER``, each a results folder (with a
    folder for each arch) or the folder of one arch. Raises UserError where there are no runs, or one name for two."""
    groups: dict[str, Path] = {}
    sources = []
    for word in map(str, words):
        name, folder = named(word)
        alone = (folder / "runs").is_dir()
        name = name or (folder.resolve().parent if alone else folder.resolve()).name
        folders = [folder] if alone else sorted(f for f in folder.iterdir() if (f / "runs").is_dir())
        if not folders:
            raise UserError(
                f"leaderboard: no runs in {quoted(str(folder), 200)}; expected a results folder, as --out is"
            )
        if not name.strip() or not name.isprintable() or len(name) > NAME_LIMIT:
            raise UserError(
                f"leaderboard: {quoted(name)} is no name of a group; expected 1 to {NAME_LIMIT} printable characters, "
                "as NAME=FOLDER"
            )
        if name in groups:
            same = groups[name].resolve() == folder.resolve()
            raise UserError(
                f"leaderboard: {quoted(str(folder), 200)} is named twice; name it once"
                if same
                else f"leaderboard: two folders are called {quoted(name)}; give each a name of its own: NAME=FOLDER"
            )
        groups[name] = folder
        sources += [source_of(name, one, "" if alone else one.name) for one in folders]
    return sources


def named(word: str) -> tuple[str, Path]:
    """(the group's name or empty, its folder). A folder whose own name has an equals sign is taken as it is."""
    name, equals, path = word.partition("=")
    if not equals or Path(word).is_dir():
        name, path = "", word
    if not Path(path).is_dir():
        raise UserError(f"leaderboard: no folder {quoted(path, 200)}; expected results folders, or NAME=FOLDER")
    return name, Path(path)


def source_of(group: str, folder: Path, arch: str = "") -> Source:
    """``arch``: whose runs the folder must hold; where it is empty, that of most of its records."""
    resolved = folder.resolve()
    found = list(Store(resolved.parent, resolved.name).examined())
    archs = Counter(str(record["run"].get("arch")) for _, record, _ in found if record)
    arch = arch or (archs.most_common(1)[0][0] if archs else resolved.name)
    records, faults = [], []
    for file, record, wrong in found:
        wrong = wrong or fault(record or {}, arch)
        if record is None or wrong:
            faults.append((printable(file), reason(wrong)))
        else:
            records.append(record)
    unfinished = len(list((resolved / "runs").glob(".*.part")))
    return Source(group, printable(arch), tuple(records), tuple(faults), unfinished)


def fault(record: Record, arch: str) -> str:
    """Why a record that is whole and sealed is still not taken; empty where it is."""
    run = record["run"]
    if record["key"] != key_of(run, record.get("identity")):
        return "its key is not that of its run"
    if run.get("arch") != arch:
        return f"is a run of arch {quoted(str(run.get('arch')))}, not of {quoted(arch)}"
    if missing := [name for name in ("shots", "protocol", "precision", "views", "config") if run.get(name) is None]:
        return f"does not say its {', '.join(missing)}"
    if run.get("limit") is not None and not isinstance(run["limit"], int):
        return "its limit is no number"
    if record.get("status") == "done" and not is_done(record):
        return "says it is done, and has no accuracy on both backbones"
    for role, target in (record.get("targets") or {}).items():
        right, count, accuracy = (target.get(name) for name in ("correct", "count", "accuracy"))
        if right is None or count is None or accuracy is None or not 0 <= right <= count or not count:
            return f"has no sound counts on backbone '{role}'"
        if abs(accuracy - 100 * right / count) > ROUNDING:
            return f"says {accuracy:g} % on backbone '{role}', its counts {right} of {count} are another accuracy"
    return ""


def reason(text: str) -> str:
    """An error as one line that can be published: without folders of the machine, cut where it is long."""
    line = " ".join(text.split())[: 10 * REASON_LIMIT]  # a text of any length takes no time
    line = printable(PLACE.sub(shown, line))
    return line if len(line) <= REASON_LIMIT else line[:REASON_LIMIT] + "…"


def shown(place: re.Match[str]) -> str:
    """What is left of a path: the name of a file, or of a model's directory; of another folder nothing."""
    *folders, name = re.split(r"[/\\]+", place[0].rstrip("/\\"))
    named = re.search(r"\w\.\w{1,12}$", name) or place.string[: place.start()].endswith("local-dir:")
    return f"…/{name}" if named and folders[-1].lower() not in HOMES else "…"
