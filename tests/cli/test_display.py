"""What a run shows: on a terminal frames, in a notebook one line that renews, in a log a line a minute; the time left
once it is known."""

import io
import sys
from types import ModuleType, SimpleNamespace

import pytest
from toys import toy_run

from carryover.bench.cli import display, progress
from carryover.bench.preflight.time_left import BESIDE, Predicted
from carryover.bench.render.terminal import made

RUNS = [(toy_run("coop", seed), f"k{seed}") for seed in range(4)]


@pytest.fixture
def hour(monkeypatch):
    """``hour(shown)``: an hour of looks at what there is to show, one every half second, and no measurement."""
    now = [1000.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(display, "Asked", lambda *given, **more: SimpleNamespace(answer=lambda: None))

    def passes(shown):
        shown.view = progress.view_of(shown.console)
        for _ in range(7200):
            now[0] += 0.5
            shown._tick()
        shown.view.close()

    return passes


def running(console):
    shown = display.Display(console, 4)
    shown.works(None, 1)
    shown.on_start(RUNS, 0)
    return shown


def test_a_log_gets_a_line_a_minute(hour):
    file = io.StringIO()
    shown = running(made(file=file))
    hour(shown)
    lines = file.getvalue().splitlines()
    assert len(lines) == 60 and set(lines) == {"0/4 runs; loading backbones and data"}


def test_a_command_within_a_notebook_writes_as_to_a_log(hour, monkeypatch):
    """Its terminal's frames were all kept: 225 kB."""
    monkeypatch.setenv("JPY_PARENT_PID", "1")
    file = io.StringIO()
    shown = running(made(file=file, force_terminal=True))
    hour(shown)
    assert len(file.getvalue().splitlines()) == 60


def test_a_notebook_keeps_one_line_and_is_told_only_what_changes(hour, monkeypatch):
    updates = []
    handle = SimpleNamespace(update=lambda shown, raw: updates.append(shown["text/plain"]))
    fake = ModuleType("IPython.display")
    fake.display = lambda shown, raw, display_id: handle
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", fake)
    file = io.StringIO()
    shown = running(made(file=file, force_jupyter=True))
    hour(shown)
    assert updates == ["0/4 runs; loading backbones and data", ""] and file.getvalue() == ""


def test_the_line_names_what_is_at_work_and_the_time_left_by_stage():
    shown = running(made(file=io.StringIO()))
    assert shown.time_left() == "", "nothing is known yet"
    shown.left.predicted = Predicted({key: (60 * 10.0, 60 * 5.0) for _, key in RUNS}, {"base": (60, 2.0)})
    assert shown.time_left() == "about 62 min left (features 2 min, fit 40 min, evaluation 20 min)"
    shown.on_begin(["k0", "k1"])
    assert shown.what == "toy · coop · seed 0 and 1 run beside it"
    for run, key in RUNS:
        shown.on_done(run, {"key": key, "status": "done", "error": None})
    assert shown.time_left() == "" and shown.progress() == "after 4 of 4 runs"
    assert BESIDE < 0.1


def test_a_short_call_is_not_measured(monkeypatch):
    asked, now = [], [0.0]
    answer = Predicted({}, {})
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(
        display, "Asked", lambda *given, **more: asked.append(given) or SimpleNamespace(answer=lambda: answer)
    )
    shown = running(made(file=io.StringIO()))
    shown._settings = ("options", RUNS)
    shown.view = progress.view_of(shown.console)
    for now[0] in (1.0, 19.0):
        shown._tick()
    assert asked == []
    for now[0] in (21.0, 22.0):
        shown._tick()
    assert asked == [("options", RUNS)] and shown.left.predicted is answer
