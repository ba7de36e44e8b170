"""One page before a long run: what is there, what a run will use and take, and everything that would make it wrong."""

from __future__ import annotations

import argparse
import contextlib
import copy
import os
import shutil
import tempfile
from pathlib import Path

import huggingface_hub
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.markup import escape

import datasets
from bench import archs, backbones, budget, executor, plan, provenance, weights
from bench.errors import UserError
from bench.session import Options, Session
from bench.settings import device_of, options_of, plan_of, wants_drift
from bench.stats import counted
from bench.tables import PAPER_TABLES
from datasets.base import Dataset
from datasets.layouts import LAYOUTS, count_notes
from datasets.splits import NOTE as MADE
from methods import discover

console = Console()
NEAR_ZERO = 0.1  # a cosine between matrices of W x D entries below this: nothing of the old joint space is left
SAMPLE = 4  # pictures of each split that are decoded
NOT_COMPARABLE = "the paper's numbers would stand beside those of other data; get the published files again"


class Page:
    """Prints line by line and counts what is bad."""

    def __init__(self):
        self.problems = self.notes = 0

    def section(self, title: str) -> None:
        console.print(f"[bold]{title}[/]")

    def ok(self, what: str, found: str) -> None:
        self._line("[green]ok[/]  ", what, found)

    def note(self, what: str, found: str) -> None:
        self.notes += 1
        self._line("[yellow]note[/]", what, found)

    def bad(self, what: str, found: object) -> None:
        self.problems += 1
        self._line("[red]bad[/] ", what, str(found))

    @contextlib.contextmanager
    def guard(self, what: str):
        """What cannot be looked at is bad, in one line, and the page goes on."""
        try:
            yield
        except UserError as error:
            self.bad(what, str(error).removeprefix(f"{what}: "))
        except Exception as error:
            self.bad(what, f"{type(error).__name__}: {backbones.first_line(error)}")

    def _line(self, mark: str, what: str, found: str) -> None:
        console.print(f"{mark} {escape(what)}: {escape(found)}", highlight=False, soft_wrap=True)


def doctor(args: argparse.Namespace) -> int:
    """Everything at once, on one page. Exit status 1 where something would make the planned run fail or go wrong.

    Raises UserError only for a command line of which no plan can be made (an unknown arch, method or dataset).
    """
    page, args = Page(), copy.copy(args)
    discover(tuple(args.plugin_dir))
    page.section("Machine")
    with_device(page, args)
    broken = without_missing_weights(page, args)
    options = options_of(args)
    show_machine(page, options)
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
            show_pair(page, loaded.get("base"), loaded.get(role), "" if role == "new" else f"{role} ")
    page.section("Data")
    asked = list(map(datasets.identify, args.datasets)) or datasets.default(options.arch.datasets)
    ids = dict.fromkeys([*asked, *(run.test for run in runs if run.test)])
    readable = {id for id in ids if show_data(page, session, id, trial=bool(args.limit))}
    possible = [run for run in runs if {run.dataset, run.test or run.dataset} <= readable]
    page.section("Plan and disk")
    show_plan(page, session, args, possible, len(runs), all_there(options, loaded))

    notes = f", {counted(page.notes, 'note')}" if page.notes else ""
    console.print(f"{counted(page.problems, 'problem')}{notes}" if page.problems else f"no problem found{notes}")
    return 1 if page.problems else 0


def planned(args: argparse.Namespace, options: Options) -> list[plan.Run]:
    """The runs of the datasets that can be trained on; test-only ones have their data checked and no runs."""
    test_only = {*datasets.ood("paper"), *datasets.ood("micro")}
    args = copy.copy(args)
    given, args.datasets = args.datasets, [id for id in args.datasets if id not in test_only]
    return plan_of(args, options.arch) if args.datasets or not given else []


def with_device(page: Page, args: argparse.Namespace) -> None:
    try:
        device_of(args.device)
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
                archs.find_arch(args.arch, **{option: getattr(args, option)})
            setattr(args, option, "")
            broken.add(role)
    return broken


def all_there(options: Options, loaded: dict[str, backbones.Backbone | None]) -> bool:
    return all(loaded.get(role) for role in options.arch.towers)


