"""Figures and report: stable bytes, parsed by others' parsers, true to the numbers, safe with any name."""

import re
from dataclasses import replace
from xml.etree import ElementTree

import matplotlib.image
import pytest
from markdown_it import MarkdownIt
from report_pages import AS_PAPER, HOSTILE, Page, chosen, record, world

from carryover.bench.analyses import main_table
from carryover.bench.backbones.archs import ARCHS
from carryover.bench.cli import parsing
from carryover.bench.plan.settings import default_settings
from carryover.bench.records.selection import Selection
from carryover.bench.render import figures, sheets
from carryover.bench.report import outputs, report
from carryover.methods import Registered, discover


def write(records, folder, notes=()):
    markdown, page = report.write_report(chosen(records, notes), folder)
    assert (markdown.name, page.name) == ("report.md", "report.html")
    return markdown.read_text(), page.read_text()


def test_figure_files_have_the_same_bytes_each_time(tmp_path):
    first = outputs.write_figures(chosen(world(AS_PAPER)), tmp_path / "one")
    second = outputs.write_figures(chosen(list(reversed(world(AS_PAPER)))), tmp_path / "two")
    assert [path.relative_to(tmp_path / "one").as_posix() for path in first] == [
        "figures/answer.svg", "figures/answer.png", "figures/figure2a.svg", "figures/figure2a.png",
    ]  # fmt: skip
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert ElementTree.parse(first[0]).getroot().tag.endswith("svg")
    assert matplotlib.image.imread(first[1]).shape[1] == round(figures.WIDTH_INCHES * figures.PNG_DPI)


def test_the_figure_shows_the_averages_the_dagger_and_the_zero_shot_line():
    axes = main_table.draw_figure_2a(world(AS_PAPER)).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ZS-CLIP", "CoOp", "ContCoOp", "CLIP-Adapter †"]
    bars = {c.get_label(): [bar.get_width() for bar in c] for c in axes.containers if hasattr(c, "patches")}
    assert bars["Base"] == [70.0] * 4 and bars["New"] == list(AS_PAPER.values())
    assert bars["H"] == pytest.approx([2 * 70 * n / (70 + n) for n in AS_PAPER.values()])
    (line,) = [line for line in axes.lines if line.get_label().startswith("zero-shot")]
    assert set(line.get_xdata()) == {60.0} and "(%)" in axes.get_xlabel()


def test_fresh_views_are_shown_as_the_command_line_has_them(tmp_path):
    records = world(AS_PAPER)
    assert "epoch" not in re.search(r"\| views .*", write(records, tmp_path / "kept")[0])[0]
    for one in records:
        one["run"]["views"] = 0
    assert "epoch" in re.search(r"\| views .*", write(records, tmp_path / "fresh")[0])[0]


def test_a_method_without_an_average_has_dashes_and_no_bar(tmp_path):
    records = world(AS_PAPER)[:-3]  # CLIP-Adapter lacks dataset b
    axes = main_table.draw_figure_2a(records).axes[0]
    assert [text.get_text() for text in axes.texts].count("–") == 3
    for few in ([], [record("a", "coop", 1, 0, 0, status="failed")]):
        outputs.write_figures(chosen(few), tmp_path / "empty")


def test_methods_inside_the_towers_have_marks_and_a_count_of_their_own():
    records = world(AS_PAPER)
    for one in records:
        method = one["run"]["method"]
        one["depth"] = {"coop": "inner", "contcoop": "towers", "clip-adapter": "output"}.get(method, "none")
    axes = main_table.draw_figure_2a(records).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "ZS-CLIP",
        "CoOp ‡",
        "ContCoOp §",
        "CLIP-Adapter †",
    ]
    assert axes.get_xlabel().endswith("‡ inner-layer method    † output-space method\n§ both-tower method")
    sheet = main_table.main_sheet(main_table.main_table(records), records)
    assert (
        "‡ marks an inner-layer method, † marks an output-space method, § marks a both-tower method." in sheet.remarks
    )
    latex = sheets.sheet_latex(sheet)
    assert "CoOp\\textdaggerdbl{}" in latex and "ContCoOp\\S{}" in latex and "‡" not in latex and "§" not in latex


