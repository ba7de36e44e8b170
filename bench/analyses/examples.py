"""Example pictures: what the update breaks, seen. The plug-in was right about the picture on the base and is wrong on
the new backbone.

Which pictures is decided by a rule, from stored predictions alone. Their thumbnails and class names were stored where
the pictures were at hand (``bench.cli.examples``); an example whose thumbnail is of other predictions is left out.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from carryover.bench.analyses.base import Analysis, Tables, register
from carryover.bench.plan.run_labels import ZERO_SHOT
from carryover.bench.records import reading
from carryover.bench.records.example_files import FOLDER, LIST, Chosen, Stored
from carryover.bench.records.predictions import Outcome
from carryover.bench.records.reading import Record, counted
from carryover.bench.records.selection import Selection
from carryover.bench.render.gallery import Picture
from carryover.bench.render.html_page import Part

RULE = (
    "Two test pictures of each dataset. The first is the one that the most methods had right before the update and "
    "wrong after it. The second is the same among pictures that zero-shot has right after the update: there the "
    "plug-in fails, not the new backbone. They show the clearest failures, not typical pictures.",
    "The predictions are those of the dataset's lowest seed. The two pictures are of different classes. Of equals, the "
    "first in the test list is taken.",
)


def chosen(selection: Selection) -> list[Chosen]:
    """By ``RULE``, datasets in the order of the tables."""
    sets = reading.ids(selection.main, "dataset")
    return selection.once("examples", lambda: [one for dataset in sets for one in of_dataset(selection, dataset)])


def of_dataset(selection: Selection, dataset: str) -> list[Chosen]:
    records = [record for record in selection.main if record["run"]["dataset"] == dataset and tested(record)]
    answered = [(record, found) for record in records if {"base", "new"} <= (found := selection.answers(record)).keys()]
    if not answered:
        return []
    seed = min(record["run"]["seed"] for record, _ in answered)
    same = [(record, found) for record, found in answered if record["run"]["seed"] == seed]
    test, labels = tested(same[0][0]), same[0][1]["base"].label
    outcomes = {
        record["run"]["method"]: found
        for record, found in same
        if tested(record) == test and np.array_equal(found["base"].label, labels)
    }
    return [
        Chosen(dataset, seed, test, place, int(labels[place]), answers_at(outcomes, place))
        for place in most_broken(outcomes)
    ]


def tested(record: Record) -> str:
    """sha256 of the test pictures that it was asked about; empty where the record does not say."""
    pictures = (record.get("identity") or {}).get("pictures") or [""]
    return str(pictures[-1])


def answers_at(outcomes: Mapping[str, Mapping[str, Outcome]], place: int) -> dict[str, list[int]]:
    return {
        method: [int(found[role].predicted[place]) for role in ("base", "new")] for method, found in outcomes.items()
    }


def most_broken(outcomes: Mapping[str, Mapping[str, Outcome]]) -> list[int]:
    """Places of the pictures, by ``RULE``; without zero-shot both are taken from all."""
    labels = next(iter(outcomes.values()))["base"].label
    broken = np.sum([found["base"].right & ~found["new"].right for found in outcomes.values()], axis=0)
    still = outcomes[ZERO_SHOT]["new"].right if ZERO_SHOT in outcomes else np.full(len(labels), True)
    places: list[int] = []
    for allowed in (np.full(len(labels), True), still):
        counts = np.where(allowed & ~np.isin(labels, labels[places]), broken, 0)
        if counts.any():
            places.append(int(counts.argmax()))
    return places


def picture(stored: Stored, names: Mapping[str, str], dataset: str) -> Picture:
    """``names``: of methods, as the tables show them."""
    of = stored.of
    wrong: dict[int, list[str]] = {}
    right: dict[str, list[str]] = {}
    for method, (before, after) in of.answers.items():
        if before == of.label != after:
            wrong.setdefault(after, []).append(names[method])
        elif after == of.label:
            right.setdefault("Still right" if before == after else "Right only now", []).append(names[method])
    lines = [f"Before: {stored.names[of.label]} (right)"]
    for after, methods in sorted(wrong.items(), key=lambda item: -len(item[1])):
        lines.append(f"After: {stored.names[after]} ({', '.join(methods)})")
    lines += [f"{said}: {', '.join(methods)}" for said, methods in sorted(right.items(), reverse=True)]
    title, hint = f"{dataset}: {stored.names[of.label]}", f"test picture {of.picture}, {stored.key}, seed {of.seed}"
    return Picture(title, tuple(lines), hint, f"{FOLDER}/{stored.file}", stored.jpeg)


@register("examples")
class Examples(Analysis):
    title, place = "Examples: right before the update, wrong after it", 2.2

    def parts(self, selection: Selection, tables: Tables) -> list[Part]:
        every = chosen(selection)
        if not (every and selection.examples):
            return []
        shown = [stored for one in every for stored in selection.examples if stored.of == one]
        names = {kind: reading.names(selection.main, kind) for kind in ("method", "dataset")}
        said = [*RULE]
        if missing := len(every) - len(shown):
            said.append(f"{counted(missing, 'picture')} left out: no thumbnail of these predictions is stored.")
        cards = [picture(one, names["method"], names["dataset"][one.of.dataset]) for one in shown]
        found: list[Part] = [*(("text", line) for line in said), ("gallery", cards)]
        return [*found, ("files", [(LIST, f"{FOLDER}/{LIST}")])]
