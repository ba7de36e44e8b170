"""Signals end a command once, in order, wherever they arrive; and a worker follows its parent from its first moment."""

import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import spawn

import pytest
from checkout import FROM_HERE

from carryover.bench.cli import commands, main
from carryover.bench.errors import UserError
from carryover.bench.host import spawning, stopping

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Unix signals")


def send(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", stopping.SIGNALS)
def test_the_first_signal_interrupts_and_those_that_follow_at_once_do_not_disturb_the_way_out(number):
    before = signal.getsignal(number)
    with stopping.heard() as stop:
        with pytest.raises(KeyboardInterrupt):
            send(number)
        for other in stopping.SIGNALS:
            send(other)
        assert stop.status == 128 + number
    assert signal.getsignal(number) is before


def test_a_signal_after_a_while_ends_the_process_where_it_stands(monkeypatch):
    ended = []
    monkeypatch.setattr(stopping, "PATIENCE", 0.0)
    monkeypatch.setattr(stopping, "end_at_once", ended.append)
    with stopping.heard():
        with pytest.raises(KeyboardInterrupt):
            send()
        time.sleep(0.01)
        send(signal.SIGINT)
    assert ended == [signal.SIGINT]


def test_a_signal_that_python_drops_in_a_destructor_comes_again(capsys):
    class Dying:
        def __del__(self):
            send(signal.SIGINT)
            time.sleep(0)

    with stopping.heard() as stop, pytest.raises(KeyboardInterrupt):
        thing = Dying()
        del thing
        end = time.monotonic() + 20
        while time.monotonic() < end:
            time.sleep(0.01)
    assert stop.number == signal.SIGINT and "Traceback" not in capsys.readouterr().err


def test_a_signal_that_is_ignored_stays_ignored():
    """As under nohup, and Ctrl-C of a script's background."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping.heard() as stop:
            send(signal.SIGHUP)
        assert not stop.number
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_a_library_sets_for_a_signal_is_undone():
    before = signal.getsignal(signal.SIGTERM)
    with stopping.kept():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGTERM) is before


def test_another_thread_sets_no_signals():
    found, before = [], [signal.getsignal(number) for number in stopping.SIGNALS]

    def call():
        with stopping.heard() as stop:
            found.append((stop.number, [signal.getsignal(number) for number in stopping.SIGNALS]))

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert found == [(0, before)]


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside a thread"])
def test_signals_that_are_held_back_come_afterwards(beside):
    """A thread beside takes signals that the main one has blocked."""
    over = threading.Event()
    if beside:
        threading.Thread(target=over.wait).start()
    try:
        held_back()
    finally:
        over.set()


def held_back():
    with stopping.heard(), pytest.raises(KeyboardInterrupt):
        with stopping.held_back():
            send()
            time.sleep(0.05)
            held = True
        raise AssertionError("it did not come")
    assert held


class Command:
    WORDS = ()

    def __init__(self, error):
        self.error = error

    def main(self, args):
        if self.error:
            try:
                send()
            except KeyboardInterrupt:
                raise self.error from None
        send()


@pytest.mark.parametrize(
    "error", [None, RuntimeError("DataLoader worker killed"), ImportError("numpy failed"), UserError("a process died")]
)
def test_whatever_a_signal_turns_into_on_its_way_a_command_says_one_line_how_to_go_on(monkeypatch, capfd, error):
    monkeypatch.setattr(commands, "module_of", lambda name: Command(error))
    monkeypatch.setattr(
        main, "parse", lambda argv: type("A", (), dict(version=0, print_completion=0, help=0, command=""))
    )
    assert main.main(["report"]) == 143
    assert capfd.readouterr().err == f"\nstopped: {stopping.GOES_ON}\n"


def test_an_error_without_a_signal_is_shown_as_ever(monkeypatch):
    monkeypatch.setattr(commands, "module_of", lambda name: type("C", (), dict(main=lambda self, args: 1 / 0))())
    monkeypatch.setattr(
        main, "parse", lambda argv: type("A", (), dict(version=0, print_completion=0, help=0, command=""))
    )
    with pytest.raises(ZeroDivisionError):
        main.main(["report"])


PARENT = """
import sys, time
sys.path.insert(0, sys.argv[1])
from carryover.bench.host import spawning
import slow_to_import
process = spawning.CONTEXT.Process(target=slow_to_import.work)
process.start()
print(process.pid, flush=True)
time.sleep(600)
"""
SLOW = """
import multiprocessing, pathlib, time
if multiprocessing.current_process().name != "MainProcess":
    pathlib.Path(__file__).with_name("begun").touch()
    time.sleep(600)
def work(): pass
"""


def told_nothing(line, pipe):
    done = subprocess.run(line, pass_fds=[pipe], capture_output=True, text=True)
    os.close(pipe)
    return done


def test_a_worker_whose_parent_dies_before_it_is_told_anything_ends_without_a_word():
    pipes = [os.pipe(), os.pipe()]
    for _, ours in pipes:
        os.close(ours)
    (usual, _), (theirs, _) = pipes
    assert "EOFError" in told_nothing(spawn.get_command_line(pipe_handle=usual), usual).stderr, "as Python itself does"
    with spawning.without_main():
        line = spawn.get_command_line(pipe_handle=theirs)
    done = told_nothing(line, theirs)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_whose_parent_dies_ends_though_it_is_still_importing(tmp_path, number):
    (tmp_path / "slow_to_import.py").write_text(SLOW)
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, tmp_path], stdout=subprocess.PIPE, env=FROM_HERE, text=True
    )
    child = int(parent.stdout.readline())
    end = time.monotonic() + 60
    while not (tmp_path / "begun").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    parent.send_signal(number)
    parent.wait()
    end = time.monotonic() + 30
    try:
        while True:
            os.kill(child, 0)
            assert time.monotonic() < end, "it outlived its parent"
            time.sleep(0.02)
    except ProcessLookupError:
        pass
    finally:
        parent.stdout.close()
