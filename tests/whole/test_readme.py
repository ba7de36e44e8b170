"""README and the pages of docs are run: the method example, the shape of every command, the numbers they tell."""

import csv
import os
import re
import shlex
import subprocess
import sys
from collections import Counter

import pytest
from checkout import ROOT

from carryover import datasets
from carryover.bench.backbones import arch_files, loading
from carryover.bench.cli import commands, main, parsing
from carryover.methods.base import METHODS

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {"README.md": README} | {
    f"docs/{path.name}": path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))
}


@pytest.fixture
def mine(tmp_path):
    """README's method example as a file in a folder of the user's."""
    (source,) = re.findall(r"<!-- method -->\n```python\n(.*?)```", README, re.S)
    assert len(source.strip().splitlines()) <= 25
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "feature_scale.py").write_text(source, encoding="utf-8")
    yield folder
    METHODS.entries.pop("feature-scale", None)
    for name in [name for name in sys.modules if name.endswith("_feature_scale")]:
        del sys.modules[name]


def test_readmes_method_is_listed_and_run_to_a_row_of_the_main_table(mine, tmp_path, capsys):
    assert main.main(["ls", "methods", "--plugin-dir", str(mine)]) == 0
    assert "feature-scale" in capsys.readouterr().out
    out = tmp_path / "out"
    call = ["--datasets", "micro_stars", "--methods", "zs-clip", "feature-scale", "--seeds", "1", "--limit", "20"]
    assert main.main([*call, "--plugin-dir", str(mine), "--out", str(out), "--jobs", "1", "--device", "cpu"]) == 0
    with (out / "micro" / "tables" / "main.csv").open(newline="") as file:
        rows = {(row["dataset"], row["method"]): row for row in csv.DictReader(file)}
    own, start = rows["micro_stars", "feature-scale"], rows["micro_stars", "zs-clip"]
    assert float(own["base"]) > float(start["base"]), "it starts as zero-shot and must have learned something"
    assert "Feature Scale" in (out / "micro" / "tables" / "main.md").read_text(encoding="utf-8")
    assert "Feature Scale" in (out / "micro" / "report.html").read_text(encoding="utf-8")


def test_readmes_method_keeps_the_contract_by_readmes_own_command(mine):
    (line,) = re.findall(r"-m (pytest tests/methods/test_contract\.py .*?) +#", README)
    command = [sys.executable, "-m", *line.replace(" mine ", f" {mine} ").split()]
    # Without the options of the tests around it, such as a floor of coverage.
    plain = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=plain)
    assert done.returncode == 0, done.stdout[-2000:]
    assert int(re.search(r"(\d+) passed", done.stdout).group(1)) >= 8


def test_the_first_page_is_short():
    assert len(README.splitlines()) <= 120 and len(README.split()) <= 900


def test_links_between_pages_and_pictures_lead_somewhere():
    for name, text in PAGES.items():
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
            assert (ROOT / name).parent.joinpath(target).exists(), f"{name}: {target}"
        for page, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", text):
            target = (ROOT / name).parent.joinpath(page).read_text(encoding="utf-8") if page else text
            titles = [re.sub(r"[^\w\- ]", "", t).strip().lower().replace(" ", "-")
                      for t in re.findall(r"^#+ (.*)$", target, re.MULTILINE)]  # fmt: skip
            assert anchor in titles, f"{name}: {page}#{anchor}"


def test_the_main_table_of_docs_micro_is_that_of_the_reference_run():
    folder = ROOT / "results" / "reference" / "micro"
    with (folder / "main.csv").open(newline="") as file:
        average = {row["method"]: row for row in csv.DictReader(file) if row["dataset"] == "average"}
    names = {name: kind.name for name, kind in METHODS.entries.items()}
    shown = {cells[0]: cells[1:] for cells in table_rows(PAGES["docs/micro.md"])}
    for method, row in average.items():
        cells = shown[names[method]]
        for cell, column in zip(cells[:3], ("base", "new", "h"), strict=True):
            assert cell.startswith(f"{float(row[column]):.2f}"), (method, column)
    with (folder / "ports.csv").open(newline="") as file:
        ported = {row["method"]: row for row in csv.DictReader(file)
                  if (row["dataset"], row["target"], row["count"]) == ("average", "new", "all")
                  and (row["port"], row["anchors"]) == ("procrustes", "other")}  # fmt: skip
    for method in average:
        row = ported.get(method)
        expected = (
            f"{float(row['accuracy']):.2f} ± {float(row['accuracy_std']):.2f}" if row and row["accuracy"] else "–"
        )
        assert shown[names[method]][3] == expected, method


