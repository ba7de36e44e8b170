"""What was swapped or changed by hand is refused by name, both identities printed, and done again."""

import hashlib
import json
import shutil

import pytest
import torch
from toys import open_toy, toy_run

from carryover.bench.engine.schedule import run_all
from carryover.bench.errors import UserError
from carryover.bench.host.identity import sealed
from carryover.bench.host.tensor_files import read_tensors, write_tensors
from carryover.bench.records import selection
from carryover.bench.records.store import Store
from carryover.methods import Registered
from carryover.methods.base import METHODS

TRAINED, SHIFTED, OTHER = toy_run("coop"), toy_run("coop", test="shifted"), toy_run("linear-probe")


@pytest.fixture
def done(monkeypatch, tiny, tmp_path):
    """A session with three finished runs, one of them on a shifted set."""
    session = open_toy(monkeypatch, tiny, tmp_path)
    assert run_all(session, [TRAINED, SHIFTED, OTHER], 1).done == 3
    return session


def again(session, *runs):
    """The runs that a further call does, of all three where none is named, in the order of the plan."""
    found, asked = [], list(runs or (TRAINED, SHIFTED, OTHER))
    tally = run_all(session, asked, 1, on_done=lambda run, record: found.append(run))
    assert not tally.failures and tally.done == len(found) and tally.already == tally.planned - len(found)
    return sorted(found, key=asked.index)


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def nudge(path, name):
    """One number of one tensor changed, the header kept. Returns the file as it was."""
    honest = path.read_bytes()
    tensors, header = read_tensors(path)
    tensors[name].view(-1)[0] += 1
    write_tensors(path, tensors, header)
    assert path.read_bytes() != honest
    return honest


def test_untouched_files_are_done_before_and_each_record_holds_their_sha256(done, caplog):
    assert again(done) == [] and not caplog.text
    store = done.store
    for record in store.records():
        trained = store.path("plugins", record["trained"])
        assert record["files"] == {
            "plugin": sha256(trained),
            "predictions": sha256(store.path("predictions", record["key"])),
        }
    assert len(store.records()) == 3 and store.refused() == []
    assert [line for record in store.records() for line in store.changed_files(record)] == []


def test_a_plugin_with_a_changed_tensor_under_its_own_header_is_found_and_its_shifted_set_with_it(done, caplog):
    path = done.store.path("plugins", done.keys.of(TRAINED))
    honest = nudge(path, "context")
    assert done.store.read_plugin(done.keys.of(TRAINED)), "its header alone does not tell"
    lines = [line for record in done.store.records() for line in done.store.changed_files(record)]
    was, now = hashlib.sha256(honest).hexdigest(), sha256(path)
    assert len(lines) == 2 and all(str(path) in line and was in line and now in line for line in lines)
    assert {"left", "evaluated"} == {line.split()[-2] for line in lines}
    assert again(done) == [TRAINED, SHIFTED]
    assert path.read_bytes() == honest and was in caplog.text and now in caplog.text
    assert again(done) == []


def test_predictions_changed_under_their_own_header_are_found_and_made_again(done, caplog):
    path = done.store.path("predictions", done.keys.of(SHIFTED))
    honest = nudge(path, "new.predicted")
    (line,) = [line for record in done.store.records() for line in done.store.changed_files(record)]
    assert hashlib.sha256(honest).hexdigest() in line and sha256(path) in line and "toy → shifted, coop" in line
    assert again(done) == [SHIFTED]
    assert path.read_bytes() == honest and line in caplog.text


