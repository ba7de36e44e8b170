"""How many training images a class a plug-in needs, and what of it outlives the update: the main experiment at 1 to 16
shots. The paper has 16 alone and leaves fewer open.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from carryover.bench import places
from carryover.bench.analyses.ablations import Ablation
from carryover.bench.analyses.base import Drawing, Table, Tables, register
from carryover.bench.analyses.layers import DEPTHS
from carryover.bench.analyses.parts import refused
from carryover.bench.analyses.parts.rows import BESIDE, dataset_name, done, marks_of, not_run, rows_of
from carryover.bench.plan.run_labels import ZERO_SHOT
from carryover.bench.plan.suites import SUITES, Suite, Variant, fixed
from carryover.bench.records import reading
from carryover.bench.records.reading import TARGETS, counted
from carryover.bench.records.selection import Selection
from carryover.bench.render.figures import COLOURS, LABELS, MARKERS, canvas, open_frame, short_label
from carryover.bench.render.sheets import MISSING, Block, Cell, Sheet, signed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOTS = (1, 2, 4, 8, 16)
PAPERS = ("linear-probe", "clip-adapter", "tip-adapter-f", "coop", "cocoop", "kgcoop", "contcoop", "rada", "taskres")
METHODS = (*PAPERS, "gda", "lp-plus-plus", "clap", "tcp")  # the last four where they are asked for
MEASURE = (
    "Gain over zero-shot of the same backbone, in points of top-1 accuracy, mean over datasets and seeds; a dash where "
    "a dataset has no finished run. New: trained on the base and carried over unchanged."
)
ACROSS, PANEL = 3, 1.7  # panels a row, inches of one's height
FURTHEST = -20.0  # points below which a panel shows numbers alone


def gains(frame: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    """(method, "base" or "new") -> points over zero-shot, a row a dataset, a column a number of shots."""
    floor = frame[frame["method"] == BESIDE].set_index("dataset")
    trained = frame[frame["method"] != BESIDE]
    found = {}
    for method in dict.fromkeys(trained["method"]):
        part = trained[trained["method"] == method]
        for name in ("base", "new"):
            of = part.pivot(index="dataset", columns="shots", values=name).reindex(columns=[str(n) for n in SHOTS])
            found[method, name] = of.sub(floor[name].reindex(of.index), axis=0)
    return found


def mean_gains(frame: pd.DataFrame) -> dict[tuple[str, str], np.ndarray]:
    """The same over datasets, (len(SHOTS),); NaN where one has no run. Methods without any run are left out."""
    means = {key: part.mean(axis=0, skipna=False).to_numpy(dtype=float) for key, part in gains(frame).items()}
    return {key: values for key, values in means.items() if np.isfinite(means[key[0], "new"]).any()}


def draw_shots(tables: Tables, selection: Selection) -> Figure | None:
    """A panel a method: gain on both backbones against shots."""
    means = mean_gains(tables["shots"].frame) if "shots" in tables else {}
    methods = list(dict.fromkeys(method for method, _ in means))
    if not methods:
        return None
    records = [record for row in selection.rows["shots"] for record in row.records]
    names, depth = reading.names(records, "method"), reading.depths(records)
    across = min(ACROSS, len(methods))
    rows = -(-len(methods) // across)
    with canvas(PANEL * rows + 0.7) as figure:
        panels = np.ravel(figure.subplots(rows, across, sharex=True, sharey=True, squeeze=False))
        for axes, method in zip(panels, methods, strict=False):
            for name in ("base", "new"):
                style = {"color": COLOURS[name], "marker": MARKERS[name], "markersize": 4, "linewidth": 1.3}
                axes.plot(range(len(SHOTS)), means[method, name], label=LABELS[name], **style)
                below = [signed(value) for value in means[method, name] if value < FURTHEST]
                if below:
                    told = f"{LABELS[name]}: {below[0]} to {below[-1]}" if len(below) > 1 else below[0]
                    axes.text(
                        0.5, 0.04 if name == "new" else 0.14, told, fontsize=8, ha="center", transform=axes.transAxes
                    )
            axes.axhline(0, color="0.6", linewidth=0.8)
            axes.set_title(short_label(names[method], depth[method]), fontsize=9)
            open_frame(axes)
        for axes in panels[len(methods) :]:
            axes.set_visible(False)
        for axes in panels[: len(methods)]:
            axes.set_xticks(range(len(SHOTS)), [str(shots) for shots in SHOTS])
        panels[0].set_ylim(bottom=max(FURTHEST, panels[0].get_ylim()[0]))
        panels[0].legend(fontsize=8, frameon=False)
        figure.supxlabel("Training images a class", fontsize=9)
        figure.supylabel("Gain over zero-shot (points)", fontsize=9)
    return figure


@register("shots")
class Shots(Ablation):
    title, place, section = "What survives at 1 to 16 shots", 21, "Shots"
    columns = ("method", "shots")
    suite = Suite(
        fixed(*(Variant((method, str(shots)), method, shots=shots) for method in METHODS for shots in SHOTS)),
        DEPTHS,
        beside=(ZERO_SHOT,),
    )
    drawings = (Drawing("shots", "Gain over zero-shot against training images a class, base and new", draw_shots),)

    def tables(self, selection: Selection) -> Iterator[Table]:
        """None without zero-shot, from which gains are measured."""
        return (table for table in super().tables(selection) if mean_gains(table.frame))

    def sheet(self, table: pd.DataFrame, selection: Selection) -> Sheet:
        """A block a backbone, a row a method, a column a number of shots."""
        rows = [row for row in rows_of(SUITES[self.id], selection) if done(row.records)]
        records = [record for row in rows for record in row.records]
        names, depth, means = reading.names(records, "method"), reading.depths(records), mean_gains(table)
        sets = list(dict.fromkeys(row.dataset for row in rows))
        shown = ", ".join(dataset_name(rows, dataset) for dataset in sets)
        header = ("Method", *(counted(shots, "shot") for shots in SHOTS))
        blocks = []
        for name in ("base", "new"):
            lines = [
                (Cell(names[method] + places.mark(depth[method])), *(Cell(points(value)) for value in values))
                for (method, of), values in means.items()
                if of == name
            ]
            title = f"Gain on {LABELS[name]}, mean over {counted(len(sets), 'dataset')} ({shown})"
            blocks.append(Block(Cell(title), header, tuple(lines)))
        missing = [
            f"{row.dataset}: {' / '.join(row.variant.label)}"
            for row in selection.rows[self.id]
            if not done(row.records) and row.variant.method in names
        ]
        remarks = [MEASURE, *places.legend_remark(depth.values()), *marks_of(rows), *not_run(missing)]
        return Sheet(self.title, tuple(blocks), (*remarks, *refused.told(records, TARGETS)))

    def words(self, selection: Selection, tables: Tables) -> list[str]:
        """Which gains on New grow with shots, and which shrink."""
        records = [record for row in selection.rows[self.id] for record in row.records]
        names, told = reading.names(records, "method"), []
        ends = {
            names[method]: (values[0], values[-1])
            for (method, name), values in mean_gains(tables[self.id].frame).items()
            if name == "new" and np.isfinite(values[[0, -1]]).all()
        }
        for verb, way in (("grows", 1), ("shrinks", -1)):
            of = [f"{name} ({signed(a)} to {signed(b)})" for name, (a, b) in ends.items() if way * (b - a) > 0]
            if of:
                told.append(f"From {SHOTS[0]} shot to {SHOTS[-1]} the gain on New {verb} for {', '.join(of)}.")
        return [*told, "Whether such a change is chance was not tested."] if told else []


def points(value: float) -> str:
    return signed(value) if np.isfinite(value) else MISSING
