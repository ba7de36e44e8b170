"""The report of an architecture, as Markdown and as one HTML file that needs neither network nor server.

Both are written from the same list of parts, made from stored files alone, so they cannot disagree. Parts hold plain
text; the two writers escape it. The Markdown shows the figure file beside it, the HTML carries the figure inside.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd

from carryover.bench.analyses import known_zero_shot
from carryover.bench.analyses.base import ordered
from carryover.bench.analyses.parts.rows import views_told
from carryover.bench.host.files import write_text
from carryover.bench.places import PLACES
from carryover.bench.plan.run_labels import told
from carryover.bench.plan.runs import shown_setting
from carryover.bench.records import reading, time_notes
from carryover.bench.records.reading import Record, counted
from carryover.bench.records.selection import Selection
from carryover.bench.render.gallery import gallery_markdown
from carryover.bench.render.html_page import Part, html_page
from carryover.bench.render.sheets import (
    MISSING,
    Block,
    Cell,
    block_markdown,
    cell_markdown,
    escape_markdown,
    grid_markdown,
    sheet_markdown,
)
from carryover.bench.report import time_spent
from carryover.bench.stats import means
from carryover.bench.stats.verdicts import decides
from carryover.methods import PAPER_ORDER

MICRO_NOTE = (
    "Micro is a real experiment at small scale: small models truly trained on a procedural picture world. "
    "It is not the paper's result, and its numbers are not set beside the paper's. Methods train on a short schedule "
    "of its own; the rates of the paper's prompt methods were chosen by accuracy on some of its test pictures, those "
    "of the others on few-shot validation pictures (PROTOCOL.md, section 6)."
)
KNOWN_NOTE = (
    "Nothing is trained for these, so they tell whether weights, pictures, names and prompts are those of the authors. "
    "Top-1 accuracy in percent, rounded to two decimals before the difference is taken."
)
TIME_NOTE = (
    "Seconds of work of all finished runs above, each suite's, by stage. Pictures are encoded once; what the cache "
    "held before is in no run's time."
)
PAPER_BEST = "ContCoOp"  # highest average H in Tables 2 and 8
PAPER_FINDING = "every shallow-layer method is above and every deep-layer method below"  # section 3.2, Tables 2 and 8
BESIDE_LINE = ("above", "within one deviation", "below")
EXPECTED = {  # of a place, by the paper's finding
    "input": " (by the paper's finding above)",
    "output": " (by the paper's finding below)",
    "inner": " (the paper says nothing of these)",
    "towers": " (the paper says nothing of these)",
}
ONE_SEED = "With one seed this is one draw: which methods end above or below that is not told."
SPLITS = ("train", "val", "test")
PROCESSOR = {  # of a record's processor -> as the environment names it
    "name": "processor",
    "kind": "kind of processor",
    "mode": "mode of MKL",
    "chosen_by": "mode chosen by",
    "side_by_side": "side by side",
}
HASH_SHOWN = 12  # hex digits of a sha256 that a table shows; the record has all of them


def summary(records: Sequence[Record], others: Sequence[Record] = ()) -> list[str]:
    """Three sentences from the numbers, as found: the best H, both kinds of method at the zero-shot line, the runs
    (with those of the ``others`` suites)."""
    main = reading.select(records)
    names, depth, averages = reading.names(main, "method"), reading.depths(main), means.average_rows(main)
    whole = averages[averages["h"].notna()].sort_values("h", ascending=False, kind="stable")
    every = list({record["key"]: record for record in (*records, *others)}.values())
    done = sum(record.get("status") == "done" for record in every)
    runs = f"{done} of {counted(len(every), 'recorded run')} {'is' if done == 1 else 'are'} done"
    ending = f"{runs} and {len(every) - done} failed."
    if whole.empty:
        return ["No method is done on every dataset, so no averages can be compared.", ending]

    best, count = whole.iloc[0], counted(len(reading.averaged(main)), "dataset")
    first = f"{names[best.name]} has the highest H, {best['h']:.2f} % (Base {best['base']:.2f}, New {best['new']:.2f})"
    first += f", on average over {count}"
    if len(whole) > 1:
        first += f", before {names[whole.index[1]]} with {whole.iloc[1]['h']:.2f} %"
        if PAPER_BEST in [names[method] for method in whole.index]:
            likeness = "as in the paper, where" if names[best.name] == PAPER_BEST else "unlike in the paper, where"
            first += f", {likeness} {PAPER_BEST} has it"

    if "zs-clip" not in whole.index:
        return [first + ".", "There is no complete zero-shot run to measure the methods against.", ending]
    level = whole.loc["zs-clip", "new"]
    if not decides(whole["seeds"].min()):
        return [first + ".", f"On the upgraded model zero-shot reaches {level:.2f} %. {ONE_SEED}", ending]
    kinds = {one: whole[[depth[m] == one for m in whole.index]] for one in PLACES if one != "none"}
    counts = {one: beside_line(methods, level) for one, methods in kinds.items()}
    places = ("above that line", "within one deviation over seeds of it", "below it")
    told = [
        f"of {counted(sum(found), f'{PLACES[one].kind} method')} "
        + ", ".join(f"{n} end{'s' * (n == 1)} {place}" for n, place in zip(found, places, strict=True) if n)
        for one, found in counts.items()
        if sum(found)
    ]
    second = f"On the upgraded model, where zero-shot reaches {level:.2f} %, {' and '.join(told) or 'nothing else ran'}"
    if sum(counts["input"]) and sum(counts["output"]):
        second += f"; in the paper {PAPER_FINDING}"
    further = [name for name in whole.index if name not in PAPER_ORDER]
    third = beyond(whole.loc[further], level, names, depth)
    left_out = len(averages) - len(whole)
    second += f"; {counted(left_out, 'method')} without an average left out" if left_out else ""
    return [first + ".", second + ".", *third, ending]


def beyond(methods: pd.DataFrame, level: float, names: Mapping[str, str], depth: Mapping[str, str]) -> list[str]:
    """What the methods that the paper does not have say of its finding: for each place where a method can stand, who
    ends where beside the zero-shot line (``level``). No sentence without such methods."""
    told = []
    for place in (one for one in PLACES if one != "none"):
        here = methods[[depth[name] == place for name in methods.index]]
        ends: dict[str, list[str]] = {}
        for name, row in here.iterrows():
            where = BESIDE_LINE[beside_line(here.loc[[name]], level).index(1)]
            ends.setdefault(where, []).append(f"{names[name]} ({row['new'] - level:+.2f})")
        said = [f"{' and '.join(', '.join(who).rsplit(', ', 1))} {where}" for where, who in ends.items()]
        if said:
            told.append(f"{PLACES[place].label}{EXPECTED.get(place, '')}: {', '.join(said)}")
    return [f"Of methods the paper does not have, New against that line: {'; '.join(told)}."] if told else []


def beside_line(methods: pd.DataFrame, level: float) -> tuple[int, int, int]:
    """How many methods' New is above the line, within one deviation over seeds of it, and below."""
    distance, spread = methods["new"] - level, methods["new_std"].fillna(0)
    return int((distance > spread).sum()), int((distance.abs() <= spread).sum()), int((distance < -spread).sum())


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
    parts = _parts(selection, answers, given or selection.arch.id)
    return "\n\n".join(_part_markdown(*part) for part in parts) + "\n", html_page(parts)


