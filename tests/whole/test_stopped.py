"""Whole processes that are stopped, killed, starved of disk or robbed of their files: each ends in one line or none,
its workers with it; the same command goes on to a results folder in which ``check`` finds no difference."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from checkout import FROM_HERE, ROOT

from carryover.bench.host.paths import MICRO_WEIGHTS
from carryover.bench.host.stopping import GOES_ON
from carryover.bench.host.tensor_files import read_tensors, write_tensors

pytestmark = [pytest.mark.long, pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")]
PLAN = (
    "--suite",
    "main",
    "--datasets",
    "micro_stars",
    "micro_textures",
    "--seeds",
    "1",
    "--shots",
    "1",
    "--limit",
    "1",
)
PLAN += ("--views", "1", "--set", "*.steps=2", "--device", "cpu", "--methods", "zs-clip", "coop", "zz-waits")
RUNS = 3 * 2
RUN_ALL = (sys.executable, str(ROOT / "run_all.py"))
WAITS = """
import os, time
from pathlib import Path
from carryover.methods.base import Method, cosine_logits, register

@register("zz-waits")
class Waits(Method):
    name, paper, depth = "Waits", "nobody", "none"

    def bind(self, backbone, classes):
        self.scale, self.classifier = backbone.scale, backbone.zero_shot(classes)

    def logits(self, x):  # while there is no "go"
        here = Path(__file__).parent
        (here / "begun").touch()
        while not (here / "go").exists():
            time.sleep(0.05)
        return cosine_logits(self.scale, x, self.classifier)
"""


ELSEWHERE = """
from carryover.bench.host import claims
claims.place, claims.LIMIT, claims.CONFIRM = (lambda: {place!r}), {limit}, {limit}
from carryover.bench.cli.start import start
start()
"""


def of_session(number):
    """Processes that live in it: the command is the first of its own."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session, *_ = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(session) == number and state not in "ZX":
            found.append(int(path.parent.name))
    return found


def of_ray(number):
    """Those of that session in which runs are done; Ray's own agents need a minute to notice that it is gone."""
    found = []
    for pid in of_session(number):
        with contextlib.suppress(OSError):
            title = Path(f"/proc/{pid}/cmdline").read_text()
            found += [title] if title.startswith("ray::Worker") or "/raylet" in title.partition("\0")[0] else []
    return found


def until(condition, seconds=900):  # busy machines are slow
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


class Command:
    """One in a session of its own, with the signals that a shell leaves it."""

    def __init__(self, folder, *argv, program):
        self.log = folder / f"log{time.monotonic_ns()}"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [*program, *map(str, argv)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=FROM_HERE,
                start_new_session=True,
                preexec_fn=lambda: [signal.signal(n, signal.SIG_DFL) for n in (signal.SIGINT, signal.SIGHUP)],
            )

    @property
    def pid(self):
        return self.process.pid

    @property
    def text(self):
        return self.log.read_text(errors="replace")

    @property
    def over(self):
        return self.process.poll() is not None

    def end(self):
        """Exit status; no process is left soon after, and no traceback was shown."""
        status = self.process.wait(900)
        until(lambda: not of_session(self.pid), 30)
        assert "Traceback" not in self.text and "Exception ignored" not in self.text, self.text
        return status


@pytest.fixture
def place(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "waits.py").write_text(WAITS)
    started = []

    def run(*argv, out=tmp_path / "out", program=RUN_ALL):
        started.append(Command(tmp_path, *argv, "--plugin-dir", tmp_path / "mine", "--out", out, program=program))
        return started[-1]

    run.begun, run.go, run.out = (tmp_path / "mine" / "begun"), (tmp_path / "mine" / "go"), tmp_path / "out"
    yield run
    for command in started:
        for pid in of_session(command.pid):
            os.kill(pid, signal.SIGKILL)
        command.process.wait()


def counts(command):
    """(done, done before) as it tells them at its end; all went well."""
    assert command.end() == 0, command.text
    told = " ".join(command.text.split())
    return tuple(map(int, re.search(r"(\d+) runs? done, (\d+) were done before.* 0 failed", told).groups()))


def finishes(run, out, before=0, engine=()):
    """The same command to its end, then ``check``: nothing is lost, done twice or left behind."""
    run.go.touch()
    done, already = counts(run(*PLAN, "--jobs", 2, *engine, out=out))
    assert done + already == RUNS and already >= before
    flags = [word for word in PLAN if word != "--suite"]
    checked = run("check", *flags[flags.index("--shots") : flags.index("--device")], out=out)
    assert checked.end() == 0 and f"{RUNS} records checked against their predictions, 0 differences" in checked.text
    assert not [p for p in out.rglob("*") if p.name.startswith(".") or p.name == "claims"]


