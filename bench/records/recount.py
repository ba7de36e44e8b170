"""Accuracies counted anew from stored predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from carryover.bench.errors import UserError
from carryover.bench.plan.run_labels import told
from carryover.bench.records.reading import Predictions, Record


def recount(records: Iterable[Record], predictions: Callable[[str], Predictions]) -> tuple[list[Record], list[str]]:
    """The records with accuracies counted anew from stored predictions, and a line for each difference found.

    predictions: a run's key -> its stored predictions; it may raise UserError, OSError, KeyError or ValueError where
    there are none. Records that are not done pass unchanged; a target without usable predictions is left out.
    """
    remade: list[Record] = []
    lines: list[str] = []
    for record in records:
        if record.get("status") != "done":
            remade.append(record)
            continue
        run, claims = record["run"], record.get("targets") or {}
        test = f" → {run['test']}" if run.get("test") else ""
        where = f"{record['key']} ({run['dataset']}{test}, {run['method']}, seed {run['seed']}{told(run)})"
        measured: dict[str, dict[str, float]] = {}
        try:
            stored = predictions(record["key"])
        except (UserError, OSError, KeyError, ValueError, TypeError) as error:
            lines.append(f"{where}: no readable predictions ({error})")
            stored, claims = {}, {}
        for target in dict.fromkeys([*claims, *stored]):
            if target not in claims or target not in stored:
                lines.append(f"{where} {target}: {'predictions' if target in stored else 'a record'} only")
                continue
            found, truth = (np.asarray(part) for part in stored[target])
            if found.shape != truth.shape or found.ndim != 1 or not found.size:
                lines.append(f"{where} {target}: predictions {found.shape} do not fit labels {truth.shape}")
                continue
            right, count = int((found == truth).sum()), int(found.size)
            counts = {"correct": right, "count": count, "accuracy": 100 * right / count}
            measured[target] = {**claims[target], **counts}
            for name, value in counts.items():
                claim = claims[target].get(name)
                if claim is None or not abs(claim - value) <= 1e-6:  # a NaN claim differs too
                    lines.append(f"{where} {target}: {name} is {claim} in the record, {value:g} from the predictions")
        remade.append({**record, "targets": measured})
    return remade, lines
