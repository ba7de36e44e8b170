"""The commands port and map on tiny towers in folders: what they write, and what ``evaluate`` makes of it."""

import json
import shutil

import numpy as np
import pytest
from command_line import call, mistake
from local_towers import saved_locally
from PIL import Image
from tiny_caltech import picture
from worlds import SHORT, made, quietly, rewritten

from carryover.bench.cli import evaluate
from carryover.bench.engine.run_store import RunStore
from carryover.bench.host.tensor_files import read_tensors
from carryover.bench.plugins.format import read
from carryover.bench.ports.maps import Map

METHODS = ("zs-clip", "linear-probe", "clip-adapter", "coop", "cocoop", "clip-lora")
PORTED = ("linear-probe", "clip-adapter", "coop")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """As elsewhere, with a third tower of another width, pictures in no order, and the same plug-ins ported by runs."""
    world = made(tmp_path_factory.mktemp("world"), methods=METHODS)
    saved_locally(world.home / "narrow", 6, False, dim=24)
    rng = np.random.default_rng(5)
    for i in range(60):
        folder = world.home / "pictures" / ("deep/er" if i % 3 else "")
        folder.mkdir(parents=True, exist_ok=True)
        picture(rng, i % 4).save(folder / f"{i:02}.png")
    flags = ["--arch", world.arch, "--datasets", world.data(), "--methods", *PORTED, *SHORT, "--out", world.out]
    quietly("--suite", "maps", "--jobs", "1", "--device", "cpu", *flags)
    return world


def common(world, tmp_path):
    return ["--out", tmp_path / "out", "--cache", world.out / "cache", "--device", "cpu"]


def port(capsys, world, tmp_path, method, *more, to="ported.safetensors", plugin=None):
    argv = ["port", "--plugin", plugin or world.plugin(method), "--to", tmp_path / to, *more]
    status, out, err = call(capsys, *argv, *common(world, tmp_path))
    assert status == 0, err
    return out + err


def from_a_to(world, name="b", pictures="pictures"):
    old, new = world.backbone("a"), world.backbone(name)
    return ["--old", old, "--backbone", new, "--images", world.home / pictures]


def evaluated(capsys, world, tmp_path, file, name="b", data="animals"):
    argv = ["evaluate", "--json", "--plugin", file, "--backbone", world.backbone(name), "--dataset", world.data(data)]
    status, out, err = call(capsys, *argv, *common(world, tmp_path))
    assert status == 0, err
    return json.loads(out)


def record_of(world, method, id, anchors):
    """(key, record) of the ported run."""
    for path in (world.out / "pair" / "runs").glob("*.json"):
        record = json.loads(path.read_text())
        run = record["run"]
        if (run["method"], run.get("port"), run.get("anchors")) == (method, id, anchors) and not run.get("count"):
            return record
    raise AssertionError(f"no run {method}, {id}, {anchors}")


def support_of(world, to):
    """The few-shot pictures of the runs, in a folder."""
    (manifest,) = (world.out / "pair" / "splits").glob("*2shot-seed1-train.jsonl")
    for number, line in enumerate(manifest.read_text().splitlines()):
        source = world.home / "animals" / json.loads(line)["key"].partition("#")[0]
        to.mkdir(exist_ok=True)
        shutil.copy(source, to / f"{number}{source.suffix}")


@pytest.mark.parametrize("id", ["procrustes", "linear", "delta"])
@pytest.mark.parametrize("method", PORTED)
def test_what_is_ported_from_a_folder_is_evaluated_as_the_run_that_ported_it_over_the_same_pictures(
    capsys, world, tmp_path, method, id
):
    record = record_of(world, method, id, "support")
    support_of(world, tmp_path / "support")
    more = ["--old", world.backbone("a"), "--backbone", world.backbone("b"), "--images", tmp_path / "support"]
    said = port(capsys, world, tmp_path, method, *more, "--port", id, "--dataset", world.data())
    found = evaluated(capsys, world, tmp_path, tmp_path / "ported.safetensors")
    theirs, _ = read_tensors(RunStore(world.out, "pair").path("predictions", record["key"]))
    ours, _ = read_tensors(RunStore(tmp_path / "out", "evaluations").path("predictions", found["key"]))
    for part in ("predicted", "label"):
        assert ours[f"plugin.{part}"].tolist() == theirs[f"new.{part}"].tolist()
    assert found["accuracy"] == record["targets"]["new"]["accuracy"]
    assert "agreement: old and ported plug-in" in said and "fit: R²" in said and "a lead of" in said
    assert ("often carry over as they are" in said) == (method == "coop")
    told = found["plugin"]["ported"]
    assert told["anchors"]["count"] == 8 and "state" not in told


