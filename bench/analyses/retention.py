"""Reuse, retrain, or zero-shot: what of a method's gain an update leaves, and which of the three to take.

On a target backbone the floor is its own zero-shot accuracy, the ceiling the same method trained on it from nothing:
``retention = (reused - zero-shot) / (retrained - zero-shot)``. Intervals are those of the pairs, over seeds and
test images (``bench.stats.choices``).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from matplotlib.figure import Figure

from carryover.bench import places
from carryover.bench.analyses.base import Analysis, Drawing, Table, Tables, register
from carryover.bench.analyses.parts import refused
from carryover.bench.analyses.parts import retention_numbers as numbers
from carryover.bench.analyses.parts.retention_numbers import (
    GAINS,
    NOTHING,
    OPTIONS,
    RULE,
    UNDECIDED,
    Compared,
    compared,
    gain_of,
    in_points,
)
from carryover.bench.analyses.parts.rows import marks_of, not_run
from carryover.bench.backbones.archs import Arch
from carryover.bench.plan.run_labels import ZERO_SHOT
from carryover.bench.plan.suites import Suite, Variant
from carryover.bench.records import reading
from carryover.bench.records.reading import AVERAGE
from carryover.bench.records.selection import Row, Selection
from carryover.bench.render.figures import COLOURS, INK, LONGEST_NAME, canvas, open_frame
from carryover.bench.render.sheets import MISSING, Block, Cell, Sheet, percent
from carryover.bench.stats.verdicts import decides, images_alone, would_decide

INTERVAL = (
    "Intervals: 95 %, paired over test images (drawn with replacement, one draw for all seeds) and seeds (Student's "
    "t). With one seed they cover images alone, and there is no choice. They are not corrected for the number of "
    "comparisons."
)
MEASURE = (
    "Retention: (reused - zero-shot) / (retrained - zero-shot), from accuracies on the target in percent. Reused: "
    "trained on the base and carried over unchanged. Retrained: trained on the target from nothing, with the same "
    f"schedule, images and views. “{NOTHING}”: the interval of retraining's gain over zero-shot is not above 0."
)
COSTS = (
    "Cost of retraining: the median over seeds (in the average, the mean over datasets) of the seconds to fit, the "
    "seconds to encode the pictures and views at the speed measured here, the training steps and the trainable "
    "parameters. Methods on frozen features share the encoded pictures of a dataset. Methods that read pixels encode "
    "their views while they fit."
)
ROW_INCHES, FRAME_INCHES = 0.3, 0.9
FURTHEST = 20.0  # points below the lowest zero-shot accuracy that a panel shows
FLOOR, CEILING = "zero-shot (floor)", "retrained (ceiling)"


def rows(arch: Arch, methods: Sequence[str], shots: int) -> list[Variant]:
    """Zero-shot, each method as the main suite has it, and from nothing on each update."""
    updates = [role for role in arch.towers if role != "base"]
    found = [Variant((), ZERO_SHOT)] if methods else []
    for method in methods:
        found += [Variant((), method), *(Variant((role,), method, path=(role,)) for role in updates)]
    return found


class Names:
    """What ids are shown as."""

    def __init__(self, selection: Selection):
        main, towers = selection.main, selection.arch.towers
        self.datasets, self.methods = reading.names(main, "dataset"), reading.names(main, "method")
        self.depth = reading.depths(main)
        self.targets = {role: f"{role} ({tower.label})" for role, tower in towers.items()}

    def method(self, id: str) -> str:
        return self.methods.get(id, id) + places.mark(self.depth.get(id, ""))

    def dataset(self, id: str) -> str:
        return self.datasets.get(id, id)


def grouped(found: Iterable[Compared]) -> dict[str, dict[tuple[str, str], Compared]]:
    """target -> (dataset, method) -> the comparison."""
    made: dict[str, dict[tuple[str, str], Compared]] = {}
    for one in found:
        made.setdefault(one.target, {})[one.dataset, one.method] = one
    return made


def retention_sheet(selection: Selection) -> Sheet:
    """Two blocks a target: retention of each method on each dataset, and the averages with what retraining costs."""
    names, blocks = Names(selection), []
    for target, found in grouped(compared(selection)).items():
        sets, methods = (list(dict.fromkeys(key[part] for key in found)) for part in (0, 1))
        header = ("Method", *map(names.dataset, sets))
        rows = [[Cell(names.method(m)), *(Cell(share(found.get((d, m)))) for d in sets)] for m in methods]
        blocks.append(Block(Cell(f"Retention on {names.targets[target]}"), header, tuple(map(tuple, rows))))
        header = ("Method", "Zero-shot", "Reused", "Retrained", "Retention", "Fit (s)", "Encode (s)", "Steps", "Params")
        rows = [
            [
                Cell(names.method(m)),
                *(Cell(percent(found[AVERAGE, m].mean(option))) for option in OPTIONS),
                Cell(share(found[AVERAGE, m])),
                *map(Cell, costs_of(found[AVERAGE, m])),
            ]
            for m in methods
        ]
        title = f"Average over {reading.counted(len(sets) - 1, 'dataset')}, and cost, {names.targets[target]}"
        blocks.append(Block(Cell(title), header, tuple(map(tuple, rows))))
    return Sheet(Retention.title, tuple(blocks), remarks(selection, names, MEASURE, COSTS))


def decision_sheet(selection: Selection) -> Sheet:
    """A block a target with the choice on each dataset, one with what reusing and retraining gain and cost, and one
    that counts choices."""
    names, blocks, counts = Names(selection), [], []
    for target, found in grouped(compared(selection)).items():
        sets, methods = (list(dict.fromkeys(key[part] for key in found)) for part in (0, 1))
        single = [dataset for dataset in sets if dataset != AVERAGE]  # its choice stands in the next block
        header = ("Method", *map(names.dataset, single))
        rows = [[Cell(names.method(m)), *(Cell(chosen(found.get((d, m)))) for d in single)] for m in methods]
        blocks.append(Block(Cell(f"Choice on {names.targets[target]}"), header, tuple(map(tuple, rows))))
        gained = []
        for m in methods:
            one = found[AVERAGE, m]
            fit, encode, steps, _ = costs_of(one)
            gains = (in_points(*one.difference(*pair), one.seeds) for pair in GAINS.values())
            gained.append(tuple(map(Cell, (names.method(m), *gains, fit, encode, steps, chosen(one)))))
        header = ("Method", "Reuse gains", "Retrain gains", "Over reuse", "Fit (s)", "Encode (s)", "Steps", "Choice")
        title = f"Average over {reading.counted(len(single), 'dataset')}, {names.targets[target]}"
        blocks.append(Block(Cell(title), header, tuple(gained)))
        choices = Counter(one.choice for (dataset, _), one in found.items() if dataset != AVERAGE)
        counts.append([names.targets[target], *(str(choices[option]) for option in (*OPTIONS, UNDECIDED))])
    header = ("Target", *(option.capitalize() for option in (*OPTIONS, UNDECIDED)))
    blocks.append(Block(Cell("How often each is chosen"), header, tuple(tuple(map(Cell, row)) for row in counts)))
    told = (
        "Behind a choice stands its gain over zero-shot on the target, in points, with its interval. Behind "
        f"“{UNDECIDED}” stand the best option, its gain, and what would decide. Over reuse: retrain less reuse."
    )
    return Sheet("Reuse, retrain, or zero-shot", tuple(blocks), remarks(selection, names, RULE, told, COSTS))


def remarks(selection: Selection, names: Names, *own: str) -> tuple[str, ...]:
    rows = selection.rows.get("retention", ())
    missing = [
        f"{names.dataset(row.dataset)}: {names.method(row.variant.method)} on {row.variant.path[-1]}"
        for row in rows
        if not any(record.get("status") == "done" for record in row.records)
    ]
    legend = places.legend_remark(names.depth.get(row.variant.method, "") for row in rows)
    seen = [record for record in selection.main if record["run"]["dataset"] in {row.dataset for row in rows}]
    reasons = refused.told([*seen, *(record for row in rows for record in row.records)])
    return (*own, INTERVAL, *legend, *marks_of(labelled(rows, names)), *not_run(missing), *reasons)


def labelled(rows: Iterable[Row], names: Names) -> list[Row]:
    """The rows that have records, with labels that tell them apart in a remark."""
    found = []
    for row in rows:
        label = names.method(row.variant.method), " then ".join(row.variant.path), *row.variant.label
        found.append(replace(row, variant=replace(row.variant, label=tuple(dict.fromkeys(label)))))
    return [row for row in found if row.records]


def share(one: Compared | None) -> str:
    """ "0.63 [0.50, 0.77]", that there was nothing to retain, or a dash: of one seed, which shows nothing, too."""
    if one is None or math.isnan(one.mean("reuse")):
        return MISSING
    value, low, high = one.retention
    if math.isnan(value):
        return NOTHING if one.has_intervals and decides(one.seeds) else MISSING
    return f"{value:.2f} [{low:.2f}, {high:.2f}]{images_alone(one.seeds)}"


def undecided(best: str, gain: str, seeds: float, images: float) -> str:
    """``gain``: of the best, in words; ``seeds`` and ``images`` would decide."""
    return f"{UNDECIDED} (best: {best} {gain}; {would_decide(seeds, images)})"


def counted_choices(selection: Selection) -> str:
    """How often each option is chosen, over all targets, as a sentence; empty without a choice."""
    single = [one for one in compared(selection) if one.dataset != AVERAGE and one.choice]
    choices = Counter(one.choice for one in single)
    if not single:
        return ""
    parts = ("method", "dataset", "target")
    of = ", ".join(reading.counted(len({getattr(one, part) for one in single}), part) for part in parts)
    told = ", ".join(f"{name} {count}" for name, count in choices.most_common())
    return f"Reuse, retrain, or zero-shot? Of {reading.counted(len(single), 'choice')} ({of}): {told}."


def chosen(one: Compared | None) -> str:
    if one is None or not one.choice:
        return MISSING
    if one.choice == "zero-shot":
        return one.choice
    gain = in_points(*gain_of(one), one.seeds)
    return undecided(one.best, gain, *one.needed) if one.choice == UNDECIDED else f"{one.choice} {gain}"


def costs_of(one: Compared) -> Sequence[str]:
    digits = (2, 2, 0, 0)
    return [MISSING if math.isnan(v) else f"{v:,.{d}f}" for v, d in zip(one.cost, digits, strict=True)]


# ---- figure ----------------------------------------------------------------------------------------------------------


def draw_retention(tables: Tables, selection: Selection) -> Figure | None:
    """Of each method on each target, averaged over the datasets: zero-shot, reused with its interval, retrained."""
    names = Names(selection)
    found = {
        target: [one for (d, _), one in of.items() if d == AVERAGE and one.seeds]
        for target, of in grouped(compared(selection)).items()
    }
    found = {target: rows for target, rows in found.items() if rows}
    if not found:
        return None
    heights = [len(rows) * ROW_INCHES + FRAME_INCHES for rows in found.values()]
    with canvas(sum(heights) + 0.4) as figure:
        panels = figure.subplots(len(found), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axes, (target, rows) in zip(panels, found.items(), strict=True):
            labels = [names.method(one.method)[:LONGEST_NAME] for one in rows]
            axes.set_title(f"on {names.targets[target]}", fontsize=9.5)
            axes.set_yticks(range(len(rows)), labels)
            axes.set_ylim(len(rows) - 0.5, -0.5)
            axes.tick_params(axis="y", length=0)
            open_frame(axes, "x")
            edge = max(min(map(leftmost, rows)), min(one.mean("zero-shot") for one in rows) - FURTHEST)
            for place, one in enumerate(rows):
                draw_row(axes, place, one, edge)
            axes.set_xlim(left=edge - 1.5)
        panels[-1].set_xlabel("Top-1 accuracy on the target (%)")
        handles, labels = panels[0].get_legend_handles_labels()
        unique = dict(zip(labels, handles, strict=True))
        figure.legend(unique.values(), unique.keys(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def leftmost(one: Compared) -> float:
    value, low, _ = one.difference("reuse", "zero-shot")
    return min(*one.means, one.mean("reuse") - (0.0 if math.isnan(low) else max(0.0, value - low)))


def draw_row(axes, place: int, one: Compared, edge: float) -> None:
    """What was reused and breaks down stands at the edge with its number: it shall not press the others together."""
    floor, reused, ceiling = map(one.mean, OPTIONS)
    axes.plot([floor, ceiling], [place, place], color=INK, alpha=0.35, linewidth=1.2, zorder=1)
    axes.plot([floor], [place], "|", color=INK, markersize=11, markeredgewidth=1.6, label=FLOOR)
    axes.plot([ceiling], [place], "s", color=COLOURS["h"], markersize=5, label=CEILING)
    if math.isnan(reused):
        return
    if reused < edge:
        axes.plot([edge], [place], "<", color=COLOURS["new"], markersize=5.5, zorder=3)
        axes.text(edge + 1, place, f"{reused:.1f}", va="center", fontsize=8)
        return
    axes.plot([reused], [place], "o", color=COLOURS["new"], markersize=5.5, label="reused", zorder=3)
    value, low, high = one.difference("reuse", "zero-shot")
    if not math.isnan(low) and decides(one.seeds):
        ends = [[max(0.0, value - low)], [max(0.0, high - value)]]
        axes.errorbar([reused], [place], xerr=ends, ecolor=COLOURS["new"], elinewidth=0.9, capsize=2, zorder=2)


@register("retention")
class Retention(Analysis):
    title, place = "What an update leaves of a method's gain", 40
    section = "Retention"
    names = ("retention", "decision")
    suite = Suite(
        rows,
        {"paper": ("dtd", "ucf101", "eurosat"), "micro": ("micro_textures", "micro_actions", "micro_stars")},
        kind="further",
        needs="learns",
    )
    drawings = (
        Drawing(
            "retention", "Zero-shot, reused and retrained on each target, averaged over the datasets", draw_retention
        ),
    )

    def tables(self, selection: Selection) -> Iterator[Table]:
        if "retention" in selection.rows:
            frames = numbers.retention_table(selection), numbers.decision_table(selection)
            yield Table("retention", frames[0], numbers.KEYS, retention_sheet(selection))
            yield Table("decision", frames[1], numbers.KEYS, decision_sheet(selection))

    def words(self, selection: Selection, tables: Tables) -> list[str]:
        return [line] if (line := counted_choices(selection)) else []