# ---- content ---------------------------------------------------------------------------------------------------------


def _parts(selection: Selection, answers: Sequence[known_zero_shot.Answer], given: str) -> list[Part]:
    main, records, arch = list(selection.main), selection.records, selection.arch
    failed = [record for record in records if record.get("status") != "done"]
    quoted = shlex.quote(given)
    data = "" if arch.datasets == "micro" else " --data-root DATA"
    commands = (f"python run_all.py --arch {quoted}{data}", f"python run_all.py report --arch {quoted}")
    parts: list[Part] = [("title", f"Carryover report: {arch.id}")]
    warning, quiet = known_zero_shot.warning(answers), known_zero_shot.remark(answers, main, arch.id)
    parts += [("warning", warning)] if warning else []  # before any method's number, which rests on the same pictures
    parts += [("text", " ".join(summary(main, records)))]
    every = [(analysis, analysis.made(selection)) for analysis in ordered()]
    opening = [line for analysis, tables in every for line in analysis.opening(selection, tables)]
    parts += [("text", " ".join(opening))] if opening else []
    parts += [("text", quiet)] if quiet else []
    parts += [("text", MICRO_NOTE)] if arch.is_micro else []
    for analysis, tables in every:
        parts += analysis.pointers(selection, tables)
    for analysis, tables in every:
        parts += analysis.parts(selection, tables)
    parts += [
        ("heading", "Cost of a run"),
        ("text", "Medians over the main suite's runs that are done; parameters are the trainable ones."),
        ("block", _cost(main)),
    ]
    parts += [
        ("heading", "Time"),
        ("text", TIME_NOTE),
        ("block", time_spent.stage_block(records, selection.call)),
        ("text", time_spent.prediction_note(records, selection.estimate)),
    ]
    if selection.estimate and time_notes.covers(records, selection.estimate):
        parts += [("block", time_spent.prediction_block(records, selection.estimate, selection.call))]
    if answers:
        parts += [
            ("heading", "Zero-shot as known answer"),
            ("text", KNOWN_NOTE),
            ("block", known_zero_shot.known_block(answers)),
        ]
    parts += [
        ("heading", "Protocol"),
        *(("text", line) for line in views_told(main)),
        ("block", _settings(main)),
        ("block", _configs(main)),
        ("block", _data(main)),
    ]
    parts += [("text", "Notes of the plan:"), ("list", [arch.label, *selection.notes])]
    parts += [("heading", "Environment"), ("block", _environment(records)), ("heading", "Failures")]
    parts += [("block", _failures(failed))] if failed else [("text", "No run failed.")]
    parts += [("heading", "Regenerate"), ("text", "All runs that are not stored yet, then this report from records:")]
    return [*parts, ("command", "\n".join(commands))]


