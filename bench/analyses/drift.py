"""Layer drift: how far each layer of the towers moved with the update, and Figures 2 (b) and (c), from what
`bench/engine/drift_runs.py` keeps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import cycle

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from carryover.bench.analyses.base import Analysis, Drawing, Table, register
from carryover.bench.backbones.archs import OTHER_ACTIVATION
from carryover.bench.backbones.drift_names import MEASURES, POOLED
from carryover.bench.plan.suites import Suite, fixed
from carryover.bench.records.reading import AVERAGE
from carryover.bench.records.selection import Selection
from carryover.bench.render.figures import INK, LONGEST_NAME, PAPER, canvas
from carryover.bench.render.sheets import MISSING, Block, Cell, Sheet
from carryover.bench.render.tips import number, tell

KEYS = ("pair", "tower", "what", "layer", "kind", "dataset")
COLUMNS = (*KEYS, *MEASURES, "count")  # the last one counts what was averaged
DECIMALS = 8  # parameters change in the fourth decimal
NAMES = {"new": "Update", OTHER_ACTIVATION: "Other activation", "unrelated": "Unrelated"}
KIND_NAMES = {"all": "All", "layernorm": "LayerNorm", "attention": "Attention", "mlp": "MLP"}
READ_AT = {"text": "eot", "vision": "class token"}
OUTSIDE = (  # of the blocks: (layer, kind, as the sheet names it)
    ("0", "tokens used", "Token embeddings used"),
    ("0", "positions", "Positions"),
    ("ln_final", "layernorm", "ln_final"),
    ("projected", "projection", "Projection"),
)
LAYER_NAMES = {"0": "0 (embeddings)", "projected": "Projected"}
# Okabe and Ito's palette, with a mark of its own for each line: colour is never the only difference.
UPDATE_LINES = (("#D55E00", "o"), ("#0072B2", "D"), ("#009E73", "v"), ("#E69F00", "P"))
CONTROL_LINES = (("#56B4E9", "s"), ("#CC79A7", "^"), ("#777777", "X"))
LEGEND_LETTERS = 52  # of three names that fit side by side


def drift_table(measures: Sequence[dict]) -> pd.DataFrame:
    """All rows of all pairs as `COLUMNS`; what is not defined is missing. Pairs that were left out have no rows."""
    rows = []
    for measured in present(measures):
        for tower in ("text", "vision"):
            for what in ("parameters", "features"):
                read_at = {"kind": READ_AT[tower]} if what == "features" else {"dataset": ""}
                head = {"pair": measured["pair"], "tower": tower, "what": what, **read_at}
                rows += [{**head, **row} for row in measured[tower][what]]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.astype(dict.fromkeys(MEASURES, float))


def present(measures: Sequence[dict]) -> list[dict]:
    return [measured for measured in measures if "left_out" not in measured]


def pair_name(measured: dict) -> str:
    return NAMES.get(measured["pair"], measured["pair"])


def table_of(selection: Selection) -> pd.DataFrame:
    """`drift_table`, made once: other analyses read it too."""
    return selection.once("drift", lambda: drift_table(selection.drift))


def drift_sheet(table: pd.DataFrame, measures: Sequence[dict]) -> Sheet:
    """A layer a row and a pair a column, controls last: change of parameters, then features four ways."""
    shown = present(measures)
    blocks = []
    for tower, of in (("text", "Text"), ("vision", "Vision")):
        part = table[table["tower"] == tower]
        weights, features = part[part["what"] == "parameters"], part[part["what"] == "features"]
        blocks.append(
            _block(f"{of} parameters, relative change of each block (%)", shown, whole_blocks(weights), "relative")
        )
        title = f"{of} parameters, absolute change of each block (mean |d|)"
        blocks.append(_block(title, shown, whole_blocks(weights), "absolute", _scientific))
        if tower == "text":
            blocks.append(_outside_block(shown, weights))
            for measured in shown:
                if measured["kind"] == "update":
                    blocks.append(_kinds_block(measured, weights))
        dataset = AVERAGE if tower == "text" else POOLED
        chosen = features[features["dataset"] == dataset]
        where = "at EOT" if tower == "text" else "at the class token"
        blocks.append(_block(f"{of} features {where}, relative change (%)", shown, chosen, "relative"))
        blocks.append(_block(f"{of} features {where}, absolute change", shown, chosen, "absolute", _plain))
        blocks.append(_block(f"{of} features {where}, 1 − cosine", shown, chosen, "one_minus_cosine", _plain))
        title = f"{of} features {where}, correlation of their similarities"
        blocks.append(_block(title, shown, chosen, "structure", _plain))
        pooled = features[features["dataset"] == POOLED]
        count = (
            f", {int(pooled['count'].iloc[0])} {'prompts' if tower == 'text' else 'pictures'}" if len(pooled) else ""
        )
        blocks.append(_block(f"{of} features {where}, debiased CKA{count}", shown, pooled, "cka", _plain))
    return Sheet("Layer drift", tuple(block for block in blocks if block), tuple(_remarks(table, measures)))


def findings(table: pd.DataFrame, measures: Sequence[dict]) -> list[str]:
    """For each update, whether shallower layers change less: what was measured, in a sentence each."""
    found, table = [], table[table["tower"] == "text"]
    for measured in present(measures):
        own = table[table["pair"] == measured["pair"]]
        series = {
            "parameters": whole_blocks(own[own["what"] == "parameters"]),
            "features": whole_blocks(own[(own["what"] == "features") & (own["dataset"] == AVERAGE)]),
        }
        for what, rows in series.items():
            values = rows["relative"].dropna().tolist()
            if measured["kind"] == "update" and len(values) > 1:
                rises = sum(after > before for before, after in zip(values, values[1:], strict=False))
                how = "more in every block than in the one before"
                if rises < len(values) - 1:
                    how = f"more than in the block before in {rises} of {len(values) - 1} blocks"
                found.append(
                    f"{pair_name(measured)}: text {what} change by {_percent(values[0])} % in block 1 and "
                    f"{_percent(values[-1])} % in block {len(values)}, {how}."
                )
    return found


def _remarks(table: pd.DataFrame, measures: Sequence[dict]) -> list[str]:
    shown = present(measures)
    said = findings(table, measures)
    for measured in shown:
        said.append(f"{pair_name(measured)}: {measured['base']['label']} → {measured['other']['label']}.")
    if shown:
        prompts = shown[0]["prompts"]
        said += [
            f"Features over {sum(prompts.values())} class prompts of {len(prompts)} datasets (each one's first "
            "template), averaged over each dataset, then over datasets; CKA over all distinct prompts together.",
            "Relative change: of parameters mean |d| / mean |old| over a layer's entries; of features the mean of "
            "||d|| / ||old||, before ln_final.",
            "Debiased CKA: 1 where features are the same up to rotation and scale, about 0 where they are unrelated.",
        ]
    said += built_in(measures)
    said += without_table(measures)
    said += [f"{pair_name(m)}: {note}." for m in shown for tower in ("text", "vision") for note in m[tower]["notes"]]
    said += [f"{pair_name(m)} is left out: {m['left_out']}" for m in measures if "left_out" in m]
    return said


def without_table(measures: Sequence[dict]) -> list[str]:
    """Vision parts that are no numbered blocks, as a ResNet's stages: `drift.csv` has them, no table here does."""
    said = []
    for measured in present(measures):
        rows = measured["vision"]["parameters"]
        layers = list(dict.fromkeys(row["layer"] for row in rows))
        if layers and not any(layer.isdigit() and layer != "0" for layer in layers):
            said.append(
                f"{pair_name(measured)}: the vision tower's parameters are compared by part ({', '.join(layers)}), for "
                "it has no numbered blocks; these rows stand in drift.csv alone."
            )
    return said