# ---- sections --------------------------------------------------------------------------------------------------------


def show_machine(page: Page, options: Options) -> None:
    found = provenance.versions()
    page.ok("versions", ", ".join(f"{name} {found[name]}" for name in ("python", "torch", "open_clip", "timm")))
    page.ok("device", provenance.device_name(torch.device(options.device)) + device_memory(options.device))
    total, free = memory()
    text = f"{executor.cores()} cores, {amount(total)} of memory, {amount(free)} free"
    if options.device == "cpu" and free and options.text_budget > free:
        page.note("memory", f"{text}; --text-memory allows {amount(options.text_budget)}: lower it")
    else:
        page.ok("memory", text)


def device_memory(device: str) -> str:
    if device != "cuda":
        return ""
    free, total = torch.cuda.mem_get_info()
    return f", {amount(total)}, {amount(free)} free"


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


def show_backbone(page: Page, session: Session, role: str, tower: archs.Tower) -> backbones.Backbone | None:
    what = f"{role} backbone"
    with page.guard(what):
        source = weights.find(tower, session.options.hub_cache)
        if source.problem:
            raise UserError(f"{tower.label}: {source.problem}")
        if source.text == weights.DOWNLOAD and source.size:
            folder = session.options.hub_cache or huggingface_hub.constants.HF_HUB_CACHE
            check_space(page, f"disk for the {role} weights", source.size, folder)
        found = session.backbone(role)
        page.ok(
            what,
            f"{found.label}, {source.text} ({amount(source.size)}); {tower.activation}, W {found.width}, "
            f"D {found.dim}, logit scale {found.scale.item():.2f}, "
            f"fast text path {'yes' if found.text.fast else 'no'}, fingerprint {found.fingerprint[:12]}",
        )
        transform = ", ".join(f"{name} {value}" for name, value in transform_of(found).items())
        page.ok(f"{role} transform", transform)
        if tower.weights and not tower.is_micro:
            if not backbones.declared_activation(tower):
                page.note(
                    f"{role} activation",
                    f"the file does not say which it was trained with; {tower.activation} is assumed from the model's "
                    "name; the other would cost accuracy without an error: compare zero-shot with published numbers",
                )
            if not tower.pretrained:
                page.note(
                    f"{role} transform",
                    "open_clip's default, for the file does not say its own; name the tag too, to take the tag's",
                )
        return found


def show_control(page: Page, options: Options, name: str, tower: archs.Tower) -> None:
    """A backbone that the drift suite alone compares with; the run goes on without it."""
    source = weights.find(tower, options.hub_cache)
    if source.problem:
        page.note(f"control '{name}'", f"{tower.label}: {source.problem}; the drift suite would leave it out")
    else:
        page.ok(f"control '{name}'", f"{tower.label}, {source.text} ({amount(source.size)}), for the drift suite alone")


def show_pair(page: Page, base: backbones.Backbone | None, new: backbones.Backbone | None, prefix: str) -> None:
    """The base beside one update; ``prefix`` names a further one."""
    if not base or not new:
        page.note(f"{prefix}pair", "not compared, for a backbone could not be loaded")
        return
    with page.guard(f"{prefix}widths"):
        backbones.check_widths(base, new)
        page.ok(f"{prefix}widths", f"W {base.width} and D {base.dim} in both")
        whole, rows = projection_cosines(backbones.projection(base), backbones.projection(new))
        text = f"cosine of the two matrices {whole:.3f}, mean over rows {rows:.3f}"
        if abs(whole) < NEAR_ZERO:
            page.note(
                f"{prefix}text_projection",
                f"{text}: the joint space was re-initialised; deep-layer plug-ins are expected not to carry over",
            )
        else:
            page.ok(f"{prefix}text_projection", f"{text}: the joint space was kept, in part or whole")
    a, b = transform_of(base), transform_of(new)
    if a == b:
        page.ok(f"{prefix}transforms", "alike")
    else:
        differing = ", ".join(f"{name} {a[name]} and {b[name]}" for name in a if a[name] != b[name])
        page.note(f"{prefix}transforms", f"differ: {differing}; each backbone gets its own")


