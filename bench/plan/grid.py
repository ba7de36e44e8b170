"""The runs that a call asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from carryover import datasets
from carryover.bench.backbones.archs import Arch
from carryover.bench.errors import UserError, unknown
from carryover.bench.plan import suites
from carryover.bench.plan.defaults import SEEDS
from carryover.bench.plan.run_labels import ZERO_SHOT
from carryover.bench.plan.runs import Run
from carryover.bench.plan.settings import Methods, Settings, parse_overrides, takes


def grid(
    arch: Arch,
    settings: Settings,
    *,
    suites_: Sequence[str] = (),
    methods: Sequence[str] = (),
    datasets_: Sequence[str] = (),
    seeds: Sequence[int] = SEEDS,
    sweeps: Mapping[str, Sequence[tuple[str, ...]]] | None = None,
    zero_shot: bool = False,
) -> list[Run]:
    """All runs, each once, grouped by dataset and seed so that features are shared. Empty lists mean the arch's
    default: its first suites, the methods on frozen features ("all" in ``methods``: every one), each suite's own
    datasets. ``sweeps``: method -> options of each of the rows that the main suite has in place of the method's own
    (`bench.plan.sweeps`). ``zero_shot``: it runs beside whatever methods are named, in suites whose tables show it."""
    known = settings.methods
    for name in methods:
        if name not in known and name != "all":
            raise unknown("method", name, [*known, "all"])
    named = bool(methods)
    methods = list(known) if "all" in methods else list(methods) or default_methods(known)
    parse_overrides(settings.overrides, known, methods)
    asked = list(dict.fromkeys(map(datasets.identify, datasets_)))
    test_only = [id for id in asked if id in (*datasets.ood("paper"), *datasets.ood("micro"))]
    if test_only:
        raise UserError(
            f"dataset '{test_only[0]}' has test images only, so nothing can be trained on it; leave it out of "
            "--datasets (the ood suite evaluates on it what was trained on the generic set)"
        )
    cells = []
    for suite in map(suites.SUITES.__getitem__, suites.chosen(arch, suites_)):
        taken = list(methods if named or not suite.methods else suite.methods)
        if zero_shot and suite.kind == "main" and ZERO_SHOT not in taken:
            taken = [ZERO_SHOT, *taken]
        found = cells_of(suite, arch, settings, taken, asked, suite.id in suites_, [ZERO_SHOT] if zero_shot else [])
        if suite.kind == "main" and sweeps:
            found = [(dataset, one) for dataset, row in found for one in swept_rows(row, sweeps)]
        cells += found
    runs = [settings.run(arch.id, dataset, row, seed) for dataset, row in cells for seed in dict.fromkeys(seeds)]
    if not runs and set(suites_) != {"drift"}:
        raise UserError(
            f"no run is left of --suite {' '.join(suites_)} with these --datasets and --methods; ood trains on "
            f"{suites.ood_source(arch) or 'no dataset of this arch'}, the ablations train coop and contcoop, "
            "shots methods on frozen features, chains those that are trained by steps, retention those that learn"
        )
    order = {key: place for place, key in enumerate(dict.fromkeys((run.dataset, run.seed) for run in by_dataset(runs)))}
    # what a run needs comes before it
    return sorted(dict.fromkeys(runs), key=lambda run: (order[run.dataset, run.seed], len(run.sources)))


def swept_rows(row: suites.Variant, sweeps: Mapping[str, Sequence[tuple[str, ...]]]) -> list[suites.Variant]:
    """The rows that a sweep has in place of a method's own."""
    if row.method not in sweeps:
        return [row]
    return [suites.Variant((), row.method, options) for options in sweeps[row.method]]


def default_methods(known: Methods) -> list[str]:
    """What is run where the command line names no methods: those on frozen image features, which are encoded once for
    all of them. Methods that train towers, or adapt to each test image, are asked for by name or by "all", and so are
    those whose class says ``usual = False``. The base class does not say it, so that no run's key hangs on it."""
    frozen = [name for name, method in known.items() if method.needs == "features"]
    return [name for name in frozen if getattr(known[name], "usual", True)]


def by_dataset(runs: list[Run]) -> list[Run]:
    first = {id: place for place, id in enumerate(dict.fromkeys(run.dataset for run in runs))}
    return sorted(runs, key=lambda run: first[run.dataset])


def cells_of(
    suite: suites.Suite,
    arch: Arch,
    settings: Settings,
    methods: Sequence[str],
    asked: list[str],
    named: bool,
    beside: Sequence[str] = (),
) -> list[tuple[str, suites.Variant]]:
    """(dataset, row) of each run but for its seed. A suite on few datasets runs on others only where both it and they
    are named; without --suite, what was not asked for is left out. Shifted sets are of their own dataset alone.
    ``beside``: methods that stand beside a suite's rows though nobody named them."""
    fit = [method for method in methods if takes(suite, settings.methods, method)]
    rows = list(suite.rows(arch, fit, settings.shots))
    if suite.kind == "options":
        rows = [row for row in rows if row.method in methods]
    rows += [suites.Variant((), method) for method in suite.beside if rows and method in (*methods, *beside)]
    where = suite.datasets(arch)
    if asked and (suite.kind == "main" or (named and suite.kind != "shifted")):
        where = asked
    elif asked:
        where = [id for id in where if id in asked and (named or suite.kind != "shifted")]
    return [(dataset, row) for dataset in where for row in rows]
