"""Figures and report: stable bytes, parsed by others' parsers, true to the numbers, safe with any name."""

import re
from xml.etree import ElementTree

import chromium
import matplotlib.image
import pytest
from markdown_it import MarkdownIt
from report_pages import AS_PAPER, HOSTILE, Page, chosen, record, world

from carryover.bench.analyses import main_table
from carryover.bench.render import figures, sheets
from carryover.bench.report import outputs, report


def write(records, folder, notes=()):
    markdown, page = report.write_report(chosen(records, notes), folder)
    assert (markdown.name, page.name) == ("report.md", "report.html")
    return markdown.read_text(), page.read_text()


def test_figure_files_have_the_same_bytes_each_time(tmp_path):
    first = outputs.write_figures(chosen(world(AS_PAPER)), tmp_path / "one")
    second = outputs.write_figures(chosen(list(reversed(world(AS_PAPER)))), tmp_path / "two")
    assert [path.relative_to(tmp_path / "one").as_posix() for path in first] == [
        "figures/figure2a.svg", "figures/figure2a.png",
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
    assert axes.get_xlabel().endswith("‡ inner-layer method    † deep-layer method    § both-tower method")
    line = report.summary(records)[1]
    assert "of 1 inner-layer method 1 ends above that line and of 1 deep-layer method 1 ends below it" in line
    assert "of 1 both-tower method 1 ends above that line" in line and "shallow" not in line
    sheet = main_table.main_sheet(main_table.main_table(records), records)
    assert "‡ marks an inner-layer method, † marks a deep-layer method, § marks a both-tower method." in sheet.remarks
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
    assert all(value.startswith("#") for value in references)
    assert not re.search(r"url\((?!#)|@import", html)
    assert page.tags.count("svg") == 1 and "prefers-color-scheme: dark" in html
    assert ("name", "viewport") in page.attributes
    svg = html[html.index("<svg") : html.index("</svg>")]
    assert figures.INK not in svg and "currentColor" in svg
    assert page.tags.count("table") == html.count('<div class="scroll"')


def test_the_report_has_the_same_bytes_each_time(tmp_path):
    assert write(world(AS_PAPER), tmp_path / "one") == write(list(reversed(world(AS_PAPER))), tmp_path / "two")


def test_the_summary_is_three_sentences_from_the_numbers():
    best, line, runs = report.summary(world(AS_PAPER))
    assert best == (
        "ContCoOp has the highest H, 68.99 % (Base 70.00, New 68.00), on average over 2 datasets, "
        "before CoOp with 67.41 %, as in the paper, where ContCoOp has it."
    )
    assert (
        "60.00 %, of 2 shallow-layer methods 2 end above that line and of 1 deep-layer method 1 ends below it" in line
    )
    assert line.endswith("in the paper every shallow-layer method is above and every deep-layer method below.")
    assert runs == "24 of 24 recorded runs are done and 0 failed."


def test_the_summary_says_so_where_the_numbers_contradict_the_paper():
    best, line, _ = report.summary(world({"zs-clip": 60.0, "coop": 50.0, "contcoop": 61.0, "clip-adapter": 90.0}))
    assert best.startswith("CLIP-Adapter has the highest H") and "unlike in the paper, where ContCoOp has it" in best
    assert "of 2 shallow-layer methods 1 ends above that line, 1 ends below it" in line
    assert "of 1 deep-layer method 1 ends above that line" in line


def test_a_method_at_the_line_within_its_seeds_is_neither_above_nor_below():
    records = world({"zs-clip": 60.0, "coop": 65.0, "contcoop": 68.0, "clip-adapter": 60.1})
    for r in records:
        if r["run"]["method"] == "clip-adapter":
            r["targets"]["new"]["accuracy"] += r["run"]["seed"] - 2
    line = report.summary(records)[1]
    assert "of 1 deep-layer method 1 ends within one deviation over seeds of it" in line


def test_of_one_seed_the_summary_does_not_tell_who_ends_above_the_line():
    sentences = report.summary([r for r in world(AS_PAPER) if r["run"]["seed"] == 1])
    assert sentences[1].startswith("On the upgraded model zero-shot reaches 60.00 %. With one seed")
    assert not re.search(r"\d ends? (above|below)", " ".join(sentences)) and len(sentences) == 3


def test_methods_the_paper_does_not_have_are_set_against_its_finding_place_by_place():
    places = {"rada": "output", "taskres": "output", "tpt": "input", "maple": "inner", "lora": "odd"}
    records = world({"zs-clip": 60.0, "coop": 66.0, "rada": 55.5, "taskres": 62.0, "tpt": 60.0, "maple": 57.0})
    for r in records:
        r["depth"] = places.get(r["run"]["method"], r["depth"])
    sentences = report.summary(records)
    assert len(sentences) == 4 and sentences[2] == (
        "Of methods the paper does not have, New against that line: input tokens (by the paper's finding above): "
        "tpt (+0.00) within one deviation; inner layers (the paper says nothing of these): maple (-3.00) below; output "
        "space (by the paper's finding below): taskres (+2.00) above, rada (-4.50) below."
    )


def test_the_papers_best_is_named_only_where_it_was_run():
    records = [r for r in world(AS_PAPER) if (r["run"]["dataset"], r["run"]["method"]) != ("b", "contcoop")]
    assert "in the paper" not in report.summary(records)[0]


def test_what_was_not_run_is_listed_by_dataset_method_and_seed(tmp_path):
    records = [
        r for r in world(AS_PAPER) if r["key"] not in ("bcoop1", "bcoop2", "acontcoop1", "acontcoop2", "acontcoop3")
    ]
    for text in write(records, tmp_path):
        assert "Not run or failed: a: ContCoOp; b: CoOp (seed 1, 2)." in text


def test_the_summary_leaves_out_what_has_no_average_and_says_so():
    records = world(AS_PAPER)
    records[-3:] = [{**r, "status": "failed", "targets": {}} for r in records[-3:]]
    _, line, runs = report.summary(records)
    assert "deep-layer" not in line and "1 method without an average left out" in line
    assert "the paper" not in line and runs == "21 of 24 recorded runs are done and 3 failed."
    assert report.summary([r for r in records if r["run"]["method"] != "zs-clip"])[1].startswith("There is no complete")
    assert report.summary([])[0].startswith("No method is done on every dataset")


def test_both_reports_hold_table_cost_protocol_environment_failures_and_command(tmp_path):
    records = world(AS_PAPER) + [record("b", "coop", 4, 0, 0, status="failed")]
    markdown, html = write(records, tmp_path, ["sun397 is left out: no data"])
    rendered = MarkdownIt("commonmark").enable("table").render(markdown)
    for text in ("".join(Page(rendered).text), "".join(Page(html).text)):
        for needed in (
            "small scale", "Average over 2 datasets", "68.99", "† marks a deep-layer method", "it <broke>", "bcoop4",
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


def test_long_words_break_so_that_no_table_is_cut_off_at_1280_pixels(tmp_path):
    if not chromium.found():
        pytest.skip(f"no browser on the PATH: looked for {', '.join(chromium.NAMES)}")
    about = "pictures from above, by names that captions seldom use for them, " * 3
    records = [{**one, "about": about} for one in world(AS_PAPER)]
    records += [record("b", "coop", 4, 0, 0, status="failed", error=about)]
    write(records, tmp_path)
    wide = "[...document.querySelectorAll('.scroll')].filter(one => one.scrollWidth > one.clientWidth).length"
    with chromium.browser() as page:
        page.size(1280, 900)
        page.open((tmp_path / "report.html").as_uri())
        page.run("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        assert page.run("document.querySelectorAll('.scroll').length") > 5 and page.run(wide) == 0
        for width in (390, 1280, 1920):
            page.size(width, 900)
            assert page.run("document.documentElement.scrollWidth <= innerWidth")
        assert page.said == [] and len(page.asked) == 1