def test_the_shots_of_docs_micro_are_those_of_the_reference_run():
    sets, shots = ("micro_textures", "micro_actions", "micro_stars"), ("1", "2", "4", "8", "16")
    with (ROOT / "results" / "reference" / "micro" / "shots.csv").open(newline="") as file:
        new = {(r["dataset"], r["method"], r["shots"]): float(r["new"]) for r in csv.DictReader(file) if r["new"]}
    names = {kind.name: name for name, kind in METHODS.entries.items()}
    shown = list(table_rows(PAGES["docs/micro.md"], "shots"))
    assert len(shown) == 9
    for name, *cells in shown:
        for number, cell in zip(shots, cells, strict=True):
            gains = [new[one, names[name.rstrip("†")], number] - new[one, "zero-shot", ""] for one in sets]
            assert float(cell) == pytest.approx(sum(gains) / 3, abs=0.0051), (name, number)


def test_the_findings_of_readme_are_those_of_the_reference_run():
    """Least and greatest gain over the update's zero-shot accuracy, in whole points."""
    folder = ROOT / "results" / "reference" / "micro"
    with (folder / "main.csv").open(newline="") as file:
        new = {row["method"]: float(row["new"]) for row in csv.DictReader(file) if row["dataset"] == "average"}
    gain = {method: value - new["zs-clip"] for method, value in new.items()}
    prompts = [gain[method] for method in ("coop", "cocoop", "kgcoop", "contcoop")]
    assert f"by {min(prompts):.0f} to {max(prompts):.0f} points" in README
    others = ("linear-probe", "clip-adapter", "tip-adapter-f", "rada", "taskres")
    assert f"none beats it by more than {max(gain[method] for method in others):.1f} points" in README
    assert f"the linear probe loses {-gain['linear-probe']:.0f}" in README
    with (folder / "ports.csv").open(newline="") as file:
        ported = [float(row["accuracy"]) - new["zs-clip"] for row in csv.DictReader(file)
                  if (row["dataset"], row["target"], row["count"]) == ("average", "new", "all") and row["accuracy"]
                  and (row["port"], row["anchors"]) == ("procrustes", "other")
                  and row["method"] in others]  # fmt: skip
    assert f"each of them {min(ported):.0f} to {max(ported):.0f} points above zero-shot" in README


