"""Ported plug-ins: what a map between two backbones makes of a plug-in that was trained on the old one.

Every ported run of the suites `maps`, `ports` and `taught` beside zero-shot, the plug-in as it is, and the same method
retrained on the target; the choice among them by what a reader has; two updates in turn; a refresh of what was ported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import pandas as pd

from carryover import datasets
from carryover.bench.analyses import port_numbers as numbers
from carryover.bench.analyses.base import Analysis, Drawing, Table, Tables, register
from carryover.bench.analyses.parts.port_cases import SUITES
from carryover.bench.analyses.parts.port_rows import closed_rows, further_rows, taught_rows
from carryover.bench.analyses.port_figures import averages, draw_anchors, draw_ports
from carryover.bench.analyses.port_numbers import ALL, FIXED
from carryover.bench.analyses.port_sheets import chains_sheet, decision_sheet, ports_sheet, refresh_sheet
from carryover.bench.analyses.retention import Names
from carryover.bench.plan.suites import Suite
from carryover.bench.records.selection import Selection

EVERY = {kind: tuple(datasets.default(kind)) for kind in ("paper", "micro")}
ON = {"paper": ("dtd", "ucf101", "eurosat"), "micro": ("micro_textures", "micro_actions", "micro_stars")}
FEW = {"paper": ("dtd",), "micro": ("micro_textures",)}  # each fit is a training
UPDATE = "new"


# ---- in words --------------------------------------------------------------------------------------------------------


def opening_of(table: pd.DataFrame, selection: Selection) -> list[str]:
    """One sentence of one method; of several two, the second of the method that gains most over reuse."""
    names, part = Names(selection), averages(table, UPDATE).set_index(["port", "anchors", "count"])
    if (FIXED, "other", ALL) not in part.index:
        return []
    ported, reused, shot = (
        part[part.index == way].set_index("method")
        for way in ((FIXED, "other", ALL), ("reuse", "", ""), ("zero-shot", "", ""))
    )
    over = (ported["accuracy"] - reused["accuracy"]).dropna().sort_values(ascending=False, kind="stable")
    if over.empty or shot.empty:
        return []
    best, floor = over.index[0], shot["accuracy"].iloc[0]
    keeps, kept = ported["retention"][best], reused["retention"][best]
    name = names.methods.get(best, best)
    if math.isnan(keeps):
        told = (
            f"has {ported['accuracy'][best]:.1f} % on the update; unchanged it has {reused['accuracy'][best]:.1f} %, "
            f"and zero-shot {floor:.1f} %."
        )
    else:
        told = f"keeps {amount(keeps)} of what retraining gains on the update; unchanged it keeps {amount(kept)}."
    by = "Through a map fitted on unlabelled pictures"
    if len(over) == 1:
        return [f"{by}, {name} {told}"]
    better, above = int((over > 0).sum()), int((ported["accuracy"] > floor).sum())
    first = f"{by}, {better} of {len(over)} methods {plural(better)} more accurate on the update than unchanged, and "
    return [
        f"{first}{above} {plural(above)} above its zero-shot accuracy.",
        f"{name} gains most by the map: it {told}",
    ]


def amount(share: float) -> str:
    return "none" if share < 0.005 else f"{share:.2f}"


def plural(count: int) -> str:
    return "is" if count == 1 else "are"


# ---- the analyses ----------------------------------------------------------------------------------------------------


@register("maps")
class Maps(Analysis):
    """The ports that are formulas, for the first command; their rows are in the tables of `Ports`."""

    title, place = "Ported by a map between the backbones", 42
    section = "Ports"
    suite = Suite(closed_rows, EVERY, kind="further", needs="learns")


@register("ports")
class Ports(Analysis):
    title, place = "Reuse, port, or retrain", 41
    section = "Ports"
    names = ("ports", "port_decision", "port_chains", "port_refresh")
    suite = Suite(further_rows, ON, kind="further", needs="learns")
    drawings = (
        Drawing(
            "ports",
            "Zero-shot, reused, ported by Procrustes and retrained on each target, averaged over the datasets",
            draw_ports,
        ),
        Drawing(
            "ports_anchors",
            "Points over zero-shot against the number of pictures that the Procrustes map was fitted on, averaged over "
            "the datasets",
            draw_anchors,
            "ports",
        ),
    )

    def tables(self, selection: Selection) -> Iterator[Table]:
        made: Sequence[tuple[str, list[list], Iterable[str], tuple[str, ...], Callable]] = ()
        if any(id in selection.rows for id in SUITES):
            found = numbers.measured(selection)
            made = (
                ("ports", found.ports, numbers.PORTS, numbers.KEYS, ports_sheet),
                ("port_decision", found.decision, numbers.DECISION, numbers.DECISION_KEYS, decision_sheet),
                ("port_chains", found.chains, numbers.CHAIN, numbers.CHAIN_KEYS, chains_sheet),
                ("port_refresh", found.refresh, numbers.REFRESH, numbers.REFRESH_KEYS, refresh_sheet),
            )
        for name, rows, columns, keys, sheet in made:
            if rows:
                frame = pd.DataFrame(rows, columns=list(columns))
                yield Table(name, frame, keys, sheet(frame, selection))

    def words(self, selection: Selection, tables: Tables) -> list[str]:
        return opening_of(tables["ports"].frame, selection) if "ports" in tables else []


@register("taught")
class Taught(Analysis):
    title, place = "Ported by teaching", 43
    section = "Ports"
    suite = Suite(taught_rows, FEW, kind="further", needs="learns")
