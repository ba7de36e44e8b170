"""The same plug-ins and predictions, byte for byte, whatever is run beside them, in whatever order and process.

A further way of running (several seeds side by side, say) is one more line of WAYS.
"""

import json

import pytest
from bits import assert_same
from own_method import MINE

from carryover.bench.backbones import probe
from carryover.bench.cli import main
from carryover.bench.host.tensor_files import read_tensors
from carryover.bench.plan.grid import default_methods
from carryover.bench.report import outputs, report
from carryover.bench.seeds import derive
from carryover.datasets import load
from carryover.methods import Registered, discover, ordered

pytestmark = pytest.mark.long

SHORT = ("--datasets", "micro_stars", "--suite", "main", "--limit", "1", "--shots", "2", "--views", "2")
USUAL = ("--jobs", "1", "--together", "1")
SHORT += ("--set", "*.steps=3", "linear-probe.max_iter=10", "linear-probe.search_steps=1", "--device", "cpu")
SEEDS = ("1", "2")
ALONE = ("coop", "cocoop", "tip-adapter-f")  # CoCoOp reads images, Tip-Adapter-F the views

WAYS = {  # flags of each call; "{mine}" is the folder of a method that the usual call does not know
    "backwards": [(*USUAL, "--seeds", *reversed(SEEDS), "--methods", "{backwards}")],
    "one by one": [(*USUAL, "--seeds", seed, "--methods", name) for name in ALONE for seed in SEEDS],
    "side by side": [("--jobs", "1", "--together", "3", "--seeds", *SEEDS)],
    "in two processes": [("--jobs", "2", "--seeds", *SEEDS)],
    "beside a method of the user's": [(*USUAL, "--seeds", *SEEDS, "--plugin-dir", "{mine}")],
}


def results(folder, cache, calls, mine=""):
    """{(method, seed, kind): bytes} of the plug-ins and predictions that these calls leave, and their tensors."""
    backwards = [name for name in reversed(default_methods(Registered())) if name != "zz-mine"]
    for call in calls:
        words = [word for part in call for word in (backwards if part == "{backwards}" else [part])]
        argv = [word.replace("{mine}", mine) for word in words]
        assert main.main([*argv, *SHORT, "--out", str(folder), "--cache", str(cache)]) == 0
    found, files = {}, {}
    for path in (folder / "micro" / "runs").glob("*.json"):
        run = json.loads(path.read_text())["run"]
        for kind in ("plugins", "predictions"):
            file = folder / "micro" / kind / f"{path.stem}.safetensors"
            found[run["method"], run["seed"], kind] = path.stem, file.read_bytes()
            files[run["method"], run["seed"], kind] = read_tensors(file)[0]
    return found, files


@pytest.fixture(scope="module")
def quiet():
    """Tables alone: figures and report take longest and are not read here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outputs, "write_figures", lambda *given: [])
        patch.setattr(report, "write_report", lambda *given: ())
        yield


@pytest.fixture(scope="module")
def usual(tmp_path_factory, quiet):
    folder = tmp_path_factory.mktemp("usual")
    discover()
    return *results(folder / "out", folder / "cache", [(*USUAL, "--seeds", *SEEDS)]), folder / "cache"


@pytest.mark.parametrize("way", WAYS)
def test_every_plugin_and_prediction_has_the_bytes_of_the_usual_run(way, usual, quiet, tmp_path, clean_registry):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "mine.py").write_text(MINE)
    expected, tensors, cache = usual
    usually = {*default_methods(Registered())} - {"zz-mine"}
    assert {name for name, *_ in expected} == usually and len(expected) == len(usually) * len(SEEDS) * 2
    cache = tmp_path / "cache" if way == "in two processes" else cache
    found, theirs = results(tmp_path / "out", cache, WAYS[way], str(tmp_path / "mine"))
    added = {cell for cell in found if cell[0] == "zz-mine"}
    assert len(added) == (way == "beside a method of the user's") * len(SEEDS) * 2
    methods = {*ALONE, "zs-clip"} if way == "one by one" else {name for name, *_ in expected}
    expected = {cell: value for cell, value in expected.items() if cell[0] in methods}
    assert {cell: found[cell][0] for cell in found.keys() - added} == {c: key for c, (key, _) in expected.items()}
    if way == "side by side" and not probe.answer().holds(classes := len(load("micro_stars").classnames)):
        for cell in expected:
            assert_same(theirs[cell], tensors[cell], classes)
    else:
        assert {cell: found[cell] for cell in found.keys() - added} == expected
    assert len({content for _, content in expected.values()}) > len(expected) // 2, "they are not all alike"


def test_the_streams_of_two_axes_never_meet():
    """Purpose, dataset, method, seed: no two of them share a stream, so none takes numbers from another."""
    axes = [
        (purpose, dataset, method, seed)
        for purpose in ("init", "fit", "view")
        for dataset in ("dtd", "ucf101", "micro_stars")
        for method in (*ordered(), "zz-mine")
        for seed in range(1, 6)
    ]
    assert len({derive(*each) for each in axes}) == len(axes)
