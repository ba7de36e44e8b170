"""Accuracy against the value of an option: one curve for each method and numeric option that was run with two values or
more (``--sweep``, or several calls with ``--set``)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from carryover.bench.analyses.base import Analysis, Drawing, Table, Tables, register
from carryover.bench.plan.option_rows import changes, row_id, row_name
from carryover.bench.plan.run_labels import ZERO_SHOT
from carryover.bench.plan.suites import Variant
from carryover.bench.records import reading
from carryover.bench.records.reading import Record
from carryover.bench.records.selection import Selection
from carryover.bench.render.figures import COLOURS, INK, LABELS, MARKERS, legend, stacked
from carryover.bench.render.sheets import MISSING, Block, Cell, Sheet
from carryover.bench.stats import means
from carryover.bench.stats.intervals import half_width

SCORES = ("base", "new", "h")
KEYS = ("curve", "method", "option", "value")
COLUMNS = (*KEYS, "datasets", "seeds", *(f"{score}{part}" for score in SCORES for part in ("", "_low", "_high")))
WIDE = 50  # the largest value over the smallest from which the axis is logarithmic
PANELS = 8  # curves that the figure holds; the table holds all


@dataclass(frozen=True)
class Curve:
    """Records by value of an option, the other options alike; ``name`` says which these are."""

    name: str
    method: str
    option: str
    records: dict[float, list[Record]]

    @property
    def datasets(self) -> list[str]:
        """Those that every value is done on: the points of a curve are over the same ones."""
        every = [{r["run"]["dataset"] for r in found if reading.is_done(r)} for found in self.records.values()]
        return sorted(set.intersection(*every)) if every else []


def curves(selection: Selection) -> list[Curve]:
    return selection.once("curves of options", lambda: list(found_curves(selection)))


def found_curves(selection: Selection) -> Iterator[Curve]:
    rows = selection.settings.rows if selection.settings else ()
    names = reading.names(selection.main, "method")
    for method in dict.fromkeys(row.method for row in rows):
        mine = [Variant((), method), *(row for row in rows if row.method == method)]
        for option in dict.fromkeys(option for row in mine for option, _ in changes(row)):
            groups: dict[tuple[str, ...], dict[float, list[Record]]] = {}
            for row in mine:
                others = tuple(text for text in row.options if text.split("=")[0] != f"{method}.{option}")
                found = [r for r in selection.main if r["run"]["method"] == row_id(row)]
                values = {value_of(r, option) for r in found}
                if len(values) == 1 and not math.isnan(value := values.pop()):
                    groups.setdefault(others, {}).setdefault(value, []).extend(found)
            for others, records in groups.items():
                if len(records) > 1:
                    name = row_name(Variant((), method, others), names.get(method) or bare_name(records))
                    yield Curve(name, method, option, dict(sorted(records.items())))


def value_of(record: Record, option: str) -> float:
    """NaN for what is no number."""
    value = (record["run"].get("config") or {}).get(option)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan


def bare_name(records: dict[float, list[Record]]) -> str:
    """The method's name where it was not run as it is."""
    return reading.shown(next(iter(records.values()))[0], "method").rpartition(" (")[0]


def points_of(curve: Curve) -> Iterator[list]:
    """The rest of a row of `COLUMNS` from ``value`` on; of each seed that is done on all the datasets, the mean over
    them; the interval is Student's, of 95 %, over the seeds."""
    sets = curve.datasets
    for value, records in curve.records.items():
        scores = means.seed_scores(r for r in records if r["run"]["dataset"] in sets)
        by_seed = scores.groupby("seed")[["base", "new"]].agg(["mean", "count"])
        whole = by_seed[by_seed["base"]["count"] == len(sets)]
        each = {n: whole[n]["mean"].where(whole[n]["count"] == len(sets)).tolist() for n in ("base", "new")}
        each["h"] = [means.harmonic_mean(*pair) for pair in zip(each["base"], each["new"], strict=True)]
        found = [value, len(sets), len(whole)]
        for name in SCORES:
            mean, std = means.mean_std(each[name])
            half = half_width(std, len(whole))
            found += [mean, mean - half, mean + half]
        yield found