def _block(title: str, header: Sequence[str], rows: Iterable[Sequence[str]], textual: bool = False) -> Block:
    return Block(Cell(title), tuple(header), tuple(tuple(map(Cell, row)) for row in rows), textual)


def _groups(records: Sequence[Record], kind: str) -> list[tuple[str, list[Record]]]:
    names = reading.names(records, kind)
    return [(names[one], [r for r in records if r["run"][kind] == one]) for one in reading.ids(records, kind)]


def _median(values: Iterable[float | None], digits: int = 0) -> str:
    found = [value for value in values if value is not None]
    return f"{median(found):,.{digits}f}" if found else MISSING


def _distinct(values: Iterable[Any]) -> str:
    texts = dict.fromkeys(v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for v in values if v != "")
    return " / ".join(text for text in texts if text != "null") or MISSING


def _hashes(values: Iterable[str | None]) -> str:
    found = list(dict.fromkeys(value for value in values if value))
    return f"{len(found)} lists" if len(found) > 1 else found[0][:HASH_SHOWN] if found else MISSING


def _cost(records: Sequence[Record]) -> Block:
    rows = []
    for name, group in _groups(records, "method"):
        done = [record for record in group if reading.is_done(record)]
        seconds = [record.get("seconds") or {} for record in done]
        tests = [sum(each.values()) for one in seconds if (each := one.get("evaluate"))]
        fits = [one.get("fit") for one in seconds]
        memory = [record["peak_memory_bytes"] / 2**20 for record in done if record.get("peak_memory_bytes")]
        sizes = (_median(record.get(key) for record in done) for key in ("trainable_parameters", "plugin_bytes"))
        rows.append((name, str(len(done)), _median(fits, 2), _median(tests, 2), _median(memory), *sizes))
    header = ("Method", "Runs", "Fit (s)", "Evaluate (s)", "Peak memory (MiB)", "Parameters", "Plug-in (bytes)")
    return _block("", header, rows)


def _settings(records: Sequence[Record]) -> Block:
    limit = "images a class in the test set"
    names = [name for name in reading.SETTINGS if name != "limit"]
    rows = [(name, _distinct(shown_setting(name, r["run"].get(name)) for r in records)) for name in names]
    rows += [(f"limit ({limit})", _distinct("all" if (n := r["run"].get("limit")) is None else n for r in records))]
    rows += [("seeds", ", ".join(map(str, sorted({r["run"]["seed"] for r in records}))) or MISSING)]
    return _block("Settings", ("Setting", "Value"), rows, textual=True)


