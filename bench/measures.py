"""What methods are compared by: accuracy on each backbone, and the harmonic mean H of Base and each update."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bench import stats
from bench.stats import AVERAGE, Record, counted


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


def harmonic(base, new):
    """`stats.harmonic_mean` of arrays: 0 where either is 0."""
    total = np.asarray(base) + np.asarray(new)
    return 2 * base * new / np.where(total > 0, total, 1.0)


def measures(records: Iterable[Record]) -> list[Measure]:
    """Base, then New and H of each update that the records know."""
    found = [Measure("base", "Base", ("base",))]
    for role in stats.updates(records):
        own = role == "new"
        found.append(Measure(role, "New" if own else role, (role,)))
        found.append(Measure("h" if own else f"h-{role}", "H" if own else f"H, {role}", ("base", role)))
    return found


def score_table(records: Sequence[Record], measure: Measure) -> pd.DataFrame:
    """Mean over seeds in percent, a row a dataset of those averaged and a column a method, both in the tables' order;
    NaN where no seed is done. ``records``: of the main suite (`stats.select`)."""
    seen = stats.seen_from(records, measure.update)
    column = "h" if len(measure.roles) == 2 else "base" if measure.id == "base" else "new"
    means = stats.seed_scores(seen).groupby(["dataset", "method"])[column].mean().unstack()
    return means.reindex(index=stats.averaged(records), columns=stats.ids(records, "method")).astype(float)


def roles(records: Iterable[Record]) -> list[str]:
    """Every backbone that a measure is of, the base first."""
    return ["base", *stats.updates(records)]


def sections(records: Sequence[Record]) -> Iterator[tuple[str, str, str]]:
    """The blocks of a sheet that has one for each dataset: update, dataset id, title. The average first; of further
    updates the average alone, for the CSV has the rest."""
    names, over = stats.names(records, "dataset"), counted(len(stats.averaged(records)), "dataset")
    for update in stats.updates(records):
        own = update == "new"
        yield update, AVERAGE, f"Average over {over}" + ("" if own else f", update '{update}'")
        for dataset in stats.ids(records, "dataset") if own else ():
            yield update, dataset, names[dataset]
