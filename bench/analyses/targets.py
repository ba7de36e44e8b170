"""One base, many targets: what each method's plug-ins are worth on every backbone, made from the main suite's records.

The numbers of a target are those of its own main table (`stats.summarise` with the target in the place of "new"), so
the matrix and the tables beside it cannot disagree. The gain is a method's accuracy on a backbone less that backbone's
own zero-shot accuracy of the same seed, in points: below 0, whoever moves to it is better off without the plug-in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from carryover.bench import places
from carryover.bench.analyses.base import Analysis, Drawing, Table, Tables, register
from carryover.bench.analyses.parts import refused
from carryover.bench.plan import suites
from carryover.bench.plan.run_labels import ZERO_SHOT
from carryover.bench.records import reading
from carryover.bench.records.reading import AVERAGE, Record, counted
from carryover.bench.records.selection import Selection
from carryover.bench.render.figures import canvas, short_label
from carryover.bench.render.sheets import MISSING, Block, Cell, Sheet, percent, ranked, signed
from carryover.bench.stats import means
from carryover.bench.stats.means import mean_std
from carryover.bench.stats.verdicts import decides

KEYS = ("dataset", "method", "backbone")
COLUMNS = (*KEYS, "seeds", "accuracy", "accuracy_std", "h", "h_std", "gain_seeds", "gain", "gain_std")
SHOWN = {"base": "Base", "new": "New"}  # further targets by their own names
CELL_INCHES, FRAME_INCHES = 0.3, 1.15  # height of a row; of a panel's title and its column names
DARK, LIGHT = "#000000", "#fefefe"  # on the cells, which keep their colours; not the page's own ink and paper
EMPTY = "#dddddd"
# Both maps are told apart by readers with any of the common colour deficiencies, and by their lightness.
H_MAP, GAIN_MAP = "cividis", "PuOr"
LEAST_SPAN = 1.0  # points: a matrix of equal numbers is no picture of differences
H_SPAN, GAIN_SPAN = 40.0, 20.0  # points: one method that breaks down shall not leave a single colour for the others


def has_targets(records: Iterable[Record]) -> bool:
    """Whether the records know more than one update, so that there is more to show than the main table."""
    return len(reading.updates(records)) > 1


def backbone_name(role: str) -> str:
    return SHOWN.get(role, role)


def targets_table(records: Iterable[Record]) -> pd.DataFrame:
    """`COLUMNS`, percent and points: a row for each dataset, method and backbone, the average rows last.

    H is that of Base and the backbone, as in its main table; the base's own row has none. ``gain_seeds`` counts the
    seeds that have zero-shot too: of the average row, those with both on every dataset.
    """
    records = list(reading.select(records))
    frames = []
    for role in ("base", *reading.updates(records)):
        seen = on_base(records) if role == "base" else reading.seen_from(records, role)
        table = means.summarise(seen)
        table = table.rename(columns={"new": "accuracy", "new_std": "accuracy_std"}).assign(backbone=role)
        if role == "base":
            table[["h", "h_std"]] = math.nan
        frames.append(table.merge(gains(seen), on=["dataset", "method"], how="left", sort=False))
    whole = pd.concat(frames, ignore_index=True)[list(COLUMNS)]
    whole["gain_seeds"] = whole["gain_seeds"].fillna(0).astype(int)
    whole["seeds"] = whole["seeds"].where(whole["accuracy"].notna(), 0).astype(int)
    places = {name: whole[name].drop_duplicates().tolist() for name in KEYS}
    order = [whole[name].map(places[name].index) for name in KEYS]
    return whole.iloc[pd.DataFrame(order).T.sort_values(list(KEYS)).index].reset_index(drop=True)


def on_base(records: Iterable[Record]) -> list[Record]:
    """The records with the base in the place of "new": what is done on it counts, whatever became of an update."""
    found = [(record, (record.get("targets") or {}).get("base")) for record in records]
    return [
        {**record, "targets": dict.fromkeys(reading.TARGETS, base) if base else {}, "refused": {}}
        for record, base in found
    ]


def seed_gains(records: Iterable[Record]) -> pd.DataFrame:
    """A row a finished run that has its zero-shot: dataset, method, seed, and the gain on either backbone in points."""
    scores = means.seed_scores(records)
    shot = scores[scores["method"] == ZERO_SHOT][["dataset", "seed", "base", "new"]]
    both = scores.merge(shot, on=["dataset", "seed"], suffixes=("", "_shot"))
    for side in ("base", "new"):  # counts over one number of pictures: equal but for rounding is equal
        both[f"gain_{side}"] = (both[side] - both[f"{side}_shot"]).round(9)
    return both[["dataset", "method", "seed", "gain_base", "gain_new"]]


def gains(records: Sequence[Record]) -> pd.DataFrame:
    """dataset, method, gain_seeds, gain, gain_std on "new": over seeds, and of the average row over the seeds with both
    runs on every dataset of the average."""
    each, over, rows = seed_gains(records).dropna(subset=["gain_new"]), reading.averaged(records), []
    for (dataset, method), part in each.groupby(["dataset", "method"], sort=False):
        rows.append([dataset, method, len(part), *mean_std(part["gain_new"])])
    for method, part in each[each["dataset"].isin(over)].groupby("method", sort=False):
        by_seed = part.groupby("seed")["gain_new"].agg(["mean", "size"])
        whole = by_seed[by_seed["size"] == len(over)]["mean"]
        rows.append([AVERAGE, method, len(whole), *mean_std(whole)])
    return pd.DataFrame(rows, columns=["dataset", "method", "gain_seeds", "gain", "gain_std"])


def targets_sheet(table: pd.DataFrame, records: Iterable[Record]) -> Sheet:
    """Two matrices of methods x backbones of the average, H (Base: accuracy) and gain, then both of each dataset."""
    records = reading.select(records)
    sets = reading.names(records, "dataset")
    names, depth = reading.names(records, "method"), reading.depths(records)
    backbones = list(dict.fromkeys(table["backbone"]))
    header = ("Method", *map(backbone_name, backbones))
    blocks = []
    for dataset in [AVERAGE, *reading.ids(records, "dataset")] if records else []:
        part = table[table["dataset"] == dataset]
        methods = list(dict.fromkeys(part["method"]))
        labels = [Cell(names[m] + places.mark(depth[m])) for m in methods]
        where = f"Average over {counted(len(reading.averaged(records)), 'dataset')}"
        where = where if dataset == AVERAGE else sets[dataset]
        of = {role: part[part["backbone"] == role].set_index("method").reindex(methods) for role in backbones}
        value = {role: "accuracy" if role == "base" else "h" for role in backbones}
        columns = [ranked(of[role][value[role]], of[role][f"{value[role]}_std"]) for role in backbones]
        blocks.append(Block(Cell(f"{where}: H with each target"), header, tuple(zip(labels, *columns, strict=True))))
        columns = [[gain_cell(row) for row in of[role].reset_index().itertuples()] for role in backbones]
        own = "; first row: that accuracy itself" if ZERO_SHOT in methods[:1] else ""
        title = Cell(f"{where}: gain over the backbone's own zero-shot{own}")
        blocks.append(Block(title, header, tuple(zip(labels, *columns, strict=True))))
    remarks = [
        *findings(table, records),
        "H: harmonic mean of the accuracy on the base and on the target, in percent; the column Base is accuracy "
        "itself. Gain: accuracy on a backbone less its own zero-shot accuracy of the same seed, in points. Mean ± "
        "sample standard deviation over seeds (no deviation with one seed). Nothing is trained on any target.",
        *labels_of(records),
        *refused.told(records),
        *places.legend_remark(depth.values()),
    ]
    dashes = table[table["gain"].isna()]
    if set(zip(dashes["dataset"], dashes["method"], dashes["backbone"], strict=True)) - refused.cells(records):
        remarks.append(f"{MISSING}: the method or its zero-shot was not run, or failed.")
    return Sheet(Targets.title, tuple(blocks), tuple(remarks))


def gain_cell(row) -> Cell:
    """Zero-shot gains nothing over itself: its row tells what the others' gains are over."""
    if row.method == ZERO_SHOT:
        return Cell(percent(row.accuracy, row.accuracy_std))
    return Cell(signed(row.gain, row.gain_std))


