"""Anyone's plug-in file on any backbone: contract check, accuracy beside that backbone's zero-shot, their difference.

What is computed goes the way of a run's last step (``bench.engine.one_run``): the same features from the same cache,
the same evaluator. Hence a plug-in that a run here wrote gives the predictions of its record.
"""

from __future__ import annotations

import datetime
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from carryover.bench.backbones.archs import Arch, Tower
from carryover.bench.backbones.loading import Backbone
from carryover.bench.engine.carried import make, predicted, tested_classes
from carryover.bench.engine.evaluator import depends_on_company, labelled, predict, score
from carryover.bench.engine.few_shot import as_labels
from carryover.bench.engine.one_run import Work, read_tests
from carryover.bench.engine.session import Session
from carryover.bench.features.store import FEATURES_VERSION
from carryover.bench.host import environment, source_identity
from carryover.bench.host.device import device_name
from carryover.bench.host.identity import digest, sealed, sha256_of
from carryover.bench.plan.run_labels import ZERO_SHOT
from carryover.bench.plan.runs import NUMBERS_VERSION, Run
from carryover.bench.plugins.contract import Incompatible, check, check_ported
from carryover.bench.plugins.format import PORTED_VERSION, Plugin
from carryover.bench.plugins.homes import at_home, left_home, other_home, warnings_of
from carryover.bench.plugins.ported import for_classes, restored
from carryover.bench.ports.base import Ported
from carryover.bench.stats.intervals import NORMAL
from carryover.datasets.withheld import no_labels
from carryover.methods import source_hash
from carryover.methods.base import METHODS, Classes, Method, Shape, TrainConfig

FOLDER = "evaluations"  # under --out, beside those of the archs


@dataclass(frozen=True)
class Alone(Arch):
    """One backbone by itself, as ``Session`` takes it."""

    @property
    def towers(self) -> dict[str, Tower]:
        return {"base": self.base}


def alone(tower: Tower) -> Alone:
    return Alone(FOLDER, tower, tower)


def run_of(plugin: Plugin, dataset: str, method: str, config: TrainConfig, precision: str, limit: int | None) -> Run:
    """The run whose last step this is: trained on the header's dataset, evaluated on ``dataset``."""
    header = plugin.header
    trained = header["dataset"], header["seed"] or 0, header["shots"] or 0
    own, seed, shots = trained
    return Run(FOLDER, own, method, seed, shots, "", precision, 0, limit, config, test=dataset)


