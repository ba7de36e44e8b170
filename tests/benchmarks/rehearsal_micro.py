"""Micro's main experiment on a card, every accuracy beside the CPU's of the same machine.

    python -m tests.benchmarks.rehearsal_micro                        # fp32 and bf16 on the card, and the CPU
    python -m tests.benchmarks.rehearsal_micro --suite main maps drift --minutes 20

Each is a call of ``run_all.py`` with a folder and features of its own. Writes rehearsal-micro.md and .csv to --out: a
row a method, of how many accuracies (a dataset, a seed, a backbone) there are, how many are the CPU's, and how far the
others are from it, in points. A call that takes longer than --minutes is ended and compared by what it did. The first
of --calls is what the others are compared with.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import torch
from tabulate import tabulate

from benchmarks import ROOT
from carryover.bench.host import processor
from carryover.bench.host.files import write_text
from carryover.bench.host.processes import cores

CALLS = {
    "cpu": ("--device", "cpu"),
    "fp32": ("--device", "cuda", "--precision", "fp32"),
    "fp32, no graphs": ("--device", "cuda", "--precision", "fp32", "--cuda-graphs", "off"),
    "bf16": ("--device", "cuda", "--precision", "bf16"),
}
ENDED = "ended at its limit"
HEAD = ("call", "method", "accuracies", "the same", "mean distance", "largest", "mean of signed")
Accuracies = Mapping[tuple[str, str, int, str], float]  # by method, dataset, seed and backbone


def accuracies(folder: Path) -> Accuracies:
    """Of all records of a results folder of micro."""
    found = {}
    for path in sorted(folder.glob("micro/runs/*.json")):
        record = json.loads(path.read_text())
        run = record["run"]
        if record["status"] == "done":
            for role, target in record["targets"].items():
                found[run["method"], run["dataset"], run["seed"], role] = target["accuracy"]
    return found


def compared(name: str, found: Accuracies, expected: Accuracies) -> list[tuple]:
    """A row a method, as ``HEAD`` says, and one of all; of what both have."""
    keys = [key for key in expected if key in found]
    rows = []
    for method in [*dict.fromkeys(key[0] for key in keys), "all"]:
        away = [found[key] - expected[key] for key in keys if method in (key[0], "all")]
        if away:
            far = [abs(value) for value in away]
            rows.append((name, method, len(far), far.count(0.0), fmean(far), max(far), fmean(away)))
    return rows


def call(arguments: Sequence[str], out: Path, jobs: int, minutes: float) -> tuple[float, str]:
    """Seconds of a call of ``run_all.py``, and what is to be said of it: nothing, that it was ended, or how it
    failed."""
    command = [sys.executable, str(ROOT / "run_all.py"), "--arch", "micro", "--out", str(out), "--jobs", str(jobs)]
    log, begun = out.parent / f"{out.name}.log", time.perf_counter()
    try:
        with log.open("w") as written:
            done = subprocess.run([*command, *arguments], stdout=written, stderr=written, timeout=60 * minutes)
    except subprocess.TimeoutExpired:
        return time.perf_counter() - begun, ENDED
    spent, last = time.perf_counter() - begun, [line for line in log.read_text().splitlines() if line.strip()][-1:]
    return spent, "" if done.returncode == 0 else f"exit status {done.returncode}: {''.join(last).strip()}"


def machine() -> str:
    """One line: what the calls ran on."""
    found = f"{processor.name()}, {cores()} cores, torch {torch.__version__}"
    return f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}, {found}" if torch.cuda.is_available() else found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.rehearsal_micro", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--calls", nargs="+", choices=list(CALLS), default=["cpu", "fp32", "bf16"])
    parser.add_argument("--suite", nargs="+", default=["main"])
    parser.add_argument("--methods", nargs="+", default=[])
    parser.add_argument("--datasets", nargs="+", default=[])
    parser.add_argument("--jobs", type=int, default=min(4, cores()), help="worker processes on the card")
    parser.add_argument("--minutes", type=float, default=3.0, help="of one call at most")
    parser.add_argument("--out", type=Path, default=Path("results/rehearsal"))
    chosen = parser.parse_args(argv)
    chosen.out.mkdir(parents=True, exist_ok=True)
    plan = [*("--suite", *chosen.suite), *(("--methods", *chosen.methods) if chosen.methods else ())]
    plan += ("--datasets", *chosen.datasets) if chosen.datasets else ()
    lines, rows, expected, failed = [machine(), ""], [], {}, False
    for name in chosen.calls:
        folder = chosen.out / name.replace(", ", "-").replace(" ", "-")
        jobs = cores() if name == "cpu" else chosen.jobs
        spent, said = call([*plan, *CALLS[name]], folder, jobs, chosen.minutes)
        found, failed = accuracies(folder), failed or said not in ("", ENDED)
        lines.append(f"- {name}: {spent:.0f} s with {jobs} worker processes, {len(found)} accuracies")
        lines[-1] += f"; {said}" if said else ""
        if name == chosen.calls[0]:
            expected = found
        else:
            rows += compared(name, found, expected)
        table = tabulate(rows, HEAD, tablefmt="pipe", floatfmt=".2f")
        write_text(chosen.out / "rehearsal-micro.md", "\n".join([*lines, "", table, ""]))
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([HEAD, *rows])
        write_text(chosen.out / "rehearsal-micro.csv", text.getvalue())
        print(lines[-1], flush=True)
    print(f"\n{tabulate(rows, HEAD, tablefmt='pipe', floatfmt='.2f')}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
