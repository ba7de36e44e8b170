"""What a run shows while it works: a bar on a terminal, now and then a line in a log, failures once each."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

from carryover.bench.errors import printable
from carryover.bench.plan.runs import Run
from carryover.bench.records.reading import counted
from carryover.bench.render.terminal import say, words_column

LOG_EVERY = 30.0  # seconds between lines where there is no terminal to draw a bar on


class Display:
    """The callbacks of ``schedule.run_all``.

    keys    of the runs that were done
    begun   when the first run could start (monotonic seconds)
    """

    def __init__(self, console: Console, planned: int):
        self.console = console
        self.keys: list[str] = []
        self.begun = self._spoken = time.monotonic()
        self._said: set[str] = set()
        self.bar = Progress(
            words_column("{task.description:<44}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            words_column("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._task = self.bar.add_task("loading backbones and data", total=planned)

    def say(self, line: str) -> None:
        say(line, to=self.console)

    def describe(self, what: str) -> None:
        self.bar.update(self._task, description=printable(what))

    def on_images(self, what: str, done: int, count: int) -> None:
        self.describe(f"{what} {done}/{count}")
        if self._due():
            self.say(f"{what}, {done} of {count}")

    def on_start(self, todo: int, already: int) -> None:
        self.begun = time.monotonic()
        self.bar.reset(self._task, total=todo)

    def on_done(self, run: Run, record: dict) -> None:
        self.keys.extend([record["key"]] if record["status"] == "done" else [])
        self.bar.update(self._task, advance=1, description=printable(str(run)))
        if self._due():
            task = self.bar.tasks[0]
            left = (self._spoken - self.begun) / task.completed * ((task.total or 0) - task.completed) / 60
            self.say(f"{task.completed:.0f}/{task.total:.0f} runs, about {left:.0f} minutes left")
        if record["status"] != "done" and record["error"] not in self._said:  # one broken image fails many runs
            self._said.add(record["error"])
            say(("failed", "red"), f" {run}: {record['error']}", to=self.console)

    def on_wait(self, count: int, owner: str) -> None:
        self.describe(f"waiting for {owner}")
        if owner not in self._said:
            self._said.add(owner)
            self.say(f"{counted(count, 'run')} left to {owner}; waiting")

    def progress(self) -> str:
        task = self.bar.tasks[0]
        return f"after {task.completed:.0f} of {task.total:.0f} runs"

    def _due(self) -> bool:
        """Whether a line may be printed: a log file shows no bar."""
        if self.console.is_terminal or time.monotonic() - self._spoken <= LOG_EVERY:
            return False
        self._spoken = time.monotonic()
        return True
