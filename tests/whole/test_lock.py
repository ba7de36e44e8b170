"""requirements.lock names a version of every package that pyproject.toml asks for, one that is allowed there."""

import re

from checkout import ROOT
from packaging.requirements import Requirement

from carryover.bench.backbones.arch_files import read_toml

LINES = [
    line for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines() if not line.startswith("#")
]


def test_each_line_is_a_name_and_a_version_and_nothing_of_a_machine():
    for line in LINES:
        assert re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][A-Za-z0-9.]*", line), line  # no path, address, local build
    names = [line.split("==")[0].lower().replace("_", "-") for line in LINES]
    assert len(set(names)) == len(names) > 50


def test_it_holds_what_the_package_its_tests_and_its_checks_ask_for():
    project = read_toml(ROOT / "pyproject.toml", "pyproject")["project"]
    locked = dict(line.lower().replace("_", "-").split("==") for line in LINES)
    extras = project["optional-dependencies"]
    for text in [*project["dependencies"], *extras["test"], *extras["dev"], *extras["ray"]]:
        wanted = Requirement(text)
        if wanted.marker is None or wanted.marker.evaluate({"python_version": "3.11"}):
            assert wanted.specifier.contains(locked[wanted.name.lower().replace("_", "-")]), text


def test_the_container_takes_torch_and_all_else_from_it():
    text = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
    (pattern,) = re.findall(r"grep -E '(.*?)' requirements.lock", text)
    assert [line.split("==")[0] for line in LINES if re.match(pattern, line)] == ["torch", "torchvision"]
    assert "-c requirements.lock ." in text
    locked = re.search(r"Python (3\.\d+)", (ROOT / "requirements.lock").read_text()).group(1)
    assert f"FROM python:{locked}-slim" in text
