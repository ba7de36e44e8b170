"""Provenance: which cells were made elsewhere, which records are behind a cell, and results folders joined into one."""

import csv
import functools
import json
import shutil

import pytest
import torch
from tiny_caltech import write_caltech

from carryover.bench.backbones import loading
from carryover.bench.cli import main
from carryover.bench.host.identity import sealed, sha256_of, unsealed
from carryover.bench.host.tensor_files import read_tensors, write_tensors
from carryover.bench.records import environments
from carryover.bench.records.store import Store

LOADED = functools.cache(loading.load)
PLAN = ("--datasets", "caltech101", "--shots", 2, "--limit", 3, "--device", "cpu", "--jobs", 1)
pytestmark = pytest.mark.usefixtures("tables_alone")


def call(capsys, *argv):
    capsys.readouterr()
    status = main.main([str(part) for part in argv])
    said = capsys.readouterr()
    return status, " ".join(said.out.split()), said.err


@pytest.fixture(scope="module")
def machines(tmp_path_factory):
    """Results folders of two machines that did a seed each of one plan, and of one that did both."""
    folder = tmp_path_factory.mktemp("machines")
    write_caltech(folder / "data")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loading, "load", LOADED)
        for name, seeds in (("one", [1]), ("two", [2]), ("both", [1, 2])):
            argv = [*PLAN, "--methods", "zs-clip", "linear-probe", "--seeds", *seeds]
            argv += ["--data-root", folder / "data", "--out", folder / name, "--cache", folder / "cache"]
            assert main.main(list(map(str, argv))) == 0
    return folder


@pytest.fixture
def mine(machines, tmp_path):
    shutil.copytree(machines, tmp_path / "m")
    return tmp_path / "m"


SETTINGS = ("--shots", 2, "--limit", 3)


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_two_machines_halves_merge_into_the_tables_of_one_that_did_all(mine, capsys):
    status, said, _ = call(capsys, "merge", mine / "two", "--out", mine / "one", *SETTINGS)
    assert status == 0 and "2 of runs" in said and "2 of plugins" in said and "2 of predictions" in said
    for name in ("main.csv", "main.md", "main.tex"):
        assert (mine / "one/micro/tables" / name).read_bytes() == (mine / "both/micro/tables" / name).read_bytes()
    kinds = ("runs", "plugins", "predictions", "splits")
    for kind in kinds:
        names = [{path.name for path in (mine / each / "micro" / kind).iterdir()} for each in ("one", "both")]
        assert names[0] == names[1]
    assert call(capsys, "check", "--out", mine / "one", *SETTINGS)[0] == 0
    before = tree(mine / "one")
    assert "none, all were there" in call(capsys, "merge", mine / "two", "--out", mine / "one", *SETTINGS)[1]
    assert tree(mine / "one") == before


def test_the_same_run_done_on_two_machines_is_no_conflict(mine, capsys):
    status, said, _ = call(capsys, "merge", mine / "both" / "micro", "--out", mine / "one", *SETTINGS)
    assert status == 0 and "2 of runs" in said


def test_many_folders_merge_into_a_new_one(mine, capsys):
    status, said, _ = call(capsys, "merge", mine / "one", mine / "two", "--out", mine / "new", *SETTINGS)
    assert status == 0 and "4 of runs" in said
    assert (mine / "new/micro/tables/main.csv").read_bytes() == (mine / "both/micro/tables/main.csv").read_bytes()


def rewrite(path, **changes):
    """A record with changes, as a run of it might have written it."""
    path.write_text(json.dumps(sealed({**unsealed(json.loads(path.read_text())), **changes})))


def changed_accuracy(folder, key):
    path = folder / "runs" / f"{key}.json"
    targets = json.loads(path.read_text())["targets"]
    targets["new"]["accuracy"] += 1
    rewrite(path, targets=targets)


def changed_by_hand(folder, key):
    path = folder / "runs" / f"{key}.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "started": "2020-01-01T00:00:00Z"}))


def changed_identity(folder, key):
    path = folder / "runs" / f"{key}.json"
    rewrite(path, run={**json.loads(path.read_text())["run"], "seed": 7})


