"""The page of a report in a real browser, and what its figures say under the pointer."""

import base64
import hashlib
import re

import numpy as np
import pytest
from report_pages import HOSTILE, Page

from carryover.bench.render.figures import canvas, inline_svg, legend, svg_text
from carryover.bench.render.html_page import html_page
from carryover.bench.render.sheets import Block, Cell, Column, Grid, Row, Sheet, grid_markdown
from carryover.bench.render.tips import tell
from carryover.bench.report.drawings import ACTIVE

GAINS = {"CoOp": "+13.10", "Tip-Adapter-F": "+0.11", "Linear Probe": "-51.15", "RAda": "–", "KgCoOp": "+7.31"}
VERDICTS = ("carries over", "no better than zero-shot", "hurts", "cannot tell", "carries over")


def bars(names=("CoOp", "RAda"), label="New"):
    with canvas(2) as figure:
        axes = figure.add_subplot()
        axes.set_yticks(range(len(names)), names)
        axes.barh(range(len(names)), [72.56, 57.01], label=label)
        axes.axvline(59.46, label="zero-shot")
    return svg_text(figure, "bars")


def gains():
    of = Column("Dataset"), Column("Gain", "number")
    rows = []
    for (name, gain), verdict in zip(GAINS.items(), VERDICTS, strict=True):
        detail = Grid(of, tuple(Row((Cell(f"{name} on {set_}"), Cell(gain))) for set_ in ("Birds", "Cars")))
        rows.append(Row((Cell(name), Cell(gain), Cell(verdict)), detail, "#far-below" if name == "RAda" else ""))
    return Grid(
        (Column("Method"), Column("Gain", "number", "points"), Column("Verdict", "verdict", filter=True)),
        tuple(rows),
        "Gains",
    )


def parts():
    wide = Block(
        Cell("Wide"), ("Method", *(f"Column {i}" for i in range(30))), ((Cell("CoOp"), *[Cell("72.65 ± 0.14")] * 30),)
    )
    narrow = Block(Cell(""), ("Method", "H"), ((Cell("CoOp"), Cell("9.50")), (Cell("RAda"), Cell("10.25"))))
    figure = ("bars", "Accuracy", inline_svg(bars(), "bars", "Accuracy"))
    return [
        ("title", "Report"),
        ("verdict", "Prompts carry over."),
        ("figure", figure),
        ("grid", gains()),
        ("files", [("CSV", "main.csv"), ("record", "runs/x.json")]),
        ("heading", "Datasets"),
        ("sheet", Sheet("s", (wide,), ("a remark",))),
        ("heading", "Far below"),
        ("block", narrow),
        ("command", "python run_all.py " + "x" * 300),
        ("text", "The end."),
    ]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(html_page(parts()))
    return path


@pytest.fixture
def view(tab, file):
    """The page, opened; at the end of the test the browser must have had nothing to say or to ask for."""
    tab.said.clear()
    tab.size(1280, 900)
    tab.open(file.as_uri())
    yield tab
    assert tab.said == []
    assert {url.split("#")[0] for url in tab.asked} <= {file.as_uri()}


ROWS = "[...document.querySelectorAll('.first .grid > .scroll > table > tbody > tr:not(.detail)')]"
NAMES = f"{ROWS}.filter(row => !row.hidden).map(row => row.cells[0].textContent)"


def head(title):
    return f"[...document.querySelectorAll('.first .grid thead th')].find(one => one.textContent === '{title}')"


def test_a_click_on_a_heading_sorts_by_number_down_up_and_back_with_what_rows_open_to(view):
    assert view.run(NAMES) == list(GAINS)
    orders = []
    for _ in range(3):
        view.run(f"{head('Gain')}.querySelector('button').click()")
        orders.append((view.run(f"{head('Gain')}.getAttribute('aria-sort')"), view.run(NAMES)))
        follow = (
            f"{ROWS}.every(row => row.nextElementSibling.textContent.includes(row.cells[0].textContent + ' on Cars'))"
        )
        assert view.run(follow)
    known = sorted((name for name in GAINS if name != "RAda"), key=lambda name: -float(GAINS[name]))
    assert orders == [("descending", [*known, "RAda"]), ("ascending", [*known[::-1], "RAda"]), (None, list(GAINS))]
    view.run(f"{head('Method')}.querySelector('button').focus()")
    view.press("Enter")
    assert view.run(NAMES) == sorted(GAINS, key=str.lower)