@pytest.mark.parametrize("kind", ["plugins", "predictions", "runs"])
def test_a_file_copied_over_anothers_name_is_refused_and_both_keys_are_printed(done, kind):
    one, two = done.keys.of(TRAINED), done.keys.of(OTHER)
    shutil.copy(done.store.path(kind, two), done.store.path(kind, one))
    if kind != "runs":
        with pytest.raises(UserError) as caught:
            getattr(done.store, {"plugins": "read_plugin"}.get(kind, "read_predictions"))(one)
        assert one in str(caught.value) and two in str(caught.value)
    else:
        (line,) = done.store.refused()
        assert one in line and two in line
        assert [record["key"] for record in done.store.records()] == sorted(map(done.keys.of, (SHIFTED, OTHER)))
    assert again(done) == [TRAINED, SHIFTED]
    assert [record["key"] for record in done.store.records()] == sorted(map(done.keys.of, (TRAINED, SHIFTED, OTHER)))


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record["targets"]["new"].update(accuracy=99.0),
        lambda record: record["marks"].append("nothing to see"),
        lambda record: record["run"].update(seed=2),
        lambda record: record["files"].update(plugin="0" * 64),
        lambda record: record.pop("curve"),
    ],
)
def test_a_record_changed_by_hand_is_left_out_by_name_and_its_run_done_again(done, caplog, change):
    key = done.keys.of(OTHER)
    path = done.store.path("runs", key)
    stored = json.loads(path.read_text())
    change(stored)
    path.write_text(json.dumps(stored))
    content = {name: value for name, value in stored.items() if name != "sha256"}
    (line,) = done.store.refused()
    assert key in line and stored["sha256"] in line and sealed(content)["sha256"] in line and "linear-probe" in line
    assert key not in [record["key"] for record in done.store.records()]
    assert again(done) == [OTHER] and line in caplog.text
    assert done.store.refused() == []


def test_records_without_a_seal_are_left_out_in_one_line(done):
    for key in map(done.keys.of, (TRAINED, OTHER)):
        path = done.store.path("runs", key)
        stored = json.loads(path.read_text())
        del stored["sha256"]
        path.write_text(json.dumps(stored))
    (line,) = done.store.refused()
    assert line.startswith("2 stored records") and len(done.store.records()) == 1
    assert again(done) == [TRAINED, SHIFTED, OTHER]


# ---- plug-ins trained again ------------------------------------------------------------------------------------------


def test_a_plugin_trained_again_with_other_bytes_makes_its_shifted_sets_old(done, monkeypatch):
    """As another machine's rounding, or a change of the program that forgot the version, would."""
    before = {record["key"]: record for record in done.store.records()}
    init = METHODS["coop"].__init__

    def unlike(self, *given):
        init(self, *given)
        with torch.no_grad():
            self.context += 0.1

    monkeypatch.setattr(METHODS["coop"], "__init__", unlike)
    assert run_all(done, [TRAINED], 1, fresh=True).done == 1
    plugin = done.store.path("plugins", done.keys.of(TRAINED))
    assert sha256(plugin) != before[done.keys.of(TRAINED)]["files"]["plugin"]
    kept = {record["key"] for record in selection.of_one_identity(done.store.records(), Registered())}
    assert kept == {done.keys.of(TRAINED), done.keys.of(OTHER)}, (
        "no table shows the new plug-in beside the old one's numbers"
    )
    assert again(done) == [SHIFTED]
    assert done.store.read_record(done.keys.of(SHIFTED))["files"]["plugin"] == sha256(plugin)
    assert len(selection.of_one_identity(done.store.records(), Registered())) == 3


def test_a_training_that_fails_leaves_no_earlier_plugin_to_be_evaluated(done, monkeypatch):
    def fail(self, x, y):
        raise RuntimeError("on purpose")

    monkeypatch.setattr(METHODS["coop"], "loss", fail)
    tally = run_all(done, [TRAINED, SHIFTED, OTHER], 1, fresh=True)
    assert [run for run, _ in tally.failures] == [TRAINED, SHIFTED] and tally.done == 1
    assert "on purpose" in tally.failures[0][1] and "left no plug-in" in tally.failures[1][1]
    assert not done.store.path("plugins", done.keys.of(TRAINED)).exists()
    monkeypatch.undo()


def test_a_store_elsewhere_reads_the_same_files(done, tmp_path):
    """Seals hold no path: a results folder may be moved or copied."""
    shutil.copytree(done.options.out, tmp_path / "copy", ignore=shutil.ignore_patterns("cache"))
    moved = Store(tmp_path / "copy", "tiny")
    assert moved.records() == done.store.records() and moved.refused() == []
    assert all(moved.read_record(record["key"]) for record in moved.records())