def note(folder, key):
    """The record with the sha256 of its files as they are now: another machine's run with other numbers."""
    store = Store(folder.parent, folder.name)
    files = {"plugin": sha256_of(store.path("plugins", key)), "predictions": sha256_of(store.path("predictions", key))}
    rewrite(store.path("runs", key), files=files)


def changed_plugin(folder, key):
    store = Store(folder.parent, folder.name)
    tensors, header = read_tensors(store.path("plugins", key))
    write_tensors(store.path("plugins", key), {n: t + 1 for n, t in tensors.items()} or {"x": torch.ones(1)}, header)
    note(folder, key)


def changed_prediction(folder, key):
    store = Store(folder.parent, folder.name)
    tensors, header = read_tensors(store.path("predictions", key))
    tensors["new.predicted"][0] += 1
    write_tensors(store.path("predictions", key), tensors, header)
    note(folder, key)


def cut_prediction(folder, key):
    path = folder / "predictions" / f"{key}.safetensors"
    path.write_bytes(path.read_bytes()[:-3])


def gone_plugin(folder, key):
    (folder / "plugins" / f"{key}.safetensors").unlink()


def damaged_record(folder, key):
    (folder / "runs" / f"{key}.json").write_text("{")


def changed_split(folder, key):
    path = next((folder / "splits").iterdir())
    path.write_text(path.read_text() + "\n")


@pytest.mark.parametrize(
    "change",
    [
        changed_accuracy,
        changed_by_hand,
        changed_identity,
        changed_plugin,
        changed_prediction,
        cut_prediction,
        gone_plugin,
    ]
    + [damaged_record, changed_split],
)
def test_a_conflict_is_refused_by_name_and_nothing_is_changed(mine, capsys, change):
    shutil.copytree(mine / "both", mine / "theirs")
    key = sorted((mine / "one" / "micro" / "runs").iterdir())[0].stem
    change(mine / "theirs" / "micro", key)
    before = tree(mine / "one")
    status, _, err = call(capsys, "merge", mine / "two", mine / "theirs", "--out", mine / "one", *SETTINGS)
    assert status == 2 and "nothing was merged" in err and str(mine / "theirs") in err, err
    assert (key in err or change is changed_split) and len(err.strip().splitlines()) == 1
    assert tree(mine / "one") == before


def test_a_done_run_replaces_a_failed_one_and_never_the_other_way(mine, capsys):
    for folder in ("one", "both"):
        shutil.copytree(mine / folder, mine / f"{folder}2")
    key = sorted((mine / "one2" / "micro" / "runs").iterdir())[0].stem
    path = mine / "one2" / "micro" / "runs" / f"{key}.json"
    rewrite(path, status="failed", error="no", targets={}, files={})
    (mine / "one2" / "micro" / "predictions" / f"{key}.safetensors").unlink()
    assert call(capsys, "merge", mine / "one2", "--out", mine / "both2", *SETTINGS)[0] == 0
    assert json.loads((mine / "both2" / "micro" / "runs" / f"{key}.json").read_text())["status"] == "done"
    assert call(capsys, "merge", mine / "both", "--out", mine / "one2", *SETTINGS)[0] == 0
    assert json.loads(path.read_text())["status"] == "done"
    assert call(capsys, "check", "--out", mine / "one2", *SETTINGS)[0] == 0


@pytest.mark.parametrize("words", [[], ["nowhere"], ["one"]], ids=["no folder", "not there", "itself"])
def test_merge_of_nothing_or_itself_is_refused(mine, capsys, words):
    status, _, err = call(capsys, "merge", *[mine / w for w in words], "--out", mine / "one", *SETTINGS)
    assert status == 2 and "merge" in err and len(err.strip().splitlines()) == 1


# ---- where a cell comes from -----------------------------------------------------------------------------------------


