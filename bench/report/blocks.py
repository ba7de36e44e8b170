"""The report's tables on how the runs were made: cost, settings, data, environment, failures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import fields
from statistics import median
from typing import Any

from carryover.bench.plan.run_labels import ZERO_SHOT, told
from carryover.bench.plan.runs import shown_setting
from carryover.bench.records import reading
from carryover.bench.records.reading import Record
from carryover.bench.render.sheets import MISSING, Block, Cell
from carryover.methods.train_config import TrainConfig

SPLITS = ("train", "val", "test")
PROCESSOR = {  # of a record's processor -> as the environment names it
    "name": "processor",
    "kind": "kind of processor",
    "mode": "mode of MKL",
    "chosen_by": "mode chosen by",
    "side_by_side": "runs side by side",
}
HASH_SHOWN = 12  # hex digits of a sha256 that a table shows; the record has all of them


def _block(title: str, header: Sequence[str], rows: Iterable[Sequence[str]], textual: bool = False) -> Block:
    return Block(Cell(title), tuple(header), tuple(tuple(map(Cell, row)) for row in rows), textual)


def _groups(records: Sequence[Record], kind: str) -> list[tuple[str, list[Record]]]:
    names = reading.names(records, kind)
    return [(names[one], [r for r in records if r["run"][kind] == one]) for one in reading.ids(records, kind)]


def _median(values: Iterable[float | None], digits: int = 0) -> str:
    found = [value for value in values if value is not None]
    return f"{median(found):,.{digits}f}" if found else MISSING


def _distinct(values: Iterable[Any]) -> str:
    texts = dict.fromkeys(v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for v in values if v != "")
    return " / ".join(text for text in texts if text != "null") or MISSING


def _hashes(values: Iterable[str | None]) -> str:
    found = list(dict.fromkeys(value for value in values if value))
    return f"{len(found)} lists" if len(found) > 1 else found[0][:HASH_SHOWN] if found else MISSING


def cost(records: Sequence[Record]) -> Block:
    rows = []
    for name, group in _groups(records, "method"):
        done = [record for record in group if reading.is_done(record)]
        seconds = [record.get("seconds") or {} for record in done]
        tests = [sum(each.values()) for one in seconds if (each := one.get("evaluate"))]
        fits = [one.get("fit") for one in seconds]
        memory = [record["peak_memory_bytes"] / 2**20 for record in done if record.get("peak_memory_bytes")]
        sizes = (_median(record.get(key) for record in done) for key in ("trainable_parameters", "plugin_bytes"))
        rows.append((name, str(len(done)), _median(fits, 2), _median(tests, 2), _median(memory), *sizes))
    header = ("Method", "Runs", "Fit (s)", "Evaluate (s)", "Peak memory (MiB)", "Parameters", "Plug-in (bytes)")
    return _block("", header, rows)


def settings(records: Sequence[Record]) -> Block:
    limit = "images a class in the test set"
    names = [name for name in reading.SETTINGS if name != "limit"]
    rows = [(name, _distinct(shown_setting(name, r["run"].get(name)) for r in records)) for name in names]
    rows += [(f"limit ({limit})", _distinct("all" if (n := r["run"].get("limit")) is None else n for r in records))]
    rows += [("seeds", ", ".join(map(str, sorted({r["run"]["seed"] for r in records}))) or MISSING)]
    return _block("Settings", ("Setting", "Value"), rows, textual=True)


def configs(records: Sequence[Record]) -> Block:
    rows = []
    for name, group in _groups(records, "method"):
        configs = [used(record) for record in group]
        keys = dict.fromkeys(key for config in configs for key in config)
        values = ", ".join(f"{key} = {_distinct(c[key] for c in configs if key in c)}" for key in keys)
        rows.append((name, values or "none"))
    return _block("Hyper-parameters", ("Method", "Values (a slash: not the same in all runs)"), rows, textual=True)


def used(record: Record) -> dict[str, Any]:
    """The options that have a part in the run: zero-shot trains nothing, a number of steps replaces the epochs."""
    config = {**(record["run"].get("config") or {}), **(record.get("chosen") or {})}
    unused = {"epochs"} if config.get("steps") else {"steps"}
    if record["run"]["method"] == ZERO_SHOT:
        unused = {field.name for field in fields(TrainConfig)}
    return {name: value for name, value in config.items() if name not in unused}


def data(records: Sequence[Record]) -> Block:
    rows = []
    for name, group in _groups(records, "dataset"):
        splits = [record.get("split") or {} for record in group]
        done = [record for record in group if reading.is_done(record)]
        tested = _distinct(target.get("count") for record in done for target in record["targets"].values())
        sizes = (_distinct(split.get(key) for split in splits) for key in ("classes", "support"))
        rows.append(
            (
                name,
                *sizes,
                tested,
                *(_hashes(s.get(f"{part}_sha256") for s in splits) for part in SPLITS),
                _distinct(record.get("about") or "" for record in group),
            )
        )
    header = (
        "Dataset",
        "Classes",
        "Support images",
        "Test images",
        *(f"{part} list (sha256)" for part in SPLITS),
        "About",
    )
    return _block("Data", header, rows)


def environment(records: Sequence[Record]) -> Block:
    rows = []
    for target in ("base", *reading.updates(records)):
        found = [(record.get("targets") or {}).get(target) or {} for record in records]
        shown = [f"{t.get('backbone')}, fingerprint {str(t.get('fingerprint'))[:HASH_SHOWN]}" for t in found if t]
        rows.append((f"backbone {target}", _distinct(shown)))
    rows += [(name, _distinct(r.get(name) or "" for r in records)) for name in ("device", "git_commit")]
    processors = [record.get("processor") or {} for record in records]
    rows += [(what, _distinct(found.get(name, "") for found in processors)) for name, what in PROCESSOR.items()]
    versions = [record.get("versions") or {} for record in records]
    packages = dict.fromkeys(name for found in versions for name in found)
    rows += [(name, _distinct(found.get(name, "") for found in versions)) for name in packages]
    started = sorted(str(record["started"]) for record in records if record.get("started"))
    rows += [("runs started", f"{started[0]} to {started[-1]}" if started else MISSING)]
    return _block("", ("What", "Found"), [(name.replace("_", " "), v) for name, v in rows], textual=True)


def failures(records: Sequence[Record]) -> Block:
    names = {kind: reading.names(records, kind) for kind in ("dataset", "method")}
    rows = []
    for record in records:
        run = record["run"]
        test = f" → {record['names'].get('test', run['test'])}" if run.get("test") else ""
        where = (names["dataset"][run["dataset"]] + test, names["method"][run["method"]] + told(run), str(run["seed"]))
        rows.append((*where, record["key"], str(record.get("error") or "no reason recorded")))
    return _block("", ("Dataset", "Method", "Seed", "Key", "Error"), rows, textual=True)
