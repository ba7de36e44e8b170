"""How runs are done: fit on the base backbone (or along the run's path), write the plug-in, evaluate it on every
backbone; a record each.

A unit is one run, or several runs on one dataset that can be trained side by side (``Method.alike``): seeds, and the
rows of an ablation. On the CPU each gets the bits that it gets alone, so it does not matter which are done together;
where this processor would give it others (`bench.backbones.probe`), it goes alone unless the user asks, and is then
marked.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from carryover.bench.backbones import probe
from carryover.bench.backbones.class_tokens import ClassTokens
from carryover.bench.backbones.loading import Backbone, first_line
from carryover.bench.engine.carried import loaded, make, plugin_of, predicted
from carryover.bench.engine.evaluator import labelled, score
from carryover.bench.engine.few_shot import as_labels
from carryover.bench.engine.plugin_header import header_of
from carryover.bench.engine.port_runs import port_over
from carryover.bench.engine.record_draft import add_features, begin, encoded_since, tell_choice, write_manifests
from carryover.bench.engine.session import Session
from carryover.bench.errors import StorageError, Unfit, UserError
from carryover.bench.host import out_of_memory
from carryover.bench.host.device import peak_memory, reset_peak
from carryover.bench.host.identity import sha256_of
from carryover.bench.plan.runs import Run
from carryover.bench.stats import learning_curves
from carryover.bench.training.chosen import retrained
from carryover.bench.training.generators import generator
from carryover.bench.training.trainer import FitError, fit_together
from carryover.datasets.withheld import no_labels
from carryover.methods.base import METHODS, Classes, Method, TrainConfig

# Tokens of the text tower that one step of runs side by side may have: more no longer gains (measured on the CPU; on a
# GPU not measured, several thousand tokens fill one).
STEP_TOKENS = {"cpu": 2048, "cuda": 65536, "mps": 8192}

OUT_OF_MEMORY = "out of memory: "  # begins the error of a run that is tried again
OTHER_BITS = "trained side by side, which changes last bits on its processor (--together)"


@dataclass
class Work:
    """A run on its way: ``method`` and ``support`` while it is to be trained."""

    run: Run
    key: str
    record: dict
    tests: dict[str, Any]  # by role, what ``predict`` is given
    method: Any = None  # Method and Support, from `prepare` on
    support: Any = None
    home: dict = field(default_factory=dict)  # ``Method.home`` after training

    @property
    def failed(self) -> bool:
        return self.record["status"] == "failed"

    @property
    def over(self) -> bool:
        """Nothing is left to do: it failed, or the one backbone that it is about cannot take it."""
        return self.failed or (self.run.path != ("base",) and self.run.path[-1] in self.record.get("refused", {}))


def execute_together(session: Session, unit: Sequence[tuple[Run, str]]) -> Iterator[dict]:
    """Train, carry over, evaluate; writes plug-ins and predictions, gives the records one by one (failed ones too).
    A run that ran out of memory is tried again alone, with smaller text passes. Raises StorageError, as what cannot be
    written here cannot for any run."""
    for (run, key), record in zip(unit, tried(session, unit), strict=True):
        yield with_less_memory(session, run, key) if out_of_memory_in(record) else record


def with_less_memory(session: Session, run: Run, key: str) -> dict:
    """Its record, with half the budget again and again; a clear failure at the floor."""
    full, record = session.full_budget, {}
    try:
        for budget in out_of_memory.budgets(full):
            if budget == full and full > out_of_memory.FLOOR:
                continue
            out_of_memory.let_go(session.backbone("base").device)
            session.allow(budget)
            (record,) = tried(session, [(run, key)])
            if not out_of_memory_in(record):
                return record
    finally:
        session.allow(full)  # so that no run's numbers depend on the one before it
    said = record["error"].removeprefix(OUT_OF_MEMORY)
    return {**record, "error": out_of_memory.failure(record["text_budget_bytes"], said)}


def out_of_memory_in(record: dict) -> bool:
    return (record.get("error") or "").startswith(OUT_OF_MEMORY)


def tried(session: Session, unit: Sequence[tuple[Run, str]]) -> Iterator[dict]:
    """The records of one try."""
    works = [Work(run, key, begin(session, run, key), {}) for run, key in unit]
    reset_peak(session.backbone("base").device)
    for work in works:
        before = session.encoded()
        session.used()
        if not work.over:
            attempt(session, work, read_tests)
        if not work.over and not work.run.test and not work.run.port:
            attempt(session, work, prepare)
        work.record["encoded"] = encoded_since(before, session.encoded())
        work.record["features"] = session.used()
    for part in side_by_side(session, [work for work in works if work.method is not None and not work.over]):
        train(session, part)
    for work in works:
        work.method = work.support = None
        session.used()
        if not work.over:
            attempt(session, work, through_port if work.run.port else carry_over)
        add_features(work.record, session.used())
        if not work.failed:
            work.record["status"] = "done"
        elif work.run.trained == work.run and "plugin" not in work.record["files"]:
            session.store.drop_plugin(work.key)
        yield work.record


def attempt(session: Session, work: Work, step: Callable[[Session, Work], None]) -> None:
    """A step whose failure is this run's alone."""
    try:
        step(session, work)
    except StorageError:
        raise
    except (Exception, SystemExit) as error:  # a method may call exit(): that ends its run, not the call
        fail(session, work, error)