def test_pictures_in_any_folders_are_seen_and_their_number_can_be_bounded(capsys, world, tmp_path):
    said = port(capsys, world, tmp_path, "linear-probe", *from_a_to(world))
    assert "fitted on 60 pictures of pictures" in said and "evaluate --plugin" in said
    port(capsys, world, tmp_path, "linear-probe", *from_a_to(world), "--count", 20, to="fewer.safetensors")
    port(capsys, world, tmp_path, "linear-probe", *from_a_to(world), "--count", 20, to="again.safetensors")
    assert read(tmp_path / "fewer.safetensors").ported["anchors"]["count"] == 20
    assert (tmp_path / "fewer.safetensors").read_bytes() == (tmp_path / "again.safetensors").read_bytes()
    few = port(capsys, world, tmp_path, "linear-probe", *from_a_to(world), "--count", 3, to="three.safetensors")
    assert "3 pictures for 4 classes are too few" in few


@pytest.mark.parametrize("method", PORTED)
def test_a_backbone_of_another_width_is_ported_to_and_evaluated(capsys, world, tmp_path, method):
    port(capsys, world, tmp_path, method, *from_a_to(world, "narrow"), "--dataset", world.data())
    found = evaluated(capsys, world, tmp_path, tmp_path / "ported.safetensors", "narrow")
    assert found["count"] == 16 and found["plugin"]["ported"]["new"]["dim"] == 24
    argv = ["evaluate", "--plugin", tmp_path / "ported.safetensors", "--dataset", world.data(), "--dry-run"]
    assert call(capsys, *argv, "--backbone", world.backbone("narrow"))[0] == 0
    assert "joint width D: it was ported to 24" in mistake(capsys, *argv, "--backbone", world.backbone("b"))


def test_the_table_says_that_it_was_ported_and_how(capsys, world, tmp_path):
    port(capsys, world, tmp_path, "linear-probe", *from_a_to(world))
    argv = ["evaluate", "--plugin", tmp_path / "ported.safetensors", "--backbone", world.backbone("b")]
    status, out, _ = call(capsys, *argv, "--dataset", world.data(), *common(world, tmp_path))
    shown = " ".join(out.split())
    assert status == 0 and "ported by │ Procrustes, fitted on 60 pictures of pictures" in shown


def test_a_trained_port_leaves_an_ordinary_plugin_of_the_new_backbone(capsys, world, tmp_path):
    port(capsys, world, tmp_path, "clip-adapter", *from_a_to(world), "--port", "distill", "--dataset", world.data())
    header = read(tmp_path / "ported.safetensors").header
    assert header["version"] == 1 and len(header["trained_on"]) == 2
    found = evaluated(capsys, world, tmp_path, tmp_path / "ported.safetensors")
    assert any("port distill carried it" in line for line in found["warnings"])
    told = evaluate.table(found).columns[1].cells  # it was trained on the old one, whatever holds its weights now
    assert str([*told][1]).startswith(read(world.plugin("clip-adapter")).home["backbone"])


def test_a_context_that_fits_no_more_is_not_advised_to_be_tried_as_it_is(capsys, world, tmp_path):
    saved_locally(tmp_path / "wide", 5, False, width=48)
    given = [*from_a_to(world)[:2], "--backbone", f"local-dir:{tmp_path / 'wide'}", *from_a_to(world)[4:]]
    assert "often carry over" in port(capsys, world, tmp_path, "coop", *from_a_to(world, "narrow"))
    assert "often carry over" not in port(capsys, world, tmp_path, "coop", *given, to="wide.safetensors")
    argv = ["evaluate", "--plugin", world.plugin("coop"), *given[2:4], "--dataset", world.data(), "--dry-run"]
    told = mistake(capsys, *argv)
    assert "because it needs a text width W of 32 (its 'context')" in told and "has 48. To carry it over" in told


# ---- maps ------------------------------------------------------------------------------------------------------------


def fit_map(capsys, world, tmp_path, name="b", *more):
    to = tmp_path / f"map-{name}.safetensors"
    argv = ["map", "--base", world.backbone("a"), "--new", world.backbone(name), "--images", world.home / "pictures"]
    status, out, err = call(capsys, *argv, "--to", to, *more, *common(world, tmp_path))
    assert status == 0, err
    return to, out


