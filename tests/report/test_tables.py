"""The tables, read back by parsers that are not ours: csv, CommonMark, a count of LaTeX's special characters."""

import copy
import csv
import io
import re

import pytest
from markdown_it import MarkdownIt
from table_records import chosen, predictions_of, record

from carryover.bench.analyses import main_table
from carryover.bench.records import printed
from carryover.bench.render import sheets
from carryover.bench.render.terminal import made
from carryover.bench.report import blocks, outputs, recompute

HEADER = "dataset,method,seeds,base,base_std,new,new_std,h,h_std,paper_base,paper_new,paper_h"
HOSTILE = [
    "<script>alert(1)</script>", "a|b\nc", "**bold** _it_ `code`", "[x](javascript:alert(1))", "$x^2$ 50% & {more} #1",
    r"\textbf{x}\\ ~", "=HYPERLINK(1)", "&lt;b&gt; &amp;", "[red]rich[/red]", "![i](x.png)", "-1+1", "@SUM(A1)",
]  # fmt: skip


@pytest.fixture
def world():
    """Two datasets, three methods, two seeds; the order by place is not that of the alphabet."""
    score = {"zs": (120, 130), "prompt": (150, 140), "adapter": (160, 20)}
    return [
        record(d, m, s, score[m][0] + s + 5 * i, score[m][1] - s, (i, j), depth="deep" if m == "adapter" else "shallow")
        for i, d in enumerate(["zoo", "art"]) for j, m in enumerate(score) for s in (1, 2)
    ]  # fmt: skip


def shown(markdown):
    """Rendered rows of all Markdown tables, cell by cell, tags and all."""
    page = MarkdownIt("commonmark").enable("table").render(markdown)
    rows = re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)
    return [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.DOTALL) for row in rows]


def parsed(text):
    return list(csv.DictReader(io.StringIO(text)))


def paper_records(arch, datasets=None):
    paper = printed.read_paper(arch)
    rows = paper[paper["dataset"] != "average"]
    rows = rows if datasets is None else rows[rows["dataset"].isin(datasets)]
    return [record(r.dataset, r.method, 1, 100, 100) for r in rows.itertuples()]


def sheet_of(records, paper=None):
    return main_table.main_sheet(main_table.main_table(records, paper), records, paper)


def test_the_csv_has_the_fixed_columns_a_row_a_cell_and_the_average_last(world):
    rows = parsed(sheets.csv_text(main_table.main_table(world)))
    assert ",".join(rows[0]) == HEADER
    assert [(r["dataset"], r["method"]) for r in rows] == [
        (d, m) for d in ("zoo", "art", "average") for m in ("zs", "prompt", "adapter")
    ]
    assert rows[1]["base"] == "75.75" and rows[1]["seeds"] == "2" and rows[1]["paper_base"] == ""
    assert main_table.main_table(reversed(world)).equals(main_table.main_table(world))


def test_a_missing_number_is_empty_in_csv_and_a_dash_elsewhere(world):
    broken = [r if r["run"]["method"] != "zs" else {**r, "status": "failed", "targets": {}} for r in world]
    rows = parsed(sheets.csv_text(main_table.main_table(broken)))
    assert [v for k, v in rows[0].items() if k not in ("dataset", "method")] == ["0", *[""] * 9]
    sheet = sheet_of(broken)
    assert [cell.text for cell in sheet.blocks[0].rows[0]] == ["ZS", "–", "–", "–"]
    assert r"ZS & -- & -- & -- \\" in sheets.sheet_latex(sheet)


@pytest.mark.parametrize("arch, h", [("vit-b16", 80.28), ("vit-l14", 84.11)])
def test_paper_columns_stand_beside_ours_where_the_paper_has_the_architecture(arch, h):
    records = paper_records(arch) + [record("dtd", "mine", 1, 100, 100)]
    table = main_table.main_table(records, printed.read_paper(arch))
    assert len(table) == 12 * 9
    average = table[(table["dataset"] == "average") & (table["method"] == "contcoop")].iloc[0]
    assert average["paper_h"] == h and average["h"] == 50.0
    assert table[table["method"] == "mine"][list(printed.PAPER_COLUMNS)].isna().all(axis=None)
    assert sheet_of(records, printed.read_paper(arch)).blocks[0].header[-1] == "Paper H"


