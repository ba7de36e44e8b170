"""One small micro experiment through all suites: plug-ins on shifted sets, shared runs, what check finds."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from references import encode_prompts
from safetensors.torch import load_file

from carryover import datasets
from carryover.bench.backbones import loading
from carryover.bench.backbones.archs import ARCHS
from carryover.bench.cli import main as cli_main
from carryover.bench.host.identity import sealed

pytestmark = pytest.mark.long

SHORT = ("--limit", 2, "--shots", 1, "--seeds", 1, "--views", 1, "--jobs", 1, "--device", "cpu", "--set", "*.steps=2")
SHORT += ("linear-probe.max_iter=10", "linear-probe.search_steps=1")
ROWS = {  # the tables' ids of methods with SHORT's options
    "coop": "coop[steps=2]",
    "contcoop": "contcoop[steps=2]",
    "linear-probe": "linear-probe[max_iter=10,search_steps=1]",
}
SHIFTED = ("--suite", "main", "ood", "--datasets", "micro_generic", "--methods", "zs-clip", "linear-probe", "coop")
ABLATIONS = ("components", "lambda", "heads", "condition", "context_length", "layers")
ABLATED = ("--suite", "main", *ABLATIONS, "drift", "--datasets", "micro_textures")
ABLATED += ("--methods", "zs-clip", "coop", "contcoop")
TARGETS = ("micro_generic_v2", "micro_generic_sketch", "micro_generic_hard", "micro_generic_rendition")


def call(capsys, *argv):
    """(exit status, what was said, white space made single)."""
    capsys.readouterr()
    status = cli_main.main([str(part) for part in argv])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return status, " ".join((out + err).split())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(results, cache) of a finished experiment; tests copy the results before they change them."""
    out, cache = tmp_path_factory.mktemp("suites") / "out", tmp_path_factory.mktemp("cache")
    for part in (SHIFTED, ABLATED):
        assert cli_main.main([str(word) for word in (*part, *SHORT, "--out", out, "--cache", cache)]) == 0
    return out / "micro", cache


@pytest.fixture
def again(finished, tmp_path, capsys, tables_alone):
    """``again(*argv)``: a command on a copy of the finished results, ``again.folder``."""
    out = tmp_path / "out"
    shutil.copytree(finished[0], out / "micro")

    def command(*argv, jobs=1):
        return call(capsys, *argv, *SHORT, "--jobs", jobs, "--out", out, "--cache", finished[1])

    command.folder = out / "micro"
    return command


def records(folder, **fixed):
    """Stored records with these settings; a name that is no setting of a run is one of its options."""
    found = [json.loads(path.read_text()) for path in sorted((folder / "runs").glob("*.json"))]
    return [r for r in found if all(r["run"].get(k, r["run"]["config"].get(k)) == v for k, v in fixed.items())]


