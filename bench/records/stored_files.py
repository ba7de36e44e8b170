"""Whether the files that records speak of are there, and are those that their runs left or read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from carryover.bench.errors import UserError
from carryover.bench.host.files import read_arrays
from carryover.bench.host.identity import canonical, content_of, sha256_of
from carryover.bench.records import example_files
from carryover.bench.records.reading import Record, counted
from carryover.bench.records.store import Store, about

WRITTEN = ("runs", "plugins", "predictions", "splits", "plans", "drift", "known", "examples", "tables", "figures")


def differences(store: Store, records: Sequence[dict]) -> Iterator[str]:
    """Of the files beside the records: plug-ins, predictions, few-shot lists, example pictures."""
    for record in records:
        if record["run"].get("arch") != store.folder.name:
            yield f"{about(record)}: is a run of arch {record['run'].get('arch')}, not of {store.folder.name}"
        yield from store.changed_files(record)
        files = store.files_of(record).items() if record.get("status") == "done" else ()
        for name, path in files:
            if name != "predictions" and not path.is_file():  # those are missed where they are counted
                yield f"{about(record)}: its {'plug-in' if name == 'plugin' else name} '{path}' is not there"
    yield from of_lists(store.folder, records)
    yield from example_files.differences(store.folder)
    yield from links(store.folder)


def of_lists(folder: Path, records: Iterable[Record]) -> Iterator[str]:
    """A line for each few-shot list that no run has drawn as it is. Runs of other pictures, or with ``--manifests``,
    write a list of the same name anew."""
    drawn: dict[str, set[str]] = {}
    for record in records:
        for name, found in (record.get("drawn") or {}).items():
            drawn.setdefault(name, set()).add(found)
    for name, known in sorted(drawn.items()):
        path = folder / "splits" / f"{name}.jsonl"
        if (found := sha256_of(path)) not in known:
            state = f"has sha256 {found}" if found else "is not there"
            yield f"'{path}' {state}, the runs that drew it wrote {' or '.join(sorted(known))}"


def links(folder: Path) -> Iterator[str]:
    """A line for each link among the files: what a run writes is a file, and a link's content may change unseen."""
    for path in [*folder.glob("*"), *(path for kind in WRITTEN for path in (folder / kind).glob("*"))]:
        if path.is_symlink() and not path.is_dir():
            yield f"'{path}' is a link to '{path.readlink()}'; runs and reports write files"


# ---- feature files ---------------------------------------------------------------------------------------------------


def made_by(record: Record) -> str:
    """What may change the last bits of features beside what names their file."""
    processor = record.get("processor") or {}
    kind = [processor.get(name) for name in ("name", "kind", "mode")]
    return canonical([record.get("device"), kind, record.get("versions")])


def readers(records: Iterable[Record]) -> dict[str, dict[str, list[Record]]]:
    """Name of each feature file -> sha256 of its content -> the records of the runs that read it."""
    found: dict[str, dict[str, list[Record]]] = {}
    for record in records:
        for files in (record.get("features") or {}).values():
            for name, content in files.items():
                found.setdefault(name, {}).setdefault(content, []).append(record)
    return found


def of_features(records: Sequence[Record], cache: Path) -> tuple[list[str], list[str]]:
    """(differences, notes): a line for each feature file that runs on one kind of machine read with different content,
    and for each that lies in the cache with other content than any run read. In a folder of several machines, a file
    that not all of them read may have been made on one of the others: that is a note."""
    lines, notes, here, read = [], [], 0, readers(records)
    every = {made_by(record) for record in records if record.get("features")}
    for name, contents in sorted(read.items()):
        path = Path(cache) / f"{name}.safetensors"
        machines: dict[str, set[str]] = {}
        for content, of in contents.items():
            for record in of:
                machines.setdefault(made_by(record), set()).add(content)
        if any(len(found) > 1 for found in machines.values()):
            told = "; ".join(f"sha256 {content} by {some(of)}" for content, of in sorted(contents.items()))
            lines.append(f"feature file {name} was read with different content on one kind of machine: {told}")
        if not path.is_file():
            continue
        here += 1
        try:
            found = content_of(read_arrays(path)[0]["features"])
        except (UserError, KeyError) as error:
            lines.append(f"feature file '{path}' cannot be read: {error}")
            continue
        if found not in contents:
            told = "; ".join(f"{content} by {some(of)}" for content, of in sorted(contents.items()))
            line = f"feature file '{path}' holds features of sha256 {found}, read was {told}"
            if machines.keys() == every:
                lines.append(line)
            else:
                notes.append(f"{line}; made on another machine, or changed: --encode tells")
    if read:
        notes.append(f"{here} of {counted(len(read), 'feature file')} that the records name lie in '{cache}'")
    if older := sum(record.get("status") == "done" and "features" not in record for record in records):
        notes.append(f"{counted(older, 'record')} made before hashes of features were kept: theirs cannot be compared")
    return lines, notes


def some(records: Sequence[Record]) -> str:
    """The first of the records, and how many more."""
    return about(dict(records[0])) + (f" and {len(records) - 1} more" if len(records) > 1 else "")
