"""One page before a long run: what is there, what a run will use and take, and everything that would make it wrong."""

from __future__ import annotations

import argparse
import contextlib
import copy
import os
from pathlib import Path

import torch

from carryover import datasets
from carryover.bench.backbones import arch_files, loading, probe
from carryover.bench.cli.device import device_of, device_told, precision_told
from carryover.bench.cli.options import options_of
from carryover.bench.cli.registries import discover
from carryover.bench.cli.settings import plan_of, wants_drift
from carryover.bench.engine import schedule
from carryover.bench.engine.options import Options, device_budget
from carryover.bench.engine.possible import Possible
from carryover.bench.engine.session import Session
from carryover.bench.errors import UserError
from carryover.bench.host import environment, processor
from carryover.bench.host.device import device_name
from carryover.bench.plan.runs import Run
from carryover.bench.preflight import budget
from carryover.bench.preflight.backbones import show_backbone, show_control, show_pair
from carryover.bench.preflight.data import show_data
from carryover.bench.preflight.findings import Page, amount, check_space, check_writable, free_space, nearest
from carryover.bench.records.reading import counted
from carryover.bench.render.terminal import say


def doctor(args: argparse.Namespace) -> int:
    """Everything at once, on one page. Exit status 1 where something would make the planned run fail or go wrong.

    Raises UserError only for a command line of which no plan can be made (an unknown arch, method or dataset).
    """
    page, args = Page(), copy.copy(args)
    discover(args.plugin_dir)
    page.section("Machine")
    with_device(page, args)
    broken = without_missing_weights(page, args)
    options = options_of(args)
    show_machine(page, args, options)
    session = Session(options)
    runs = planned(args, options)

    page.section("Backbones")
    loaded = {
        role: show_backbone(page, session, role, options.arch.towers[role])
        for role in options.arch.towers
        if role not in broken
    }
    if wants_drift(args, options.arch):
        for name, tower in options.arch.controls.items():
            show_control(page, options, name, tower)
    page.section("Pair")
    for role in options.arch.towers:
        if role != "base":
            show_pair(page, loaded.get("base"), loaded.get(role), runs, "" if role == "new" else f"{role} ")
    page.section("Data")
    asked = list(map(datasets.identify, args.datasets)) or datasets.default(options.arch.datasets)
    ids = dict.fromkeys([*asked, *(run.test for run in runs if run.test)])
    readable = {id for id in ids if show_data(page, session, id, bool(args.limit), bool(loaded.get("base")))}
    possible = [run for run in runs if {run.dataset, run.test or run.dataset} <= readable]
    page.section("Plan and disk")
    show_plan(page, session, args, possible, len(runs), all_there(options, loaded))

    notes = f", {counted(page.notes, 'note')}" if page.notes else ""
    say(f"{counted(page.problems, 'problem')}{notes}" if page.problems else f"no problem found{notes}")
    return 1 if page.problems else 0


def planned(args: argparse.Namespace, options: Options) -> list[Run]:
    """The runs of the datasets that can be trained on; test-only ones have their data checked and no runs."""
    test_only = {*datasets.ood("paper"), *datasets.ood("micro")}
    args = copy.copy(args)
    given, args.datasets = args.datasets, [id for id in args.datasets if id not in test_only]
    runs = plan_of(args, options.arch) if args.datasets or not given else []
    return Possible(options.arch, options.hub_cache).parted(runs)[0]


def with_device(page: Page, args: argparse.Namespace) -> None:
    try:
        device_of(args)
    except UserError as error:
        page.bad("device", error)
        args.device = "cpu"


def without_missing_weights(page: Page, args: argparse.Namespace) -> set[str]:
    """Roles whose --weights file is not there: named, and taken out so that the rest can be looked at."""
    broken = set()
    for role in ("base", "new"):
        option = f"{role}_weights"
        if getattr(args, option) and not Path(getattr(args, option)).is_file():
            with page.guard(f"{role} backbone"):
                arch_files.find_arch(args.arch, **{option: getattr(args, option)})
            setattr(args, option, "")
            broken.add(role)
    return broken