def often(send, command, times):
    """All within a second, however slow the machine: what comes later than ``PATIENCE`` is meant to hurry the end."""
    end = time.monotonic() + 1
    for number in range(times):
        if not command.over and (not number or time.monotonic() < end):
            send()
        time.sleep(0.05)


def to_main(command, number, times):
    often(lambda: command.process.send_signal(number), command, times)


def to_all(command, number, times):
    """As a terminal does."""
    often(lambda: os.killpg(command.pid, number), command, times)


@pytest.mark.parametrize(
    "number, send, times, jobs",
    [
        (signal.SIGTERM, to_main, 1, 2),
        (signal.SIGTERM, to_main, 6, 1),
        (signal.SIGHUP, to_all, 1, 2),
        (signal.SIGINT, to_all, 12, 2),
        (signal.SIGINT, to_all, 12, 1),
    ],
    ids=["SIGTERM", "SIGTERM again and again", "terminal closed", "Ctrl-C again and again", "the same in one process"],
)
def test_a_run_that_is_told_to_stop_ends_its_workers_says_how_to_go_on_and_leaves_nothing(
    place, number, send, times, jobs
):
    command = place(*PLAN, "--jobs", jobs)
    until(lambda: place.begun.exists() or command.over)
    send(command, number, times)
    assert command.end() == 128 + number
    assert command.text.count(GOES_ON) == 1 and re.search(rf"stopped after \d of {RUNS} runs", command.text)
    assert not [p for p in place.out.rglob("*") if p.name.startswith(".") or p.name == "claims"]
    finishes(place, place.out, before=len(list((place.out / "micro" / "runs").glob("*.json"))))


@pytest.mark.parametrize("seconds", [0.3, 1.0, 2.0, 3.0])
def test_ctrl_c_again_and_again_while_it_imports_shows_no_traceback(place, seconds):
    command = place(*PLAN, "--jobs", 2)
    time.sleep(seconds)
    to_all(command, signal.SIGINT, 12)
    assert command.end() in (130, -signal.SIGINT)  # the last: before a line of it was read


@pytest.mark.parametrize("sign", ["tables/main.csv", "report.html"])
def test_ctrl_c_in_the_report_and_after_it(place, sign):
    finishes(place, place.out)
    (place.out / "micro" / sign).unlink()
    command = place("report", "--shots", 1, "--limit", 1, "--views", 1, "--set", "*.steps=2")
    until(lambda: (place.out / "micro" / sign).exists() or command.over)
    to_all(command, signal.SIGINT, 12)
    assert command.end() in (130, 0)
    assert not list(place.out.rglob(".*.part"))
    finishes(place, place.out, before=RUNS)


def test_workers_of_a_killed_command_end_with_it_and_the_next_sweeps(place):
    command = place(*PLAN, "--jobs", 2)
    until(lambda: place.begun.exists() or command.over)
    assert len(of_session(command.pid)) >= 3
    command.process.kill()
    assert command.end() == -signal.SIGKILL
    finishes(place, place.out)


def test_workers_of_a_killed_driver_of_ray_on_this_machine_end_with_it(place):
    pytest.importorskip("ray", reason='Ray is not installed: pip install ".[ray]"')
    engine = ("--engine", "ray")
    command = place(*PLAN, "--jobs", 2, *engine)
    until(lambda: place.begun.exists() or command.over)
    assert len(of_ray(command.pid)) >= 2
    command.process.kill()
    until(lambda: not of_ray(command.pid), 60)
    assert "Traceback" not in command.text
    finishes(place, place.out, len(list((place.out / "micro" / "runs").glob("*.json"))), engine)


def test_one_that_sleeps_until_another_took_its_runs_over_leaves_them_to_it(place):
    """Each takes the other for one on another machine; the second waits for the first 3 seconds, not 300."""
    named = {
        who: (sys.executable, "-c", ELSEWHERE.format(place=who, limit=seconds))
        for who, seconds in (("here", 300), ("there", 3))
    }
    sleeper = place(*PLAN, "--jobs", 1, program=named["here"])
    until(lambda: place.begun.exists() or sleeper.over)
    sleeper.process.send_signal(signal.SIGSTOP)
    place.go.touch()
    theirs = counts(place(*PLAN, "--jobs", 1, program=named["there"]))
    assert sum(theirs) == RUNS, "the sleeper's were taken over"
    kinds = [place.out / "micro" / kind for kind in ("runs", "plugins", "predictions")]
    before = {path: path.read_bytes() for kind in kinds for path in kind.iterdir()}
    sleeper.process.send_signal(signal.SIGCONT)
    assert counts(sleeper) == (theirs[1], 0)
    assert {path: path.read_bytes() for kind in kinds for path in kind.iterdir()} == before
    finishes(place, place.out, before=RUNS)


