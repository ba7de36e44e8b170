"""What a run shows while it works: how far it is and the estimated time left, failures once each."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console

from carryover.bench.cli.progress import Ticker, view_of
from carryover.bench.engine.options import Options
from carryover.bench.plan.runs import Run
from carryover.bench.preflight.asked import Asked
from carryover.bench.preflight.budget import duration
from carryover.bench.preflight.time_left import TimeLeft
from carryover.bench.records.reading import counted
from carryover.bench.render.terminal import say

PATIENCE = 20.0  # seconds after which a call is worth an estimate of the rest
LOOK = 0.5  # seconds between looks at what there is to show


class Display:
    """The callbacks of ``schedule.run_all``, and a context that shows what they are told.

    also    told of each finished run with its record too
    keys    of the runs that were done
    begun   when the first run could start (monotonic seconds)
    """

    def __init__(self, console: Console, planned: int, also: Callable[[Run, dict], None] = lambda run, record: None):
        self.console, self.planned, self.done, self.also = console, planned, 0, also
        self.keys: list[str] = []
        self.begun = self._shown = time.monotonic()
        self.what, self.left = "loading backbones and data", TimeLeft((), 1)
        self._epoch = time.time()
        self._settings: tuple[Options, list[tuple[Run, str]]] | None = None
        self._asked: Asked | None = None
        self._said: set[str] = set()
        self._ticker = Ticker(LOOK, self._tick)

    def __enter__(self) -> Display:
        self.view = view_of(self.console)
        self._ticker.__enter__()
        return self

    def __exit__(self, *error) -> None:
        self._ticker.__exit__(*error)
        self.view.close()
        if self._asked:
            self._asked.end()

    def say(self, line: str) -> None:
        say(line, to=self.console)

    def describe(self, what: str) -> None:
        self.what = what

    def works(self, options: Options, jobs: int) -> None:
        """How the runs will be done, told before ``on_start``."""
        self.left, self._settings = TimeLeft((), jobs), (options, [])

    def on_images(self, what: str, done: int, count: int) -> None:
        self.describe(f"{what} {done}/{count}")

    def on_start(self, todo: list[tuple[Run, str]], already: int) -> None:
        self.begun, self.planned, self.done = time.monotonic(), len(todo), 0
        self.left = TimeLeft(todo, self.left.jobs)
        self._settings = self._settings and (self._settings[0], todo)
        self._names = {key: str(run) for run, key in todo}

    def on_begin(self, keys: list[str]) -> None:
        self.left.begin(keys)
        more = f" and {counted(len(keys) - 1, 'run')} beside it" if len(keys) > 1 else ""
        self.describe(self._names[keys[0]] + more)

    def on_done(self, run: Run, record: dict) -> None:
        self.keys.extend([record["key"]] if record["status"] == "done" else [])
        self.done += 1
        self.left.done(record["key"], record)
        self.also(run, record)
        if record["status"] != "done" and record["error"] not in self._said:  # one broken image fails many runs
            self._said.add(record["error"])
            say(("failed", "red"), f" {run}: {record['error']}", to=self.console)

    def on_wait(self, count: int, owner: str) -> None:
        self.describe(f"waiting for {owner}")
        if owner not in self._said:
            self._said.add(owner)
            self.say(f"{counted(count, 'run')} left to {owner}; waiting")

    def progress(self) -> str:
        return f"after {self.done} of {self.planned} runs"

    def time_left(self) -> str:
        """With what of it goes to which stage; empty before it is known."""
        seconds = self.left.seconds()
        if seconds is None or self.done == self.planned:
            return ""
        parts = [f"{stage} {duration(part)}" for stage, part in self.left.stages().items() if part >= 1]
        return f"about {duration(seconds)} left" + (f" ({', '.join(parts)})" if parts else "")

    def _tick(self) -> None:
        now = time.monotonic()
        if self._settings and self._settings[1] and now - self.begun > PATIENCE and not self._asked:
            self._asked = Asked(*self._settings, since=self._epoch)
        if self._asked and self.left.predicted is None:
            self.left.predicted = self._asked.answer()
        if now - self._shown >= self.view.every:
            self._shown = now
            self.view.show(self.done, self.planned, self.what, self.time_left())