def test_a_map_says_both_backbones_what_it_was_fitted_on_and_how_well(capsys, world, tmp_path):
    path, said = fit_map(capsys, world, tmp_path)
    fitted = Map.load(path)
    by_label = {"old": "local-dir:a", "new": "local-dir:b"}
    for side, label in by_label.items():
        assert fitted.header[side]["backbone"] == label and len(fitted.header[side]["fingerprint"]) == 64
    assert fitted.header["fitted_on"]["count"] == 60 and fitted.header["fitted_on"]["folder"] == "pictures"
    assert f"R² {fitted.score_:.3f}" in said and "60 pictures" in said and "port --plugin FILE --map" in said


@pytest.mark.parametrize("method", PORTED)
@pytest.mark.parametrize("name", ["b", "narrow"])
def test_a_plugin_behind_a_stored_map_is_what_porting_it_over_the_maps_pictures_gives(
    capsys, world, tmp_path, method, name
):
    path, _ = fit_map(capsys, world, tmp_path, name)
    data = ["--dataset", world.data()]
    old = [] if method == "linear-probe" else ["--old", world.backbone("a")]
    port(capsys, world, tmp_path, method, "--map", path, *old, *data, to="by-map.safetensors")
    port(capsys, world, tmp_path, method, *from_a_to(world, name), *data)
    by_map, by_pictures = (read_tensors(tmp_path / f"{one}.safetensors")[0] for one in ("by-map", "ported"))
    assert by_map.keys() == by_pictures.keys()
    assert all((by_map[one] == by_pictures[one]).all() for one in by_map)


def test_a_classifier_on_features_is_carried_by_a_map_without_loading_any_backbone(
    capsys, world, tmp_path, monkeypatch
):
    from carryover.bench.backbones import loading

    path, _ = fit_map(capsys, world, tmp_path)
    monkeypatch.setattr(loading, "load", lambda *given: pytest.fail("loaded"))
    port(capsys, world, tmp_path, "linear-probe", "--map", path)


def test_a_map_is_the_start_of_one_that_is_fitted_on_a_few_pictures(capsys, world, tmp_path):
    pair = ["--base", world.backbone("a"), "--new", world.backbone("b"), "--images", world.home / "pictures"]
    assert call(capsys, "map", *pair, "--to", tmp_path / "map.safetensors", *common(world, tmp_path))[0] == 0
    few, general = [*from_a_to(world), "--count", 12], Map.load(tmp_path / "map.safetensors")
    port(capsys, world, tmp_path, "linear-probe", *few, "--map", tmp_path / "map.safetensors", to="both.safetensors")
    port(capsys, world, tmp_path, "linear-probe", *few, to="alone.safetensors")
    both, alone = (read_tensors(tmp_path / f"{name}.safetensors")[0]["matrix"] for name in ("both", "alone"))
    near = [float((one / one.norm() * (general.matrix / general.matrix.norm())).sum()) for one in (both, alone)]
    assert near[0] > near[1], "it is nearer to the map than what a few pictures alone give"
    argv = ["port", "--plugin", world.plugin("linear-probe"), "--to", tmp_path / "x.safetensors", *few]
    said = mistake(capsys, *argv, "--map", tmp_path / "map.safetensors", "--port", "delta", *common(world, tmp_path))
    assert "--port delta takes none" in said


def test_a_map_of_another_pair_is_refused(capsys, world, tmp_path):
    path, _ = fit_map(capsys, world, tmp_path)
    argv = ["port", "--plugin", world.plugin("linear-probe"), "--map", path, "--to", tmp_path / "x.safetensors"]
    assert "local-dir:b of fingerprint" in mistake(capsys, *argv, "--backbone", world.backbone("narrow"))
    back = tmp_path / "back.safetensors"
    given = ["--base", world.backbone("b"), "--new", world.backbone("a"), "--images", world.home / "pictures"]
    assert call(capsys, "map", *given, "--to", back, *common(world, tmp_path))[0] == 0
    argv[argv.index("--map") + 1] = back
    assert "as its old backbone" in mistake(capsys, *argv)
    fitted = Map.load(path)
    old, new = fitted.header["old"], fitted.header["new"]
    bare = tmp_path / "bare.safetensors"
    argv[argv.index("--map") + 1] = bare
    for told in ({}, {"old": "a", "new": new}, {"old": {**old, "dim": 31}, "new": new}, {"old": {**old, "width": "x"}}):
        fitted.save(bare, **told)
        assert "does not say its old backbone" in mistake(capsys, *argv)
    fitted.save(bare, old=old, new=new, fitted_on="anything")
    assert call(capsys, *argv)[0] == 0 and read(tmp_path / "x.safetensors").ported["anchors"]["count"] == 60


