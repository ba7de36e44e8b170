"""A results folder that others work on too: what they took over stays theirs, what was taken away is missed, and what
was replaced after the plan was made does not stand under the plan's keys."""

import json
import os
import shutil
import threading
import time
from pathlib import Path

import pytest
from toys import execute, open_toy, toy_run

from carryover.bench.engine import units
from carryover.bench.engine.run_store import RunStore
from carryover.bench.engine.schedule import run_all
from carryover.bench.errors import StorageError
from carryover.bench.host import claims

ONE, TWO = toy_run("coop"), toy_run("linear-probe")


def content(folder):
    kinds = ("runs", "plugins", "predictions")
    return {p.name + kind: p.read_bytes() for kind in kinds for p in sorted((folder / kind).iterdir())}


@pytest.mark.parametrize("moment", ["write_plugin", "write_predictions", "write_record"])
@pytest.mark.parametrize("finished", [True, False], ids=["finished meanwhile", "still at it"])
def test_one_that_was_stopped_until_another_took_its_run_over_leaves_the_others_files(
    monkeypatch, tiny, tmp_path, moment, finished
):
    other = open_toy(monkeypatch, tiny, tmp_path / "other")
    assert run_all(other, [ONE], 1).done == 1
    theirs, session = other.store.folder, open_toy(monkeypatch, tiny, tmp_path / "shared")
    ours, key, took_over = session.store.folder, session.keys.of(ONE), []
    assert key == other.keys.of(ONE)
    monkeypatch.setattr(units, "POLL", 0.02)

    def finish():
        shutil.copytree(theirs, ours, dirs_exist_ok=True)
        (ours / "claims" / key).unlink()

    def sleep(*given):
        """As long as the other takes; it is on another machine."""
        if not took_over:
            took_over.append(time.time())
            (ours / "claims" / key).unlink()
            (ours / "claims" / key).write_text(json.dumps({"place": "elsewhere", "pid": 1}))
            finish() if finished else threading.Timer(1.0, finish).start()
        return ask(*given)

    # just before it asks whose the run is
    ask, before = RunStore.still_ours, RunStore.writable
    if moment == "write_record":
        monkeypatch.setattr(RunStore, "still_ours", sleep)
        monkeypatch.setattr(RunStore, "writable", lambda self, kind, key: self.path(kind, key))
    else:
        kind = {"write_plugin": "plugins", "write_predictions": "predictions"}[moment]

        def writable(self, which, key):
            return (sleep(self, key), before(self, which, key))[1] if which == kind else before(self, which, key)

        monkeypatch.setattr(RunStore, "writable", writable)
    tally = run_all(session, [ONE], 1)
    assert took_over and (tally.done, tally.elsewhere, tally.failures) == (0, 1, [])
    assert content(ours) == content(theirs) and not (ours / "claims").exists()


def test_a_claim_that_somebody_deleted_costs_nothing(monkeypatch, tiny, tmp_path):
    session = open_toy(monkeypatch, tiny, tmp_path)
    write = RunStore.write_plugin

    def without(self, *given):
        shutil.rmtree(self.folder / "claims")
        return write(self, *given)

    monkeypatch.setattr(RunStore, "write_plugin", without)
    assert run_all(session, [ONE], 1).done == 1


def test_a_worker_knows_the_claim_of_its_parent(tmp_path):
    with claims.Claims(tmp_path / "claims") as mine:
        mine.take("a")
        assert claims.is_ours(tmp_path / "claims" / "a")
        pid = os.fork()
        if not pid:
            os._exit(0 if claims.is_ours(tmp_path / "claims" / "a") else 1)
        assert os.waitpid(pid, 0)[1] == 0
    assert not claims.is_ours(tmp_path / "claims" / "a")


@pytest.mark.parametrize("stored", [False, True], ids=["while it works", "what was done before"])
def test_a_results_folder_that_is_deleted_meanwhile_ends_the_call_in_one_line_and_the_next_does_it_all(
    monkeypatch, tiny, tmp_path, stored
):
    session = open_toy(monkeypatch, tiny, tmp_path / "out")
    if stored:
        run_all(session, [ONE], 1)

    def delete(*told):
        shutil.rmtree(tmp_path / "out")

    when = {"on_start": delete} if stored else {"on_done": delete}
    with pytest.raises(StorageError, match="was deleted or moved while this command worked: 1 of") as caught:
        run_all(session, [ONE, TWO], 1, **when)
    assert "\n" not in str(caught.value)
    session = open_toy(monkeypatch, tiny, tmp_path / "out")
    assert run_all(session, [ONE, TWO], 1).done + len(session.store.records()) >= 2
    assert {record["status"] for record in session.store.records()} == {"done"}


def test_what_a_worker_sees_replaced_since_the_plan_was_made_fails_before_anything_is_written(
    monkeypatch, tiny, tmp_path
):
    session = open_toy(monkeypatch, tiny, tmp_path)
    key = session.keys.of(ONE)
    worker = open_toy(monkeypatch, tiny, tmp_path)
    monkeypatch.setattr(tiny.base, "fingerprint", "0" * 64)  # as the worker loads them
    record = execute(worker, ONE, key)
    assert record["status"] == "failed" and "replaced after the command began" in record["error"]
    assert not list(Path(session.store.folder).glob("*/*.safetensors"))