def test_a_results_folder_that_is_read_only_is_told_in_one_line_before_any_work(place):
    """As a user who is not root meets it: without root's powers, root is held to a folder's permissions too."""
    place.go.touch()
    place.out.mkdir()
    place.out.chmod(0o555)
    powerless = ("setpriv", "--inh-caps=-all", "--bounding-set=-all") if os.geteuid() == 0 else ()
    command = place(*PLAN, "--jobs", 2, program=(*powerless, *RUN_ALL))
    assert command.end() == 2 and not place.begun.exists()
    (line,) = command.text.strip().splitlines()
    assert line.startswith(f"error: cannot write '{place.out}") and "--out" in line
    place.out.chmod(0o755)
    finishes(place, place.out)


def test_a_results_folder_deleted_midway_ends_in_one_line_and_the_next_call_does_it_all(place):
    command = place(*PLAN, "--jobs", 2)
    runs = place.out / "micro" / "runs"
    until(lambda: place.begun.exists() and list(runs.glob("*.json")) or command.over)
    shutil.rmtree(place.out, ignore_errors=True)
    shutil.rmtree(place.out, ignore_errors=True)  # what came between
    place.go.touch()
    assert command.end() == 2, command.text
    assert len(re.findall("^error: .*was deleted or moved while this command worked", command.text, re.M)) == 1
    finishes(place, place.out)


def test_weights_that_are_replaced_under_a_running_command_give_no_run_of_its_plan(place, tmp_path):
    """Nor are the features used that were stored for the weights before."""
    weights = tmp_path / "weights.safetensors"
    shutil.copy(MICRO_WEIGHTS / "micro-base.safetensors", weights)
    place.go.touch()
    named = ("--base-weights", weights, *PLAN, "--jobs", 1)
    first = place(*named)
    assert first.end() == 0, first.text
    before = {path.name: path.read_bytes() for path in (place.out / "micro" / "runs").iterdir()}
    features = set((place.out / "cache").glob("*.safetensors"))
    tensors, header = read_tensors(weights)
    next(value for name, value in sorted(tensors.items()) if name.startswith("visual.")).mul_(1.01)
    write_tensors(tmp_path / "new", tensors, header)
    os.utime(tmp_path / "new", ns=(weights.stat().st_atime_ns, weights.stat().st_mtime_ns))
    os.replace(tmp_path / "new", weights)  # as old as the one before
    second = place(*named)
    assert second.end() == 0, second.text
    assert f"{RUNS} runs done, 0 were done before" in " ".join(second.text.split())
    assert set((place.out / "cache").glob("*.safetensors")) > features
    assert all((place.out / "micro" / "runs" / name).read_bytes() == text for name, text in before.items())


def test_pipes_and_devices_among_the_records_are_named_and_hang_no_command(place, tmp_path):
    finishes(place, place.out)
    runs = place.out / "micro" / "runs"
    os.mkfifo(runs / "pipe.json")
    os.symlink("/dev/zero", runs / "device.json")
    os.symlink(runs / "loop.json", runs / "loop.json")
    os.mkdir(runs / "folder.json")
    few = PLAN[PLAN.index("--shots") : PLAN.index("--device")]
    for status, *argv in (
        (1, "check", *few),
        (0, "report", *few),
        (2, "merge", place.out),
        (0, "leaderboard", place.out, "--to", tmp_path / "page.html"),
        (0, *PLAN, "--jobs", 1),
    ):
        asked = place(*argv, out=tmp_path / "merged" if "merge" in argv else place.out)
        assert asked.end() == status, asked.text
        assert "pipe.json" in asked.text and "device.json" in asked.text


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("may not mount a small disk here")
    yield folder
    subprocess.run(["umount", "-l", folder])


def test_two_commands_and_a_third_that_is_killed_on_one_folder_while_its_disk_fills(place, small_disk):
    """Then more room, and all three again."""
    place.go.touch()
    out = small_disk / "out"
    for size in ("300k", "64m"):
        subprocess.run(["mount", "-o", f"remount,size={size}", small_disk], check=True)
        place.begun.unlink(missing_ok=True)
        one, two, third = (place(*PLAN, "--jobs", jobs, out=out) for jobs in (1, 2, 2))
        until(lambda third=third: place.begun.exists() or (out / "cache").exists() or third.over)
        third.process.kill()
        third.end()
        ended = [command.end() for command in (one, two)]
        if size == "64m":
            assert ended == [0, 0], one.text + two.text
        for command, status in zip((one, two), ended, strict=True):
            errors = [line for line in command.text.splitlines() if line.startswith("error: ")]
            assert status in (0, 2) and len(errors) == (status == 2), command.text
            assert all("No space left" in line for line in errors), errors
        if size == "300k":
            assert 2 in ended, "the disk was too large to fill"
    finishes(place, out, before=RUNS)
