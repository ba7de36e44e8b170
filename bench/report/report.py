"""The report of an architecture, as Markdown and as one HTML file that needs neither network nor server.

Both are written from the same list of parts, made from stored files alone, so they cannot disagree. Parts hold plain
text; the two writers escape it. The Markdown shows the figure file beside it, the HTML carries the figure inside.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from carryover import datasets
from carryover.bench.analyses import known_zero_shot
from carryover.bench.analyses.base import Analysis, Tables, ordered
from carryover.bench.analyses.parts.rows import views_told
from carryover.bench.host.files import write_text
from carryover.bench.plan.defaults import SEEDS
from carryover.bench.plan.grid import default_methods
from carryover.bench.plan.option_rows import method_of
from carryover.bench.plan.runs import shown_setting
from carryover.bench.plan.settings import default_settings
from carryover.bench.records import reading, time_notes
from carryover.bench.records.selection import Selection
from carryover.bench.render.html_page import Part, html_page
from carryover.bench.report import blocks, time_spent
from carryover.bench.report.markdown import markdown_page
from carryover.bench.stats.verdicts import decides

MICRO_NOTE = (
    "Micro is a real experiment at small scale: small models trained on a procedural picture world. It is not the "
    "paper's result, and its numbers are not set beside the paper's. Methods train on a short schedule of its own. "
    "The learning rates of the paper's prompt methods were chosen by accuracy on some of its test pictures, the others "
    "on few-shot validation pictures (PROTOCOL.md, section 6)."
)
ONE_SEED = "Every number is of one seed. Another seed may give another order of the methods."
KNOWN_NOTE = (
    "Nothing is trained for these numbers. They tell whether weights, pictures, class names and prompts are those of "
    "the authors. Top-1 accuracy in percent, rounded to two decimals before the difference is taken."
)
COST_NOTE = "Medians over the finished runs of the main suite. Parameters: the trainable ones."
TIME_NOTE = (
    "Seconds of work by stage, over all finished runs of every suite. Pictures are encoded once. Features that were in "
    "the cache before are in no run's time."
)
COST = "Cost and time"

Made = Sequence[tuple[Analysis, Tables]]


def write_report(
    selection: Selection, out_dir: Path, answers: Sequence[known_zero_shot.Answer] = (), given: str = ""
) -> tuple[Path, Path]:
    """Writes `report.md` and the self-contained `report.html` under out_dir (`results/<arch>`); returns both paths.

    answers: the known ones (`known.compare`); given: the arch as the command line names it, where not by its id.
    """
    paths = Path(out_dir) / "report.md", Path(out_dir) / "report.html"
    for path, text in zip(paths, texts(selection, answers, given), strict=True):
        write_text(path, text)
    return paths


def texts(selection: Selection, answers: Sequence[known_zero_shot.Answer] = (), given: str = "") -> tuple[str, str]:
    """The report as Markdown and as HTML."""
    parts = list(parts_of(selection, answers, given or selection.arch.id))
    return markdown_page(parts), html_page(parts)


# ---- content ---------------------------------------------------------------------------------------------------------


def parts_of(selection: Selection, answers: Sequence[known_zero_shot.Answer], given: str) -> Iterator[Part]:
    """The first screen, then sections, each begun by its heading."""
    made = [(analysis, analysis.made(selection)) for analysis in ordered()]
    yield "title", f"Carryover report: {selection.arch.id}"
    if warning := known_zero_shot.warning(answers):  # before any method's number, which rests on the same pictures
        yield "warning", warning
    for analysis, tables in made:
        yield from analysis.first(selection, tables)
    sections = of_analyses(selection, made)
    sections.setdefault(COST, []).extend(cost_parts(selection))
    sections["Protocol"] = protocol_parts(selection, answers)
    sections["Environment"] = [("block", blocks.environment(selection.records))]
    if failed := [record for record in selection.records if record.get("status") != "done"]:
        sections["Failures"] = [("block", blocks.failures(failed))]
    sections["Limits"] = [("list", limits(selection, answers, made) or ["None is known."])]
    sections["Run it again"] = again(selection, given, made)
    for title, parts in sections.items():
        yield "heading", title
        yield from parts


def of_analyses(selection: Selection, made: Made) -> dict[str, list[Part]]:
    """The parts of every analysis under the title of its section, in the order of their places. A section of one
    table needs no title for the table."""
    sections: dict[str, list[Part]] = {}
    for analysis, tables in made:
        if parts := analysis.parts(selection, tables):
            sections.setdefault(analysis.section or analysis.title, []).extend(parts)
    return {title: [part for part in parts if part != ("subheading", title)] for title, parts in sections.items()}


def cost_parts(selection: Selection) -> Iterator[Part]:
    records = selection.records
    yield "subheading", "Cost of a run"
    yield "text", COST_NOTE
    yield "block", blocks.cost(selection.main)
    yield "subheading", "Time"
    yield "text", TIME_NOTE
    yield "block", time_spent.stage_block(records, selection.call)
    yield "block", time_spent.method_block(records)
    yield "text", time_spent.prediction_note(records, selection.estimate)
    if selection.estimate and time_notes.covers(records, selection.estimate):
        yield "block", time_spent.prediction_block(records, selection.estimate, selection.call)


def protocol_parts(selection: Selection, answers: Sequence[known_zero_shot.Answer]) -> list[Part]:
    main = selection.main
    parts: list[Part] = [("text", line) for line in views_told(main)]
    parts += [("block", made) for made in (blocks.settings(main), blocks.configs(main), blocks.data(main))]
    if answers:
        parts += [("subheading", "Zero-shot beside published numbers"), ("text", KNOWN_NOTE)]
        parts += [("block", known_zero_shot.known_block(answers))]
    if agreed := known_zero_shot.remark(answers, main, selection.arch.id):
        parts.append(("text", agreed))
    return [*parts, ("text", "Notes of the plan:"), ("list", [selection.arch.label, *selection.notes])]


def limits(selection: Selection, answers: Sequence[known_zero_shot.Answer], made: Made) -> list[str]:
    """What the report's numbers do not say."""
    said = [MICRO_NOTE] if selection.arch.is_micro else []
    done = [record for record in selection.main if reading.is_done(record)]
    if done and not decides(len({record["run"]["seed"] for record in done})):
        said.append(ONE_SEED)
    for analysis, tables in made:
        said += analysis.limits(selection, tables)
    return said


