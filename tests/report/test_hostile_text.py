"""Names, notes and errors that users choose stay text in every table, page and line, as others' parsers read it."""

import csv
import io
import re
import string
from html.parser import HTMLParser

import pandas as pd
import pytest
import report_pages as worlds
import table_records as lists
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jinja2 import UndefinedError
from markdown_it import MarkdownIt

from carryover.bench.cli import main
from carryover.bench.errors import printable
from carryover.bench.records import reading
from carryover.bench.render import html_page, pages, sheets
from carryover.bench.render.terminal import made, say
from carryover.bench.report import outputs, recompute, report
from carryover.methods.base import METHODS

PAYLOADS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"onmouseover='alert(1)",
    "&lt;b&gt;",
    "</td></table>",
    "a|b|c",
    "[x](javascript:alert(1))",
    "![i](http://x/y.png)",
    "`code` ```",
    "- item",
    "1. item",
    "# head",
    "---",
    "line one\nline two",
    "\\input{/etc/passwd}",
    "100% & $x_1$ #1 ~ ^2 {a}",
    "^^5cinput",
    '=HYPERLINK("http://x")',
    "+1+cmd|' /C calc'!A0",
    "-1+1",
    "@SUM(A1:A9)",
    "\t=1",
    "\r=1",
    "'=1",
    "＝1+1",
    "[red]red[/red]",
    "[/]",
    "[link=http://x]l",
    "\x1b[2J\x1b]0;title\x07",
    "\x00",
    "\u202egnp.exe",
    "{body}{title}{style}",
    "../../etc/passwd",
    "\\",
    "${jndi:x}",
    '="',
    "a\\",
]
bounded = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
words = st.one_of(
    st.text(min_size=1, max_size=25),
    st.text(string.punctuation + " \n\t1a", min_size=1, max_size=25),
    st.lists(st.sampled_from(PAYLOADS), min_size=1, max_size=3).map(" ".join),
)


def plain(text):
    """What a reader must see of it."""
    return printable(" ".join(text.split()))