def test_the_records_table_names_record_and_plugin_of_every_cell(mine):
    rows = list(csv.DictReader((mine / "both/micro/tables/records.csv").open()))
    stored = {p.stem: json.loads(p.read_text()) for p in (mine / "both/micro/runs").iterdir()}
    assert {row["record"] for row in rows} == set(stored) and len(rows) == 4
    for row in rows:
        record = stored[row["record"]]
        assert (row["table"], row["dataset"], row["row"]) == ("main", "caltech101", record["run"]["method"])
        assert int(row["seed"]) == record["run"]["seed"] and row["status"] == "done"
        assert (mine / "both/micro/plugins" / f"{row['plugin']}.safetensors").is_file()
    assert "tables/records.csv" in (mine / "both/micro/report.md").read_text()


def edited(folder, method, seed, **changes):
    for path in (folder / "micro" / "runs").iterdir():
        record = json.loads(path.read_text())
        if (record["run"]["method"], record["run"]["seed"]) == (method, seed):
            rewrite(path, **changes)


MIXED = {
    "versions": ({"versions": {"torch": "1.0.0"}}, "torch 1.0.0"),
    "device": ({"device": "cuda (Some GPU)"}, "device cuda (Some GPU)"),
    "commit": ({"git_commit": "f" * 40}, "commit ffffffffffff (most"),
    "changes": ({"git_commit": "f" * 40 + "+changes"}, "commit ffffffffffff with changes"),
}


@pytest.mark.parametrize("changes, expected", MIXED.values(), ids=MIXED)
def test_a_cell_made_in_another_environment_or_by_other_code_is_marked_and_named(mine, capsys, changes, expected):
    out = mine / "both"
    plain = (out / "micro/tables/main.md").read_text()
    assert environments.MARK not in plain
    edited(out, "linear-probe", 2, **changes)
    assert call(capsys, "report", "--out", out, *SETTINGS)[0] == 0
    text = (out / "micro/tables/main.md").read_text()
    assert environments.MARK in text and expected in text.replace("\\", "")
    (row,) = {line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| Linear")}
    assert "<sup>" in row and all("<sup>" not in line for line in text.splitlines() if line.startswith("| ZS"))
    assert (out / "micro/tables/main.csv").read_bytes() == (mine / "one/../both/micro/tables/main.csv").read_bytes()
    assert call(capsys, "check", "--out", out, *SETTINGS)[0] == 0


def test_another_number_of_threads_marks_nothing(mine, capsys):
    before = (mine / "both/micro/tables/main.md").read_bytes()
    edited(mine / "both", "linear-probe", 2, device="cpu (64 threads)")
    assert call(capsys, "report", "--out", mine / "both", *SETTINGS)[0] == 0
    assert (mine / "both/micro/tables/main.md").read_bytes() == before


def test_an_ablations_note_names_the_rows_made_elsewhere():
    from carryover.bench.analyses.parts.rows import marks_of
    from carryover.bench.plan.suites import Variant
    from carryover.bench.records.selection import Row, of_one_table

    def row(label, torch_version):
        record = {
            "key": label,
            "run": {},
            "versions": {"torch": torch_version},
            "device": "cpu",
            "git_commit": "a" * 40,
        }
        return Row("ucf101", Variant((label,), "coop"), (record,))

    assert marks_of(of_one_table([row("4", "2.6"), row("8", "2.6"), row("16", "2.6")])) == []
    (said,) = marks_of(of_one_table([row("4", "2.6"), row("8", "2.7"), row("16", "2.6")]))
    assert said.startswith("Some rows (ucf101, 8): ") and "torch 2.7 (most: 2.6)" in said


def test_each_record_carries_where_it_comes_from(mine):
    for path in (mine / "both/micro/runs").iterdir():
        record = json.loads(path.read_text())
        assert record["versions"]["torch"] and record["device"].startswith("cpu") and record["run"]["protocol"]
        assert record["git_dirty"] in (True, False, None) and record["git_commit"]
        assert record["git_dirty"] is None or record["git_commit"].endswith("+changes") == record["git_dirty"]
        assert all(len(target["fingerprint"]) == 64 for target in record["targets"].values())
        assert len(record["split"]["train_sha256"]) == 64 and record["text_budget_bytes"] == 4 << 30
