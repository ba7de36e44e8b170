"""The suites beyond the paper as data: which runs tell whether to reuse, retrain or fall back to zero-shot.

``retention`` retrains each method on each update, as the ceiling of what was reused. ``chains`` carries a module
through successive updates, and refreshes it on the update from its carried state beside one trained there from
nothing: against steps, and against shots.
"""

from __future__ import annotations

from collections.abc import Sequence

from carryover import datasets
from carryover.bench.backbones.archs import Arch
from carryover.bench.plan.run_labels import WHOLE_SCHEDULE, ZERO_SHOT
from carryover.bench.plan.settings import Methods, Settings
from carryover.bench.plan.suites import Variant

CHAIN = ("base", "new", "second")  # roles that update one another in turn, as far as an arch has them
STEPS = (5, 10, 20, 40, 80)  # of a refresh, and of its control from nothing; beside them 0 and the whole schedule
CHAIN_STEPS = 20  # of the refresh on each backbone of the chain
SHOTS = (1, 2, 4, 8)  # beside the call's own
SHOT_STEPS = 80  # at every number of shots, carried or from nothing
CHAIN_METHODS = ("coop", "contcoop", "clip-adapter")  # a context, one that sees the names, and a module in joint space
DATASETS: dict[str, dict[str, tuple[str, ...]]] = {
    "retention": {
        "paper": ("dtd", "ucf101", "eurosat"),
        "micro": ("micro_textures", "micro_actions", "micro_stars"),
    },
    "chains": {"paper": ("dtd",), "micro": ("micro_textures", "micro_stars")},
}


def datasets_of(suite: str, arch: Arch) -> list[str]:
    """Where the suite runs unless the command line says otherwise; an arch's own list gives its first dataset."""
    if isinstance(arch.datasets, str):
        return list(DATASETS[suite][arch.datasets])
    return datasets.default(arch.datasets)[:1]


def targets_of(arch: Arch) -> list[str]:
    return [role for role in arch.towers if role != "base"]


def chain_of(arch: Arch) -> tuple[str, ...]:
    return tuple(role for role in CHAIN if role in arch.towers)


def has_steps(methods: Methods, method: str) -> bool:
    """Whether the trainer trains it, so that a refresh can be of few steps, and its plug-in is all that it learned."""
    return methods.learns(method) and methods[method].whole and methods[method].Config().epochs > 0


def rows(suite: str, arch: Arch, settings: Settings, methods: Sequence[str]) -> list[Variant]:
    """All the runs that the suite's tables need on one dataset, each labelled; those of the main suite too.
    ``methods``: those asked for, or all."""
    if suite == "retention":
        chosen = [method for method in methods if settings.methods.learns(method)]
        found = [row for method in chosen for row in [Variant((), method), *retrained(arch, method)]]
    else:
        chosen = [method for method in methods if has_steps(settings.methods, method)]
        found = [row for method in chosen for row in [Variant((), method), *refreshed(arch, method, settings.shots)]]
    return [Variant((), ZERO_SHOT), *found] if found else []


def retrained(arch: Arch, method: str) -> list[Variant]:
    """From nothing, on each update."""
    return [Variant((role,), method, path=(role,)) for role in targets_of(arch)]


def refreshed(arch: Arch, method: str, shots: int) -> list[Variant]:
    """On the update, carried and from nothing, against steps and against shots; along the chain. Labels are (start,
    steps, shots) and ("chain", role)."""
    told, made = str(shots), []
    pair = "base", "new"
    for steps in STEPS:
        made.append(Variant(("carried", str(steps), told), method, path=pair, refresh=steps))
    made.append(Variant(("carried", "all", told), method, path=pair, refresh=WHOLE_SCHEDULE))
    made.append(Variant(("nothing", "0", told), method, (f"{method}.epochs=0",), path=("new",)))
    for steps in STEPS:
        made.append(Variant(("nothing", str(steps), told), method, (f"{method}.steps={steps}",), path=("new",)))
    made.append(Variant(("nothing", "all", told), method, path=("new",)))
    for few in (few for few in SHOTS if few < shots):
        label = ("carried", str(SHOT_STEPS), str(few))
        made.append(Variant(label, method, (), pair, refresh=SHOT_STEPS, shots=few, carried_shots=shots))
        control = (f"{method}.steps={SHOT_STEPS}",)
        made.append(Variant(("nothing", str(SHOT_STEPS), str(few)), method, control, path=("new",), shots=few))
    chain = chain_of(arch)
    for count, role in enumerate(chain[1:], 2):
        made.append(Variant(("chain", role, "refreshed"), method, path=chain[:count], refresh=CHAIN_STEPS))
        made.append(Variant(("chain", role, "retrained"), method, path=(role,)))
    return made