class Reader(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_data(self, data):
        self.text.append(data)


def world(texts):
    """Records with these texts wherever a user's own text can stand, done ones and failed ones."""
    records = []
    for i, text in enumerate(texts):
        own = {"dataset": text, "method": text, "test": text}
        one = worlds.record(
            f"d{i}", "coop", 1, 50, 40, names=own, marks=[text], about=text, device=text, git_commit=text
        )
        one["run"]["config"] = {text: text}
        one["targets"]["base"]["backbone"] = text
        failed = worlds.record(f"d{i}", "contcoop", 1, 0, 0, status="failed", error=text, names=own)
        records += [one, failed]
    return records


# ---- pages -----------------------------------------------------------------------------------------------------------


def test_payloads_add_no_element_and_no_attribute_to_report_and_page():
    # As long as the payloads: columns with long text are set in another way.
    harmless_names = [f"name {i:02}".ljust(len(text), "x") for i, text in enumerate(PAYLOADS)]
    found = [report.texts(worlds.chosen(world(names), names)) for names in (harmless_names, PAYLOADS)]
    render = MarkdownIt("commonmark").enable("table").render
    for of_harmless, of_payloads in zip(*found, strict=True):
        if "<html" not in of_harmless:
            of_harmless, of_payloads = render(of_harmless), render(of_payloads)
        harmless, hostile = Reader(drawn_out(of_harmless)), Reader(drawn_out(of_payloads))
        assert hostile.tags == harmless.tags
        for kind in ("href", "src", "id", "style"):
            of_kind = [[v for n, v in one.attributes if n == kind] for one in (harmless, hostile)]
            assert of_kind[0] == of_kind[1]
        assert [n for n, _ in hostile.attributes] == [n for n, _ in harmless.attributes]
        shown = " ".join("".join(hostile.text).split())
        assert all(shown.count(plain(text)) >= 6 for text in PAYLOADS), "every place shows the text itself"


def drawn_out(html):
    """Figures apart, whose letters are shapes: test_figures_report reads their XML."""
    return re.sub(r"<svg.*?</svg>", "", html, flags=re.DOTALL)


def test_a_title_that_is_a_template_is_not_filled():
    made = html_page.html_page([("title", "{{ title }} {% block body %}"), ("text", "{# here #}")])
    assert "<title>{{ title }} {% block body %}</title>" in made and "<p>{# here #}</p>" in made


@bounded
@given(words)
def test_any_text_is_itself_in_html(text):
    template = pages.PAGES.from_string('<p title="{{ text }}">{{ text }}</p>')
    found = Reader(template.render(text=text))
    assert found.tags == ["p"] and [name for name, _ in found.attributes] == ["title"]
    assert "".join(found.text) == dict(found.attributes)["title"] == printable(text)


def test_a_template_that_shows_what_it_was_not_given_is_an_error():
    with pytest.raises(UndefinedError, match="title"):
        pages.render("report.html", parts=[])
    with pytest.raises(UndefinedError, match="marquee"):
        html_page.html_page([("title", "a"), ("marquee", "b")])


def test_no_template_takes_text_as_html():
    found = {name: pages.verbatim(name) for name in pages.PAGES.list_templates() if name.endswith(".html")}
    assert found and not [name for name, text in found.items() if re.search(r"\|\s*safe\b|autoescape", text)]


def test_only_our_own_commands_stand_in_code_and_any_other_backtick_stays():
    made = html_page.html_page([("title", "t"), ("text", "do `run_all.py report`, `<b>` and `run_all.py <i>`")])
    shown = "<p>do <code>run_all.py report</code>, `&lt;b&gt;` and <code>run_all.py &lt;i&gt;</code></p>"
    assert shown in made


@bounded
@given(words)
def test_any_text_is_itself_in_markdown(text):
    render, escaped = (
        MarkdownIt("commonmark").enable("table").enable("strikethrough").render,
        sheets.escape_markdown(text),
    )
    if plain(text):
        assert_shown(render(escaped), ["p"], plain(text))
        assert_shown(render(f"- {escaped}"), ["ul", "li"], plain(text))
        assert_shown(
            render(f"||\n|:-|\n| {escaped} |"), ["table", "thead", "tr", "th", "tbody", "tr", "td"], plain(text)
        )


def assert_shown(html, tags, text):
    found = Reader(html)
    assert found.tags == tags and "".join(found.text).strip() == text, html


@bounded
@given(words)
def test_any_text_is_harmless_in_latex(text):
    made = sheets.escape_latex(text)
    left = re.sub(r"\\[&%$#_{}]|\\text[a-z]+\{\}|\\S\{\}|\{[\[*]\}|\$\\pm\$", "", made)
    assert not re.search(r"[\\&%$#_{}~^<>|\[*\n\t\r\x00-\x1f]", left)


# ---- CSV -------------------------------------------------------------------------------------------------------------


@bounded
@given(st.lists(words, min_size=2, max_size=6, unique_by=printable))
def test_any_texts_in_a_csv_are_no_formulas_and_remain_distinct(texts):
    rows = list(csv.reader(io.StringIO(sheets.csv_text(pd.DataFrame({"name": texts, "x": [1.5] * len(texts)})))))[1:]
    cells = [row[0] for row in rows]
    assert len(set(cells)) == len(texts) and all(row[1] == "1.5" for row in rows)
    for cell, text in zip(cells, texts, strict=True):
        assert cell in (printable(text), "'" + printable(text))
        assert cell[:1] not in {*"=@＝＋－＠", "\t", "\r", "\n"}
        assert not re.match(r"[+-](?![0-9.])", cell)


@pytest.mark.parametrize("number", ["-1.5", "+2", "-.5", "1e-3", "-1e-3"])
def test_a_number_stays_a_number_also_in_a_column_of_text(number):
    frame = pd.DataFrame({"label": [number, "x"], "value": [-1.5, 2.0]})
    (first, _) = csv.DictReader(io.StringIO(sheets.csv_text(frame)))
    assert first == {"label": number, "value": "-1.5"}
    assert pd.read_csv(io.StringIO(sheets.csv_text(frame)))["value"].tolist() == [-1.5, 2.0]


@pytest.mark.parametrize("number", ["-1+1", "-1.5e", "+1|x", "-", "+", "-1\n", "-١"])
def test_what_only_begins_like_a_number_is_none(number):
    assert sheets.escape_csv(number).startswith("'")


def test_check_reads_back_the_tables_of_hostile_ids(tmp_path):
    names = [name for name in PAYLOADS if name[0] in "'=+-@\t\r＝<|\n\x1b"]
    records = [lists.record(name, f"{name} m", 1, 100 + i, 90) for i, name in enumerate(names)]
    written = outputs.write_tables(lists.chosen(records), tmp_path)
    assert all(path.is_relative_to(tmp_path) for path in written)
    assert recompute.recompute(lists.chosen(records), lists.predictions_of(records).__getitem__, tmp_path) == []
    cells = list(csv.reader((tmp_path / "tables" / "main.csv").open(newline="", encoding="utf-8")))
    assert len(cells) == 1 + len(names) ** 2 + len(names)


# ---- terminal --------------------------------------------------------------------------------------------------------


@bounded
@given(words)
def test_any_text_is_itself_on_the_terminal(text):
    console = made(width=20, file=io.StringIO(), force_terminal=True, color_system="standard")
    say(("failed", "red"), f" {text}", to=console)
    sent = console.file.getvalue()
    assert sent.count("\x1b") == sent.count("\x1b[") == 2, "the colour of `failed` and its end"
    assert re.sub("\x1b\\[[0-9;]*m", "", sent) == f"failed {printable(text)}\n"


@pytest.mark.parametrize("text", PAYLOADS)
def test_a_mistake_on_the_command_line_is_told_in_one_printable_line(text, capsys):
    for argv in (["--datasets", text], ["--methods", "x" + text], ["--arch", text], ["--set", "x" + text]):
        assert main.main(["=".join(argv), "--dry-run"]) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ") and said.count("\n") == 1 and said[:-1].isprintable()


def test_a_name_of_a_method_is_one_printable_line_in_every_table():
    records = [worlds.record("a", "coop", 1, 50, 40, name="two\nlines \x1b[31m\u202e")]
    assert reading.names(records, "method") == {"coop": "two lines \\x1b[31m\\u202e"}


def test_registered_methods_have_printable_names():
    assert all((name + METHODS[name].name).isprintable() for name in METHODS)
