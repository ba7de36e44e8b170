"""What methods are compared by: accuracy on each backbone, and the harmonic mean H of Base and each update."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd

from carryover.bench.records import reading
from carryover.bench.records.reading import AVERAGE, Record, averaged, counted, ids
from carryover.bench.stats.means import mean_std, seed_scores


@dataclass(frozen=True)
class Measure:
    """id     as tables have it: "base", "new", "h"; for a further update NAME and "h-NAME"
    name   as readers see it
    roles  the backbones whose predictions it is of: two for H
    """

    id: str
    name: str
    roles: tuple[str, ...]

    @property
    def update(self) -> str:
        """The backbone that stands in the place of "new"."""
        return "new" if self.id == "base" else self.roles[-1]

    def of(self, *accuracies):
        """The measure of the accuracies (percent, numbers or arrays) on ``roles``."""
        return accuracies[0] if len(accuracies) == 1 else harmonic(*accuracies)

    def slope(self, *accuracies: float) -> float:
        """What it gains where all of the accuracies gain a point: 1, of H the sum of its two derivatives."""
        total = sum(accuracies)
        return 2 * sum(a * a for a in accuracies) / total**2 if len(accuracies) > 1 and total else 1.0


def harmonic(base, new):
    """`stats.harmonic_mean` of arrays: 0 where either is 0."""
    total = np.asarray(base) + np.asarray(new)
    return 2 * base * new / np.where(total > 0, total, 1.0)


def measures(records: Iterable[Record]) -> list[Measure]:
    """Base, then New and H of each update that the records know."""
    found = [Measure("base", "Base", ("base",))]
    for role in reading.updates(records):
        own = role == "new"
        found.append(Measure(role, "New" if own else role, (role,)))
        found.append(Measure("h" if own else f"h-{role}", "H" if own else f"H, {role}", ("base", role)))
    return found


def score_table(records: Sequence[Record], measure: Measure) -> pd.DataFrame:
    """Mean over seeds in percent, a row a dataset of those averaged and a column a method, both in the tables' order;
    NaN where no seed is done. ``records``: of the main suite (`stats.select`)."""
    seen = reading.seen_from(records, measure.update)
    means = seed_scores(seen).groupby(["dataset", "method"])[column_of(measure)].mean().unstack()
    return means.reindex(index=reading.averaged(records), columns=reading.ids(records, "method")).astype(float)


def column_of(measure: Measure) -> str:
    """Of `seed_scores`."""
    return "h" if len(measure.roles) == 2 else "base" if measure.id == "base" else "new"


def seed_counts(records: Sequence[Record], measure: Measure) -> pd.DataFrame:
    """Of how many seeds `score_table` has the mean; 0 where it has none."""
    scores = seed_scores(reading.seen_from(records, measure.update))
    counts = scores.groupby(["dataset", "method"])[column_of(measure)].count().unstack()
    return counts.reindex(index=reading.averaged(records), columns=reading.ids(records, "method")).fillna(0).astype(int)


def roles(records: Iterable[Record]) -> list[str]:
    """Every backbone that a measure is of, the base first."""
    return ["base", *reading.updates(records)]


def sections(records: Sequence[Record]) -> Iterator[tuple[str, str, str]]:
    """The blocks of a sheet that has one for each dataset: update, dataset id, title. The average first; of further
    updates the average alone, for the CSV has the rest."""
    names, over = reading.names(records, "dataset"), counted(len(reading.averaged(records)), "dataset")
    for update in reading.updates(records):
        own = update == "new"
        yield update, AVERAGE, f"Average over {over}" + ("" if own else f", update '{update}'")
        for dataset in reading.ids(records, "dataset") if own else ():
            yield update, dataset, names[dataset]


def summarised(
    found: pd.DataFrame, records: Sequence[Record], backbones: Sequence[str], values: Sequence[str]
) -> pd.DataFrame:
    """Mean and deviation over seeds (``NAME_std``) of each of the ``values``, a row for each dataset, method and
    backbone, then the average over datasets: seed by seed, over the seeds that have every averaged one, as in the main
    table. ``found``: columns dataset, method, backbone, seed and the values."""
    datasets, methods, over = ids(records, "dataset"), ids(records, "method"), averaged(records)
    keys, made = ["dataset", "method", "backbone"], []
    mine = found[found["dataset"].isin(over)].groupby(["method", "backbone", "seed"])
    means = mine[list(values)].mean()[mine["dataset"].nunique() == len(over)].reset_index().assign(dataset=AVERAGE)
    groups = dict(list(pd.concat([found, means]).groupby(keys))) if len(found) else {}
    for cell in product([*datasets, *([AVERAGE] if records else [])], methods, backbones):
        group = groups.get(cell, found.iloc[:0])
        made.append([*cell, len(group), *(x for name in values for x in mean_std(group[name]))])
    return pd.DataFrame(made, columns=[*keys, "seeds", *(x for name in values for x in (name, name + "_std"))])