def _configs(records: Sequence[Record]) -> Block:
    rows = []
    for name, group in _groups(records, "method"):
        configs = [{**(record["run"].get("config") or {}), **(record.get("chosen") or {})} for record in group]
        keys = dict.fromkeys(key for config in configs for key in config)
        values = ", ".join(f"{key} = {_distinct(c[key] for c in configs if key in c)}" for key in keys)
        rows.append((name, values or "none"))
    return _block("Hyper-parameters", ("Method", "Values (a slash: not the same in all runs)"), rows, textual=True)


def _data(records: Sequence[Record]) -> Block:
    rows = []
    for name, group in _groups(records, "dataset"):
        splits = [record.get("split") or {} for record in group]
        tested = _distinct(record["targets"]["new"].get("count") for record in group if reading.is_done(record))
        sizes = (_distinct(split.get(key) for split in splits) for key in ("classes", "support"))
        rows.append(
            (
                name,
                *sizes,
                tested,
                *(_hashes(s.get(f"{part}_sha256") for s in splits) for part in SPLITS),
                _distinct(record.get("about") or "" for record in group),
            )
        )
    header = (
        "Dataset",
        "Classes",
        "Support images",
        "Test images",
        *(f"{part} list (sha256)" for part in SPLITS),
        "About",
    )
    return _block("Data", header, rows)


def _environment(records: Sequence[Record]) -> Block:
    rows = []
    for target in ("base", *reading.updates(records)):
        found = [(record.get("targets") or {}).get(target) or {} for record in records]
        shown = [f"{t.get('backbone')}, fingerprint {str(t.get('fingerprint'))[:HASH_SHOWN]}" for t in found if t]
        rows.append((f"backbone {target}", _distinct(shown)))
    rows += [(name, _distinct(r.get(name) or "" for r in records)) for name in ("device", "git_commit")]
    processors = [record.get("processor") or {} for record in records]
    rows += [(what, _distinct(found.get(name, "") for found in processors)) for name, what in PROCESSOR.items()]
    versions = [record.get("versions") or {} for record in records]
    packages = dict.fromkeys(name for found in versions for name in found)
    rows += [(name, _distinct(found.get(name, "") for found in versions)) for name in packages]
    started = sorted(str(record["started"]) for record in records if record.get("started"))
    rows += [("runs started", f"{started[0]} to {started[-1]}" if started else MISSING)]
    return _block("", ("What", "Found"), [(name.replace("_", " "), v) for name, v in rows], textual=True)


def _failures(records: Sequence[Record]) -> Block:
    names = {kind: reading.names(records, kind) for kind in ("dataset", "method")}
    rows = []
    for record in records:
        run = record["run"]
        test = f" → {record['names'].get('test', run['test'])}" if run.get("test") else ""
        where = (names["dataset"][run["dataset"]] + test, names["method"][run["method"]] + told(run), str(run["seed"]))
        rows.append((*where, record["key"], str(record.get("error") or "no reason recorded")))
    return _block("", ("Dataset", "Method", "Seed", "Key", "Error"), rows, textual=True)


# ---- writers ---------------------------------------------------------------------------------------------------------


def _part_markdown(kind: str, content: Any) -> str:
    match kind:
        case "title" | "heading":
            return ("# " if kind == "title" else "## ") + escape_markdown(content)
        case "text":
            return escape_markdown(content)
        case "verdict":
            return f"**{escape_markdown(content)}**"
        case "link":
            text, file = content
            return f"{escape_markdown(text)} [{escape_markdown(file)}]({file})"
        case "list":
            return "\n".join(f"- {escape_markdown(line)}" for line in content)
        case "warning":
            head, lines, causes = content
            listed = [f"> - {escape_markdown(line)}" for line in lines]
            return "\n".join([f"> **{escape_markdown(head)}**", ">", *listed, ">", f"> {escape_markdown(causes)}"])
        case "sheet":
            return sheet_markdown(content).rstrip("\n")
        case "block":
            title = f"### {cell_markdown(content.title)}\n\n" if content.title.text else ""
            return title + block_markdown(content)
        case "grid":
            return grid_markdown(content)
        case "files":
            return " · ".join(f"[{escape_markdown(text)}]({file})" for text, file in content)
        case "figure":
            stem, caption, _ = content
            return f"![{escape_markdown(caption)}](figures/{stem}.svg)"
        case "gallery":
            return gallery_markdown(content)
        case "command":  # indented, not fenced: no text can close it
            return "\n".join("    " + line for line in content.splitlines())
    raise ValueError(f"unknown kind of part: {kind}")