def fail(session: Session, work: Work, error: BaseException) -> None:
    if isinstance(error, Unfit) and work.run.path != ("base",) and not work.run.port:
        work.record["refused"] = {work.run.path[-1]: str(error)}
        return
    if isinstance(error, FitError):
        work.record["curve"] = error.curve
    elif session.options.debug:
        traceback.print_exception(error)
    plain = isinstance(error, (UserError, FitError))
    message = str(error) if plain else f"{type(error).__name__}: {first_line(error)}"
    if out_of_memory.ran_out(error):
        message = OUT_OF_MEMORY + message
    work.record.update(status="failed", error=message)


def through_port(session: Session, work: Work) -> None:
    """The plug-in that the run's source left on the base, ported to each target and evaluated there."""
    run, record = work.run, work.record
    plugin = plugin_of(session, run.trained)
    carried = loaded(session, run.trained, session.shape_of(run), plugin)
    left = sha256_of(session.store.path("plugins", plugin))
    record["files"] |= {"plugin": left, "carried": left}
    port_over(session, run, work.key, record, carried)


def read_tests(session: Session, work: Work) -> None:
    start = time.perf_counter()
    if work.run.port:
        session.anchors.read(work.run)
    else:
        work.tests = {role: session.inputs.tests(work.run, role) for role in session.evaluated_on(work.run)}
    work.record["seconds"]["features"] = time.perf_counter() - start


def prepare(session: Session, work: Work) -> None:
    """Support features, and the method, with what it carries from backbones before, bound to the one it trains on."""
    run, backbone = work.run, session.backbone(work.run.path[-1])
    few, start = session.fewshot(run), time.perf_counter()
    work.record["drawn"] = write_manifests(session, run)
    work.support = session.inputs.support(run)
    work.record["seconds"]["features"] += time.perf_counter() - start
    start = time.perf_counter()
    shape = session.shape_of(run)
    if run.source is None:
        work.method = make(session, run, shape)
    else:
        plugin = plugin_of(session, run.source)
        work.method = loaded(session, run, shape, plugin)
        work.method.config = retrained(work.method.config, run.training)
        work.record["files"]["carried"] = sha256_of(session.store.path("plugins", plugin))
    with no_labels():
        work.method.bind(backbone, Classes(run.dataset, few.data.classnames, few.data.templates))
    work.record["seconds"]["fit"] = time.perf_counter() - start


def side_by_side(session: Session, works: list[Work]) -> list[list[Work]]:
    """Parts of a unit that fit one step."""
    parts: list[list[Work]] = []
    most = STEP_TOKENS[session.backbone("base").device.type]
    for work in works:
        backbone = session.backbone(work.run.path[-1])
        size = tokens_a_step(work.method, backbone, min(work.run.config.batch, len(work.support.labels)))
        last = parts[-1] if parts else []
        same = bool(last) and alike(last[0].run) == alike(work.run) and alike(work.run) is not None
        same = same and len(last[0].support.labels) == len(work.support.labels)
        same = same and (session.options.asked or not other_bits(session, work.run))
        if same and len(last) < session.options.together and (len(last) + 1) * size <= most:
            last.append(work)
        else:
            parts.append([work])
    return parts


def tokens_a_step(method: Method, backbone: Backbone, batch: int) -> float:
    """Tokens of the text tower in a step of a method that is bound to the backbone. A method counts packed ones, with
    prefixes shared; some towers compute whole rows."""
    classes, size = getattr(method, "tokens", None), method.tokens_a_step(batch)
    if not isinstance(classes, ClassTokens):
        return size
    n, own = getattr(method.config, "context_length", 0), getattr(method, "per", "") == "class"
    return size * backbone.text.times_packed(classes, n, own)


