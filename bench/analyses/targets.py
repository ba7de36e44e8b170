"""One base, many targets: what each method's plug-ins are worth on every backbone, made from the main suite's records.

The numbers of a target are those of its own main table (`stats.summarise` with the target in the place of "new"), so
the matrix and the tables beside it cannot disagree. The gain is a method's accuracy on a backbone less that backbone's
own zero-shot accuracy of the same seed, in points: below 0, whoever moves to it is better off without the plug-in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import pandas as pd

from carryover.bench.places import legend_remark, mark
from carryover.bench.plan.run_labels import ZERO_SHOT
from carryover.bench.records import reading
from carryover.bench.records.reading import AVERAGE, Record, counted
from carryover.bench.render.sheets import MISSING, Block, Cell, Sheet, percent, ranked, signed
from carryover.bench.stats import means
from carryover.bench.stats.means import mean_std

KEYS = ("dataset", "method", "backbone")
COLUMNS = (*KEYS, "seeds", "accuracy", "accuracy_std", "h", "h_std", "gain_seeds", "gain", "gain_std")
SHOWN = {"base": "Base", "new": "New"}  # further targets by their own names


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
    places = {name: whole[name].drop_duplicates().tolist() for name in KEYS}
    order = [whole[name].map(places[name].index) for name in KEYS]
    return whole.iloc[pd.DataFrame(order).T.sort_values(list(KEYS)).index].reset_index(drop=True)


def on_base(records: Iterable[Record]) -> list[Record]:
    """The records with the base in the place of "new": what is done on it counts, whatever became of an update."""
    found = [(record, (record.get("targets") or {}).get("base")) for record in records]
    return [{**record, "targets": dict.fromkeys(reading.TARGETS, base) if base else {}} for record, base in found]


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
    each, over, rows = seed_gains(records), reading.averaged(records), []
    for (dataset, method), part in each.groupby(["dataset", "method"], sort=False):
        rows.append([dataset, method, len(part), *mean_std(part["gain_new"])])
    for method, part in each[each["dataset"].isin(over)].groupby("method", sort=False):
        by_seed = part.groupby("seed")["gain_new"].agg(["mean", "size"])
        whole = by_seed[by_seed["size"] == len(over)]["mean"]
        rows.append([AVERAGE, method, len(whole), *mean_std(whole)])
    return pd.DataFrame(rows, columns=["dataset", "method", "gain_seeds", "gain", "gain_std"])


def targets_sheet(records: Iterable[Record]) -> Sheet:
    """Two matrices of methods x backbones of the average, H (Base: accuracy) and gain, then both of each dataset."""
    records = reading.select(records)
    table, sets = targets_table(records), reading.names(records, "dataset")
    names, depth = reading.names(records, "method"), reading.depths(records)
    backbones = list(dict.fromkeys(table["backbone"]))
    header = ("Method", *map(backbone_name, backbones))
    blocks = []
    for dataset in [AVERAGE, *reading.ids(records, "dataset")] if records else []:
        part = table[table["dataset"] == dataset]
        methods = list(dict.fromkeys(part["method"]))
        labels = [Cell(names[m] + mark(depth[m])) for m in methods]
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
        *findings(records),
        "H: harmonic mean of the accuracy on the base and on the target, in percent; the column Base is accuracy "
        "itself. Gain: accuracy on a backbone less its own zero-shot accuracy of the same seed, in points. Mean ± "
        "sample standard deviation over seeds (no deviation with one seed). Nothing is trained on any target.",
        *labels_of(records),
        *legend_remark(depth.values()),
    ]
    if table["gain"].isna().any():
        remarks.append(f"{MISSING}: not run or failed, or its zero-shot was not.")
    return Sheet("Every plug-in on every target", tuple(blocks), tuple(remarks))


def gain_cell(row) -> Cell:
    """Zero-shot gains nothing over itself: its row tells what the others' gains are over."""
    if row.method == ZERO_SHOT:
        return Cell(percent(row.accuracy, row.accuracy_std))
    return Cell(signed(row.gain, row.gain_std))


def findings(records: Sequence[Record]) -> list[str]:
    """A sentence a target, from the average rows: the best H, and how many methods end above the target's zero-shot."""
    table, names = targets_table(records), reading.names(records, "method")
    table, said = table[(table["dataset"] == AVERAGE)], []
    for role in reading.updates(records):
        part = table[(table["backbone"] == role) & table["h"].notna()]
        if part.empty:
            continue
        best = part.loc[part["h"].idxmax()]
        line = f"{backbone_name(role)}: {names[best['method']]} has the highest average H, {percent(best['h'])}"
        gained = part[(part["method"] != ZERO_SHOT) & part["gain"].notna()]
        if len(gained):
            above = int((gained["gain"] > 0).sum())
            line += f"; {above} of {counted(len(gained), 'method')} end{'s' * (above == 1)} above its zero-shot"
        said.append(line + ".")
    return said


def labels_of(records: Sequence[Record]) -> list[str]:
    """Which model each column is."""
    found = {}
    for role in ("base", *reading.updates(records)):
        of_role = [(r.get("targets") or {}).get(role) or {} for r in records]
        found[role] = " / ".join(dict.fromkeys(str(t["backbone"]) for t in of_role if t.get("backbone")))
    named = [f"{backbone_name(role)}: {label}" for role, label in found.items() if label]
    return [f"Backbones: {'; '.join(named)}."] if named else []