def all_there(options: Options, loaded: dict[str, loading.Backbone | None]) -> bool:
    return all(loaded.get(role) for role in options.arch.towers)


# ---- sections --------------------------------------------------------------------------------------------------------


def show_machine(page: Page, args: argparse.Namespace, options: Options) -> None:
    found = environment.versions()
    page.ok("versions", ", ".join(f"{name} {found[name]}" for name in ("python", "torch", "open_clip", "timm")))
    if not options.cards:
        page.ok("device", device_told(args, options) + device_memory(torch.device(options.device)))
    for card in options.cards:
        where = torch.device(options.device, card)
        page.ok(f"card {card}", device_name(where) + device_memory(where))
    lacking = options.device == "cuda" and not args.precision and options.precision != "bf16"
    (page.note if lacking else page.ok)("precision", precision_told(args, options))
    show_processor(page, options)
    total, free = memory()
    text = f"{schedule.cores()} cores, {amount(total)} of memory, {amount(free)} free"
    budget = options.text_budget or device_budget(options.device)
    if options.device == "cpu" and free and budget > free:
        page.note("memory", f"{text}; --text-memory allows {amount(budget)}: lower it")
    else:
        page.ok("memory", f"{text}; text passes keep up to {amount(budget)} on the device")


def show_processor(page: Page, options: Options) -> None:
    """What the last bits of sums on the CPU depend on."""
    page.ok("processor", f"{processor.name()} ({processor.kind()})")
    own = processor.chosen_by() == "user" or processor.late
    (page.note if own else page.ok)("sums", processor.told())
    if options.device == "cpu":
        found = probe.answer()
        (page.ok if found.fewest is not None else page.note)("side by side", str(found))


def device_memory(device: torch.device) -> str:
    if device.type != "cuda":
        return ""
    free, total = torch.cuda.mem_get_info(device)
    more = torch.cuda.device_count() if device.index is None else 1
    told = f"; one of {more} cards: --device cuda:all takes all" if more > 1 else ""
    return f", {amount(total)}, {amount(free)} free{told}"


def memory() -> tuple[int | None, int | None]:
    """(total, free) bytes of memory; None where the system does not say."""

    def pages(name: str) -> int | None:
        try:
            return os.sysconf(name) * os.sysconf("SC_PAGE_SIZE")
        except (ValueError, OSError, AttributeError):
            return None

    with contextlib.suppress(OSError, ValueError, IndexError):  # Linux counts what caches would give back
        lines = Path("/proc/meminfo").read_text().splitlines()
        return pages("SC_PHYS_PAGES"), 1024 * int(
            [row for row in lines if row.startswith("MemAvailable")][0].split()[1]
        )
    return pages("SC_PHYS_PAGES"), pages("SC_AVPHYS_PAGES")


def show_plan(
    page: Page, session: Session, args: argparse.Namespace, runs: list[Run], planned: int, ready: bool
) -> None:
    options = session.options
    for name, folder in (("--out", options.out), ("--cache", options.cache)):
        with page.guard(name):
            check_writable(folder)
            page.ok(name, f"'{folder}' can be written, {amount(free_space(folder))} free")
    left_out = f", {planned - len(runs)} of them on datasets that cannot be read" if len(runs) < planned else ""
    page.ok("plan", f"{planned} runs{left_out}")
    if not ready or not runs:
        page.note("estimate", f"none, for {'no dataset can be read' if ready else 'a backbone could not be loaded'}")
        return
    with page.guard("estimate"):
        found = budget.estimate(session, runs, schedule.workers_of(options, args.jobs), args.fresh)
        for line in budget.lines(found):
            say(f"     {line}")
        for line in found.missing:
            page.note("not estimated", line)
        for names, needed, folder in needs(options, found):
            check_space(page, names, needed, folder)


def needs(options: Options, found: budget.Estimate) -> list[tuple[str, int, str]]:
    """(which folders, bytes, one of them) for each file system that is written to."""
    if nearest(options.out).stat().st_dev == nearest(options.cache).stat().st_dev:
        return [("disk for features and results", found.cache + found.out, options.out)]
    return [("disk for features", found.cache, options.cache), ("disk for results", found.out, options.out)]
