"""Plug-in files that ``evaluate`` measured, as rows beside the runs' own: an imported head and a run's own plug-in."""

import json
import shutil

import pandas as pd
import pytest
from command_line import call, mistake
from worlds import made, quietly

from carryover.bench.host.identity import sealed, unsealed

METHODS = ("zs-clip", "linear-probe", "coop")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """With the linear probe measured on both towers, and ported and measured, CoOp on the update alone."""
    world = made(tmp_path_factory.mktemp("world"), methods=METHODS)
    probe, coop, to = world.plugin("linear-probe"), world.plugin("coop"), world.home / "ported.safetensors"
    common = ["--cache", world.out / "cache", "--device", "cpu", "--out", world.out]
    carried = ["--old", world.backbone("a"), "--backbone", world.backbone("b"), "--images", world.home / "vehicles"]
    quietly("port", "--plugin", probe, *carried, "--to", to, *common)
    for plugin, name in ((probe, "a"), (probe, "b"), (to, "b"), (coop, "b")):
        quietly("evaluate", "--plugin", plugin, "--backbone", world.backbone(name), "--dataset", world.data(), *common)
    quietly("evaluate", "--plugin", probe, *carried, *common)
    limited = ["--backbone", world.backbone("a"), "--dataset", world.data(), "--limit", 1]
    quietly("evaluate", "--plugin", coop, *limited, *common)
    return world


def compared(capsys, world, *words, to="found.csv"):
    argv = ["compare", *words, "--arch", world.arch, "--out", world.out, "--to", world.home / to]
    status, out, err = call(capsys, *argv)
    assert status == 0, err
    return (world.home / to).read_text().splitlines(), err


def accuracies(world, method):
    return {role: target["accuracy"] for role, target in world.record(method)["targets"].items()}


def test_a_file_is_a_row_with_what_it_or_the_file_that_it_was_ported_from_reached_on_the_base(capsys, world):
    _, said = compared(capsys, world, world.out / "evaluations")
    scores = pd.read_csv(world.home / "found-scores.csv")
    rows = scores[scores["source"] == "theirs"].set_index("method")
    own, stored = accuracies(world, "linear-probe"), evaluations(world)
    (ported,) = (one for one in stored if one["plugin"]["file"] == "ported.safetensors")
    name = world.plugin("linear-probe").name
    new = {f"Linear Probe, {name} (theirs)": own["new"]}
    new |= {"Linear Probe by Procrustes, ported.safetensors (theirs)": ported["accuracy"]}
    assert set(rows.index) == set(new)
    for method, accuracy in new.items():
        assert (rows.loc[method, "base"], rows.loc[method, "new"]) == pytest.approx((own["base"], accuracy))
    differences = pd.read_csv(world.home / "found.csv")
    probe = differences[
        (differences["ours"].str.startswith("linear-probe")) & differences["theirs"].str.contains(name, regex=False)
    ]
    assert len(probe) and (probe["difference"] == 0).all(), "the run's own plug-in differs by nothing from its run"
    assert (probe["compared"] == "by picture").all()
    for told in ("on the base too", "without labels there is no accuracy", "a trial with at most 1 pictures"):
        assert told in said


def evaluations(world):
    found = [json.loads(path.read_text()) for path in (world.out / "evaluations").glob("*.json")]
    return [one for one in found if "accuracy" in one and not one["limit"]]


def test_the_page_says_that_no_run_made_them(capsys, world):
    text = "\n".join(compared(capsys, world, world.out / "evaluations", to="found.md")[0])
    assert "plug-in files that the command evaluate measured; no run of this suite made them" in text


def test_files_by_name_make_the_same_rows_and_without_predictions_nothing_is_paired(capsys, world, tmp_path):
    whole, _ = compared(capsys, world, world.out / "evaluations")
    names = sorted((world.out / "evaluations").glob("*.json"))
    assert compared(capsys, world, *names)[0] == whole
    for path in names:
        shutil.copy(path, tmp_path)
    lines, said = compared(capsys, world, tmp_path)
    assert "nothing is paired by picture" in said and all("unpaired" in line for line in lines[1:])


def test_what_was_changed_or_is_of_other_backbones_is_refused_by_name(capsys, world, tmp_path):
    for path in (world.out / "evaluations").glob("*.json"):
        (tmp_path / path.name).write_text(path.read_text().replace('"accuracy": ', '"accuracy": 1'))
    flags = ["--arch", world.arch, "--out", world.out]
    assert "was changed since" in mistake(capsys, "compare", tmp_path, *flags)
    for path in (world.out / "evaluations").glob("*.json"):
        content = unsealed(json.loads(path.read_text()))
        content["backbone"] = {"label": "ViT-B-32/openai", "fingerprint": "0" * 64}
        (tmp_path / path.name).write_text(json.dumps(sealed(content)))
    line = mistake(capsys, "compare", tmp_path, *flags)
    assert "no row can be made" in line and "ViT-B-32/openai is neither base nor update" in line
    (tmp_path / "empty").mkdir()
    assert "Nothing is stored there" in mistake(capsys, "compare", tmp_path / "empty", *flags)
    (tmp_path / "bad.json").write_text("[1")
    assert "cannot be read" in mistake(capsys, "compare", tmp_path / "bad.json", *flags)