def findings(table: pd.DataFrame, records: Sequence[Record]) -> list[str]:
    """A sentence a target, from the average rows: the best H, and how many methods are above the target's zero-shot."""
    names, said = reading.names(records, "method"), []
    table = table[table["dataset"] == AVERAGE]
    for role in reading.updates(records):
        part = table[(table["backbone"] == role) & table["h"].notna()]
        if len(part) < 2:  # nothing that it is higher than
            continue
        best = part.loc[part["h"].idxmax()]
        line = f"{backbone_name(role)}: {names[best['method']]} has the highest average H, {percent(best['h'])}."
        gained = part[(part["method"] != ZERO_SHOT) & part["gain"].notna()]
        if len(gained) and decides(gained["gain_seeds"].min()):
            above = int((gained["gain"] > 0).sum())
            line += f" {above} of {counted(len(gained), 'method')} {'is' if above == 1 else 'are'} above its zero-shot."
        said.append(line)
    return said


def labels_of(records: Sequence[Record]) -> list[str]:
    """Which model each column is."""
    found = {}
    for role in ("base", *reading.updates(records)):
        of_role = [(r.get("targets") or {}).get(role) or {} for r in records]
        found[role] = " / ".join(dict.fromkeys(str(t["backbone"]) for t in of_role if t.get("backbone")))
    named = [f"{backbone_name(role)}: {label}" for role, label in found.items() if label]
    return [f"Backbones: {'; '.join(named)}."] if named else []