def test_a_hostile_name_stays_text_in_the_figure_and_the_page(tmp_path):
    records = [record(HOSTILE, "coop", 1, 50, 40, name=HOSTILE, marks=[HOSTILE], device=HOSTILE, git_commit=HOSTILE)]
    records += [record(HOSTILE, "contcoop", 1, 0, 0, status="failed", error=HOSTILE + "\nsecond line")]
    records[0]["run"]["config"] = {HOSTILE: HOSTILE}
    markdown, html = write(records, tmp_path, [HOSTILE])
    page = Page(html)
    assert not {"img", "iframe", "link"} & set(page.tags) and page.tags.count("script") == 1
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert "".join(page.text).count(HOSTILE) >= 8
    rendered = Page(MarkdownIt("commonmark").enable("table").render(markdown))
    assert set(rendered.tags) & {"img", "script"} == {"img"}  # the figure's own
    assert ("src", "figures/figure2a.svg") in rendered.attributes and rendered.tags.count("img") == 1
    assert "".join(rendered.text).count(HOSTILE) >= 8


def test_the_page_needs_nothing_else_and_follows_the_readers_colours(tmp_path):
    _, html = write(world(AS_PAPER), tmp_path)
    page = Page(html)
    references = [v for name, v in page.attributes if name in ("src", "href", "xlink:href", "data", "action", "srcset")]
    assert all(value.startswith(("#", "tables/", "figures/")) for value in references)
    assert not re.search(r"url\((?!#)|@import", html)
    assert page.tags.count("svg") == 2 and "prefers-color-scheme: dark" in html
    assert ("name", "viewport") in page.attributes
    svg = html[html.index("<svg") : html.index("</svg>")]
    assert figures.INK not in svg and "currentColor" in svg
    assert page.tags.count("table") == html.count('<div class="scroll"') + html.count('<tr class="detail"')


def test_the_report_has_the_same_bytes_each_time(tmp_path):
    assert write(world(AS_PAPER), tmp_path / "one") == write(list(reversed(world(AS_PAPER))), tmp_path / "two")


def test_the_first_screen_is_verdict_figure_table_and_rule(tmp_path):
    markdown, html = write(world(AS_PAPER), tmp_path)
    for text in (markdown.split("\n## ")[0], html.split("<details")[0]):
        order = [
            text.index(part) for part in ("There is no verdict", "zero-shot accuracy, averaged", "Place", "Hurts:")
        ]
        assert order == sorted(order)
    rows = [line.split("|")[1].strip() for line in markdown.split("\n## ")[0].splitlines() if line.startswith("| ")]
    assert rows == ["Method", "ContCoOp", "CoOp", "ZS-CLIP", "CLIP-Adapter"], "the highest gain first"


def test_each_section_stands_once_and_hedges_are_in_limits(tmp_path):
    markdown, _ = write([r for r in world(AS_PAPER) if r["run"]["seed"] == 1], tmp_path)
    sections = re.findall("^## (.*)$", markdown, re.MULTILINE)
    assert sections == ["Per dataset", "Cost and time", "Protocol", "Environment", "Limits", "Run it again"]
    limits = markdown.split("## Limits")[1].split("## ")[0]
    assert "small scale" in limits and "one seed" in limits


def test_the_commands_at_the_end_ask_for_what_the_report_shows():
    """Their flags, read by the command line, are the methods, sets, seeds and settings of the records."""
    discover()
    micro = ARCHS["micro"]

    def selected(settings, *runs):
        records = [{"run": {"dataset": "micro_stars", "seed": 1, **run}, "key": str(run)} for run in runs]
        return Selection(micro, tuple(records), settings=settings)

    usual = default_settings(micro, Registered())
    other = replace(usual, shots=4, views=0, overrides=("coop.lr=0.1",))
    runs = [{"method": "zs-clip"}, {"method": "tcp", "seed": 5}, {"method": "coop", "dataset": "folder:my pictures"}]
    asked = parsing.parse(report.asked(selected(other, *runs)))
    assert (asked.shots, asked.views, asked.overrides, asked.seeds) == (4, 0, ["coop.lr=0.1"], [1, 5])
    assert asked.datasets == ["micro_stars", "folder:my pictures"]
    assert sorted(asked.methods) == ["coop", "tcp"], "zero-shot runs with them"
    every = [{"method": id} for id in Registered()]
    assert report.asked(selected(usual, *every)) == ["--methods", "all"]
    assert report.asked(selected(usual, *runs[:1], {"method": "coop"})) == []


