"""Analyses: what every registered one keeps to, and one of a user's own, from a file in a folder to the report."""

import csv
import subprocess
import sys

import pytest
from checkout import ROOT

from carryover.bench.analyses.base import ANALYSES, ordered
from carryover.bench.backbones.archs import ARCHS
from carryover.bench.cli.main import main
from carryover.bench.plan import suites

MINE = """
import pandas as pd

from carryover.bench.analyses.base import Analysis, Drawing, Table, register
from carryover.bench.plan.suites import Suite, Variant, fixed
from carryover.bench.render.figures import stacked
from carryover.bench.render.sheets import Block, Cell, Sheet


def draw(tables, selection):
    if not tables:
        return None
    figure, (axes,) = stacked(1)
    axes.plot(tables["zz_mine"].frame["accuracy"])
    return figure


@register("zz_mine")
class Mine(Analysis):
    title, place = "Tokens of mine", 25
    suite = Suite(
        fixed(*(Variant((n,), "coop", (f"coop.context_length={n}",)) for n in ("2", "3"))), {"micro": ("micro_stars",)}
    )
    drawings = (Drawing("zz_mine", "Tokens of mine, drawn", draw),)

    def tables(self, selection):
        rows = [
            [row.dataset, *row.variant.label, record["targets"]["new"]["accuracy"]]
            for row in selection.rows.get("zz_mine", ())
            for record in row.records
        ]
        if rows:
            frame = pd.DataFrame(rows, columns=["dataset", "tokens", "accuracy"])
            cells = tuple((Cell(tokens), Cell(f"{value:.2f}")) for _, tokens, value in rows)
            sheet = Sheet(self.title, (Block(Cell("Stars"), ("Tokens", "New"), cells),), ("A remark of mine.",))
            yield Table("zz_mine", frame, ("dataset", "tokens"), sheet)

    def first(self, selection, tables):
        return [("text", "Mine opens the report.")] if tables else []

    def words(self, selection, tables):
        return ["Mine says something."]

    def limits(self, selection, tables):
        return ["Mine has a limit."]
"""


@pytest.fixture
def folder(tmp_path):
    """A folder with the analysis; what importing it registers is taken back."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "mine.py").write_text(MINE)
    yield tmp_path / "mine"
    ANALYSES.entries.pop("zz_mine", None)
    suites.SUITES.entries.pop("zz_mine", None)


def test_an_analysis_of_a_users_own_is_run_written_shown_and_checked(folder, tmp_path, capsys):
    out = tmp_path / "out"
    call = ["--out", str(out), "--plugin-dir", str(folder), "--set", "coop.steps=2"]
    asked = ["--suite", "zz_mine", "--seeds", "1", "--limit", "2", "--views", "1", "--jobs", "1"]
    shown = [*call, "--limit", "2", "--views", "1"]
    assert main([*call, *asked]) == 0
    micro = out / "micro"
    with (micro / "tables" / "zz_mine.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["dataset"], row["tokens"]) for row in rows] == [("micro_stars", "2"), ("micro_stars", "3")]
    assert {"zz_mine.md", "zz_mine.tex"} <= {path.name for path in (micro / "tables").iterdir()}
    assert (micro / "figures" / "zz_mine.svg").is_file() and (micro / "figures" / "zz_mine.png").is_file()
    for name in ("report.md", "report.html"):
        text = (micro / name).read_text()
        for said in (
            "Mine opens the report.",
            "Mine says something.",
            "Mine has a limit.",
            "Tokens of mine",
            "A remark of mine.",
            "Tokens of mine, drawn",
        ):
            assert said in text, (name, said)

    assert main(["check", *shown]) == 0
    table = micro / "tables" / "zz_mine.csv"
    table.write_text(table.read_text().replace(rows[0]["accuracy"], "1.5"))
    capsys.readouterr()
    assert main(["check", *shown]) == 1 and "zz_mine.csv" in capsys.readouterr().out


def test_every_suite_of_an_arch_is_an_analysiss_and_can_be_planned():
    assert {suite for arch in ARCHS.values() for suite in arch.suites} <= {*suites.SUITES}
    for suite in suites.ordered():
        assert ANALYSES[suite.id].suite is not None and suite.place == ANALYSES[suite.id].place
        assert suite.needs in ("", "whole", "learns", "steps")
        assert suite.kind in ("main", "options", "shifted", "further", "measured")


def test_every_analysis_says_what_it_is_and_no_two_write_one_file():
    tables = [name for one in ordered() for name in one.names or (one.id,)]
    figures = [drawing.name for one in ordered() for drawing in one.drawings]
    assert len(tables) == len({*tables}) and len(figures) == len({*figures})
    assert all(one.title and one.place < 100 for one in ordered())


def test_planning_and_working_load_neither_pandas_nor_matplotlib():
    # Some versions of torch's own packages load them.
    code = (
        "import sys, carryover, torch, torchvision, open_clip; known = {*sys.modules}\n"
        "import carryover.bench.plan.grid, carryover.bench.engine.units; print(*{*sys.modules} - known)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT / "src")
    assert not {"pandas", "matplotlib"} & {*loaded.stdout.split()}
