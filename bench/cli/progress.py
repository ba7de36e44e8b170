"""A line now and then while pictures are encoded, for commands that show no table of progress."""

from __future__ import annotations

import time

from carryover.bench.render.terminal import aside, say

LOG_EVERY = 30.0  # seconds between lines of progress


class Progress:
    """Says how many pictures are encoded, now and then."""

    def __init__(self) -> None:
        self.spoken = time.monotonic()

    def __call__(self, what: str, done: int, count: int) -> None:
        if time.monotonic() - self.spoken > LOG_EVERY:
            self.spoken = time.monotonic()
            say(f"{what}, {done} of {count}", to=aside)