# ---- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method, change, expected",
    [
        ("coop", {"--images": None}, "--images is missing"),
        ("coop", {"--images": "nowhere"}, "no folder 'nowhere'"),
        ("coop", {"--to": None}, "--to is missing"),
        ("coop", {"--to": "x.npz"}, "ends in .safetensors"),
        ("coop", {"--backbone": None}, "--backbone is missing"),
        ("coop", {"--port": "procrusts"}, "Did you mean 'procrustes'"),
        ("coop", {"--port": "reuse"}, "changes nothing"),
        ("coop", {"--old": None}, "cannot be found by that name"),
        ("coop", {"--count": "-1"}, "--count -1"),
        ("coop", {"--map": "x"}, "no file 'x'"),
        ("coop", {"--head": "x"}, "beside features in files"),
        ("cocoop", {}, "to predict. To carry it over: port --port distill or transmiter (docs/ports.md)"),
        ("clip-lora", {}, "cannot carry it. To carry it over: port --port theseus or transmiter"),  # labels: no gradfix
        ("zs-clip", {}, "nothing is learned"),
    ],
)
def test_a_mistake_ends_in_one_line(capsys, world, tmp_path, method, change, expected):
    given = dict(zip(*[iter(map(str, from_a_to(world)))] * 2, strict=True))
    given |= {"--plugin": str(world.plugin(method)), "--to": str(tmp_path / "x.safetensors"), **change}
    argv = [word for flag, value in given.items() if value is not None for word in (flag, value)]
    assert expected in mistake(capsys, "port", *argv)
    assert not (tmp_path / "x.safetensors").exists()


def test_wrong_sides_damaged_pictures_and_equal_pictures_end_in_one_line(capsys, world, tmp_path):
    argv = ["port", "--plugin", world.plugin("coop"), "--to", tmp_path / "x.safetensors", *common(world, tmp_path)]
    swapped = ["--old", world.backbone("b"), "--backbone", world.backbone("a"), "--images", world.home / "pictures"]
    assert "name that backbone by --old" in mistake(capsys, *argv, *swapped)
    bad = tmp_path / "bad"
    bad.mkdir()
    assert "no picture in" in mistake(capsys, *argv, *from_a_to(world, pictures=bad))
    for i in range(4):
        Image.new("RGB", (32, 32), (9, 9, 9)).save(bad / f"{i}.png")
    line = mistake(capsys, *argv, *from_a_to(world, pictures=bad))
    assert "the same" in line
    (bad / "0.png").write_bytes(b"no picture")
    assert "0.png" in mistake(capsys, *argv, *from_a_to(world, pictures=bad))


def test_the_plugin_itself_is_not_written_over(capsys, world, tmp_path):
    file = tmp_path / "mine.safetensors"
    file.write_bytes(world.plugin("coop").read_bytes())
    before = file.read_bytes()
    line = mistake(capsys, "port", "--plugin", file, *from_a_to(world), "--to", file)
    assert "is an input of this command" in line and file.read_bytes() == before


def test_a_plugin_whose_tensors_are_not_its_methods_is_refused(capsys, world, tmp_path):
    file = rewritten(world.plugin("coop"), tmp_path / "p.safetensors", lambda h: {**h, "method": "taskres"})
    line = mistake(capsys, "port", "--plugin", file, *from_a_to(world), "--to", tmp_path / "x.safetensors")
    assert str(file) in line and "unknown option 'context_length'" in line


def test_ports_are_listed_as_importing_them_tells(capsys, tmp_path):
    from carryover.bench.cli import port_files

    status, out, _ = call(capsys, "ls", "ports")
    listed = port_files.listed()
    assert status == 0 and all(one.id in out for one in listed)
    assert listed == [one for one in port_files.imported(()) if one.id in {each.id for each in listed}]
    assert {"procrustes", "linear", "delta", "texts", "distill"} <= {one.id for one in listed}
