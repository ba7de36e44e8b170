"""The verdict in words: the first sentence of the report, for every case that can occur.

`tests/report/test_verdict_sentences.py` spells out a sentence for each.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from carryover.bench.analyses.parts.answer_numbers import CANNOT_TELL, CARRIES, HURTS, IMPOSSIBLE, NO_BETTER
from carryover.bench.analyses.parts.retention_numbers import signed
from carryover.bench.places import PLACES
from carryover.bench.records.reading import counted
from carryover.bench.stats.verdicts import decides

NEW = "the new model"
ONE_SEED = "One seed allows no verdict."
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
LISTED = 3  # names that a sentence holds
OTHERS = {HURTS: "hurts", NO_BETTER: "is no better than zero-shot", CANNOT_TELL: "is inconclusive"}
OF_SEVERAL = {HURTS: "hurt", NO_BETTER: "are no better than zero-shot", CANNOT_TELL: "are inconclusive"}


@dataclass(frozen=True)
class Gain:
    """Points over zero-shot, with the ends of the interval and the verdict."""

    points: float
    low: float
    high: float
    verdict: str


@dataclass(frozen=True)
class Judged:
    """One method on average over the datasets; ``gain.points`` is NaN where it has not finished on all of them, or
    cannot be plugged in (verdict `IMPOSSIBLE`)."""

    name: str
    place: str
    seeds: int
    gain: Gain
    ported: Gain | None = None


@dataclass(frozen=True)
class Case:
    """What is known of one update.

    zero_shot  its accuracy on the new backbone in percent, NaN where it has not finished on every dataset
    has_zero_shot  whether any run of zero-shot is stored
    """

    methods: tuple[Judged, ...]
    zero_shot: float
    has_zero_shot: bool = True
    datasets: int = 1
    done: int = 1
    failed: int = 0
    where: str = NEW

    @property
    def refused(self) -> list[Judged]:
        """Those that cannot be plugged in."""
        return [one for one in self.methods if one.gain.verdict == IMPOSSIBLE]


def sentence(case: Case) -> str:
    """The verdict; where there is none, why."""
    known = [one for one in case.methods if not math.isnan(one.gain.points)]
    if not case.done:
        return nothing_done(case)
    if not case.methods:
        told = f" Its accuracy on {case.where} is {case.zero_shot:.1f} %." if not math.isnan(case.zero_shot) else ""
        return f"There is no verdict: only zero-shot was run.{told}"
    if math.isnan(case.zero_shot):
        why = "has not finished on every dataset" if case.has_zero_shot else "was not run"
        return f"There is no verdict: zero-shot {why}, and methods are compared with it."
    if case.refused and len(case.refused) == len(case.methods):
        none = f"No method can be plugged into {case.where}, so there is no verdict."
        return " ".join([none, *ported_all(case.refused)])
    if not known:
        on = f" on all {case.datasets} datasets" if case.datasets > 1 else ""
        return f"There is no verdict: no method has finished{on}."
    if not any(decides(one.seeds) for one in known):
        return " ".join([ONE_SEED, as_found(known, case.where), *not_plugged(case.refused)])
    if all(math.isnan(one.gain.low) for one in known):
        return f"There is no verdict: the stored predictions are missing. {as_found(known, case.where)}"
    if len(known) == 1 and not case.refused:
        return " ".join([of_one(known[0], case.where), *ported_one(known[0])])
    judged = [of_one(known[0], case.where)] if len(known) == 1 else of_places(known, case.where)
    return " ".join([*judged, *not_plugged(case.refused), *ported_all([*known, *case.refused])])


def not_plugged(refused: Sequence[Judged]) -> list[str]:
    if not refused:
        return []
    names = who([one.name for one in refused])
    return [f"{names[0].upper()}{names[1:]} cannot be plugged in."]


def nothing_done(case: Case) -> str:
    if not case.failed:
        return "There is no verdict: no run is stored."
    return f"There is no verdict: {'the only run' if case.failed == 1 else f'all {case.failed} runs'} failed."


# ---- without a verdict -----------------------------------------------------------------------------------------------


def as_found(known: Sequence[Judged], where: str) -> str:
    """What the numbers are, without a claim."""
    if len(known) == 1:
        return f"In this run {known[0].name} is {distance(known[0].gain.points)} zero-shot on {where}."
    above = [one.name for one in known if one.gain.points > 0]
    others = [one.name for one in known if one.gain.points <= 0]
    sides = [(above, f"above zero-shot on {where}"), (others, "not")]
    if not above:
        sides = [(others, f"not above zero-shot on {where}")]
    told = [f"{who(names)} {are(len(names))} {side}" for names, side in sides if names]
    return f"In these runs {' and '.join(told)}."


def distance(points: float) -> str:
    """Of zero-shot: "2.0 points above", "level with"."""
    return f"{plain(abs(points))} {'above' if points > 0 else 'below'}" if round(points, 1) else "level with"


def plain(points: float) -> str:
    return f"{points:.1f} point{'s' * (f'{points:.1f}' != '1.0')}"


# ---- one method ------------------------------------------------------------------------------------------------------


def of_one(one: Judged, where: str) -> str:
    gain = one.gain
    match gain.verdict:
        case "carries over":
            return f"{one.name} carries over: on {where} it is {apart(gain)}."
        case "hurts":
            return f"{one.name} hurts: on {where} it is {apart(gain)}."
        case "no better than zero-shot":
            return f"{one.name} is no better than zero-shot on {where}: it is {apart(gain)}."
    return f"We cannot tell whether {one.name} carries over: on {where} it is {apart(gain)}."


def apart(gain: Gain) -> str:
    """ "2.0 points below zero-shot (95 % interval -3.0 to -1.0)" """
    return f"{distance(gain.points)} zero-shot (95 % interval {signed(gain.low)} to {signed(gain.high)})"


def ported_one(one: Judged) -> list[str]:
    if one.ported is None or math.isnan(one.ported.low):
        return []
    return [f"Ported through a map, it is {apart(one.ported)}."]


# ---- several methods -------------------------------------------------------------------------------------------------


def of_places(known: Sequence[Judged], where: str) -> list[str]:
    """A sentence for each place at which methods stand; the first one says on which backbone."""
    said: list[str] = []
    for place, about in PLACES.items():
        here = [one for one in known if one.place == place]
        if here:
            kind = f"{about.kind} method" if about.kind else "method without training"
            said.append(of_place(here, kind, "" if said else where))
    return said


def of_place(here: Sequence[Judged], kind: str, where: str) -> str:
    """``where``: empty where it has been said."""
    by = {told: [one.name for one in here if one.gain.verdict == told] for told in (CARRIES, *OTHERS)}
    count, carried = len(here), by[CARRIES]
    rest = [f"{number(len(names))} {verb(told, len(names))}" for told, names in by.items() if told != CARRIES and names]
    on, to = (f"on {where} ", f" to {where}") if where else ("", "")
    if len(by[CANNOT_TELL]) == count:
        which = f"{here[0].name} carries" if count == 1 else f"the {number(count)} {kind}s carry"
        return f"We cannot tell whether {which} over{to}."
    if count == 1:
        if carried:
            return f"{carried[0]} carries over{f': {on}it beats zero-shot' if where else ''}."
        return f"{here[0].name} {OTHERS[here[0].gain.verdict]}{f' on {where}' if where else ''}."
    if len(carried) == count:
        return f"{all_of(count).capitalize()} {kind}s carry over{f': {on}they beat zero-shot' if where else ''}."
    if carried:
        which = f"{number(len(carried)).capitalize()} of the {number(count)} {kind}s"
        verbs = "carries" if len(carried) == 1 else "carry"
        if len(carried) > LISTED:
            return f"{which} {verbs} over: {on}they beat zero-shot; {joined(rest)}."
        beat = f"{joined(carried)} beat{'s' * (len(carried) == 1)} zero-shot"
        return f"{which} {verbs} over: {on}{joined([beat, *rest])}."
    if by[CANNOT_TELL]:
        return f"Of the {number(count)} {kind}s, {on}{joined(rest)}."
    if len(rest) == 1:
        (told,) = [told for told, names in by.items() if names]
        rest = [f"{all_of(count)} {verb(told, count)}"]
    return f"{none_of(count).capitalize()} {kind}s carries over: {on}{joined(rest)}."


def ported_all(known: Sequence[Judged]) -> list[str]:
    """How many beat zero-shot through a port, of those that a port was measured for."""
    ported = [one for one in known if one.ported is not None and not math.isnan(one.ported.low)]
    count, carried = len(ported), sum(one.ported.verdict == CARRIES for one in ported if one.ported)
    if not ported:
        return []
    if count == 1:
        told = ported[0].ported.verdict if ported[0].ported else ""
        what = "beats zero-shot" if told == CARRIES else OTHERS[told]
        return [f"Ported through a map, {ported[0].name} {what}."]
    if not carried:
        return [f"Ported through a map, {none_of(count)} methods that have a port significantly beats zero-shot."]
    which = all_of(count) if carried == count else f"{number(carried)} of the {number(count)}"
    beat = "beats" if carried == 1 else "beat"
    return [f"Ported through a map, {which} methods that have a port {beat} zero-shot."]


# ---- grammar ---------------------------------------------------------------------------------------------------------


def number(count: int) -> str:
    return NUMBERS[count] if count < len(NUMBERS) else str(count)


def all_of(count: int) -> str:
    return "both" if count == 2 else f"all {number(count)}"


def none_of(count: int) -> str:
    return "neither of the two" if count == 2 else f"none of the {number(count)}"


def verb(told: str, count: int) -> str:
    return OTHERS[told] if count == 1 else OF_SEVERAL[told]


def are(count: int) -> str:
    return "is" if count == 1 else "are"


def who(names: Sequence[str]) -> str:
    """Names, or how many there are."""
    return joined(names) if len(names) <= LISTED else f"{number(len(names))} methods"


def joined(parts: Iterable[str]) -> str:
    """ "a, b and c" """
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last


def runs_failed(failed: int, every: int) -> str:
    """Empty where none did."""
    return f"{counted(failed, 'run')} of {every} failed." if failed else ""
