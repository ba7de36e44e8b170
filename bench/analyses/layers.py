"""CoOp's context inserted at each block of the text tower, at two initial scales: the paper's Figure 2 (d) and what it
leaves out.
"""

from __future__ import annotations

import math

from matplotlib.figure import Figure

from carryover.bench.analyses.ablations import Ablation, points
from carryover.bench.analyses.base import Drawing, Tables, register
from carryover.bench.analyses.parts.rows import BESIDE, dataset_name
from carryover.bench.plan.suites import Suite, Variant
from carryover.bench.records.selection import Selection
from carryover.bench.render.figures import COLOURS, LABELS, legend, stacked

STARTS = {"fixed": "0.02 everywhere", "rows": "as large as the rows replaced"}  # coop.start
DEPTHS = {"paper": ("dtd",), "micro": ("micro_textures", "micro_actions", "micro_stars")}
SUITE = Suite(
    lambda arch, methods, shots: [
        Variant((str(layer), start), "coop", (f"coop.layer={layer}", f"coop.start={start}"))
        for start in STARTS
        for layer in range(arch.base.layers)
    ],
    DEPTHS,
    beside=("zs-clip",),
)


def draw_figure_2d(tables: Tables, selection: Selection) -> Figure | None:
    """Accuracy in percent on both backbones against the block, both initial scales, beside both zero-shot lines; a
    panel a dataset."""
    if "layers" not in tables:
        return None
    table = tables["layers"].frame
    table = table[table["seeds"] > 0]
    sets = [d for d in dict.fromkeys(table["dataset"]) if (table[table["dataset"] == d]["layer"] != BESIDE).any()]
    if not sets:
        return None
    figure, panels = stacked(len(sets))
    for axes, dataset in zip(panels, sets, strict=True):
        part = table[(table["dataset"] == dataset) & (table["layer"] != BESIDE)]
        for start, line in zip(STARTS, ("-", ":"), strict=True):
            rows = part[part["start"] == start]
            for name in ("base", "new"):
                text = f"{LABELS[name]}, start {start}"
                points(axes, rows["layer"].astype(int), rows[name], rows[name + "_std"], name, text, line)
        shot = table[(table["dataset"] == dataset) & (table["layer"] == BESIDE)]
        for name in ("base", "new"):
            if len(shot) and not math.isnan(shot[name].iloc[0]):
                label = f"zero-shot {LABELS[name]}"
                axes.axhline(shot[name].iloc[0], color=COLOURS[name], linestyle=(0, (4, 2)), linewidth=1, label=label)
        axes.set_xticks(sorted(set(part["layer"].astype(int))))
        axes.set_ylabel("Top-1 accuracy (%)")
        axes.set_title(dataset_name(selection.rows["layers"], dataset), fontsize=9.5)
    panels[-1].set_xlabel("Block at whose input the context stands")
    legend(figure, panels, columns=2)
    return figure


@register("layers")
class Layers(Ablation):
    title, source, place = "CoOp's context inserted at each block of the text tower", "Figure 2 (d)", 9
    columns, suite = ("layer", "start"), SUITE
    notes = (
        "start fixed: N(0, 0.02²) at every block; rows: as large as the rows that the context replaces, which grow "
        "with depth.",
    )
    drawings = (
        Drawing(
            "figure2d",
            "CoOp's accuracy against the block at whose input its context stands (Figure 2 d)",
            draw_figure_2d,
            "layers",
        ),
    )
