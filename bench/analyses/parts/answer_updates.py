"""The verdict over several updates: where the methods of each place carry over, and how many do through a port.

`tests/report/test_verdict_sentences.py` spells out a sentence for each case.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from carryover.bench.analyses.parts.answer_numbers import CANNOT_TELL, CARRIES, IMPOSSIBLE
from carryover.bench.analyses.parts.answer_words import (
    ONE_SEED,
    Case,
    Judged,
    all_of,
    as_found,
    joined,
    none_of,
    number,
    sentence,
)
from carryover.bench.places import PLACES
from carryover.bench.stats.verdicts import decides

NO_VERDICT = "There is no verdict"
WHERE = "\0"  # stands for the updates until they are known
LISTED = 4  # updates that a sentence names


def over_updates(cases: Mapping[str, Case]) -> str:
    """The verdict over the updates, by their ids; where one of them has none, each one's sentence."""
    said = list(dict.fromkeys(map(sentence, cases.values())))
    if len(said) == 1:
        return said[0]
    told_of = [case for case in cases.values() if len(case.refused) < len(case.methods)]
    if told_of and all(map(of_one_seed, told_of)) and not any(math.isnan(c.zero_shot) for c in cases.values()):
        return " ".join([ONE_SEED, *as_they_are(cases), *not_plugged(cases)])
    if not told_of or not all(map(has_verdict, told_of)) or any(math.isnan(c.zero_shot) for c in cases.values()):
        each = [sentence(case).replace(NO_VERDICT, f"{NO_VERDICT} on {case.where}", 1) for case in cases.values()]
        return " ".join(dict.fromkeys(each))
    told = []
    for place in PLACES:
        here = {id: at(case, place) for id, case in cases.items() if not refuses(case, place)}
        if here and all(here.values()):
            told.append(of_place(here, PLACES[place].kind or "untrained", len(cases)))
    return " ".join([*told, *not_plugged(cases), *ported(cases)])


def refuses(case: Case, place: str) -> bool:
    """Whether none of the methods of that place can be plugged in."""
    here = [one for one in case.methods if one.place == place]
    return bool(here) and all(one.gain.verdict == IMPOSSIBLE for one in here)


def not_plugged(cases: Mapping[str, Case]) -> list[str]:
    """How many methods which updates refuse."""
    groups: dict[tuple[int, int], list[str]] = {}
    for id, case in cases.items():
        if case.refused:
            groups.setdefault((len(case.refused), len(case.methods)), []).append(id)
    parts = []
    for (some, count), ids in groups.items():
        which = none_of(count) if some == count else f"{number(some)} of the {number(count)}"
        which = f"{which} methods" if count > 1 else "the only method"
        can = "can" if some == count > 1 else "cannot"
        parts.append(f"{which} {can} be plugged into {listed(ids, len(cases))}")
    told = "; ".join(parts)
    return [f"{told[0].upper()}{told[1:]}."] if told else []


def of_one_seed(case: Case) -> bool:
    seeds = [one.seeds for one in case.methods if not math.isnan(one.gain.points)]
    return bool(seeds) and not any(map(decides, seeds))


def as_they_are(cases: Mapping[str, Case]) -> list[str]:
    """What the numbers are, without a claim; a sentence for the updates of which it says the same."""
    groups: dict[str, list[str]] = {}
    for id, case in cases.items():
        if known := [one for one in case.methods if not math.isnan(one.gain.points)]:
            groups.setdefault(as_found(known, WHERE), []).append(id)
    return [said.replace(WHERE, listed(ids, len(cases))) for said, ids in groups.items()]


def has_verdict(case: Case) -> bool:
    known = [one for one in case.methods if not math.isnan(one.gain.low) and decides(one.seeds)]
    return bool(known) and not math.isnan(case.zero_shot)


def at(case: Case, place: str) -> list[Judged]:
    return [one for one in case.methods if one.place == place and not math.isnan(one.gain.points)]


def of_place(here: Mapping[str, Sequence[Judged]], kind: str, updates: int) -> str:
    """``here``: methods of one place by update, of those of the ``updates`` that any of them can be plugged into."""
    count = max(map(len, here.values()))
    carried = {id: sum(one.gain.verdict == CARRIES for one in found) for id, found in here.items()}
    unclear = any(one.gain.verdict == CANNOT_TELL for found in here.values() for one in found)
    one, what = len(here) == 1, "it" if count == 1 else "them"
    those = "" if len(here) == updates else f" that take{'s' * one} {what}"
    either = those and f" that takes {what}"
    every = "the only update" if one else f"{'both' if len(here) == 2 else f'all {number(len(here))}'} updates"
    every += those
    whose = next(iter(here.values()))[0].name if count == 1 else f"{kind} methods"
    if not any(carried.values()):
        verb = "is shown to carry over" if unclear else "carries over"
        to = f"either update{either}" if len(here) == 2 else f"any of the {number(len(here))} updates{those}"
        to = every if one else to
        if count == 1:
            return f"{whose} {'is not shown to' if unclear else 'does not'} carry over to {to}."
        return f"{none_of(count).capitalize()} {whose} {verb} to {to}."
    groups: dict[int, list[str]] = {}
    for id, many in sorted(carried.items(), key=lambda one: -one[1]):
        groups.setdefault(many, []).append(id)
    (most, where), *rest = groups.items()
    first = whose if count == 1 else f"{how_many(most, count).capitalize()} {whose}"
    to = every if not rest else listed(where, len(here))
    others = [f"{'not' if count == 1 else (number(n) if n else 'none')} to {listed(ids, len(here))}" for n, ids in rest]
    return f"{first} carr{'ies' if most == 1 else 'y'} over to {joined_by_comma([to, *others])}."


def how_many(some: int, count: int) -> str:
    return all_of(count) if some == count else f"{number(some)} of the {number(count)}"


def listed(ids: Sequence[str], over: int) -> str:
    """ "'new' and 'second'"; of many, how many."""
    return (
        joined([f"'{id}'" for id in ids]) if len(ids) <= LISTED else f"{number(len(ids))} of the {number(over)} updates"
    )


def joined_by_comma(parts: Sequence[str]) -> str:
    return ", ".join(parts)


def ported(cases: Mapping[str, Case]) -> list[str]:
    found = []
    for case in cases.values():
        mine = [one.ported for one in case.methods if one.ported is not None and not math.isnan(one.ported.low)]
        if mine:
            found.append((sum(one.verdict == CARRIES for one in mine), len(mine)))
    if not found:
        return []
    counts, of = sorted({some for some, _ in found}), max(total for _, total in found)
    low, high = counts[0], counts[-1]
    if not high:
        return ["Ported through a map, no method significantly beats zero-shot on any update."]
    if low == high:
        many, verb = how_many(low, of), "beats" if low == 1 else "beat"
        return [f"Ported through a map, {many} methods that have a port {verb} zero-shot on each update."]
    some = f"{number(low) if low else 'none'} to {number(high)} of the {number(of)}"
    return [f"Ported through a map, {some} methods that have a port beat zero-shot, depending on the update."]