def test_a_plain_table_of_the_page_sorts_its_numbers_as_numbers(view):
    view.run("[...document.querySelectorAll('#far-below thead button')].find(one => one.textContent === 'H').click()")
    assert view.run("[...document.querySelectorAll('#far-below tbody td')].map(one => one.textContent)") == [
        "10.25",
        "9.50",
    ]


def choose(view, what, value, event):
    view.run(
        f"""(() => {{ const one = document.querySelector('.filters {what}'); one.value = '{value}';
        one.dispatchEvent(new Event('{event}')); }})()"""
    )


def test_filters_leave_the_rows_that_fit_and_count_them(view):
    choose(view, "select", "carries over", "change")
    assert view.run(NAMES) == ["CoOp", "KgCoOp"]
    assert view.run("document.querySelector('.filters .count').textContent") == "2 of 5 rows"
    choose(view, "input", "kg", "input")
    assert view.run(NAMES) == ["KgCoOp"]
    assert view.run("[...document.querySelectorAll('tr.detail')].every(row => row.hidden)")


def test_a_row_opens_by_pointer_and_by_keyboard(view):
    shown = "[...document.querySelectorAll('tr.detail')].map(row => !row.hidden)"
    assert view.run(shown) == [False] * 5
    view.run(f"{ROWS}[0].cells[1].click()")
    view.run(f"{ROWS}[4].querySelector('button.opens').focus()")
    view.press("Enter")
    assert view.run("document.activeElement.getAttribute('aria-expanded')") == "true"
    assert view.run(shown) == [True, False, False, False, True]
    view.run(f"{ROWS}[0].cells[1].click()")
    assert view.run(shown) == [False, False, False, False, True]


def test_every_link_inside_the_page_leads_to_what_can_be_seen_then(view):
    links = view.run("[...document.querySelectorAll('a[href^=\"#\"]')].map(one => one.getAttribute('href'))")
    assert links == ["#far-below"]
    for link in links:
        view.run("document.querySelectorAll('details').forEach(one => { one.open = false; })")
        view.run(f"document.querySelector('a[href=\"{link}\"]').click()")
        view.run("new Promise(done => setTimeout(done, 100))")
        assert view.run(
            f"document.querySelector('{link}').open && document.querySelector('{link} table').checkVisibility()"
        )


def test_an_address_opens_its_section(view, file):
    view.open(f"{file.as_uri()}#datasets")
    assert view.run("[...document.querySelectorAll('details.section')].map(one => one.open)") == [True, False]


def test_all_sections_open_and_close_at_once_and_are_open_in_print(view):
    states = "[...document.querySelectorAll('details.section')].map(one => one.open)"
    buttons = "[...document.querySelectorAll('#open-all button')]"
    assert view.run(states) == [False, False]
    view.run(f"{buttons}[0].click()")
    assert view.run(states) == [True, True]
    view.run(f"{buttons}[1].click()")
    assert view.run(states) == [False, False]
    view.call("Page.printToPDF")
    assert view.run(states) == [False, False]
    view.call("Emulation.setEmulatedMedia", media="print")
    assert view.run("document.querySelector('#far-below .body').getBoundingClientRect().height") > 50
    assert not view.run("document.querySelector('.filters').checkVisibility()")
    view.call("Emulation.setEmulatedMedia", media="")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280, 1920])
