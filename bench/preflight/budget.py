"""What a plan will take: counted operations, the device's measured speed (``bench.preflight.device_speed``), time
and disk.

Counting is exact: which feature files are not there yet, training steps, text classes, images to predict, bytes. Time
is those counts times seconds measured on this device, so it is an estimate and says how each part was come by.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from carryover.bench.backbones.loading import first_line
from carryover.bench.engine import units as engine_units
from carryover.bench.engine.carried import make
from carryover.bench.engine.few_shot import FewShot, augments, view_count
from carryover.bench.engine.record_draft import describe
from carryover.bench.engine.run_inputs import TEST_VIEWS_SEED
from carryover.bench.engine.session import Session
from carryover.bench.errors import Unfit, UserError
from carryover.bench.features.store import TEST_RECIPE, view_recipe
from carryover.bench.host.identity import canonical
from carryover.bench.plan.port_specs import PORT_SPECS
from carryover.bench.plan.runs import Run
from carryover.bench.preflight.device_speed import Calibration
from carryover.bench.records import time_notes
from carryover.datasets.base import Split
from carryover.methods.base import METHODS, Classes
from carryover.methods.parts.schedule import Schedule, epoch_steps

FLOAT = 4  # bytes
PREDICTION = 12  # bytes of one prediction: int32 class, int32 label, fp32 confidence
HEADER = 90  # bytes of a safetensors file for each tensor it names, about
CURVE_ROW = 88  # bytes of an epoch's row in a record, about
TRUST = "an estimate, wrong by what else this machine does"
OUTCOME = 600  # bytes of what a record gains when its run is done, about


@dataclass(frozen=True)
class Features:
    """One feature file: whose, of how many pictures, and whether they are test pictures."""

    path: Path
    role: str
    images: int
    test: bool
    bytes: int


@dataclass(frozen=True)
class Stage:
    """A part of the estimate: seconds of one process at work, and how that was come by."""

    name: str
    seconds: float
    how: str


@dataclass(frozen=True)
class Estimate:
    """Predicted time and disk of what is still to be done.

    runs, done     runs still to do, and those with a finished record
    stages         seconds by stage, of work done one after the other
    seconds        of the whole on the clock, with ``jobs`` workers
    cache, out     bytes written to the cache, and to the results folder (without tables, figures and report)
    missing        what could not be estimated: a method or dataset, and why
    keys           of the runs that the estimate is of
    """

    runs: int
    done: int
    jobs: int
    stages: tuple[Stage, ...]
    seconds: float
    cache: int
    out: int
    missing: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()

    def stored(self) -> dict:
        """As ``estimate.json`` holds it (`results/README.md`)."""
        same = {name: getattr(self, name) for name in ("done", "jobs", "seconds", "cache", "out")}
        stages = {stage.name: stage.seconds for stage in self.stages}
        return {**same, "stages": stages, "missing": list(self.missing), "keys": sorted(self.keys)}


@dataclass(frozen=True)
class Counts:
    """Counted operations of one run; ``files`` is all it reads, whether there or not."""

    run: Run
    classes: int
    support: int
    tests: int
    steps: int
    files: tuple[Features, ...]


def count(session: Session, run: Run, known: dict[tuple, tuple[Features, ...]] | None = None) -> Counts:
    """Loads backbones and lists, no picture. Raises UserError where these cannot be had. ``known`` keeps the files of
    runs that read the same, for naming them takes a hash of every list."""
    few, known = session.fewshot(run), {} if known is None else known
    classes, support = len(session.tested(run).classnames), len(few.support)
    drawn = run.dataset, run.test, run.shots, run.seed, run.limit
    kind = METHODS[run.method]
    told = kind.needs, kind.test_views(run.config), kind.selects_on_test(run.config)
    ported = run.port, run.anchors, run.count, run.via
    read = *drawn, *ported, run.path[-1], run.config.crop, view_count(run, support), told
    if read not in known:
        known[read] = tuple(feature_files(session, run, few))
    return Counts(run, classes, support, len(session.test_split(run)), steps(run, support), known[read])


def steps(run: Run, support: int) -> int:
    """Training steps of a run on so many support images; 0 where the trainer has nothing to do."""
    ported = bool(run.port) and len(run.path) == 1
    if run.test or not run.config.epochs or (ported and PORT_SPECS[run.port].closed_form):
        return 0
    an_epoch = epoch_steps(run.config, support)
    return Schedule(run.training, an_epoch).epochs * an_epoch


def feature_files(session: Session, run: Run, few: FewShot) -> Iterator[Features]:
    """What ``RunInputs`` read."""
    shared: dict[tuple[str, int], dict] = {}

    def file(role: str, split: Split, recipe: dict, test: bool = False, dataset: str = "") -> Features:
        store = session.features(role)
        data = session.data(dataset) if dataset else session.tested(run) if test else few.data
        if (role, id(split)) not in shared:  # one hash of the list for all its views
            shared[role, id(split)] = store.identity({}, split, data.classnames)
        identity = {**shared[role, id(split)], **recipe}
        named = len(canonical(identity)) * 11 // 10 + 2 * HEADER  # quotes escaped, a sha256
        size = len(split) * store.backbone.dim * FLOAT + named
        return Features(store.path(identity), role, len(split), test, size)

    kind = METHODS[run.method]
    tests = [TEST_RECIPE] if kind.needs != "pixels" else []
    if kind.needs == "views":
        count, crop = kind.test_views(run.config)
        tests += [view_recipe(crop, TEST_VIEWS_SEED, view) for view in range(count - 1)]
    for role in session.evaluated_on(run):
        for recipe in tests:
            yield file(role, session.test_split(run), recipe, True)
    for dataset, split, _ in session.anchors.chosen(run) if run.port else ():
        for role in ("base", *run.via, *session.evaluated_on(run)):
            yield file(role, split, TEST_RECIPE, dataset=dataset)
    if run.test or (run.port and len(run.path) == 1):
        return
    for split in (few.support, few.val):
        yield file(run.path[-1], split, TEST_RECIPE)
    if augments(run) and kind.needs != "pixels":
        for view in range(view_count(run, len(few.support))):
            yield file(run.path[-1], few.support, view_recipe(run.config.crop, run.seed, view))
    if kind.selects_on_test(run.config) and run.dataset != "imagenet":
        yield file(run.path[-1], few.data.val, TEST_RECIPE)


def out_bytes(session: Session, counted: Iterable[Counts]) -> int:
    """Bytes of records, plug-ins, predictions and manifests; tables, figures and report come to a megabyte or so."""
    total, draws = 0, {}
    for counts in counted:
        run, few = counts.run, session.fewshot(counts.run)
        shape = session.shape_of(run)
        described = len(json.dumps(describe(session, run, "0" * 16), indent=1, sort_keys=True))
        epochs = counts.steps // max(epoch_steps(run.config, counts.support), 1)
        header = len(canonical({"config": run.canonical()["config"], "classnames": list(shape.classnames)})) * 11 // 10
        total += described + OUTCOME + epochs * CURVE_ROW
        if run.trained == run:
            total += sum(size + HEADER for size in sizes_of_plugin(session, run, few)) + header + 2 * HEADER
        total += len(session.evaluated_on(run)) * (counts.tests * PREDICTION + 3 * HEADER)
        draw = run.dataset, run.shots, run.seed
        if draw not in draws:
            draws[draw] = sum(len(split.manifest(few.data.classnames)) for split in (few.support, few.val))
    return total + sum(draws.values())


def sizes_of_plugin(session: Session, run: Run, few: FewShot) -> list[int]:
    """Bytes of each tensor. Of a method whose tensors go by more than its shape (``sized``), of what it trains; none
    where the backbone has no place for it."""
    method = make(session, run, session.shape_of(run))
    if not callable(getattr(method, "sized", None)):
        return [value.nbytes for value in method.learned().values()]
    try:
        classes = Classes(run.dataset, few.data.classnames, few.data.templates)
        method.bind(session.backbone(run.path[0]), classes)
    except Unfit:
        return []
    return [value.nbytes for _, values in method.trained() for value in values]


@dataclass(frozen=True)
class Priced:
    """Seconds of one run.

    features  of the files that are not there and that no run before it reads: role -> pictures, seconds
    cache     their bytes
    """

    run: Run
    features: dict[str, tuple[int, float]]
    cache: int
    fit: float = 0.0
    evaluation: float = 0.0

    @property
    def seconds(self) -> float:
        return self.fit + self.evaluation + sum(seconds for _, seconds in self.features.values())


def priced(
    calibration: Calibration,
    counted: Iterable[Counts],
    missing: dict[str, None],
    there: Callable[[Path], bool] = Path.exists,
) -> Iterator[Priced]:
    """Each run's seconds. What cannot be measured is named in ``missing`` and costs nothing.

    there  whether a feature file need not be made"""
    seen = set()
    for counts in counted:
        run, cache = counts.run, 0
        features: dict[str, tuple[int, float]] = {}
        try:
            for file in counts.files:
                if file.path in seen or there(file.path):  # kept with --fresh too
                    continue
                seen.add(file.path)
                cache += file.bytes
                shown = (run.test or run.dataset) if file.test else run.dataset
                images, seconds = features.get(file.role, (0, 0.0))
                more = file.images * calibration.image_seconds(file.role, shown)
                features[file.role] = images + file.images, seconds + more
        except Exception as error:
            missing[f"{run.dataset}: {first_line(error)}"] = None
        try:
            fit, evaluation = calibration.run_seconds(run, counts.steps, counts.tests)
        except Exception as error:
            missing[f"{run.method}: {first_line(error)}"] = None
            yield Priced(run, features, cache)
            continue
        yield Priced(run, features, cache, fit, evaluation * len(calibration.session.evaluated_on(run)))


def estimate(
    session: Session, runs: list[Run], jobs: int, fresh: bool = False, calibration: Calibration | None = None
) -> Estimate:
    """Time and disk of what is left of a plan. A dataset or method that fails is named in ``missing`` and left out.

    Raises UserError where a backbone cannot be had.
    """
    towers = session.options.arch.towers
    for role in towers:
        session.backbone(role)
    counted: list[Counts] = []
    keys: list[str] = []
    done = 0
    known: dict = {}
    missing: dict[str, None] = {}  # a set in order
    for run in runs:
        try:
            key = session.keys.of(run)
            if not fresh and session.store.read_record(key):
                done += 1
            else:
                counted.append(count(session, run, known))
                keys.append(key)
        except UserError as error:
            missing[f"{run.dataset}: {error}"] = None
    if not counted:
        return Estimate(0, done, jobs, (), 0.0, 0, 0, tuple(missing))

    calibration = calibration or Calibration(session, [counts.run for counts in counted])
    stages: dict[str, float] = {}
    found = list(priced(calibration, counted, missing))
    for part in found:
        named = {time_notes.features_stage(role): seconds for role, (_, seconds) in part.features.items()}
        if part.fit or part.evaluation:
            named[time_notes.fit_stage(part.run.method)] = part.fit
            named[time_notes.evaluation_stage(part.run.method)] = part.evaluation
        for stage, seconds in named.items():
            stages[stage] = stages.get(stage, 0.0) + seconds
    own, cache = {part.run: part.seconds for part in found}, sum(part.cache for part in found)
    try:
        out = out_bytes(session, counted)
    except Exception as error:
        out = 0
        missing[f"disk of {session.options.out}: {first_line(error)}"] = None
    ordered = sorted(stages.items(), key=lambda item: item[0].split(",")[0] != "features")
    seconds = on_the_clock(session, own, jobs)
    parts = tuple(Stage(name, part, calibration.how(name)) for name, part in ordered)
    return Estimate(len(counted), done, jobs, parts, seconds, cache, out, tuple(missing), tuple(keys))


def on_the_clock(session: Session, own: dict[Run, float], jobs: int) -> float:
    """Seconds until the last worker is done: units of runs go one by one to the worker that is free first."""
    units = engine_units.units(session, [(run, "") for run in own])
    units.sort(key=lambda unit: -engine_units.size(session, unit))  # the executor's order
    workers = [0.0] * max(1, min(jobs, len(units)))
    for unit in units:
        heapq.heappush(workers, heapq.heappop(workers) + sum(own[run] for run, _ in unit.runs))
    return max(workers)


def lines(found: Estimate) -> list[str]:
    """The estimate for a reader: each stage with how it was come by, then the whole."""
    if not found.runs:
        return [f"nothing left to do: {found.done} runs have their record"]
    shown = [f"{stage.name}: {duration(stage.seconds)} ({stage.how})" for stage in found.stages]
    workers = f" with {found.jobs} workers" if found.jobs > 1 else ""
    done = f", {found.done} done before" if found.done else ""
    shown.append(
        f"about {duration(found.seconds)}{workers} for {found.runs} runs{done}, without loading and report; {TRUST}"
    )
    shown.append(f"disk: {size(found.cache)} of features, {size(found.out)} of records, plug-ins and predictions")
    return shown


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def size(count: float) -> str:
    if count < 1000:
        return f"{count:.0f} bytes"
    unit = "KB" if count < 1e6 else "MB" if count < 1e9 else "GB"
    return f"{count / {'KB': 1e3, 'MB': 1e6, 'GB': 1e9}[unit]:.3g} {unit}"
