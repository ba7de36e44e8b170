"""Where the time went: seconds by stage from records, beside what ``--dry-run`` predicted for the same runs.

``estimate.json`` is the last estimate, ``predicted.json`` the last that a report found some of whose runs done,
``call.json`` the last call that did a run; all lie beside the records, so that the report is made from files alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from carryover.bench.plan.option_rows import method_of
from carryover.bench.records import reading
from carryover.bench.records.reading import Record
from carryover.bench.records.time_notes import covers, digest, evaluation_stage, features_stage, fit_stage
from carryover.bench.render.sheets import MISSING, Block, Cell

READING = "reading features and few-shot lists"
NO_ESTIMATE = "There is no estimate to compare with. To get one, run the same command with --dry-run before the runs."


def spent(records: Iterable[Record]) -> dict[str, float]:
    """Seconds by stage of the finished records, features first, methods in the paper's order."""
    done = [record for record in records if record.get("status") == "done"]
    stages: dict[str, float] = {}

    def add(stage: str, seconds: float | None) -> None:
        stages[stage] = stages.get(stage, 0.0) + (seconds or 0.0)

    for record in done:
        for role, made in (record.get("encoded") or {}).items():
            add(features_stage(role), made["seconds"])
    for record in done:
        encoding = sum(made["seconds"] for made in (record.get("encoded") or {}).values())
        add(READING, max(0.0, (record.get("seconds") or {}).get("features", 0.0) - encoding))
    for method in dict.fromkeys(map(method_of, reading.ids(done, "method"))):
        for record in done:
            seconds = record.get("seconds") or {}
            if method_of(record["run"]["method"]) == method:
                if not record["run"].get("test"):
                    add(fit_stage(method), seconds.get("fit"))
                add(evaluation_stage(method), sum((seconds.get("evaluate") or {}).values()))
    return stages


def pictures(records: Iterable[Record], role: str) -> int:
    """Pictures and views that the records say were encoded for them."""
    return sum((record.get("encoded") or {}).get(role, {}).get("images", 0) for record in records)


def stage_block(records: Sequence[Record], call: Mapping[str, Any] | None) -> Block:
    """Seconds of work by stage, methods together, and of the last call by the clock where its runs are these."""
    stages, each = spent(records), by_method(records)
    together = {name: sum(pair[place] for pair in each.values()) for place, name in enumerate(("fit", "evaluation"))}
    rows = []
    for stage, seconds in [*((s, t) for s, t in stages.items() if not of_method(s)), *together.items()]:
        role = stage.removeprefix("features, ").removesuffix(" backbone")
        count = pictures(records, role) if stage == features_stage(role) else 0
        said = f"{count:,} pictures and views, {count / seconds:,.0f} a second" if count and seconds else ""
        rows.append((stage, _seconds(seconds), said))
    rows.append(("all work", _seconds(sum(stages.values())), "sum over all processes"))
    if call and call.get("keys") == digest(record["key"] for record in records if record.get("status") == "done"):
        parts = ", ".join(f"{name} {_seconds(part)}" for name, part in call["stages"].items())
        rows.append(("last call, by the clock", _seconds(call["seconds"]), f"{parts}; workers: {call['jobs']}"))
    return _block("", ("Stage", "Seconds", "Of it"), rows)


def method_block(records: Sequence[Record]) -> Block:
    """Seconds of work by method."""
    rows = [(method, *map(_seconds, pair)) for method, pair in by_method(records).items()]
    return _block("", ("Method", "Fit (s)", "Evaluation (s)"), rows)


def by_method(records: Iterable[Record]) -> dict[str, tuple[float, float]]:
    """Seconds of fit and evaluation."""
    stages = spent(records)
    methods = dict.fromkeys(stage.partition(", ")[2] for stage in stages if of_method(stage))
    return {one: (stages.get(fit_stage(one), 0.0), stages.get(evaluation_stage(one), 0.0)) for one in methods}


def of_method(stage: str) -> bool:
    return stage.startswith((fit_stage(""), evaluation_stage("")))


def prediction_block(records: Sequence[Record], estimate: Mapping[str, Any], call: Mapping[str, Any] | None) -> Block:
    """Predicted beside actual seconds, over those of the estimate's runs that are done."""
    keys = set(estimate["keys"])
    mine = [record for record in records if record["key"] in keys and record.get("status") == "done"]
    actual, predicted = spent(mine), estimate["stages"]
    names = dict.fromkeys([*predicted, *(name for name in actual if name != READING)])
    rows = [(name, *_pair(predicted.get(name), actual.get(name))) for name in names]
    rows.append(("all work", *_pair(sum(predicted.values()), sum(actual.values()))))
    clock = call["seconds"] if call is not None and call.get("keys") == digest(keys) else None
    rows.append(("by the clock", *_pair(estimate["seconds"], clock)))
    return _block("Predicted and actual", ("Stage", "Predicted (s)", "Actual (s)", "Actual / predicted"), rows)


def prediction_note(records: Sequence[Record], estimate: Mapping[str, Any] | None) -> str:
    """What the prediction is of; how to get one, where there is none for these records."""
    count = covers(records, estimate) if estimate else 0
    if not estimate or not count:
        return NO_ESTIMATE
    planned = reading.counted(len(estimate["keys"]), "run")
    part = "" if count == len(estimate["keys"]) else ", so the actual time is not yet that of the whole plan"
    return (
        f"--dry-run predicted the time of {planned}, of which {count} {'is' if count == 1 else 'are'} done{part}. It "
        "predicts work without loading, reading and report. By the clock: with as many workers as the prediction is "
        f"for ({estimate['jobs']})."
    )


def _pair(predicted: float | None, actual: float | None) -> tuple[str, str, str]:
    first, second = (MISSING if value is None else _seconds(value) for value in (predicted, actual))
    ratio = f"{actual / predicted:.2f}" if predicted and actual is not None else MISSING
    return first, second, ratio


def _seconds(value: float) -> str:
    return f"{value:,.1f}"


def _block(title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> Block:
    return Block(Cell(title), tuple(header), tuple(tuple(map(Cell, row)) for row in rows))