def again(selection: Selection, given: str, made: Made) -> list[Part]:
    """The commands that make this report, and what else is measured on the arch."""
    quoted = shlex.quote(given)
    data = "" if selection.arch.datasets == "micro" else " --data-root DATA"
    kept = {id for id, rows in selection.rows.items() if any(row.records for row in rows)}
    missing = [one.id for one, tables in made if one.id in selection.arch.suites and not tables and one.id not in kept]
    every = " --suite all" if selection.arch.first and not missing else ""
    flags = "".join(f" {shlex.quote(word)}" for word in asked(selection))
    asks = f"--arch {quoted}{data}{every}{flags}", f"report --arch {quoted}{flags}"
    commands = [f"python run_all.py {one}" for one in asks]
    text = "The first command makes all runs that are not stored yet, the second this report from records."
    parts: list[Part] = [("text", text), ("command", "\n".join(commands))]
    if missing:
        parts += [("text", f"Not measured here: {', '.join(missing)}. This adds them:")]
        parts += [("command", f"python run_all.py --arch {quoted}{data} --suite all{flags}")]
    return parts


def asked(selection: Selection) -> list[str]:
    """The flags without which a call would not make these runs."""
    settings, runs = selection.settings, [record["run"] for record in selection.main]
    if settings is None:
        return []
    mine, usual = settings.of_runs, default_settings(selection.arch, settings.methods).of_runs
    words = [w for n in mine if mine[n] != usual[n] for w in (f"--{n}", str(shown_setting(n, mine[n])))]
    words += ["--set", *settings.overrides] if settings.overrides else []
    known, there = list(settings.methods), {method_of(run["method"]) for run in runs}
    if not there <= {*default_methods(settings.methods), "zs-clip"}:
        chosen = [id for id in known if id in there and id != "zs-clip"]
        words += ["--methods", *(["all"] if there >= set(known) else chosen)]
    found = list(dict.fromkeys(run["dataset"] for run in runs))
    if not set(found) <= set(datasets.default(selection.arch.datasets)):
        words += ["--datasets", *found]
    seeds = sorted({run["seed"] for run in runs})
    return words + (["--seeds", *map(str, seeds)] if not set(seeds) <= set(SEEDS) else [])