def test_what_the_documentation_tells_of_micro_all_is_that_of_the_reference_run():
    folder = ROOT / "results" / "reference" / "micro-all"
    found = {}
    for name in ("retention", "decision"):
        with (folder / f"{name}.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                found.setdefault((row["target"], row["dataset"], row["method"]), {}).update(row)
    text = (ROOT / "docs" / "retention.md").read_text(encoding="utf-8")
    block = text.split("<!-- retention of results/reference/micro-all -->")[1].strip().split("\n\n")[0]
    shown = {cells[0]: cells[1:] for cells in map(cells_of, block.splitlines()[2:])}
    learned = [method for target, dataset, method in found if (target, dataset) == ("new", "average")]
    assert list(shown) == [METHODS[method].name for method in learned] and len(shown) == 9
    for method in learned:
        new, far = found["new", "average", method], found["unrelated", "average", method]
        kept = within(new, "retention", "", ".2f") if new["retention"] else "nothing to retain"
        gains = [within(row, f"{kind}_gain", f"{kind}_", "+.1f") for row in (new, far) for kind in ("reuse", "retrain")]
        assert shown[METHODS[method].name] == [*gains[:2], kept, *gains[2:]]
    choices = Counter(row["choice"] for (_, dataset, _), row in found.items() if dataset != "average")
    assert choices == {"retrain": 107, "undecided": 49, "zero-shot": 5, "reuse": 1}
    told = f'"retrain" {choices["retrain"]} times, undecided {choices["undecided"]} times'
    assert told in " ".join(text.split())


def test_what_docs_ports_tells_of_micro_all_is_that_of_the_reference_run():
    with (ROOT / "results" / "reference" / "micro-all" / "ports.csv").open(newline="") as file:
        rows = {tuple(row[k] for k in ("method", "port", "anchors", "count")): row for row in csv.DictReader(file)
                if (row["dataset"], row["target"]) == ("average", "new")}  # fmt: skip
    text = (ROOT / "docs" / "ports.md").read_text(encoding="utf-8")
    block = text.split("<!-- ports of results/reference/micro-all -->")[1].strip().split("\n\n")[0]
    shown = {cells[0]: cells[1:] for cells in map(cells_of, block.splitlines()[2:])}
    by_name = {METHODS[method].name: method for method, *_ in rows if (method, "procrustes", "other", "all") in rows}
    carried = {name for name, method in by_name.items() if rows[method, "procrustes", "other", "all"]["accuracy"]}
    assert set(shown) == carried and len(shown) == 8
    ways = [("reuse", "", ""), *((p, a, "all") for p, a in (("procrustes", "support"), ("procrustes", "other")))]
    ways += [("delta", "other", "all"), ("texts", "texts", "all"), ("retrain", "", "")]
    for name, cells in shown.items():
        found = [rows[(by_name[name], *way)] for way in ways]
        kept = within(found[2], "retention", "retention_", ".2f")
        assert cells == [*(f"{float(row['accuracy']):.1f}" for row in found), kept]


def within(row, value, ends, form):
    number, low, high = (format(float(row[name]), form) for name in (value, f"{ends}low", f"{ends}high"))
    return f"{number} [{low}, {high}]"


def cells_of(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def table_rows(text, marked="average of results/reference/micro/main.csv"):
    """Rows of the table behind a mark as plain text cells."""
    block = text.split(f"<!-- {marked} -->")[1].strip().split("\n\n")[0]
    for line in block.splitlines()[2:]:
        yield [re.sub(r"\*\*|</?u>|[†‡§]|<sup>.*?</sup>", "", cell).strip() for cell in line.strip("|").split("|")]


def test_ci_runs_readmes_own_test_command_and_then_the_rest():
    assert "<!-- tests -->" in README
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert 0 < script.index("README.md") < script.index("pytest -m long")


def test_the_pair_of_backbones_of_docs_paper_is_one(tmp_path):
    (text,) = re.findall(r"<!-- arch -->\n```toml\n(.*?)```", PAGES["docs/paper.md"], re.DOTALL)
    (tmp_path / "my-pair.toml").write_text(text, encoding="utf-8")
    (tmp_path / "photos").mkdir()
    arch = loading.resolve_arch(arch_files.find_arch(str(tmp_path / "my-pair.toml")))
    assert list(arch.towers) == ["base", "new", "laion"]
    assert {tower.width for tower in arch.towers.values()} == {512}
    assert datasets.default(arch.datasets) == ["dtd", "folder:photos"]


def command_lines(text):
    """Every call of the program in a page: in blocks of code, fenced or indented, and between backticks."""
    text = text.replace("\\\n", " ")
    blocks = re.findall(r"^```(?:bash|sh)?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += re.findall(r"^ {4}(\S.*)$", text, re.MULTILINE)
    lines += re.findall(r"`([^`\n]*)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    calls = (re.search(r"(?:^|[ /])(?:run_all\.py|carryover) (.+)", line) for line in lines)
    return {call.group(1).strip() for call in calls if call and not re.match(r"COMMAND|\$", call.group(1))}


@pytest.mark.parametrize(
    ("page", "line"), [(page, line) for page in PAGES for line in sorted(command_lines(PAGES[page]))]
)
def test_every_command_line_of_a_page_parses(page, line):
    words = shlex.split(line.split(";")[0].split("&&")[0].split(" | ")[0], comments=True)
    assert parsing.parse(words).command in commands.COMMANDS