def test_no_page_is_wider_than_its_window_and_a_wide_table_says_that_it_scrolls(view, width, dark):
    view.size(width, 900, dark)
    view.run("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    view.run("new Promise(done => requestAnimationFrame(() => setTimeout(done, 100)))")
    assert view.run("document.documentElement.scrollWidth <= innerWidth")
    assert view.run("document.querySelector('#datasets .scroll').classList.contains('wider')")
    assert not view.run("document.querySelector('#far-below .scroll').classList.contains('wider')")


def test_the_first_screen_shows_verdict_figure_and_table(view):
    tops = [
        view.run(f"document.querySelector('{one}').getBoundingClientRect().top")
        for one in (".answer", "figure svg", ".first .grid")
    ]
    assert max(tops) < 400


def test_a_figure_names_what_is_under_the_pointer(view):
    place = view.run("""(() => { const box = [...document.querySelectorAll('figure svg g[aria-label]')]
        .find(one => one.getAttribute('aria-label').startsWith('RAda')).getBoundingClientRect();
        return [box.left + box.width / 2, box.top + box.height / 2]; })()""")  # fmt: skip
    view.call("Input.dispatchMouseEvent", type="mouseMoved", x=place[0], y=place[1])
    assert view.run("document.querySelector('.tip').textContent") == "RAda: New 57.01"
    view.call("Input.dispatchMouseEvent", type="mouseMoved", x=2, y=2)
    assert view.run("document.querySelector('.tip').hidden")


def test_without_script_everything_is_there(view, file):
    view.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        view.open(file.as_uri())
        view.call("Emulation.setEmulatedMedia", media="print")
        said = view.run("document.body.innerText")
        assert "Linear Probe on Cars" in said and "a remark" in said and "The end." in said
        assert view.run("document.querySelectorAll('button, .filters').length") == 0
    finally:
        view.call("Emulation.setEmulatedMedia", media="")
        view.call("Emulation.setScriptExecutionDisabled", value=False)


# ---- the files -------------------------------------------------------------------------------------------------------


def test_the_policy_allows_the_pages_own_script_and_nothing_else(file):
    text = file.read_text()
    page = Page(text)
    (policy,) = [value for name, value in page.attributes if name == "content" and "default-src" in value]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert rules["script-src"] == f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
    assert rules["default-src"] == "'none'"


def test_sections_of_one_title_have_ids_of_their_own():
    text = html_page([("title", "t"), *[("heading", "Same"), ("text", "x")] * 3])
    ids = re.findall(r'<details class="section" id="([^"]*)"', text)
    assert len(set(ids)) == 3 and ids[0] == "same"


def test_in_markdown_a_grid_is_its_rows():
    lines = grid_markdown(gains()).splitlines()
    assert len(lines) == 2 + len(GAINS)
    assert [cell.strip() for cell in lines[2].strip("|").split("|")] == ["CoOp", r"+13.10", "carries over"]


def titles(svg):
    return [title.replace("&#58;", ":").replace("&#61;", "=") for title in re.findall(r"<title>(.*?)</title>", svg)]


def test_bars_points_and_fields_say_their_names_and_values():
    assert titles(bars()) == ["CoOp: New 72.56", "RAda: New 57.01", "zero-shot 59.46"]
    with canvas(2) as figure:
        one, other, last = figure.subplots(3, 1)
        one.errorbar([1, 2, 4], [10, float("nan"), 20.125], [1, 1, 1], marker="o", label="Base")
        one.set_xlabel("Heads")
        other.plot([0, 1], [3, 4], "s")  # no name, no title
        (quiet,) = other.plot([5], [6], "s")
        tell(quiet, "said")
        last.pcolormesh(np.array([[1.0, 2.0], [3.0, float("nan")]]))
        legend(figure, [one])
    found = titles(svg_text(figure, "points"))
    assert found[:2] == ["Base: Heads 1, 10", "Base: Heads 4, 20.12"]
    assert found[2] == "said" and found[3:6] == ["1", "2", "3"] and len(found) >= 6


def test_a_point_is_named_by_the_tick_below_it_and_by_the_title_that_panels_share():
    with canvas(2) as figure:
        above, below = figure.subplots(2, 1, sharex=True)
        above.plot([0, 1], [5, 6], "o", label="Update")
        below.set_xticks([0, 1], ["1", "2"])
        below.set_xlabel("Block")
    assert titles(svg_text(figure, "ticks")) == ["Update: Block 1, 5", "Update: Block 2, 6"]


def test_a_name_that_reads_like_markup_stays_text_and_is_no_alarm():
    svg = re.sub("<!--.*?-->", "", bars((HOSTILE, "javascript:x on a=b"), label="on c=1"))
    assert len(titles(svg)) == 3 and not ACTIVE.search(svg)
    assert "<img" not in svg and svg.count("</svg>") == 1
