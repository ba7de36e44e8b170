"""Runs the command line in forked children and kills them, for test_kill.py. It imports once for all of them.

    python tests/support/killing.py OUT KILLS SEED      prints what happened as JSON
    python tests/support/killing.py OUT pair SEED       two children at once on one results folder, then a third alone

A child is killed with its whole process group, either just before a chosen file operation below its results folder
(Python's audit events: open, rename, link, remove, mkdir) or after a random time. It then goes on with other --jobs,
threads, and order of seeds, methods and datasets, and may be killed again.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from carryover.bench.backbones import loading
from carryover.bench.cli import main as cli_main
from carryover.bench.host import worker_pool  # noqa: E402

# isort: split
import bits  # noqa: E402
import torch  # noqa: E402

EVENTS = ("open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.utime")
METHODS, SETS, SEEDS = ["zs-clip", "clip-adapter", "coop"], ["micro_stars", "micro_textures"], ["1", "2"]
TRIAL = ["--shots", "1", "--limit", "1", "--views", "1", "--set", "*.steps=2", "--device", "cpu"]
# The engine itself spawns; importing torch in each worker would take most of the test.
worker_pool.CONTEXT = multiprocessing.get_context("fork")
loading.load = functools.cache(loading.load)  # nothing is written while they load
torch.set_num_threads(1)
bits.forced()


def command(out: Path, rng: random.Random | None) -> list[str]:
    """The same plan; with a generator, in another order and on another number of processes."""
    methods, sets, seeds, jobs = list(METHODS), list(SETS), list(SEEDS), 1
    if rng:
        for words in (methods, sets, seeds):
            rng.shuffle(words)
        jobs = rng.choice([1, 2, 3])
    plan = ["--suite", "main", "--methods", *methods, "--datasets", *sets, "--seeds", *seeds, "--jobs", str(jobs)]
    return [*plan, *TRIAL, "--out", str(out)]


class Counter:
    """Counts operations below ``folder`` while one is set; before the one numbered ``last``, kills its own group."""

    folder, count, last = "", 0, None

    def __call__(self, event: str, arguments: tuple) -> None:
        if self.folder and event in EVENTS and any(str(part).startswith(self.folder) for part in arguments[:2]):
            self.count += 1
            if self.count == self.last:
                os.killpg(0, signal.SIGKILL)


counter = Counter()
sys.addaudithook(counter)


def child(argv: list[str], out: Path, log: Path, threads: int, last: int | None) -> int:
    """Starts one; returns its process id, which is its group's too."""
    if pid := os.fork():
        return pid
    os.setsid()
    handle = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    torch.set_num_threads(threads)
    counter.folder, counter.count, counter.last = str(out) if last else "", 0, last
    status = 99
    try:
        status = cli_main.main(argv)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def finish(pid: int, seconds: float | None = None) -> int:
    """Exit status, or minus the signal; killed with its group after ``seconds``."""
    if seconds is not None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
        os.killpg(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main(folder: Path, kills: int, seed: int) -> dict:
    """The reference is made in this process, so that its children find all imported, loaded and drawn once."""
    rng, counter.folder = random.Random(seed), str(folder)
    with contextlib.redirect_stdout(io.StringIO()):
        cli_main.main(command(folder / "warm", None))
        start, counter.count = time.monotonic(), 0
        status = cli_main.main(command(folder / "reference", None))
    took, events, counter.folder = time.monotonic() - start, counter.count, ""
    told = {"reference": status, "events": events, "seconds": took, "kills": [], "finished": []}
    number = 0
    while len(told["kills"]) < kills:
        out = folder / f"out{number}"
        number += 1
        while True:
            more = len(told["kills"]) < kills
            by_event = rng.random() < 0.6
            last = rng.randint(1, events) if more and by_event else None
            seconds = rng.uniform(0, took) if more and not by_event else None
            pid = child(command(out, rng), out, folder / "log", rng.choice([1, 2]), last)
            status = finish(pid, seconds)
            if status != -signal.SIGKILL:
                told["finished"].append([out.name, status])
                break
            told["kills"].append(last or round(seconds, 3))
        if status or number > 3 * kills:
            break
        if len(told["kills"]) < kills and rng.random() < 0.5:  # often the features are there, as after a real kill
            shutil.copytree(out / "cache", folder / f"out{number}" / "cache", ignore=shutil.ignore_patterns(".*"))
    return told


def pair(folder: Path, seed: int) -> list[tuple[int, str]]:
    """Exit status and output of each."""
    rng, out, told = random.Random(seed), folder / "out", []
    pids = [child(command(out, rng), out, folder / f"log{i}", 1, None) for i in range(2)]
    told += [finish(pid) for pid in pids]
    told += [finish(child(command(out, rng), out, folder / "log2", 1, None))]
    return [(status, (folder / f"log{i}").read_text()) for i, status in enumerate(told)]


if __name__ == "__main__":
    target, number = Path(sys.argv[1]), int(sys.argv[3])
    print(json.dumps(pair(target, number) if sys.argv[2] == "pair" else main(target, int(sys.argv[2]), number)))