def test_one_table_has_every_dataset_and_method(tmp_path):
    part = write(world(AS_PAPER), tmp_path)[0].split("## Per dataset")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in part.splitlines() if line.startswith("| ")]
    assert rows[0] == ["Dataset", "Method", "Base", "New", "H", "New less zero-shot", "Seeds"]
    assert [row[0] for row in rows[1:]] == ["Average over 2 datasets"] * 4 + ["a"] * 4 + ["b"] * 4
    (adapter,) = [row for row in rows if row[0] == "b" and row[1].startswith("CLIP-Adapter")]
    assert adapter[3] == "40.00 ± 0.00" and adapter[5] == "-20.0" and adapter[6] == "3"


def test_failed_runs_are_counted_on_the_first_screen(tmp_path):
    records = world(AS_PAPER)
    records[-3:] = [{**r, "status": "failed", "targets": {}} for r in records[-3:]]
    markdown, _ = write(records, tmp_path)
    first, limits = markdown.split("\n## ")[0], markdown.split("## Limits")[1]
    assert "3 runs of 24 failed." in first and "cannot tell (1 of 2 datasets)" in first
    assert "No average, for want of a dataset: CLIP-Adapter." in limits.replace("\\", "")


def test_options_that_have_no_part_in_a_run_are_not_shown(tmp_path):
    records = world(AS_PAPER)
    for one in records:
        one["run"]["config"] = {"epochs": 200, "steps": 150, "lr": 0.01}
    markdown, _ = write(records, tmp_path)
    shown = dict(re.findall(r"^\| (\S+) +\| ((?:none|steps|lr|epochs).*?) +\|$", markdown, re.MULTILINE))
    assert shown["ZS-CLIP"] == "none" and shown["CoOp"] == "steps = 150, lr = 0.01"


def test_what_was_not_run_is_listed_by_dataset_method_and_seed(tmp_path):
    records = [
        r for r in world(AS_PAPER) if r["key"] not in ("bcoop1", "bcoop2", "acontcoop1", "acontcoop2", "acontcoop3")
    ]
    for text in write(records, tmp_path):
        assert "Not run or failed: a: ContCoOp; b: CoOp (seed 1, 2)." in text


def test_both_reports_hold_table_cost_protocol_environment_failures_and_command(tmp_path):
    records = world(AS_PAPER) + [record("b", "coop", 4, 0, 0, status="failed")]
    markdown, html = write(records, tmp_path, ["sun397 is left out: no data"])
    rendered = MarkdownIt("commonmark").enable("table").render(markdown)
    for text in ("".join(Page(rendered).text), "".join(Page(html).text)):
        for needed in (
            "small scale", "Average over 2 datasets", "68.99", "† marks an output-space method", "it <broke>", "bcoop4",
            "epochs = 50", "fp32", "sun397 is left out: no data", "tiny-a, fingerprint basebasebase", "9.9.9",
            "cpu (2 threads)", "0123abc", "python run_all.py report --arch micro",
            "2026-01-01T00:00:00Z to 2026-01-04T00:00:00Z",
        ):  # fmt: skip
            assert needed in text, needed
        assert "Paper" not in text
    cost = re.search(r"\| CoOp +\| +6 \| +2\.00 \| +0\.75 \| +2 \| +1,536 \| +6,500 \|", markdown)
    assert cost, "medians over seeds 1, 2, 3 of two datasets: 2 s, 0.75 s, 2 MiB"


def test_a_hole_in_a_record_is_a_dash_in_the_report(tmp_path):
    bare = record("a", "coop", 1, 50, 40, peak_memory_bytes=None, seconds={}, split={}, versions={}, git_commit=None)
    markdown, _ = write([bare], tmp_path)
    assert re.search(r"\| CoOp +\| +1 \| +– \| +– \| +– \| +1,536 \|", markdown)
    assert re.search(r"\| git commit +\| – +\|", markdown)


def test_long_words_break_so_that_no_table_is_cut_off_at_1280_pixels(tab, tmp_path):
    tab.said.clear()
    about = "pictures from above, by names that captions seldom use for them, " * 3
    records = [{**one, "about": about} for one in world(AS_PAPER)]
    records += [record("b", "coop", 4, 0, 0, status="failed", error=about)]
    write(records, tmp_path)
    wide = "[...document.querySelectorAll('.scroll')].filter(one => one.scrollWidth > one.clientWidth).length"
    tab.size(1280, 900)
    tab.open((tmp_path / "report.html").as_uri())
    tab.run("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    assert tab.run("document.querySelectorAll('.scroll').length") > 5 and tab.run(wide) == 0
    for width in (390, 1280, 1920):
        tab.size(width, 900)
        assert tab.run("document.documentElement.scrollWidth <= innerWidth")
    assert tab.said == [] and len(tab.asked) == 1
