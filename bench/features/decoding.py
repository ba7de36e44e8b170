"""Pictures decoded and transformed ahead of the tower, in threads of this process or in worker processes.

Both do the same jobs and so give the same bytes. The processes are those of a torch DataLoader that lives as long as
the session: its "indices" are the jobs themselves, so that one set of workers serves every split.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from carryover.bench.errors import UserError
from carryover.bench.features.transforms import Recipe
from carryover.bench.host import spawning
from carryover.bench.host.processes import cores
from carryover.datasets.base import Split
from carryover.datasets.images import allow_pixels, most_pixels

MOST_WORKERS, MOST_THREADS = 16, 8
AHEAD = 2  # jobs that wait for each worker
JOB = 64  # transformed pictures a job makes: 10 MB at 224 pixels
LEAST = 1000  # transformed pictures below which starting the workers (seconds of imports) costs more than it saves
SHARED_MEMORY = "/dev/shm"


@dataclass(frozen=True)
class Job:
    """B pictures, each decoded once, by R recipes -> (R, B, H, H, 3) bytes; ``paired``: each by a recipe of its own,
    B in all -> (1, B, H, H, 3)."""

    reader: Callable[[Sequence[int]], list[Image.Image]]
    keys: tuple[str, ...]
    recipes: tuple[Recipe, ...]
    singly: bool  # a file at a time, as photographs can be large; rendered pictures are made together
    paired: bool = False

    def __call__(self) -> np.ndarray:
        many = range(len(self.keys))
        images = (self.reader([i])[0] for i in many) if self.singly else self.reader(many)
        made: np.ndarray | None = None
        for column, (key, image) in enumerate(zip(self.keys, images, strict=True)):
            recipes = self.recipes[column : column + 1] if self.paired else self.recipes
            for row, recipe in enumerate(recipes):
                pixels = np.asarray(recipe(image, key))
                if made is None:
                    made = np.empty((len(recipes), len(self.keys), *pixels.shape), np.uint8)
                made[row, column] = pixels
        assert made is not None  # no job is empty
        return made


class Loader:
    """``workers`` processes for pictures in files (0: threads); ``pin`` puts what they make into pinned memory."""

    def __init__(self, workers: int = 0, pin: bool = False):
        self.workers, self.pin = workers, pin
        self._jobs: list[Job] = []
        self._processes: DataLoader | None = None

    def load(self, split: Split, recipes: Sequence[Recipe], batch: int) -> Iterator[list[Tensor]]:
        """The split in batches of ``batch`` pictures, in order; each as tensors (R, b, H, H, 3) of bytes to be put
        together along the second dimension. Raises UserError naming a picture that cannot be read."""
        size = max(1, JOB // max(1, len(recipes))) if split.portable else batch
        jobs, counts = [], []
        for start in range(0, len(split), batch):
            indices = range(start, min(start + batch, len(split)))
            parts = [indices[i : i + size] for i in range(0, len(indices), size)]
            counts.append(len(parts))
            for part in parts:
                chosen = split.take(part)
                jobs.append(Job(chosen.reader, chosen.keys, tuple(recipes), split.portable))
        pays = self._processes is not None or len(split) * len(recipes) >= LEAST
        in_processes = self.workers > 0 and split.portable and pays
        made = self._in_processes(jobs) if in_processes else in_threads(jobs, 4 if not split.portable else 0)
        for count in counts:
            yield [next(made) for _ in range(count)]

    def draw(self, split: Split, batches: Sequence[Sequence[tuple[int, Recipe]]]) -> Iterator[Tensor]:
        """Batches of chosen pictures, each by a recipe of its own: (B, H, H, 3) bytes a batch, made ahead."""
        jobs = []
        for batch in batches:
            chosen = split.take([index for index, _ in batch])
            recipes = tuple(recipe for _, recipe in batch)
            jobs.append(Job(chosen.reader, chosen.keys, recipes, split.portable, paired=True))
        in_processes = self.workers > 0 and split.portable
        for made in self._in_processes(jobs) if in_processes else in_threads(jobs, 4 if not split.portable else 0):
            yield made[0]

    def close(self) -> None:
        """End the worker processes; they are started again when needed."""
        self._processes = None

    def _in_processes(self, jobs: list[Job]) -> Iterator[Tensor]:
        self._jobs = jobs
        processes = self._processes
        if processes is None:
            workshop: Any = Workshop(roomy(self.workers), most_pixels())  # a Dataset by what it does
            processes = self._processes = DataLoader(
                workshop,
                batch_size=None,
                sampler=self,
                num_workers=self.workers,
                collate_fn=untouched,
                multiprocessing_context=spawning.CONTEXT,
                persistent_workers=True,
                prefetch_factor=AHEAD,
                pin_memory=self.pin,
                generator=torch.Generator(),  # the global one is not for it to draw from
            )
        try:
            for result in processes:
                if isinstance(result, str):
                    raise UserError(result)
                yield torch.as_tensor(result)
        except RuntimeError as error:
            self.close()
            if "DataLoader worker" not in str(error):
                raise
            raise UserError(
                "a process that decodes images died (out of memory?); run again with fewer --workers (0: none)"
            ) from error

    def __iter__(self) -> Iterator[Job]:
        """The DataLoader's sampler."""
        return iter(self._jobs)

    def __len__(self) -> int:
        return len(self._jobs)


class Workshop:
    """The DataLoader's dataset: does the job that it is given for an index. What cannot be read comes back as a line,
    for an exception would come back with a traceback in its message."""

    def __init__(self, roomy: bool, most_pixels: int | None):
        self.roomy, self.most_pixels = roomy, most_pixels

    def __getitem__(self, job: Job) -> Tensor | np.ndarray | str:
        allow_pixels(self.most_pixels)  # what the process that started this one takes
        try:
            made = job()
        except UserError as error:
            return str(error)
        return torch.from_numpy(made) if self.roomy else made  # tensors go by shared memory, arrays by a pipe


def untouched(made):
    return made


def roomy(workers: int) -> bool:
    """Whether shared memory holds all that may wait in it (containers often have 64 MB)."""
    try:
        free = shutil.disk_usage(SHARED_MEMORY).free
    except OSError:  # not Linux: shared memory is elsewhere, and as large as the memory
        return True
    return free > 2 * workers * AHEAD * JOB * 3 * 448**2


def default_workers(device: str, beside: int = 1) -> int:
    """Of one of so many processes ``beside`` one another. They pay where a GPU waits for pictures; on a CPU the tower
    itself is what takes the time."""
    return 0 if device == "cpu" else min((cores() - 1) // beside, MOST_WORKERS)


def in_threads(jobs: list[Job], depth: int = 0) -> Iterator[Tensor]:
    """Pillow releases the GIL for part of the work."""
    threads = max(1, min(MOST_THREADS, cores()))
    with ThreadPoolExecutor(threads) as pool:
        for made in ahead(pool, lambda job: job(), jobs, depth or threads * AHEAD):
            yield torch.from_numpy(made)


def ahead(pool: ThreadPoolExecutor, work: Callable, items: list, depth: int) -> Iterator:
    """``map`` in order that keeps at most ``depth`` results waiting."""
    waiting = [pool.submit(work, item) for item in items[:depth]]
    try:
        for item in items[depth:]:
            result = waiting.pop(0).result()
            waiting.append(pool.submit(work, item))
            yield result
        for future in waiting:
            yield future.result()
    finally:  # of one that is given up, nobody waits for what was not begun
        for future in waiting:
            future.cancel()