def built_in(measures: Sequence[dict]) -> list[str]:
    """What has to be told wherever drift is read as a finding."""
    if not any(measured["other"]["label"] == "micro-update" for measured in present(measures)):
        return []
    return [
        "micro-update was trained with a text learning rate decayed 0.75 a layer: that its shallower blocks change "
        "less was built in."
    ]


def _block(
    title: str, shown: Sequence[dict], rows: pd.DataFrame, value: str, write: Callable[[float], str] | None = None
) -> Block | None:
    """A row for each layer of ``rows``; None without any."""
    if rows.empty:
        return None
    values, write = rows.set_index(["layer", "pair"])[value], write or _percent
    lines = [
        (Cell(LAYER_NAMES.get(layer, layer)), *(Cell(write(values.get((layer, m["pair"]), math.nan))) for m in shown))
        for layer in dict.fromkeys(rows["layer"])
    ]
    return Block(Cell(title), ("Layer", *map(pair_name, shown)), tuple(lines))


def _outside_block(shown: Sequence[dict], weights: pd.DataFrame) -> Block:
    values = weights.set_index(["layer", "kind", "pair"])["relative"]
    lines = [
        (Cell(name), *(Cell(_percent(values.get((layer, kind, m["pair"]), math.nan))) for m in shown))
        for layer, kind, name in OUTSIDE
    ]
    title = "Text parameters outside the blocks, relative change (%)"
    return Block(Cell(title), ("Part", *map(pair_name, shown)), tuple(lines))


