"""Curves for TensorBoard and Weights & Biases hold the numbers of the records, and never cost a result."""

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest
from toys import toy_run

from carryover.bench.cli import curves, main
from carryover.bench.errors import UserError

RECORD = {
    "key": "0123456789abcdef",
    "status": "done",
    "run": toy_run("coop").canonical(),
    "curve": [{"epoch": 1, "loss": 2.5, "lr": 0.1}, {"epoch": 2, "loss": 1.25, "lr": 0.05, "note": "x"}],
    "targets": {"base": {"accuracy": 70.0}, "new": {"accuracy": 50.0}},
}
ROWS = {("loss", 2.5, 1), ("lr", 0.1, 1), ("loss", 1.25, 2), ("lr", 0.05, 2)}
LAST = {("accuracy/base", 70.0, 2), ("accuracy/new", 50.0, 2)}
FLAGS = ["--suite", "main", "--datasets", "micro_counting", "--methods", "coop", "--seeds", "1", "--shots", "1"]
FLAGS += ["--limit", "1", "--set", "*.steps=2", "--device", "cpu", "--jobs", "1"]


def asked(folder="", project=""):
    return SimpleNamespace(log_dir=str(folder), wandb=project, out=str(folder))


@pytest.fixture
def events(monkeypatch):
    """What is written through a stand-in of PyTorch's writer: folder -> scalars."""
    written = {}

    class SummaryWriter:
        def __init__(self, folder):
            self.rows = written.setdefault(folder, set())

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def add_scalar(self, *row):
            self.rows.add(row)

    stand_in = ModuleType("torch.utils.tensorboard")
    stand_in.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", stand_in)
    return written


def test_each_run_has_a_folder_with_its_curve_and_its_accuracies_at_the_last_epoch(tmp_path, events):
    curves.Curves(asked(tmp_path))(toy_run("coop"), RECORD)
    assert events == {str(tmp_path / "toy/coop/seed1-0123456789abcdef"): ROWS | LAST}


def test_event_files_that_tensorboard_itself_reads(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    curves.Curves(asked(tmp_path))(toy_run("coop"), RECORD)
    found = EventAccumulator(str(tmp_path / "toy/coop/seed1-0123456789abcdef"))
    found.Reload()
    rows = {(tag, round(row.value, 4), row.step) for tag in found.Tags()["scalars"] for row in found.Scalars(tag)}
    assert rows == ROWS | LAST


def test_weights_and_biases_keeps_a_run_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    curves.Curves(asked(tmp_path, "carry"))(toy_run("coop"), RECORD)
    assert len(list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))) == 1


@pytest.mark.parametrize(
    "given, flag, package, module",
    [(("x",), "--log-dir", "tensorboard", "torch.utils.tensorboard"), (("", "p"), "--wandb", "wandb", "wandb")],
)
def test_a_package_that_is_not_there_is_one_line_before_any_work(monkeypatch, given, flag, package, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"^{flag}: {package} is not installed; pip install") as caught:
        curves.Curves(asked(*given))
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, events):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--log-dir: cannot write"):
        curves.Curves(asked(tmp_path / "file"))


def test_a_curve_that_cannot_be_written_is_said_once_and_costs_nothing(tmp_path, events, capsys):
    write = curves.Curves(asked(tmp_path))
    write(toy_run("coop"), {**RECORD, "curve": None})
    write(toy_run("coop", 2), RECORD)
    assert capsys.readouterr().out.count("left out curves from toy · coop · seed 1 on: ") == 1 and events.keys() == {
        str(tmp_path / "toy/coop/seed1-0123456789abcdef")
    }


def test_names_of_folders_are_of_characters_that_every_file_system_takes():
    run = toy_run("coop", dataset="folder:my dog")
    assert curves.name_of(run, RECORD) == "folder_my_dog/coop/seed1-0123456789abcdef"


def test_a_call_writes_the_curves_of_its_own_records(tmp_path, events, capsys):
    out = tmp_path / "out"
    assert main.main([*FLAGS, "--out", str(out), "--log-dir", str(tmp_path / "logs")]) == 0
    records = [json.loads(path.read_text()) for path in (out / "micro" / "runs").glob("*.json")]
    for record in records:
        (rows,) = [rows for folder, rows in events.items() if folder.endswith(record["key"])]
        assert {(value, step) for tag, value, step in rows if tag == "loss"} == {
            (row["loss"], row["epoch"]) for row in record["curve"]
        }
    assert len(events) == len(records) >= 1
    capsys.readouterr()