# ---- figure ----------------------------------------------------------------------------------------------------------


def draw_targets(tables: Tables, selection: Selection) -> Figure | None:
    """Two heat maps of methods and targets: H (Base: accuracy) above, gain over the backbone's own zero-shot below;
    averages over the datasets. None where there is one target, or no average."""
    if not tables:
        return None
    records, table = reading.select(selection.main), tables["targets"].frame
    table = table[(table["dataset"] == AVERAGE) & table["accuracy"].notna()]
    if table.empty:
        return None
    names, depth = reading.names(records, "method"), reading.depths(records)
    methods, backbones = (list(dict.fromkeys(table[name])) for name in ("method", "backbone"))
    value = table["h"].where(table["backbone"] != "base", table["accuracy"])
    matrices = {
        "H with each target (Base: accuracy), %": table.assign(shown=value),
        f"Gain over the backbone's own zero-shot, points\n(colours end at ±{GAIN_SPAN:g})": table[
            table["method"] != ZERO_SHOT
        ].assign(shown=lambda rows: rows["gain"]),
    }
    with canvas(2 * (FRAME_INCHES + CELL_INCHES * len(methods)) + 0.4) as figure:
        for axes, (title, cells) in zip(figure.subplots(2, 1), matrices.items(), strict=True):
            matrix = cells.pivot(index="method", columns="backbone", values="shown")
            shown = [method for method in methods if method in matrix.index]
            draw_matrix(axes, matrix.reindex(index=shown, columns=backbones), signed="Gain" in title)
            axes.set_title(title, fontsize=9.5)
            axes.set_yticks(range(len(shown)), [short_label(names[m], depth[m]) for m in shown])
            turned = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if len(backbones) > 6 else {}
            axes.set_xticks(range(len(backbones)), [backbone_name(role) for role in backbones], **turned)
        figure.suptitle(f"Mean of {counted(len(reading.averaged(records)), 'dataset')}", fontsize=9.5)
        legend = "    ".join(places.legend(depth.values()))
        if legend:
            figure.supxlabel(legend, fontsize=8)
    return figure


def draw_matrix(axes, matrix: pd.DataFrame, signed: bool) -> None:
    """A cell a number, as vectors; what was not measured is grey with a dash. ``signed``: colours part at 0."""
    values = matrix.to_numpy(dtype=float)
    known = values[~np.isnan(values)]
    if signed:
        far = min(max(LEAST_SPAN, float(np.abs(known).max()) if known.size else 0.0), GAIN_SPAN)
        low, high, colours = -far, far, matplotlib.colormaps[GAIN_MAP]
    else:
        low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
        low = min(max(low, high - H_SPAN), high - LEAST_SPAN)
        colours = matplotlib.colormaps[H_MAP]
    norm = Normalize(low, high)
    edges = [np.arange(count + 1) - 0.5 for count in (values.shape[1], values.shape[0])]
    shown = np.ma.masked_invalid(values)
    axes.set_facecolor(EMPTY)
    axes.pcolormesh(*edges, shown, norm=norm, cmap=colours, edgecolors=LIGHT, linewidth=1)
    size = 8 if values.shape[1] <= 6 else 6.5
    for (row, column), number in np.ndenumerate(values):
        text = MISSING if math.isnan(number) else f"{number:+.1f}" if signed else f"{number:.1f}"
        red, green, blue, _ = (1.0, 1.0, 1.0, 1.0) if math.isnan(number) else colours(norm(min(max(number, low), high)))
        dark = 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.45
        axes.text(column, row, text, ha="center", va="center", fontsize=size, color=LIGHT if dark else DARK)
    axes.set_ylim(values.shape[0] - 0.5, -0.5)  # first method on top, as in the table
    axes.set_xlim(-0.5, values.shape[1] - 0.5)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


@register("targets")
class Targets(Analysis):
    title, place = "Every plug-in on every target", 20
    section = "Retention"
    suite = suites.Suite(suites.plain, kind="main")  # its runs are the main suite's, on every target
    drawings = (
        Drawing(
            "targets",
            "H and gain over zero-shot of each method on each target, averaged over the datasets",
            draw_targets,
        ),
    )

    def tables(self, selection: Selection) -> Iterator[Table]:
        if has_targets(selection.main):
            frame = targets_table(selection.main)
            yield Table("targets", frame, KEYS, targets_sheet(frame, selection.main))
