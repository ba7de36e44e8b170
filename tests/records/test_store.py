"""The store: whole files, records that fit their key, tensors as they were written."""

import hashlib
import json
import math
import os
import shutil

import pytest
import torch

from carryover.bench.engine.run_store import RunStore
from carryover.bench.errors import UserError
from carryover.bench.host.files import whole, write_text
from carryover.bench.host.identity import canonical, sha256_of
from carryover.bench.host.tensor_files import read_tensors, write_tensors
from carryover.bench.records import drift_files


def test_an_exception_while_writing_keeps_the_old_file_and_leaves_no_other(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    write_text(path, "old")
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error), whole(path) as temporary:
            temporary.write_text("half")
            raise error
    with pytest.raises(UserError), whole(path):
        raise OSError("disk full")
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_a_file_appears_under_its_name_only_when_it_is_whole(tmp_path):
    path = tmp_path / "file.txt"
    with whole(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new" and path.stat().st_mode & 0o777 == 0o644


def test_a_folder_that_cannot_be_made_is_one_line_naming_it(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write.*--out") as caught:
        write_text(tmp_path / "file" / "below" / "x.txt", "x")
    assert "\n" not in str(caught.value)


def test_a_folder_deleted_while_a_file_is_written_is_named(tmp_path):
    path = tmp_path / "runs" / "x.json"
    with pytest.raises(UserError, match="runs' was deleted or moved while this command worked"), whole(path) as begun:
        begun.write_text("{}")
        shutil.rmtree(path.parent)


FILES = {"plugin": "plugins", "predictions": "predictions"}


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def record(key="k" * 16, **changes):
    return {"key": key, "status": "done", "run": {"dataset": "dtd", "method": "coop", "seed": 1}, **changes}


def test_a_record_is_read_only_when_whole_done_and_under_its_own_key(tmp_path):
    store = RunStore(tmp_path, "toy")
    assert store.read_record("k" * 16) is None
    store.write_record(record())
    assert store.read_record("k" * 16) is None, "its plug-in and predictions are not there"
    store.write_plugin("k" * 16, {"a": torch.zeros(1)}, {})
    store.write_predictions("k" * 16, {"base.predicted": torch.zeros(1)})
    assert store.read_record("k" * 16) is None, "it does not say which plug-in and predictions are its own"
    kept = record(files={kind: sha256(store.path(folder, "k" * 16)) for kind, folder in FILES.items()})
    store.write_record(kept)
    assert store.read_record("k" * 16) == kept
    path = store.path("runs", "k" * 16)
    for text in (
        "",
        "{",
        '{"key"',
        "[]",
        "null",
        "3",
        '"done"',
        json.dumps(record("other")),
        json.dumps(record(status="failed")),
        json.dumps({"status": "done"}),
    ):
        path.write_text(text)
        assert store.read_record("k" * 16) is None, text


@pytest.mark.parametrize("status", ["failed", "planned", None])
def test_a_run_that_is_not_done_is_done_again_though_all_its_files_are_whole(tmp_path, status):
    store, key = RunStore(tmp_path, "toy"), "k" * 16
    store.write_plugin(key, {"a": torch.zeros(1)}, {})
    store.write_predictions(key, {"base.predicted": torch.zeros(1)})
    files = {name: sha256_of(path) for name, path in store.files_of(record()).items()}
    store.write_record(record(files=files))
    assert store.read_record(key) is not None
    store.write_record(record(files=files, status=status))
    assert store.read_record(key) is None and store.refused() == []


def test_records_that_are_not_json_objects_are_passed_over(tmp_path):
    store = RunStore(tmp_path, "toy")
    store.write_record(record("b"))
    store.write_record(record("a"))
    for name, text in (("c", "{"), ("d", "[]"), ("e", "null")):
        (tmp_path / "toy" / "runs" / f"{name}.json").write_text(text)
    assert [found["key"] for found in store.records()] == ["a", "b"]


NO_FILES = {
    "pipe": os.mkfifo,
    "folder": os.mkdir,
    "device": lambda path: os.symlink("/dev/zero", path),
    "loop": lambda path: os.symlink(path, path),
    "nowhere": lambda path: os.symlink(path.with_suffix(".gone"), path),
}


@pytest.mark.parametrize("make", NO_FILES.values(), ids=NO_FILES)
def test_what_is_no_file_among_the_records_is_named_and_never_waited_for(tmp_path, make):
    store = RunStore(tmp_path, "toy")
    store.write_record(record("b"))
    make(tmp_path / "toy" / "runs" / "a.json")
    assert [found["key"] for found in store.records()] == ["b"]
    (line,) = [line for line in store.refused() if "a.json" in line]
    assert "is left out: cannot be read" in line and "\n" not in line
    assert store.damaged() == ["a.json"] and store.read_record("a") is None and store.outcome("a") is None
    for kind in ("plugins", "predictions", "drift", "splits"):
        (tmp_path / "toy" / kind).mkdir()
    for path in (store.path("plugins", "a"), store.path("predictions", "a")):
        make(path)
        assert sha256_of(path) == ""
    for read in (store.read_plugin, store.read_outcomes):
        with pytest.raises(UserError, match="no file|is damaged"):
            read("a")
    make(tmp_path / "toy" / "drift" / "current.json")
    assert drift_files.load_all(store.folder) == []
    make(tmp_path / "toy" / "call.json")
    assert store.read_note("call.json", bool) is None


def test_a_pipe_gives_way_to_what_is_written_in_its_place(tmp_path):
    store = RunStore(tmp_path, "toy")
    for path in (store.path("runs", "a"), store.path("plugins", "a"), tmp_path / "toy" / "splits" / "s.jsonl"):
        path.parent.mkdir(parents=True)
        os.mkfifo(path)
    store.write_record(record("a"))
    store.write_plugin("a", {"x": torch.zeros(1)}, {})
    store.write_manifest("s", "{}\n")
    assert store.outcome("a") and store.read_plugin("a") and (tmp_path / "toy" / "splits" / "s.jsonl").is_file()


def test_a_record_with_nan_is_never_written(tmp_path):
    store = RunStore(tmp_path, "toy")
    with pytest.raises(ValueError):
        store.write_record(record(loss=math.nan))
    assert not list((tmp_path / "toy").rglob("*.json"))


def test_plugin_comes_back_bit_for_bit_with_its_metadata(tmp_path):
    store = RunStore(tmp_path, "toy")
    tensors = {"a": torch.randn(3, 4), "labels": torch.arange(5), "alpha": torch.tensor(1.17)}
    size = store.write_plugin("key", tensors, {"method": "x", "config": {"crop": (1, 2)}})
    assert size == store.path("plugins", "key").stat().st_size
    found, metadata = store.read_plugin("key")
    assert metadata == {"method": "x", "config": {"crop": [1, 2]}}
    assert found.keys() == tensors.keys() and all(
        torch.equal(found[n], t) and found[n].dtype == t.dtype for n, t in tensors.items()
    )
    assert store.write_plugin("empty", {}, {}) > 0 and store.read_plugin("empty") == ({}, {})


def test_a_plugin_under_another_key_or_of_another_format_is_refused(tmp_path):
    store = RunStore(tmp_path, "toy")
    store.write_plugin("key", {"a": torch.zeros(1)}, {})
    store.path("plugins", "key").rename(store.path("plugins", "moved"))
    with pytest.raises(UserError, match="moved"):
        store.read_plugin("moved")
    write_tensors(
        store.path("plugins", "old"), {"a": torch.zeros(1)}, {"plugin": canonical({"format": "0", "key": "old"})}
    )
    with pytest.raises(UserError, match="format 0"):
        store.read_plugin("old")


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-5], lambda b: b[:20], lambda b: b"", lambda b: b"x" * 100, lambda b: b"\xff" * 8 + b[8:]]
)
def test_damaged_tensors_are_refused_in_one_line(tmp_path, damage):
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"a": torch.randn(10)}, {"x": "y"})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match="damaged") as caught:
        read_tensors(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_missing_tensors_are_refused_by_name(tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        read_tensors(tmp_path / "nowhere.safetensors")


def test_predictions_come_back_by_target(tmp_path):
    store = RunStore(tmp_path, "toy")
    one, two = torch.tensor([1, 2], dtype=torch.int32), torch.tensor([2, 2], dtype=torch.int32)
    store.write_predictions(
        "key",
        {
            "base.predicted": one,
            "base.label": two.clone(),
            "base.confidence": torch.rand(2),
            "new.predicted": two.clone(),
            "new.label": two,
            "new.confidence": torch.rand(2),
        },
    )
    found = store.read_predictions("key")
    assert set(found) == {"base", "new"}
    assert found["base"][0].tolist() == [1, 2] and found["base"][1].tolist() == [2, 2] == found["new"][0].tolist()