def sweep_table(selection: Selection) -> pd.DataFrame:
    """`COLUMNS`, a row a point, percent."""
    drawn = [curve for curve in curves(selection) if curve.datasets]
    found = [[c.name, c.method, c.option, *point] for c in drawn for point in points_of(c)]
    return pd.DataFrame(found, columns=list(COLUMNS))


def apart(found: Iterable[Curve]) -> list[str]:
    """A line for each curve without a point."""
    return [
        f"{curve.name}, {curve.option}: no dataset is done with every value "
        f"({', '.join(f'{value:g}' for value in curve.records)}), so there is no curve."
        for curve in found
        if not curve.datasets
    ]


def sweep_sheet(table: pd.DataFrame, without: Sequence[str] = ()) -> Sheet:
    """A block a curve; ``without`` says which have none."""
    blocks = []
    for (name, option), part in table.groupby(["curve", "option"], sort=False):
        lines = [
            (Cell(f"{row['value']:g}"), *(Cell(shown(row, score)) for score in SCORES), Cell(str(row["seeds"])))
            for row in part.to_dict("records")
        ]
        count = int(part["datasets"].iloc[0])
        title = f"{name}, average over {reading.counted(count, 'dataset')}"
        blocks.append(Block(Cell(title), (option, "Base", "New", "H", "Seeds"), tuple(lines)))
    remarks = (
        "Top-1 accuracy in percent, mean over seeds and over the datasets that every value was run on; in brackets its "
        "95 % interval over seeds (none with one seed).",
    )
    return Sheet(Sweep.title, tuple(blocks), (*(remarks if blocks else ()), *without))


def shown(row: dict, score: str) -> str:
    mean, low, high = row[score], row[f"{score}_low"], row[f"{score}_high"]
    if math.isnan(mean):
        return MISSING
    return f"{mean:.2f}" + ("" if math.isnan(low) else f" [{low:.2f}, {high:.2f}]")


def draw(tables: Tables, selection: Selection) -> Figure | None:
    """Base, New and H with their intervals against the value, a panel a curve; the line is zero-shot's New."""
    drawn = [one for one in curves(selection) if one.datasets][:PANELS]
    if not drawn:
        return None
    figure, panels = stacked(len(drawn))
    for axes, curve in zip(panels, drawn, strict=True):
        part = pd.DataFrame(points_of(curve), columns=list(COLUMNS[3:]))
        for name in SCORES:
            style = {"color": COLOURS[name], "marker": MARKERS[name], "markersize": 4, "linewidth": 1.3}
            half = (part[f"{name}_high"] - part[name]).fillna(0)
            axes.errorbar(part["value"], part[name], half, label=LABELS[name], capsize=2, elinewidth=0.8, **style)
        if not math.isnan(level := zero_shot(selection, curve.datasets)):
            axes.axhline(level, color=INK, linewidth=0.8, linestyle="--", label="Zero-shot, New")
        if part["value"].min() > 0 and part["value"].max() / part["value"].min() >= WIDE:
            axes.set_xscale("log")
        axes.set_xticks(part["value"], [f"{value:g}" for value in part["value"]], minor=False)
        axes.set_ylabel("Top-1 accuracy (%)")
        axes.set_xlabel(curve.option)
        axes.set_title(curve.name, fontsize=9.5)
    legend(figure, panels, 4)
    return figure


def zero_shot(selection: Selection, sets: list[str]) -> float:
    """Its mean accuracy on the update; NaN where it was not run on all of them."""
    mine = [r for r in selection.main if r["run"]["method"] == ZERO_SHOT and r["run"]["dataset"] in sets]
    by_set = means.seed_scores(mine).groupby("dataset")["new"].mean().dropna()
    return float(by_set.mean()) if len(by_set) == len(sets) else math.nan


@register("sweep")
class Sweep(Analysis):
    title, place = "Accuracy against an option's value", 20.5
    drawings = (Drawing("sweep", "Base, New and H against an option's value, with 95 % intervals over seeds", draw),)

    def tables(self, selection: Selection) -> Iterator[Table]:
        frame, without = sweep_table(selection), apart(curves(selection))
        if len(frame) or without:
            yield Table("sweep", frame, KEYS, sweep_sheet(frame, without))
