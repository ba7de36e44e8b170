"""H against what it costs, seconds or trainable parameters: which methods no other beats at both.

Seconds are those of the machine that ran, so this is in the report and its figure, not in a table that two machines
should agree on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import pandas as pd

from carryover.bench.records import reading
from carryover.bench.records.reading import Record
from carryover.bench.records.selection import Selection
from carryover.bench.stats.means import average_rows

COSTS = {"seconds": "seconds", "parameters": "trainable parameters"}
COLUMNS = ("method", "h", "fit", "evaluate", "seconds", "parameters")
THOUSAND = 1000  # images that an evaluation is priced by


def costs(selection: Selection, update: str = "new") -> pd.DataFrame:
    """`COLUMNS`, a row for each method with an average H, in percent; NaN where a record does not say what it cost.

    fit         seconds, mean over the averaged datasets of the mean over seeds
    evaluate    seconds for 1000 test images on the update, features ready, the same mean
    seconds     both
    parameters  trainable ones, the same mean
    """
    return selection.once(f"costs {update}", lambda: paid_for(selection.main, update))


def paid_for(records: Sequence[Record], update: str) -> pd.DataFrame:
    seen, over = reading.seen_from(records, update), set(reading.averaged(records))
    found = []
    for record in seen:
        run = record["run"]
        if reading.is_done(record) and run["dataset"] in over:
            found.append([run["method"], run["dataset"], *cost(record, update)])
    paid = pd.DataFrame(found, columns=["method", "dataset", "fit", "evaluate", "parameters"])
    means = paid.groupby(["method", "dataset"]).mean().groupby("method").mean()
    averages = average_rows(reading.select(seen))
    rows = []
    for method, h in averages["h"].dropna().items():
        fit, evaluate, parameters = means.loc[method]
        rows.append([method, h, fit, evaluate, fit + evaluate, parameters])
    return pd.DataFrame(rows, columns=list(COLUMNS))


def cost(record: Record, update: str) -> tuple[float, float, float]:
    """Seconds of the fit, seconds for 1000 images on the update, trainable parameters."""
    seconds = record.get("seconds") or {}
    spent, count = (seconds.get("evaluate") or {}).get(update), record["targets"]["new"].get("count")
    evaluate = THOUSAND * spent / count if spent is not None and count else math.nan
    return number(seconds.get("fit")), evaluate, number(record.get("trainable_parameters"))


def number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def front(points: Iterable[tuple[float, float]]) -> list[int]:
    """Places of the (cost, gain) that no other has for less cost with as much gain, or for as much cost with more; by
    rising cost. Points with a NaN are on no front."""
    known = [(place, x, y) for place, (x, y) in enumerate(points) if not (math.isnan(x) or math.isnan(y))]
    kept = [
        (x, place)
        for place, x, y in known
        if not any(a <= x and b >= y and (a, b) != (x, y) for other, a, b in known if other != place)
    ]
    return [place for _, place in sorted(kept)]