def test_the_papers_average_is_left_out_beside_an_average_over_other_datasets():
    table = main_table.main_table(paper_records("vit-b16", ["dtd", "eurosat"]), printed.read_paper("vit-b16"))
    assert table[table["dataset"] == "average"]["paper_h"].isna().all()
    assert table[table["dataset"] == "dtd"]["paper_h"].notna().all()


def test_micro_shows_no_paper_columns(world):
    assert printed.read_paper("micro") is None
    assert "aper" not in sheets.sheet_markdown(sheet_of(world, printed.read_paper("micro")))


def test_the_average_block_is_first_and_best_and_second_are_marked(world):
    markdown = sheets.sheet_markdown(sheet_of(world))
    assert re.findall(r"^### (.*)$", markdown, re.MULTILINE) == ["Average over 2 datasets", "ZOO", "ART"]
    header, zs, prompt, adapter = shown(markdown)[:4]
    assert header == ["Method", "Base", "New", "H"]
    assert prompt[1].startswith("<u>77.00 ±") and adapter[1].startswith("<strong>82.00 ±")
    assert prompt[2].startswith("<strong>") and zs[2].startswith("<u>") and adapter[2].startswith("9.25 ±")
    assert adapter[0] == "ADAPTER†" and prompt[0] == "PROMPT"
    latex = sheets.sheet_latex(sheet_of(world))
    assert r"\textbf{82.00 $\pm$" in latex and r"\underline{77.00 $\pm$" in latex and r"ADAPTER\textdagger{}" in latex


def test_methods_that_read_the_same_share_a_rank_and_one_seed_has_no_deviation():
    records = [
        record("d", m, 1, n, n, (0, j)) for j, (m, n) in enumerate([("a", 180), ("b", 180), ("c", 90), ("e", 9)])
    ]
    rows = shown(sheets.sheet_markdown(sheet_of(records)))[1:5]
    best, second = "<strong>90.00</strong>", "<u>45.00</u>"
    assert [row[1] for row in rows] == [best, best, second, "4.50"]


def test_marks_become_footnotes_at_the_widest_place_where_they_hold(world):
    for one in world:
        one["marks"] = ["limit 5"] + ["own split"] * (one["run"]["dataset"] == "art")
        one["marks"] += ["chosen on test"] * (one["run"]["method"] == "adapter")
    world = [r for r in world if (r["run"]["method"], r["run"]["seed"]) != ("zs", 2)]
    markdown = sheets.sheet_markdown(sheet_of(world))
    numbers = {text: n for n, text in re.findall(r"^- <sup>(\d)</sup> (.*)$", markdown, re.MULTILINE)}
    assert set(numbers) == {"own split", "chosen on test", "over 1 of 2 seeds"}
    assert "- All rows: limit 5." in markdown
    assert f"### ART<sup>{numbers['own split']}</sup>" in markdown
    assert f"ADAPTER†<sup>{numbers['chosen on test']}</sup>" in markdown
    assert f"ZS<sup>{numbers['over 1 of 2 seeds']}</sup>" in markdown and "PROMPT<sup>" not in markdown


def test_rows_made_with_other_settings_are_called_so(world):
    world[0]["run"]["shots"] = 4
    assert any("differ in shots (16, 4)" in remark for remark in sheet_of(world).remarks)


@pytest.mark.parametrize("name", HOSTILE)
def test_markdown_shows_a_hostile_name_as_plain_text(name):
    markdown = sheets.sheet_markdown(
        sheet_of([record("d", "m", 1, 100, 100, names={"dataset": name, "method": name}, marks=())])
    )
    plain = " ".join(name.split())
    escaped = plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    assert [row[0] for row in shown(markdown)] == ["Method", escaped] * 2
    assert f"<h3>{escaped}</h3>" in MarkdownIt("commonmark").enable("table").render(markdown)