def rows(folder, name):
    with (folder / "tables" / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def row(folder, name, **keys):
    (found,) = [r for r in rows(folder, name) if all(r[k] == ROWS.get(v, v) for k, v in keys.items())]
    return found


def stamps(folder):
    kinds = ("runs", "plugins", "predictions")
    return {path: path.stat().st_mtime_ns for kind in kinds for path in (folder / kind).iterdir()}


# ---- what is there ---------------------------------------------------------------------------------------------------


def test_every_suite_has_its_tables_and_figures_and_the_report_shows_them(finished):
    folder, _ = finished
    text = (folder / "report.md").read_text()
    for name in {*ARCHS["micro"].suites} - {"maps"}:
        assert all((folder / "tables" / f"{name}.{ending}").stat().st_size for ending in ("csv", "md", "tex"))
    for name in ("figure2a", "figure2b", "figure2c", "figure2d", "figure4", "lambda"):
        assert (folder / "figures" / f"{name}.svg").is_file() and f"figures/{name}.svg" in text
    for source in ("Table 3", "Table 4", "Table 5", "Table 6", "Table 7", "Figure 4"):
        assert f"({source})" in text.replace("\\", "")
    assert len(rows(folder, "layers")) == 1 + 2 * 6 and len(rows(folder, "lambda")) == 5
    assert len(rows(folder, "ood")) == 2 * 3 * (1 + 4 + 1)
    assert not [r for name in ABLATIONS for r in rows(folder, name) if r["seeds"] != "1"]


def test_plugins_belong_to_trained_runs_and_predictions_to_all(finished):
    folder, _ = finished
    stored = records(folder)
    assert len(stored) == (3 + 1 + 3 * 4) + (3 + 3 + 3 + 4 + 1 + 2 + 11)  # lambda's 0.0 is the components' yes / no
    trained = {r["key"] for r in stored if not r["run"]["test"]}
    assert {path.stem for path in (folder / "plugins").iterdir()} == trained
    assert {path.stem for path in (folder / "predictions").iterdir()} == {r["key"] for r in stored}
    assert {r["trained"] for r in stored if r["run"]["test"]} == {
        r["key"]
        for r in records(folder, dataset="micro_generic", test="")
        if r["run"]["config"].get("single_template", True)
    }


def test_depth_0_is_coops_own_run_and_number(finished):
    folder, _ = finished
    (one,) = records(folder, dataset="micro_textures", method="coop", layer=0, start="fixed")
    own = row(folder, "layers", layer="0", start="fixed")
    main = row(folder, "main", dataset="micro_textures", method="coop")
    assert {k: own[k] for k in ("base", "new", "h")} == {k: main[k] for k in ("base", "new", "h")}
    assert float(own["base"]) == pytest.approx(one["targets"]["base"]["accuracy"], abs=1e-4)


def test_a_row_of_several_tables_is_one_record(finished):
    folder, _ = finished
    assert len(records(folder, dataset="micro_textures", method="contcoop", lam=0.0, attention=True)) == 1
    numbers = {
        tuple(found[k] for k in ("base", "new", "h"))
        for found in (
            row(folder, "main", dataset="micro_textures", method="contcoop"),
            row(folder, "components", attention="yes", distillation="yes"),
            row(folder, "lambda", **{"lambda": "1.0"}),
            row(folder, "heads", heads="1"),
            row(folder, "condition", condition="[class]"),
            row(folder, "context_length", context_length="16"),
        )
    }
    assert len(numbers) == 1


# ---- accuracy on a shifted set, anew ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def by_hand():
    """``by_hand(role, set)``: model, class names, image features by open_clip of the pictures that --limit 2 leaves."""
    loaded = {role: loading.load(tower) for role, tower in ARCHS["micro"].towers.items()}

    def features(role, id):
        data, counts, kept = datasets.load(id), {}, []
        for index, label in enumerate(data.test.labels.tolist()):
            counts[label] = counts.get(label, 0) + 1
            kept += [index] * (counts[label] <= 2)
        backbone = loaded[role]
        pixels = torch.stack([backbone.preprocess(image) for image in data.test.read(kept)])
        with torch.no_grad():
            return backbone, data, backbone.model.encode_image(pixels), data.test.labels[kept]

    return features


def stored_outcome(folder, role, **fixed):
    """(record, predicted, true labels, the plug-in's tensors)."""
    (one,) = records(folder, **fixed)
    tensors = load_file(folder / "predictions" / f"{one['key']}.safetensors")
    plugin = load_file(folder / "plugins" / f"{one['trained']}.safetensors")
    return one, tensors[f"{role}.predicted"].numpy(), tensors[f"{role}.label"].numpy(), plugin


@pytest.mark.parametrize("role", ["base", "new"])
@pytest.mark.parametrize("id", ["micro_generic_sketch", "micro_generic_hard"])
@pytest.mark.parametrize("method", ["coop", "zs-clip", "linear-probe"])
def test_accuracy_on_a_shifted_set_is_that_of_the_stored_plugin(finished, by_hand, method, id, role):
    folder, _ = finished
    backbone, data, x, labels = by_hand(role, id)
    one, predicted, truth, plugin = stored_outcome(folder, role, method=method, test=id)
    if method == "linear-probe":
        names = datasets.load("micro_generic").classnames
        assert len(set(names)) == len(names) == 48 and len(data.classnames) in (48, 20)
        own = [names.index(name) for name in data.classnames]
        scores = x.numpy() @ plugin["weight"].numpy()[own].T + plugin["bias"].numpy()[own]
    else:
        tokenizer = backbone.text.tokenizer
        with torch.no_grad():
            if method == "coop":
                weights = encode_prompts(backbone.model, tokenizer, data.classnames, plugin["context"])
            else:
                assert not plugin
                weights = backbone.model.encode_text(tokenizer([f"a photo of a {name}." for name in data.classnames]))
        unit = [part.numpy() / np.linalg.norm(part.numpy(), axis=1, keepdims=True) for part in (x, weights)]
        scores = unit[0] @ unit[1].T
    assert scores.shape == (2 * len(data.classnames), len(data.classnames))
    assert truth.tolist() == list(labels)
    assert predicted.tolist() == scores.argmax(1).tolist()
    shown = row(folder, "ood", method=method, backbone=role, dataset=id)
    assert float(shown["accuracy"]) == pytest.approx(100 * np.mean(scores.argmax(1) == np.asarray(labels)), abs=1e-4)


def test_the_average_is_over_the_four_shifted_sets_alone(finished):
    folder, _ = finished
    for method in ("coop", "linear-probe"):
        for role in ("base", "new"):
            four = [float(row(folder, "ood", method=method, backbone=role, dataset=id)["accuracy"]) for id in TARGETS]
            shown = row(folder, "ood", method=method, backbone=role, dataset="average_of_targets")
            assert float(shown["accuracy"]) == pytest.approx(np.mean(four), abs=2e-4)


# ---- once more -------------------------------------------------------------------------------------------------------


def test_a_second_call_does_nothing(again):
    before = stamps(again.folder)
    status, said = again(*SHIFTED)
    assert status == 0 and "0 runs done, 16 were done before, 0 failed" in said
    assert stamps(again.folder) == before


def test_without_its_plugin_a_run_and_its_shifted_sets_are_done_again_in_two_processes_with_the_same_tables(again):
    (one,) = records(again.folder, dataset="micro_generic", method="coop", test="")
    mine = {r["key"] for r in records(again.folder, dataset="micro_generic", method="coop")}
    plugin = again.folder / "plugins" / f"{one['key']}.safetensors"
    before, bits, tables = stamps(again.folder), plugin.read_bytes(), folder_bytes(again.folder / "tables")
    plugin.unlink()
    status, said = again(*SHIFTED, jobs=2)
    assert status == 0 and "5 runs done, 11 were done before, 0 failed" in said
    assert {path.stem for path, stamp in stamps(again.folder).items() if before[path] != stamp} == mine
    assert len(mine) == 5 and plugin.read_bytes() == bits
    assert folder_bytes(again.folder / "tables") == tables


def folder_bytes(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_order_of_methods_changes_no_table(again):
    tables = folder_bytes(again.folder / "tables")
    shutil.rmtree(again.folder / "tables")
    for one in records(again.folder, method="zs-clip", dataset="micro_generic"):
        (again.folder / "runs" / f"{one['key']}.json").unlink()
    asked = ("--suite", "ood", "main", "--datasets", "micro_generic", "--methods", "coop", "zs-clip")
    status, said = again(*asked)
    assert status == 0 and "6 runs done, 5 were done before" in said
    assert folder_bytes(again.folder / "tables") == tables


def test_a_failed_training_fails_its_shifted_sets_with_a_line_that_says_so(finished, tmp_path, capsys):
    argv = (
        "--suite",
        "ood",
        "--datasets",
        "micro_generic",
        "--methods",
        "zs-clip",
        "coop",
        *SHORT,
        "--set",
        "coop.layer=9",
    )
    status, said = call(capsys, *argv, "--out", tmp_path / "out", "--cache", finished[1])
    assert status == 1 and "5 runs done, 0 were done before, 5 failed; 10 planned" in said
    folder = tmp_path / "out" / "micro"
    (cause,) = records(folder, method="coop", test="")
    assert "layer 9" in cause["error"]
    for one in records(folder, method="coop"):
        assert one["status"] == "failed" and one["error"] in said
        if one["run"]["test"]:
            assert "left no plug-in" in one["error"] and cause["key"] in one["error"]
    failed = "coop[layer=9,steps=2]"
    assert row(folder, "ood", method=failed, backbone="base", dataset="micro_generic_v2")["accuracy"] == ""
    assert f"{failed} on micro_generic_v2" in (folder / "tables" / "ood.md").read_text().replace("\\", "")
    status, said = call(capsys, *argv, "--out", tmp_path / "out", "--cache", finished[1])
    assert status == 1 and "0 runs done, 5 were done before, 5 failed" in said


# ---- check -----------------------------------------------------------------------------------------------------------


def test_check_agrees_with_what_was_written(again):
    status, said = again("check")
    assert status == 0 and "43 records checked" in said and "0 differences" in said


def forge(folder, name, column, **keys):
    """One number of a table made a little larger."""
    path, table = folder / "tables" / f"{name}.csv", rows(folder, name)
    (one,) = [r for r in table if all(r[k] == ROWS.get(v, v) for k, v in keys.items())]
    one[column] = f"{float(one[column]) * 1.01 + 0.05:.4f}"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, one)
        writer.writeheader()
        writer.writerows(table)


def test_check_names_each_forged_cell_and_no_other(again):
    first = rows(again.folder, "drift")[0]
    keys = {k: first[k] for k in ("pair", "tower", "what", "layer", "kind", "dataset")}
    forge(again.folder, "ood", "accuracy", method="coop", backbone="new", dataset="micro_generic_hard")
    forge(again.folder, "layers", "new", layer="4", start="rows")
    forge(again.folder, "lambda", "h", **{"lambda": "0.7"})
    forge(again.folder, "drift", "norm_ratio", **keys)
    status, said = again("check")
    assert status == 1 and "4 differences" in said
    for line in (
        "ood.csv: accuracy of ('coop[steps=2]', 'new', 'micro_generic_hard')",
        "layers.csv: new of ('micro_textures', '4', 'rows')",
        "lambda.csv: h of ('micro_textures', '0.7')",
        f"drift.csv: norm_ratio of {tuple(keys.values())!r}",
    ):
        assert line in said


def rewrite(folder, record):
    """Forged with care: the record's own sha256 is made anew."""
    content = {name: value for name, value in record.items() if name != "sha256"}
    (folder / "runs" / f"{record['key']}.json").write_text(json.dumps(sealed(content)))


def test_check_names_a_forged_record_its_shifted_set_and_the_cells_that_report_makes_of_it(again):
    (one,) = records(again.folder, method="coop", test="micro_generic_hard")
    one["targets"]["new"].update(correct=40, accuracy=100.0)
    rewrite(again.folder, one)
    status, said = again("check")
    assert status == 1 and "micro_generic → micro_generic_hard, coop[steps=2], seed 1) new: accuracy is 100.0" in said
    assert again("report")[0] == 0
    assert row(again.folder, "ood", method="coop", backbone="new", dataset="micro_generic_hard")["accuracy"] == "100.0"
    status, said = again("check")
    assert status == 1 and "accuracy of ('coop[steps=2]', 'new', 'micro_generic_hard') is '100.0'" in said
    assert "('coop[steps=2]', 'new', 'average_of_targets')" in said


def test_check_finds_records_that_were_given_each_others_rows(again):
    """Their numbers are those of their predictions; only the key tells that the row is not theirs."""
    low, high = (records(again.folder, method="contcoop", lam=lam)[0] for lam in (0.3, 0.7))
    low["run"]["config"]["lam"], high["run"]["config"]["lam"] = 0.7, 0.3
    rewrite(again.folder, low), rewrite(again.folder, high)
    assert again("report")[0] == 0
    status, said = again("check")
    assert status == 1 and low["key"] in said and high["key"] in said and "not the key of its run" in said


def test_check_finds_predictions_of_another_run(again):
    one, other = (records(again.folder, method="coop", layer=layer, start="rows")[0] for layer in (1, 2))
    predictions = again.folder / "predictions"
    shutil.copy(predictions / f"{other['key']}.safetensors", predictions / f"{one['key']}.safetensors")
    one["targets"] = other["targets"]
    rewrite(again.folder, one)
    assert again("report")[0] == 0
    status, said = again("check")
    assert status == 1 and f"predictions of run {other['key']}" in said


def test_check_finds_a_table_that_no_record_is_of(again):
    for one in records(again.folder, method="contcoop", dataset="micro_textures"):
        if one["run"]["config"]["heads"] > 1:
            (again.folder / "runs" / f"{one['key']}.json").unlink()
    status, said = again("check")
    assert status == 1 and "heads.csv: no record here is of this table" in said
    assert again("report")[0] == 0 and not (again.folder / "tables" / "heads.csv").exists()
    status, said = again("check")
    differs = [line for line in said.splitlines() if line.startswith("differs ")]
    assert status == 1 and differs and all("was planned and recorded" in line for line in differs), said


def test_drift_alone_can_be_reported_and_checked(again):
    for kind in ("runs", "tables", "plugins", "predictions", "plans"):
        shutil.rmtree(again.folder / kind)
    assert again("report")[0] == 0
    assert again("check")[0] == 0
    forge(again.folder, "drift", "norm_ratio", pair="new", tower="text", layer="0", kind="positions", dataset="")
    assert again("check")[0] == 1
