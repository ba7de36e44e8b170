"""``--log-dir`` and ``--wandb``: the loss curve and the accuracies of each run for TensorBoard and Weights & Biases.

This process writes them when a run is done, from its record, so any engine will do. No result depends on them: what
cannot be written is said once, and the runs go on.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from carryover.bench.errors import UserError
from carryover.bench.plan.runs import Run
from carryover.bench.render.terminal import say

Writer = Callable[[Run, dict], None]
MISSING = '{flag}: {package} is not installed; pip install ".[{package}]" in the checkout, or pip install {package}'


class Curves:
    """Writes each finished run to what the command line names. Raises UserError where that cannot be had."""

    def __init__(self, args: argparse.Namespace):
        self.writers: list[Writer] = []
        if args.log_dir:
            self.writers.append(tensorboard(args.log_dir))
        if args.wandb:
            self.writers.append(wandb(args.wandb, args.log_dir or args.out))

    def __call__(self, run: Run, record: dict) -> None:
        for writer in list(self.writers):
            try:
                if record["status"] == "done":
                    writer(run, record)
            except Exception as error:
                self.writers.remove(writer)
                said = (str(error).strip().splitlines() or [""])[0]
                say(("left out", "yellow"), f" curves from {run} on: {type(error).__name__}: {said}")


def steps_of(record: dict) -> list[tuple[int, dict[str, float]]]:
    """(epoch, its numbers by name) of the learning curve."""
    rows = [{name: value for name, value in row.items() if isinstance(value, (int, float))} for row in record["curve"]]
    return [(int(row.pop("epoch", place)), row) for place, row in enumerate(rows, 1)]


def accuracies(record: dict) -> dict[str, float]:
    return {f"accuracy/{role}": target["accuracy"] for role, target in record["targets"].items()}


def name_of(run: Run, record: dict) -> str:
    """Of its folder: dataset, method, seed and key, of characters that every file system takes."""
    parts = run.dataset, run.method, f"seed{run.seed}-{record['key']}"
    return "/".join(re.sub(r"[^\w.=\[\]-]+", "_", part) for part in parts)


def needed(flag: str, package: str, module: str = "") -> Any:
    try:
        return importlib.import_module(module or package)
    except ImportError:
        raise UserError(MISSING.format(flag=flag, package=package)) from None


def tensorboard(folder: str) -> Writer:
    kind = needed("--log-dir", "tensorboard", "torch.utils.tensorboard").SummaryWriter
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--log-dir: cannot write '{folder}': {error.strerror or error}; name another folder"
        ) from error

    def write(run: Run, record: dict) -> None:
        with kind(str(Path(folder) / name_of(run, record))) as events:
            steps = steps_of(record)
            for epoch, row in steps:
                for name, value in row.items():
                    events.add_scalar(name, value, epoch)
            for name, value in accuracies(record).items():
                events.add_scalar(name, value, steps[-1][0] if steps else 0)

    return write


def wandb(project: str, folder: str) -> Writer:
    module = needed("--wandb", "wandb")
    if os.environ.get("WANDB_MODE", "online") == "online" and not module.login(prompt=False):
        raise UserError("--wandb: not logged in; call `wandb login` first, or set WANDB_MODE=offline and sync later")

    def write(run: Run, record: dict) -> None:
        settings = module.Settings(silent=True, console="off", x_disable_stats=True)
        about = dict(project=project, dir=folder, name=str(run), group=run.dataset, job_type=run.method)
        with module.init(**about, config=record["run"], reinit="create_new", settings=settings) as events:
            for epoch, row in steps_of(record):
                events.log(row, step=epoch)
            events.summary.update(accuracies(record))

    return write