def transform_of(backbone: backbones.Backbone) -> dict:
    """What a picture goes through, by name; open_clip writes a square's side as one number or two."""
    t = backbone.preprocess_config
    size = tuple(t.size) if isinstance(t.size, (tuple, list)) else (t.size, t.size)
    mean, std = (tuple(round(value, 4) for value in values) for values in (t.mean, t.std))
    return {"resize": t.resize_mode, "size": size, "interpolation": t.interpolation, "mean": mean, "std": std}


def projection_cosines(base: torch.Tensor, new: torch.Tensor) -> tuple[float, float]:
    """Cosine of two (W, D) matrices as vectors, and the mean of their rows' cosines."""
    base, new = base.double().cpu(), new.double().cpu()
    rows = F.cosine_similarity(base, new, dim=1).mean().item()
    return F.cosine_similarity(base.flatten(), new.flatten(), dim=0).item(), rows


def show_data(page: Page, session: Session, id: str, trial: bool) -> bool:
    """Whether runs on this dataset can be done. A wrong count is bad where the paper's numbers stand beside ours."""
    with page.guard(id):
        data = look_at(session, id)
        counts = " / ".join(str(len(split)) for split in (data.train, data.val, data.test))
        text = f"{len(data.classnames)} classes, {counts} images (train / val / test), a sample decoded"
        splits = {"train": data.train, "val": data.val, "test": data.test}
        wrong = count_notes(LAYOUTS[id], len(data.classnames), splits) if id in LAYOUTS else []
        compared = session.options.arch.id in PAPER_TABLES and MADE not in data.notes and not trial
        if wrong and compared:
            page.bad(id, f"{text}; {'; '.join(data.notes)}: {NOT_COMPARABLE}")
        elif data.notes:
            page.note(id, f"{text}; {'; '.join(data.notes)}")
        else:
            page.ok(id, text)
        return True
    return False


def look_at(session: Session, id: str) -> Dataset:
    """Open a dataset and decode a few pictures of each split. Raises UserError with what is wrong."""
    data = session.data(id)
    for split in (data.train, data.val, data.test):
        if len(split):
            split.read(sorted({round(i * (len(split) - 1) / (SAMPLE - 1)) for i in range(SAMPLE)}))
    return data


def show_plan(
    page: Page, session: Session, args: argparse.Namespace, runs: list[plan.Run], planned: int, ready: bool
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
        jobs = args.jobs or executor.default_jobs(options)
        found = budget.estimate(session, runs, jobs, args.fresh)
        for line in budget.lines(found):
            console.print(f"     {escape(line)}", highlight=False, soft_wrap=True)
        for line in found.missing:
            page.note("not estimated", line)
        for names, needed, folder in needs(options, found):
            check_space(page, names, needed, folder)


def needs(options: Options, found: budget.Estimate) -> list[tuple[str, int, str]]:
    """(which folders, bytes, one of them) for each file system that is written to."""
    if nearest(options.out).stat().st_dev == nearest(options.cache).stat().st_dev:
        return [("disk for features and results", found.cache + found.out, options.out)]
    return [("disk for features", found.cache, options.cache), ("disk for results", found.out, options.out)]


def check_space(page: Page, what: str, needed: int, folder: str) -> None:
    free = free_space(folder)
    if free < needed:
        page.bad(
            what, f"{amount(needed)} needed, {amount(free)} free at '{folder}'; make room, or choose --out and --cache"
        )
    elif free < 1.2 * needed:
        page.note(what, f"{amount(needed)} needed and only {amount(free)} free at '{folder}'")
    else:
        page.ok(what, f"{amount(needed)} needed, {amount(free)} free")


def nearest(folder: str | Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    path = Path(folder).resolve()
    return path if path.exists() else nearest(path.parent)


def free_space(folder: str) -> int:
    return shutil.disk_usage(nearest(folder)).free


def check_writable(folder: str) -> None:
    """Without leaving anything behind: the nearest folder that is there must take a file."""
    found = nearest(folder)
    try:
        with tempfile.TemporaryFile(dir=found):
            pass
    except OSError as error:
        raise UserError(
            f"cannot write '{folder}': {error.strerror or error}; choose a writable folder with --out (and --cache)"
        ) from error


def amount(count: int | None) -> str:
    return budget.size(count) if count is not None else "size not known"