@pytest.mark.parametrize("name", HOSTILE)
def test_latex_prints_a_hostile_name_with_no_active_character(name):
    left = re.sub(r"\\[&%$#_{}]|\\text[a-z]+\{\}|\{[\[*]\}", "", sheets.escape_latex(name))
    assert not re.search(r"[\\&%$#_{}~^<>|\n\[*]", left)
    latex = sheets.sheet_latex(sheet_of([record("d", "m", 1, 9, 9, names={"dataset": name, "method": name})]))
    bare = re.sub(r"\\[\\{}]", "", latex)
    assert bare.count("{") == bare.count("}")
    assert all(line.count("&") - line.count(r"\&") == 3 for line in latex.splitlines() if line.endswith(r" \\"))


@pytest.mark.parametrize("name", HOSTILE)
def test_csv_gives_a_hostile_id_back_and_never_as_a_formula(name):
    row = parsed(sheets.csv_text(main_table.main_table([record(name, name, 1, 100, 100)])))[0]
    assert row["dataset"].removeprefix("'") == row["method"].removeprefix("'") == name
    assert row["dataset"][0] not in "=+-@\t\r" and row["base"] == "50.0"


def test_the_console_prints_the_averages_and_takes_no_markup_from_a_name(world):
    for one in world:
        one["names"]["method"] = f"[red]{one['run']['method']}[/red]"
    console = made(width=120, file=io.StringIO())
    main_table.console_summary(world).show(console)
    text = console.file.getvalue()
    assert "[red]prompt[/red]" in text and "77.00 ±" in text and "Average over 2 datasets" in text


def test_check_is_silent_where_predictions_records_and_table_agree(world, tmp_path):
    paths = outputs.write_tables(chosen(world), tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [
        *(f"tables/{name}.{e}" for name in ("answer", "main") for e in ("csv", "md", "tex")),
        "tables/records.csv",
    ]
    assert recompute.recompute(chosen(world), predictions_of(world).__getitem__, tmp_path) == []


def test_check_names_a_forged_record_a_forged_cell_and_missing_files(world, tmp_path):
    stored = predictions_of(world)
    outputs.write_tables(chosen(world), tmp_path)
    path = tmp_path / "tables" / "main.csv"
    original = path.read_text()

    forged = copy.deepcopy(world)
    forged[0]["targets"]["new"].update(correct=199, accuracy=99.5)
    outputs.write_tables(chosen(forged), tmp_path)
    lines = recompute.recompute(chosen(forged), stored.__getitem__, tmp_path)
    assert sum("in the record" in line for line in lines) == 2
    assert any("new of ('zoo', 'zs')" in line for line in lines)
    assert any("h of ('average', 'zs')" in line for line in lines)

    assert any("main.md: line" in line for line in lines)
    outputs.write_tables(chosen(world), tmp_path)
    path.write_text(original.replace("75.75", "75.76", 1))
    (line,) = recompute.recompute(chosen(world), stored.__getitem__, tmp_path)
    assert "base of ('zoo', 'prompt') is '75.76', recomputed '75.75'" in line

    path.write_text(original.replace("zoo,prompt", "zoo,other", 1))
    assert len(recompute.recompute(chosen(world), stored.__getitem__, tmp_path)) == 2
    path.write_text("".join(original.splitlines(keepends=True)[:-1]))
    (line,) = recompute.recompute(chosen(world), stored.__getitem__, tmp_path)
    assert "('average', 'adapter') is missing" in line
    path.unlink()
    assert "not there" in recompute.recompute(chosen(world), stored.__getitem__, tmp_path)[0]
    del stored[world[0]["key"]]
    assert "no readable predictions" in recompute.recompute(chosen(world), stored.__getitem__)[0]


def test_no_records_still_make_a_table(tmp_path):
    outputs.write_tables(chosen([]), tmp_path)
    assert (tmp_path / "tables" / "main.csv").read_text() == HEADER + "\n"


def test_hyper_parameters_are_the_chosen_ones_not_the_0_that_leaves_them_open(world):
    for found, rate in zip(world, (0.02, 0.2) * 6, strict=True):
        found["run"]["config"] = {"lr": 0.0, "batch": 32}
        found["chosen"] = {"lr": rate, "ratio": 0.6}
    (_, values), *_ = [[cell.text for cell in row] for row in blocks.configs(world).rows]
    assert values == "lr = 0.02 / 0.2, batch = 32, ratio = 0.6"