def evaluate_plugin(session: Session, plugin: Plugin, dataset: str, limit: int | None = None) -> dict[str, Any]:
    """The result as it is stored (``results/README.md``), written with the predictions. The session's arch is
    ``alone(tower)``. Raises Incompatible before any picture is read."""
    start, data, tower = time.perf_counter(), session.data(dataset), session.options.arch.base
    config = METHODS[plugin.method].Config()
    with no_labels():
        ported = None if plugin.ported is None else restored(plugin)
        if ported is None:
            config = check(plugin, tower, data, cache_dir=session.options.hub_cache)
        else:
            check_ported(plugin, ported, tower, data)
    backbone, precision = session.backbone("base"), session.options.precision
    if reasons := left_home(plugin, backbone) if ported is None else other_home(plugin, ported, backbone):
        raise Incompatible(plugin, tower, data, reasons)
    run = run_of(plugin, dataset, plugin.method, config, precision, limit)
    zero = run_of(plugin, dataset, ZERO_SHOT, METHODS[ZERO_SHOT].Config(), precision, limit)
    identity = identity_of(session, plugin, run)
    if ported is not None:
        identity["ported"] = source_identity.of_classes(ported_bases(ported))
    key = digest(identity)[:16]
    shape = plugin.shape if ported is None else Shape.of(backbone, data.classnames, 0)
    made = {
        "plugin": predictions(session, run, shape, plugin.tensors, plugin.templates)
        if ported is None
        else ported_predictions(session, zero, ported),
        "zero_shot": predictions(session, zero, shape, {}),
    }
    labels = as_labels(session.test_split(zero), "cpu")  # all predictions are made
    outcomes = {name: labelled(outcome, labels) for name, (outcome, _) in made.items()}
    session.store.write_predictions(
        key, {f"{name}.{part}": one.contiguous() for name, found in outcomes.items() for part, one in found.items()}
    )
    marks = [*data.notes, *session.same_prompts(dataset, "base")]
    right = {name: (outcome["predicted"] == outcome["label"]).numpy() for name, outcome in outcomes.items()}
    stored = {
        "key": key,
        "plugin": {"sha256": plugin.sha256, "file": plugin.path.rsplit("/", 1)[-1], **without_names(plugin.header)},
        "method": {"id": plugin.method, "name": METHODS[plugin.method].name or plugin.method},
        "dataset": {"id": data.id, "name": data.name, "classes": len(data.classnames), "marks": marks},
        "backbone": {"label": backbone.label, "fingerprint": backbone.fingerprint},
        **score(outcomes["plugin"]),
        "zero_shot": score(outcomes["zero_shot"]),
        "difference": difference(right["plugin"], right["zero_shot"]),
        "warnings": warnings_of(plugin, backbone)
        + [f"{plugin.method}: {mark}" for mark in made["plugin"][1]]
        + worse_than_chance(plugin, backbone, outcomes["plugin"], len(data.classnames)),
        "limit": limit,
        "precision": precision,
        "identity": identity,
        "files": {"predictions": sha256_of(session.store.path("predictions", key))},
        "seconds": time.perf_counter() - start,
        "versions": environment.versions(),
        "device": device_name(backbone.device),
        "git_commit": environment.git_commit(),
        "started": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    session.store.write_note(f"{key}.json", sealed(stored))
    return stored


def worse_than_chance(plugin: Plugin, backbone: Backbone, outcome: dict[str, Tensor], classes: int) -> list[str]:
    """Of a plug-in on the backbone that it was trained on, which mostly means that names stand in another order."""
    accuracy = score(outcome)["accuracy"]
    if plugin.ported is not None or not at_home(plugin, backbone) or accuracy >= 100 / classes:
        return []
    return [
        f"{accuracy:.1f} % is below chance ({100 / classes:.1f} %) on the backbone that it was trained on: are its "
        "class names in the order of training?"
    ]


def predictions(
    session: Session, run: Run, shape: Shape, tensors: dict[str, Tensor], templates: tuple[str, ...] = ()
) -> tuple[dict[str, Tensor], list[str]]:
    """As ``one_run.carry_over`` makes them: a fresh method, the saved tensors put into it, asked. And the marks
    of answers that depend on other images. ``templates`` take the place of the dataset's."""
    work = Work(run, "", {"seconds": {}}, {})
    read_tests(session, work)
    inputs = work.tests["base"]
    if isinstance(inputs, Tensor):
        inputs = inputs.clone()  # read or just encoded, it lies alike in memory: where it lies can change last bits

    def fresh() -> Method:
        return make(session, run, shape, tensors)

    if not templates:
        found, marks, _ = predicted(session, run, fresh, {"base": inputs}, {})
        return found["base"], marks
    return asked(fresh, session.backbone("base"), replace(tested_classes(session, run), templates=templates), inputs)


def ported_predictions(session: Session, zero: Run, ported: Ported) -> tuple[dict[str, Tensor], list[str]]:
    """Of the same features as zero-shot's; nothing of a text tower is asked."""
    inputs, classes = session.inputs.test_features(zero, "base").clone(), tested_classes(session, zero)
    ported = for_classes(ported, classes)
    return asked(lambda: ported, session.backbone("base"), classes, inputs)


def asked(
    fresh: Callable[[], Method | Ported], backbone: Backbone, classes: Classes, inputs: Any
) -> tuple[dict[str, Tensor], list[str]]:
    """Predictions, and the mark of answers that depend on other images."""
    plugin = fresh()
    outcome, sample = predict(plugin, backbone, classes, inputs)
    alone = isinstance(plugin, Method) and plugin.transductive
    mark = "" if alone else depends_on_company(fresh, backbone, classes, sample)
    return outcome, [mark] if mark else []


def ported_bases(ported: Ported) -> tuple[type, ...]:
    return tuple(one for one in type(ported).__mro__ if issubclass(one, Ported))


def identity_of(session: Session, plugin: Plugin, run: Run) -> dict[str, Any]:
    """All that can change the result; its hash names the files."""
    backbone, data = session.backbone("base"), session.tested(run)
    return {
        "plugin": plugin.sha256,
        "method": source_hash(METHODS[run.method]),
        "zero_shot": source_hash(METHODS[ZERO_SHOT]),
        "backbone": backbone.fingerprint,
        "transform": asdict(backbone.preprocess_config),
        "dataset": data.id,
        "pictures": session.test_split(run).content_sha256(data.classnames),
        "classes": digest(list(data.classnames)),
        "templates": list(data.templates),
        "precision": run.precision,
        "numbers": NUMBERS_VERSION,
        "features": FEATURES_VERSION,
    }


def without_names(header: dict[str, Any]) -> dict[str, Any]:
    """The header without its class names, which may be a thousand, and what a ported one is restored from; the file has
    them."""
    found = {**header, "shape": {name: value for name, value in header["shape"].items() if name != "classnames"}}
    if header["version"] == PORTED_VERSION:
        found["ported"] = {name: value for name, value in header["ported"].items() if name != "state"}
    return found


def difference(right: np.ndarray, usual: np.ndarray) -> dict[str, float | int]:
    """Accuracy less the usual one, in points, over the same images (N,) of right and wrong answers.

    ``won`` and ``lost``: images that only the one, only the other has right. ``low`` and ``high``: 95 %, with one image
    more of either kind (Bonett and Price 2012, "Adjusted Wald confidence interval for a difference of binomial
    proportions based on paired data"), so that few differences do not stand for none.
    """
    won, lost, count = int((right & ~usual).sum()), int((~right & usual).sum()), len(right)
    middle, differ = (won - lost) / (count + 2), (won + lost + 2) / (count + 2)
    half = NORMAL * math.sqrt((differ - middle**2) / (count + 2))
    low, high = 100 * max(-1.0, middle - half), 100 * min(1.0, middle + half)
    return {"points": 100 * (won - lost) / count, "low": low, "high": high, "won": won, "lost": lost}