def other_bits(session: Session, run: Run) -> bool:
    """Whether it would have other last bits beside other runs than alone (``probe.apart``)."""
    return probe.apart(session.backbone("base").device, len(session.fewshot(run).data.classnames))


def alike(run: Run) -> tuple | None:
    """What runs that go side by side have in common; None where the method goes alone."""
    own = METHODS[run.method].alike(run.config)
    if own is None or run.test or run.port:
        return None
    schedule = tuple(getattr(run.config, name) for name in TrainConfig.__dataclass_fields__)
    path = run.path, run.refresh, run.carried_shots
    return run.method, run.dataset, run.shots, run.views, run.limit, *path, own, schedule


def train(session: Session, works: list[Work]) -> None:
    """Fit and write the plug-ins. Where runs fail together in any other way than by their loss, each is tried alone."""
    backbone, start = session.backbone(works[0].run.path[-1]), time.perf_counter()
    methods = [work.method for work in works]
    outcomes, sizes = None, [0] * len(works)
    for method in methods:
        method.train()
    try:
        with no_labels(), methods[0].attach(backbone):
            outcomes = fit_together(
                methods,
                [work.support for work in works],
                [generator("fit", work.run.dataset, work.run.method, work.run.seed) for work in works],
                resume=works[0].run.source is not None,
            )
            sizes = [trained_values(method) for method in methods]
    except (Exception, SystemExit) as error:
        if len(works) == 1:
            return fail(session, works[0], error)
    if outcomes is None:  # not within `except`, which holds the failed step's memory
        del methods
        for work in works:
            work.method = None
        for work in works:
            attempt(session, work, prepare)
            if not work.failed:
                train(session, [work])
        return
    seconds = (time.perf_counter() - start) / len(works)
    for work, outcome, size in zip(works, outcomes, sizes, strict=True):
        work.record["seconds"]["fit"] += seconds
        work.record["trainable_parameters"] = size
        work.record["together"] = len(works)
        if len(works) > 1 and other_bits(session, work.run):
            work.record["marks"].append(OTHER_BITS)
        if isinstance(outcome, FitError):
            fail(session, work, outcome)
            continue
        work.record["curve"] = outcome
        work.record["marks"] += marks_of_fit(work.run, outcome)
        tell_choice(work.record, work.method)
        work.home = work.method.home
        attempt(session, work, write_plugin)


def marks_of_fit(run: Run, curve: list[dict]) -> list[str]:
    """A refresh of few steps is short because it was asked to be."""
    return [] if run.refresh > 0 else learning_curves.marks(curve)


def trained_values(method: Method) -> int:
    """Values that training changed, towers that stay at home included; none where only test images change them."""
    if method.needs == "views":
        return 0
    return sum(parameter.numel() for _, parameters in method.trained() for parameter in parameters)


def write_plugin(session: Session, work: Work) -> None:
    method = work.method
    metadata = header_of(work.run, method, [session.backbone(role) for role in work.run.path])
    work.record["plugin_bytes"] = session.store.write_plugin(work.key, method.learned(), metadata)


def carry_over(session: Session, work: Work) -> None:
    """A fresh method, the saved tensors put into it, evaluated on each backbone that the run is asked about on."""
    run, record = work.run, work.record
    if run.test and not METHODS[run.method].whole:
        raise UserError(f"{run.method}: the towers that it trained were not kept, so no other test set can be tried")
    plugin = plugin_of(session, run.trained) if run.test else work.key

    def fresh() -> Method:
        carried = loaded(session, run, session.shape_of(run), plugin)
        carried.home = work.home  # of use on the backbone it was trained on alone
        return carried

    record["files"]["plugin"] = sha256_of(session.store.path("plugins", plugin))
    found, marks, refused = predicted(session, run, fresh, work.tests, record["seconds"]["evaluate"])
    record["marks"] += marks
    if refused:
        record["refused"] = {**record.get("refused", {}), **refused}
    outcomes = {}
    labels = as_labels(session.test_split(run), "cpu")  # all predictions are made
    for role, answers in found.items():
        outcome, backbone = labelled(answers, labels), session.backbone(role)
        record["targets"][role] = {"backbone": backbone.label, "fingerprint": backbone.fingerprint, **score(outcome)}
        outcomes.update({f"{role}.{name}": value.contiguous() for name, value in outcome.items()})
    session.store.write_predictions(work.key, outcomes)
    record["files"]["predictions"] = sha256_of(session.store.path("predictions", work.key))
    record["peak_memory_bytes"] = peak_memory(session.backbone("base").device)