def _kinds_block(measured: dict, weights: pd.DataFrame) -> Block:
    own = weights[weights["pair"] == measured["pair"]]
    values, layers = own.set_index(["layer", "kind"])["relative"], whole_blocks(own)["layer"]
    lines = [
        (Cell(layer), *(Cell(_percent(values.get((layer, kind), math.nan))) for kind in KIND_NAMES)) for layer in layers
    ]
    title = f"{pair_name(measured)}: text parameters by kind, relative change (%)"
    return Block(Cell(title), ("Layer", *KIND_NAMES.values()), tuple(lines))


def whole_blocks(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of whole blocks: parameters of kind "all", or features after a block."""
    whole = rows["kind"].isin(["all", *READ_AT.values()])
    return rows[whole & rows["layer"].str.isdigit() & (rows["layer"] != "0")]


def _percent(value: float) -> str:
    return MISSING if math.isnan(value) else f"{100 * value:.2f}"


def _plain(value: float) -> str:
    if math.isnan(value):
        return MISSING
    return f"{value:.1e}" if 0 < value < 0.0005 else f"{value:.4f}"


def _scientific(value: float) -> str:
    return MISSING if math.isnan(value) else "0" if value == 0 else f"{value:.2e}"


# ---- figures ---------------------------------------------------------------------------------------------------------


def draw_figure_2b(table: pd.DataFrame, measures: Sequence[dict]) -> Figure:
    """The paper's Figure 2 (b): change of each text block's parameters, all pooled, relative above, absolute below.

    Log axes, for the update and an unrelated model differ by orders of magnitude; a pair with no change is named in the
    legend alone.
    """
    rows = whole_blocks(table[(table["tower"] == "text") & (table["what"] == "parameters")])
    labels = ("mean |d| / mean |base|", "mean |d|", "Text block")
    return _draw(measures, rows, "Change of parameters from the base", labels)


def draw_figure_2c(table: pd.DataFrame, measures: Sequence[dict]) -> Figure:
    """The paper's Figure 2 (c): change of text features at EOT after each layer, mean over datasets; `ln_final` and the
    projected feature stand apart from the stream they end."""
    rows = table[(table["tower"] == "text") & (table["what"] == "features") & (table["dataset"] == AVERAGE)]
    place = "Text layer (0: embeddings, ln: after ln_final, proj: joint space)"
    return _draw(
        measures, rows, "Change of features at EOT from the base", ("mean ||d|| / ||base||", "mean |d|", place)
    )


def _draw(measures: Sequence[dict], rows: pd.DataFrame, title: str, labels: tuple[str, str, str]) -> Figure:
    shown, layers = present(measures), list(dict.fromkeys(rows["layer"]))
    stream = [place for place, layer in enumerate(layers) if layer.isdigit()]
    after = [place for place, layer in enumerate(layers) if not layer.isdigit()]
    with canvas(5.6) as figure:
        panels = figure.subplots(2, 1, sharex=True)
        for axes, value, label in zip(panels, ("relative", "absolute"), labels[:2], strict=True):
            for measured, style in zip(shown, _styles(shown), strict=True):
                own = rows[rows["pair"] == measured["pair"]].set_index("layer")[value].reindex(layers)
                name = pair_name(measured)
                name = name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
                name += " (0 throughout)" * bool(len(own) and (own == 0).all())
                seen = own.where(own > 0)
                for part, more in ((stream, {"label": name}), (after, {"linestyle": "none"})):
                    (line,) = axes.plot(part, seen.iloc[part], **{**style, **more})
                    tell(line, *(told(name, at, value == "relative") for at in seen.iloc[part].dropna().items()))
            positive = rows[value][rows[value] > 0]
            if len(positive):
                axes.set_yscale("log")
                wide = positive.max() > 300 * positive.min()
                axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
                # The style keeps $ plain, so that a user's names show as they are: no powers of ten in TeX.
                axes.yaxis.set_major_formatter((lambda x, place: f"{100 * x:g} %") if value == "relative" else "{x:g}")
                axes.yaxis.set_minor_formatter(NullFormatter())
            axes.set_ylabel(f"{value.capitalize()}, {label}")
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(axis="y", color=INK, alpha=0.15, linewidth=0.6)
        panels[0].set_title(f"{title}\n(log axes; no mark where nothing changed)", fontsize=9.5)
        panels[1].set_xlabel(labels[2])
        panels[1].set_xticks(range(len(layers)), [{"ln_final": "ln", "projected": "proj"}.get(n, n) for n in layers])
        handles, names = panels[0].get_legend_handles_labels()
        if handles:
            columns = 3 if len("".join(names[:3])) < LEGEND_LETTERS else 2
            figure.legend(handles, names, frameon=False, loc="outside lower center", ncols=columns, columnspacing=1.1)
    return figure


def told(name: str, at: tuple[Hashable, float], relative: bool) -> str:
    """What a point says: the pair, the layer, its change."""
    layer, change = at
    return f"{name}, {layer}: {number(100 * change)} %" if relative else f"{name}, {layer}: {number(change)}"


def _styles(shown: Sequence[dict]) -> list[dict]:
    """Updates solid and filled, in front; controls dashed and hollow."""
    updates, controls = cycle(UPDATE_LINES), cycle(CONTROL_LINES)
    styles = []
    for measured in shown:
        if measured["kind"] == "update":
            colour, mark = next(updates)
            look = {"linestyle": "-", "markersize": 4.5, "zorder": 4}
        else:
            colour, mark = next(controls)
            look = {"linestyle": (0, (4, 2)), "markersize": 6, "markerfacecolor": PAPER, "zorder": 3}
        styles.append({"color": colour, "marker": mark, "linewidth": 1.4, **look})
    return styles


@register("drift")
class Drift(Analysis):
    title, source, place = "Layer drift", "Figures 2 (b) and (c)", 10
    section = "Drift"
    suite = Suite(fixed(), kind="measured")  # of the backbones themselves: no run
    drawings = (
        Drawing(
            "figure2b",
            "Change of the text tower's parameters in each block (Figure 2 b)",
            lambda tables, selection: draw_figure_2b(tables["drift"].frame, selection.drift) if tables else None,
            "drift",
        ),
        Drawing(
            "figure2c",
            "Change of the text tower's output features after each block (Figure 2 c)",
            lambda tables, selection: draw_figure_2c(tables["drift"].frame, selection.drift) if tables else None,
            "drift",
        ),
    )

    def tables(self, selection: Selection) -> Iterator[Table]:
        if present(selection.drift):
            frame = table_of(selection)
            yield Table("drift", frame, KEYS, drift_sheet(frame, selection.drift), DECIMALS)
