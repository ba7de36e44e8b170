"""What is stored, tabled and drawn of layer drift."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from drift_rows import by_layer, rows, song_cka
from local_towers import saved_locally
from PIL import Image
from tiny_towers import IMAGE_SIZE

from carryover.bench.analyses.drift import (
    COLUMNS,
    draw_figure_2b,
    draw_figure_2c,
    drift_sheet,
    drift_table,
    findings,
)
from carryover.bench.backbones import drift
from carryover.bench.backbones.arch_files import find_arch
from carryover.bench.backbones.archs import ARCHS, OTHER_ACTIVATION
from carryover.bench.backbones.drift_names import POOLED
from carryover.bench.engine import drift_runs
from carryover.bench.engine.options import Options
from carryover.bench.engine.session import Session
from carryover.bench.errors import UserError
from carryover.bench.records import drift_files
from carryover.bench.records.reading import AVERAGE
from carryover.bench.render import sheets

MICRO_SETS = ("micro_shapes", "micro_land", "micro_counting")


# ---- stored, tabled, drawn -------------------------------------------------------------------------------------------


def session(out, **changes):
    arch = replace(ARCHS["micro"], **changes)
    return Session(Options(arch, "cpu", str(out), str(out / "cache")))


@pytest.fixture(scope="module")
def micro(tmp_path_factory):
    """(results/micro, what ``measure_all`` returned for it)"""
    out = tmp_path_factory.mktemp("drift")
    return out / "micro", drift_runs.measure_all(session(out), MICRO_SETS)


def test_micro_compares_its_update_and_two_controls(micro):
    assert [(m["pair"], m["kind"]) for m in micro[1]] == [
        ("new", "update"),
        (OTHER_ACTIVATION, "control"),
        ("unrelated", "control"),
    ]
    change = {m["pair"]: by_layer(m, "relative") for m in micro[1]}
    for layer in map(str, range(1, 7)):
        assert change[OTHER_ACTIVATION][layer] < change["new"][layer] < change["unrelated"][layer]
    weights = {m["pair"]: {r["layer"]: r for r in rows(m, "text", "parameters", kind="all")} for m in micro[1]}
    for layer in map(str, range(1, 7)):
        assert weights["new"][layer]["relative"] < 0.2 and weights["unrelated"][layer]["relative"] > 1
    assert drift_runs.class_prompts(session(micro[0]).data("micro_land"))[0].count("{") == 0


def test_the_table_is_made_again_from_the_store_alone(micro):
    folder, measured = micro
    again = drift_files.load_all(folder)
    assert again == json.loads(json.dumps(measured))
    table = drift_table(again)
    assert table.equals(drift_table(measured))
    assert tuple(table.columns) == COLUMNS
    assert not table.duplicated(["pair", "tower", "what", "layer", "kind", "dataset"]).any()
    line = table[(table["pair"] == "new") & (table["layer"] == "6") & (table["dataset"] == AVERAGE)].iloc[0]
    assert line["relative"] == by_layer(measured[0], "relative")["6"] and line["kind"] == "eot"
    assert drift_files.load_all(folder / "nowhere") == [] and drift_table([]).empty


def test_a_pair_is_measured_once_and_again_for_other_prompts(micro, monkeypatch):
    folder, measured = micro
    working = session(folder.parent)
    done = []
    monkeypatch.setattr(
        drift_runs, "measure", lambda *given: done.append(1) or {**drift.measure(*given), "measured": len(done)}
    )
    assert drift_runs.drift_of(working, "new", MICRO_SETS) == measured[0] and not done
    fewer = drift_runs.drift_of(working, "new", MICRO_SETS[:1])
    assert (
        len(done) == 1 and fewer["key"] != measured[0]["key"] and (folder / "drift" / f"{fewer['key']}.json").is_file()
    )
    assert drift_files.load_all(folder) == json.loads(json.dumps(measured))  # as the last measure_all left it
    path = folder / "drift" / f"{fewer['key']}.json"
    path.write_text(path.read_text()[:100])
    drift_runs.drift_of(working, "new", MICRO_SETS[:1])
    assert len(done) == 2


@pytest.mark.parametrize("forge", ["a number", "no digest", "another pair's file"])
def test_a_stored_pair_that_was_changed_is_refused_by_name_and_measured_again(tmp_path, forge):
    working, sets = session(tmp_path, controls={}), MICRO_SETS[:1]
    new, other = drift_runs.measure_all(working, sets)
    folder = tmp_path / "micro"
    path = folder / "drift" / f"{new['key']}.json"
    honest = path.read_text()
    stored = json.loads(honest)
    if forge == "a number":
        stored["text"]["features"][3]["relative"] *= 2
    elif forge == "no digest":
        del stored["sha256"]
    else:
        stored = json.loads((folder / "drift" / f"{other['key']}.json").read_text())
    path.write_text(json.dumps(stored))
    with pytest.raises(UserError) as caught:
        drift_files.load_all(folder)
    assert str(path) in str(caught.value) and "--suite drift" in str(caught.value) and "\n" not in str(caught.value)
    assert drift_runs.measure_all(working, sets)[0]["text"] == new["text"]
    again = json.loads(path.read_text())
    assert (again["text"], again["sha256"]) == (json.loads(honest)["text"], json.loads(honest)["sha256"])
    assert len(drift_files.load_all(folder)) == 2


def test_a_pair_measured_by_another_version_is_left_out_and_measured_again(tmp_path, monkeypatch):
    working, sets = session(tmp_path, controls={}), MICRO_SETS[:1]
    monkeypatch.setattr(drift_runs, "DRIFT_VERSION", 2)  # whose CKA was another number
    drift_runs.measure_all(working, sets)
    kept = drift_files.load_all(tmp_path / "micro")
    assert all("another version" in each["left_out"] and "--suite drift" in each["left_out"] for each in kept)
    assert drift_table(kept).empty and drift_sheet(drift_table(kept), kept).remarks
    monkeypatch.undo()
    assert len(drift_runs.measure_all(working, sets)) == 2
    assert not any("left_out" in each for each in drift_files.load_all(tmp_path / "micro"))


def test_a_control_that_cannot_be_had_is_left_out_and_named(tmp_path):
    gone = replace(ARCHS["micro"].controls["unrelated"], weights=str(tmp_path / "gone.safetensors"))
    measured = drift_runs.measure_all(session(tmp_path, controls={"unrelated": gone}), MICRO_SETS[:1])
    assert "gone.safetensors" in measured[-1]["left_out"] and len(measured) == 3
    again = drift_files.load_all(tmp_path / "micro")
    assert again == json.loads(json.dumps(measured))
    assert any("Unrelated is left out" in remark for remark in drift_sheet(drift_table(again), again).remarks)
    assert set(drift_table(again)["pair"]) == {"new", OTHER_ACTIVATION}
    draw_figure_2c(drift_table(again), again)
    with pytest.raises(UserError):
        drift_runs.measure_all(session(tmp_path, new=gone, controls={}), MICRO_SETS[:1])


def test_only_training_pictures_are_looked_at(tmp_path):
    chosen = drift_runs.sample_pictures(session(tmp_path), (*MICRO_SETS, "micro_generic_v2"))
    assert set(chosen) == set(MICRO_SETS)  # the last has test pictures alone
    assert all("/train/" in key for split in chosen.values() for key in split.keys)
    assert drift_runs.PICTURES <= sum(map(len, chosen.values())) < drift_runs.PICTURES + len(chosen)


def test_two_vision_transformers_are_compared_over_pictures_through_their_own_transforms(tmp_path):
    models = [saved_locally(tmp_path / name, seed, True, mean=[0.1 * seed] * 3) for seed, name in ((3, "a"), (4, "b"))]
    text = '[base]\nmodel = "local-dir:a"\n[new]\nmodel = "local-dir:b"\n'
    (tmp_path / "pair.toml").write_text(text)
    arch = find_arch(str(tmp_path / "pair.toml"))
    working = Session(Options(arch, "cpu", str(tmp_path), str(tmp_path / "cache")))
    measured = drift_runs.measure_all(working, MICRO_SETS)
    chosen = drift_runs.sample_pictures(working, MICRO_SETS)
    images = [image for split in chosen.values() for image in split.read(range(len(split)))]
    expected = []
    for model, seed in zip(models, (3, 4), strict=True):
        pixels = np.stack([np.asarray(image.resize((IMAGE_SIZE, IMAGE_SIZE), Image.BICUBIC)) for image in images])
        pixels = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - 0.1 * seed) / 0.5
        with torch.no_grad():
            expected.append(model.eval().encode_image(pixels).numpy())
    found = rows(measured[0], "vision", "features", dataset=POOLED)
    assert [row["layer"] for row in found] == ["0", "1", "2", "projected"] and found[0]["cka"] is None
    assert found[-1]["count"] == len(images)
    assert found[-1]["absolute"] == pytest.approx(np.abs(expected[1] - expected[0]).mean(), rel=1e-4)
    assert found[-1]["cka"] == pytest.approx(song_cka(*map(np.float64, expected)), rel=1e-4)
    kept = drift_files.load_all(tmp_path / arch.id)
    sheet = sheets.sheet_markdown(drift_sheet(drift_table(kept), kept))
    assert "Vision features at the class token" in sheet and "Vision parameters" in sheet


def test_the_sheet_shows_the_tables_numbers_and_what_was_found(micro):
    measured = micro[1]
    sheet = drift_sheet(drift_table(measured), measured)
    text = sheets.sheet_markdown(sheet)
    value = by_layer(measured[0], "relative")["6"]
    assert f"{100 * value:.2f}" in text and "Other activation" in text and "Unrelated" in text
    assert sheets.sheet_latex(sheet).count(r"\begin{tabular}") == len(sheet.blocks)
    found = findings(drift_table(measured), measured)
    assert len(found) == 2 and all(line.startswith("Update: text ") for line in found)
    assert found[1].endswith("more in every block than in the one before.")
    wobbly = copy.deepcopy(measured[:1])
    for row in wobbly[0]["text"]["features"]:
        row["relative"] = 1.0
    assert "in 0 of 5 blocks" in findings(drift_table(wobbly), wobbly)[1]


def test_every_number_of_figure_2b_is_in_the_sheet_and_parts_without_a_table_are_named(micro):
    sheet = drift_sheet(drift_table(micro[1]), micro[1])
    axes = draw_figure_2b(drift_table(micro[1]), micro[1]).axes
    for drawn, how, scale in ((axes[0], "relative", 100), (axes[1], "absolute", 1)):
        (block,) = (b for b in sheet.blocks if b.title.text.startswith(f"Text parameters, {how} change of each block"))
        for label in ("Update", "Unrelated"):
            line = next(line for line in drawn.lines if line.get_label() == label)
            column = [float(row[block.header.index(label)].text) for row in block.rows]
            assert np.allclose(column, scale * line.get_ydata(), rtol=6e-3)
    (said,) = (line for line in sheet.remarks if "drift.csv alone" in line)
    table = drift_table(micro[1])
    assert said.startswith("Unrelated: the vision") and set(table[table["tower"] == "vision"]["pair"]) == {"unrelated"}
    assert all(part in said for part in table[table["tower"] == "vision"]["layer"])


def test_the_figures_draw_the_tables_numbers(micro):
    table = drift_table(micro[1])
    text = table[(table["tower"] == "text") & (table["pair"] == "new")]
    for draw, rows_of in (
        (draw_figure_2b, text[(text["kind"] == "all")]),
        (draw_figure_2c, text[(text["what"] == "features") & (text["dataset"] == AVERAGE)]),
    ):
        figure = draw(drift_table(micro[1]), micro[1])
        figure.draw_without_rendering()
        expected = rows_of[rows_of["layer"].str.isdigit()]
        for axes, value in zip(figure.axes, ("relative", "absolute"), strict=True):
            line = next(line for line in axes.lines if line.get_label() == "Update")
            assert np.allclose(line.get_ydata(), expected[value])
        names = [text.get_text() for text in figure.legends[0].get_texts()]
        assert names[0] == "Update" and names[2] == "Unrelated" and names[1].startswith("Other activation")
    draw_figure_2b(drift_table([]), []), draw_figure_2c(drift_table([]), [])
