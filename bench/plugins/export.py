"""Plug-ins of finished runs as files for elsewhere: a complete header, and a card beside each of what was measured."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from carryover.bench.backbones.archs import Arch
from carryover.bench.engine.plugin_header import described, made_by
from carryover.bench.engine.run_store import PLUGIN_FORMAT, PLUGIN_VERSION, RunStore
from carryover.bench.errors import UserError, unknown
from carryover.bench.host.files import whole, write_text
from carryover.bench.host.identity import canonical, parse_json, sha256_of
from carryover.bench.host.tensor_files import read_tensors, write_tensors
from carryover.bench.plan.runs import Run
from carryover.bench.records.reading import age
from carryover.bench.records.store import about

CARD = "carryover-plugin-card"
ENDING = ".safetensors"


def of_keys(store: RunStore, keys: Sequence[str]) -> list[dict]:
    """The records of those runs. Raises UserError for a key that is not there or whose run left no plug-in."""
    records = {record["key"]: record for record in store.records()}
    return [one(store, records, key) for key in dict.fromkeys(keys)]


def of_runs(store: RunStore, runs: Sequence[Run]) -> list[dict]:
    """The done records of those runs, the newest of each; a run on a shifted set has no plug-in of its own. Raises
    UserError where there is none."""
    done = [record for record in store.records() if record.get("status") == "done"]
    found = []
    for run in dict.fromkeys(run.trained for run in runs):
        wanted = parse_json(canonical(run.canonical()))
        mine = [record for record in done if record["run"] == wanted]
        found += [max(mine, key=age)] if mine else []
    if not found:
        raise UserError(
            f"export: of the {len(runs)} runs that these flags name none is done in '{store.folder}'; name others, or "
            "keys (the names of the files in its folder runs)"
        )
    return found


def one(store: RunStore, records: dict[str, dict], key: str) -> dict:
    if key not in records:
        path = store.path("runs", key)
        if path.is_file():
            raise UserError(f"export: the record '{path}' was changed or is damaged; run it again")
        if not records:
            raise UserError(
                f"export: no finished run in '{store.folder}'; choose its results folder with --out and --arch, or "
                "run first"
            )
        raise unknown(f"run in '{store.folder}'", key, records, f"the names of the files in '{store.folder / 'runs'}'")
    record = records[key]
    if record["run"].get("port"):
        raise UserError(
            f"export: {about(record)} was ported by its run, which keeps no file of it; export the plug-in that was "
            "trained on the base, and carry it over by the command port"
        )
    if record["run"].get("test"):
        raise UserError(
            f"export: {about(record)} evaluated the plug-in of run {record.get('trained')}; export that one"
        )
    if record.get("status") != "done":
        raise UserError(f"export: {about(record)} is not done ({record.get('error') or record.get('status')})")
    return record


def write(store: RunStore, arch: Arch, records: Sequence[dict], to: str) -> list[Path]:
    """Each plug-in and its card (the same name with .json). ``to`` is a folder, or for one plug-in a file
    ``*.safetensors``. Raises UserError, before anything is written, for files that are not as their runs left them,
    and where a card would replace another's file."""
    target = Path(to)
    single = target.suffix == ENDING and not target.is_dir()
    if single and len(records) > 1:
        raise UserError(f"export: {len(records)} plug-ins and one file, --to {to}; give a folder")
    paths = [target if single else target / f"{name_of(record)}{ENDING}" for record in records]
    for record, path in zip(records, paths, strict=True):
        sound(store, record)
        check_free(path.with_suffix(".json"))
    written = []
    for record, path in zip(records, paths, strict=True):
        copy(store, arch, record, path)
        write_text(
            path.with_suffix(".json"),
            json.dumps(card(store, record, path), indent=1, sort_keys=True, allow_nan=False) + "\n",
            "--to",
        )
        written.append(path)
    return written


def check_free(path: Path) -> None:
    """Raises UserError where another file than a card of an earlier export has the name that a card needs."""
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or found.get("format") != CARD:
        raise UserError(
            f"export: '{path}' is there and is no card of a plug-in, which would be written in its place; move it "
            "away, or choose another name with --to"
        )


def sound(store: RunStore, record: dict) -> None:
    """Raises UserError where the plug-in is not there, or not the one that the run left and evaluated."""
    path = store.path("plugins", record["key"])
    if not path.is_file():
        raise UserError(f"export: {about(record)} has no plug-in at '{path}'; run it again")
    noted, found = (record.get("files") or {}).get("plugin"), sha256_of(path)
    if found != noted:
        raise UserError(
            f"export: '{path}' was changed: it has sha256 {found}, its run left {noted}; run it again with --fresh"
        )
    store.read_plugin(record["key"])


def name_of(record: dict) -> str:
    run = record["run"]
    return re.sub(r"[^\w.-]", "_", f"{run['dataset']}-{run['method']}-seed{run['seed']}-{record['key']}")


def copy(store: RunStore, arch: Arch, record: dict, path: Path) -> None:
    """Byte for byte; of an older format the tensors with the header completed from the record."""
    source = store.path("plugins", record["key"])
    tensors, metadata = read_tensors(source)
    header = parse_json(metadata["plugin"])
    if header.get("format") == PLUGIN_FORMAT:
        content = source.read_bytes()
        with whole(path, "--to") as unfinished:
            unfinished.write_bytes(content)
        return
    complete = {
        "format": PLUGIN_FORMAT,
        "version": PLUGIN_VERSION,
        "key": record["key"],
        **completed(header, record, arch),
    }
    write_tensors(path, tensors, {"plugin": canonical(complete)}, "--to")


def completed(header: dict[str, Any], record: dict, arch: Arch) -> dict[str, Any]:
    """What the header of an older plug-in lacks is in its run's record; the activation of a backbone that it was
    trained on where ``arch`` still has that backbone."""
    run, identity, shape = record["run"], record.get("identity") or {}, header["shape"]
    labels = {target["fingerprint"]: target["backbone"] for target in record["targets"].values()}
    activations = {tower.label: tower.activation for tower in arch.towers.values()}
    trained_on = [
        described(labels[own], own, shape["width"], shape["dim"], activations.get(labels[own]) or None)
        for own in header.get("path") or [header["base"]]
    ]
    return {
        "method": header["method"],
        "source": identity.get("method"),
        "config": header["config"],
        "shape": shape,
        "trained_on": trained_on,
        "dataset": run["dataset"],
        "shots": run.get("shots"),
        "seed": run["seed"],
        "made_by": made_by(identity.get("numbers", 1)),
    }


def card(store: RunStore, record: dict, path: Path) -> dict[str, Any]:
    """What the plug-in is and what was measured of it, for people and programs."""
    run, shown = record["run"], record["names"]
    names = ("backbone", "fingerprint", "correct", "count", "accuracy")
    return {
        "format": CARD,
        "version": 1,
        "file": path.name,
        "sha256": sha256_of(path),
        "key": record["key"],
        "what": f"{shown['method']} on {shown['dataset']}, {run.get('shots')} shots, seed {run['seed']}",
        "run": run,
        "measured": {
            role: {name: target.get(name) for name in names} for role, target in (record.get("targets") or {}).items()
        },
        "marks": record.get("marks") or [],
        **{name: record.get(name) for name in ("git_commit", "versions", "device", "started")},
        "record": f"{store.folder.name}/runs/{record['key']}.json",
    }
