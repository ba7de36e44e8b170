"""The command classify: what it says is what ``evaluate`` predicted, for whatever a method looks at."""

import csv
import json
from dataclasses import dataclass

import numpy as np
import open_clip
import pytest
import torch
from command_line import call, mistake
from local_towers import saved_locally
from PIL import Image
from safetensors.torch import load_file, save_file
from worlds import header_in, made, rewritten

from carryover import datasets
from carryover.bench.cli import flags
from carryover.bench.engine.run_store import RunStore
from carryover.bench.host.tensor_files import read_tensors
from carryover.bench.plugins import answers
from carryover.bench.plugins.answers import bound
from carryover.bench.plugins.format import read
from carryover.methods.base import Method, TrainConfig, register

METHODS = ("zs-clip", "linear-probe", "coop", "tpt", "maple")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return made(tmp_path_factory.mktemp("world"), methods=METHODS)


@pytest.fixture(autouse=True)
def where_its_backbones_lie(world, monkeypatch):
    """The plug-ins name theirs ``local-dir:a``."""
    monkeypatch.chdir(world.home)


def classify(capsys, *argv):
    status, out, err = call(capsys, "classify", "--device", "cpu", *argv)
    assert status == 0, err
    return out, err


def lines(capsys, *argv):
    return [json.loads(line) for line in classify(capsys, "--json", *argv)[0].splitlines()]


def reference(world, name):
    """open_clip's own model and transform."""
    model = open_clip.create_model(world.backbone(name), force_custom_text=True, require_pretrained=True).eval()
    config = open_clip.transform.PreprocessCfg(**model.visual.preprocess_cfg)
    return model, open_clip.transform.image_transform_v2(config, is_train=False)


def pictures_tested(world):
    """Paths of the test pictures of the folder, as ``evaluate`` has them."""
    folder = world.home / "animals"
    (id,) = datasets.folder.paths_of([world.data()])
    split = datasets.load(id, folders={id: str(folder)}).test
    return [folder / key.partition("#")[0] for key in split.keys]


@pytest.mark.parametrize(
    ("method", "name"), [("zs-clip", "b"), ("coop", "b"), ("linear-probe", "a"), ("tpt", "b"), ("maple", "b")]
)
def test_names_and_probabilities_are_those_that_evaluate_predicts(capsys, world, tmp_path, method, name):
    """Features, views and pixels; TPT's views are drawn by each picture's key, so it is given the folder."""
    common = ["--plugin", world.plugin(method), "--backbone", world.backbone(name)]
    argv = ["evaluate", "--json", *common, "--dataset", world.data(), "--out", tmp_path, "--device", "cpu"]
    status, out, err = call(capsys, *argv)
    assert status == 0, err
    stored, _ = read_tensors(RunStore(tmp_path, "evaluations").path("predictions", json.loads(out)["key"]))
    given = {line["picture"]: line["answers"] for line in lines(capsys, *common, world.home / "animals", "--top", 4)}
    paths, classes = pictures_tested(world), header_in(world.plugin(method))["shape"]["classnames"]
    assert len(given) == 48 and len(paths) == len(stored["plugin.predicted"]) > 10
    for path, best, sure in zip(paths, stored["plugin.predicted"], stored["plugin.confidence"], strict=True):
        found = given[str(path)]
        assert found[0]["probability"] == pytest.approx(float(sure), abs=2e-6)
        assert found[0]["name"] == classes[best] or found[1]["probability"] == pytest.approx(float(sure), abs=2e-6)
        values = [one["probability"] for one in found]
        assert values == sorted(values, reverse=True) and sum(values) == pytest.approx(1, abs=1e-5)


def test_a_linear_probe_says_the_softmax_of_open_clips_own_features(capsys, world):
    plugin, folder = world.plugin("linear-probe"), world.home / "animals"
    model, transform = reference(world, "b")
    paths = sorted(folder.glob("*/*.png"))[::5]
    with torch.no_grad():
        features = model.encode_image(torch.stack([transform(Image.open(path).convert("RGB")) for path in paths]))
    tensors = load_file(plugin)
    expected = torch.softmax(features @ tensors["weight"].T + tensors["bias"], -1)
    names = header_in(plugin)["shape"]["classnames"]
    found = lines(capsys, "--plugin", plugin, "--backbone", world.backbone("b"), *paths)
    for row, line in zip(expected, found, strict=True):
        said = {one["name"]: one["probability"] for one in line["answers"]}
        torch.testing.assert_close(torch.tensor([said[name] for name in names]), row, atol=1e-5, rtol=0)


def test_the_plugins_own_backbone_is_found_by_its_name_and_a_ported_ones_is_the_only_one(capsys, world, tmp_path):
    plugin, folder, to = world.plugin("linear-probe"), world.home / "animals", tmp_path / "ported.safetensors"
    assert lines(capsys, "--plugin", plugin, folder) == lines(
        capsys, "--plugin", plugin, folder, "--backbone", world.backbone("a")
    )
    argv = ["--plugin", plugin, "--backbone", world.backbone("b"), "--images", folder, "--to", to, "--out", tmp_path]
    assert call(capsys, "port", *argv, "--device", "cpu")[0] == 0
    assert lines(capsys, "--plugin", to, folder) == lines(
        capsys, "--plugin", to, folder, "--backbone", world.backbone("b")
    )
    line = mistake(capsys, "classify", "--plugin", to, folder, "--backbone", world.backbone("a"))
    assert "it was ported to" in line and "port the plug-in that it was made of" in line
    lost = rewritten(
        plugin, tmp_path / "lost.safetensors", lambda header: header["trained_on"][-1].update(backbone="Vit")
    )
    line = mistake(capsys, "classify", "--plugin", lost, folder)
    assert "own backbone is 'Vit', which cannot be found" in line and "name it by --backbone" in line
    saved_locally(tmp_path / "other", 9, True)
    known = {"backbone": world.backbone("a").replace(str(world.home / "a"), str(tmp_path / "other"))}
    moved = rewritten(plugin, tmp_path / "moved.safetensors", lambda header: header["trained_on"][-1].update(known))
    assert "trained on another" in classify(capsys, "--plugin", moved, folder)[1]


def test_a_picture_that_cannot_be_read_is_told_and_the_others_go_on(capsys, world, tmp_path, monkeypatch):
    plugin, folder = world.plugin("linear-probe"), tmp_path / "pictures"
    folder.mkdir()
    for i, path in enumerate(sorted((world.home / "animals").glob("*/*.png"))):
        (folder / f"{i:02}.png").write_bytes(path.read_bytes())
    whole = lines(capsys, "--plugin", plugin, folder)
    for i in (0, 7, 8, 30, 47):
        (folder / f"{i:02}.png").write_bytes((folder / f"{i:02}.png").read_bytes()[: 0 if i == 7 else 40])
    monkeypatch.setattr(answers, "BLOCK", 2)
    monkeypatch.setattr("carryover.bench.features.store.FeatureStore.__init__.__defaults__", ("fp32", 5, None, None))
    out, err = classify(capsys, "--json", "--plugin", plugin, folder)
    found = [json.loads(line) for line in out.splitlines()]
    assert [line["picture"] for line in found] == [line["picture"] for line in whole]
    assert [i for i, line in enumerate(found) if "error" in line] == [0, 7, 8, 30, 47]
    assert len(err.strip().splitlines()) == 5 and "07.png' cannot be read" in err
    for mine, theirs in zip(found, whole, strict=True):
        if "error" not in mine:
            assert [one["name"] for one in mine["answers"]] == [one["name"] for one in theirs["answers"]]
    out, _ = classify(capsys, "--plugin", plugin, folder, "--to", tmp_path / "o.csv", "--top", 2)
    assert "43 pictures of 48" in out
    with (tmp_path / "o.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 43 + 5 and sum(bool(row["error"]) for row in rows) == 5
    assert rows[1]["name"] == found[1]["answers"][0]["name"] and rows[1]["rank"] == "1"
    classify(capsys, "--plugin", plugin, folder, "--to", tmp_path / "o.jsonl")
    assert [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()] == found
    assert "none of 1 picture could be read" in call(capsys, "classify", "--plugin", plugin, folder / "07.png")[2]


def test_on_a_terminal_it_is_a_table_of_the_most_probable(capsys, world):
    path = next((world.home / "animals" / "ant").glob("*.png"))
    found = lines(capsys, "--plugin", world.plugin("linear-probe"), path)[0]["answers"]
    out, _ = classify(capsys, "--plugin", world.plugin("linear-probe"), path, "--top", 2)
    assert [one["name"] in out for one in found] == [True, True, False, False]
    assert f"{100 * found[0]['probability']:.1f} %" in out


def test_other_names_and_prompts_are_for_plugins_without_weights_of_each_classs_own(capsys, world, tmp_path):
    folder, names = world.home / "vehicles", tmp_path / "names.txt"
    names.write_text("tram\nred bus\n\ncat\n")
    out = lines(capsys, "--plugin", world.plugin("zs-clip"), folder, "--classes", names, "--template", "a {} here")
    assert {one["name"] for one in out[0]["answers"]} == {"tram", "red bus", "cat"}
    backbone, transform = reference(world, "a")
    with torch.no_grad():
        text = backbone.encode_text(
            open_clip.get_tokenizer("ViT-B-32")([f"a {n} here" for n in ("tram", "red bus", "cat")])
        )
        image = backbone.encode_image(transform(Image.open(out[0]["picture"]).convert("RGB"))[None])
        norm = torch.nn.functional.normalize
        expected = (backbone.logit_scale.exp() * norm(image, dim=-1) @ norm(text, dim=-1).T).softmax(-1)[0]
    said = {one["name"]: one["probability"] for one in out[0]["answers"]}
    assert [said[name] for name in ("tram", "red bus", "cat")] == pytest.approx(expected.tolist(), abs=1e-5)
    line = mistake(capsys, "classify", "--plugin", world.plugin("linear-probe"), folder, "--classes", names)
    assert "weights of its own for each class, and none for 2 of the 3 classes of names.txt" in line
    assert "one {}" in mistake(capsys, "classify", folder, "--plugin", world.plugin("zs-clip"), "--template", "{0.x}")


def test_prompts_come_from_the_header_or_are_a_guess_that_is_told(capsys, world, tmp_path):
    plugin, folder = world.plugin("zs-clip"), world.home / "animals"
    assert "the prompts of" in classify(capsys, "--plugin", plugin, folder)[1]
    assert "--template says others" in classify(capsys, "--plugin", plugin, folder)[1]
    assert not classify(capsys, "--plugin", world.plugin("linear-probe"), folder)[1]
    own = rewritten(plugin, tmp_path / "own.safetensors", lambda header: {**header, "templates": ["a {} here"]})
    out, err = classify(capsys, "--json", "--plugin", own, folder)
    assert not err
    assert out == classify(capsys, "--json", "--plugin", plugin, folder, "--template", "a {} here")[0]
    bad = rewritten(plugin, tmp_path / "bad.safetensors", lambda header: {**header, "templates": ["{:>9999999999}"]})
    assert "templates are no list of texts" in mistake(capsys, "classify", "--plugin", bad, folder)


@dataclass(frozen=True)
class HeadConfig(TrainConfig):
    outputs: str = "classes"


def test_a_head_of_scores_says_them_as_they_are(clean_registry, tiny, tmp_path):
    @register("score-head")
    class Head(Method):
        name, depth, Config = "Score head", "output", HeadConfig

        def __init__(self, config, shape):
            super().__init__(config, shape)
            self.weight = torch.nn.Parameter(torch.zeros(len(shape.classnames), shape.dim))

        @classmethod
        def tells_scores(cls, config):
            return config.outputs == "scores"

        def bind(self, backbone, classes):
            self.rows = self.class_rows(classes)

        def logits(self, x):
            return x @ self.weight[self.rows].T

    weight = torch.randn(2, tiny.base.dim, generator=torch.Generator().manual_seed(0))
    home = {"backbone": "tiny-base", "fingerprint": None, "width": 32, "dim": 32, "activation": "quick_gelu"}
    header = {"format": "carryover-plugin", "version": 1, "method": "score-head", "source": None, "shots": None}
    header |= {"config": {"outputs": "scores"}, "trained_on": [home], "dataset": "aesthetic", "seed": None}
    header |= {"shape": {"width": 32, "dim": 32, "classnames": ["beauty", "noise"], "support": 0}, "made_by": "test"}
    save_file({"weight": weight}, tmp_path / "head.safetensors", metadata={"plugin": json.dumps(header)})
    model = bound(read(tmp_path / "head.safetensors"), tiny.base)
    pixels = np.random.default_rng(0).integers(0, 255, (3, 40, 40, 3), dtype=np.uint8)
    images = [Image.fromarray(one) for one in pixels]
    names, scores = model.classify(images)
    features = tiny.base.encode_images(torch.stack([tiny.base.preprocess(one) for one in images]))
    np.testing.assert_allclose(scores, (features @ weight.T).detach().numpy(), atol=1e-5)
    assert model.scores and names == [("beauty", "noise")[i] for i in scores.argmax(1)]


def test_what_is_missing_or_not_there_is_one_line(capsys, world, tmp_path):
    plugin, folder = world.plugin("linear-probe"), world.home / "animals"
    assert "--plugin is missing" in mistake(capsys, "classify", folder)
    assert "pictures are missing" in mistake(capsys, "classify", "--plugin", plugin)
    assert "no picture or folder" in mistake(capsys, "classify", "--plugin", plugin, folder, tmp_path / "gone.png")
    (tmp_path / "empty").mkdir()
    assert "no picture in" in mistake(capsys, "classify", "--plugin", plugin, tmp_path / "empty")
    assert ".csv or .jsonl" in mistake(capsys, "classify", "--plugin", plugin, folder, "--to", tmp_path / "o.txt")
    assert "--top 0" in mistake(capsys, "classify", "--plugin", plugin, folder, "--top", 0)
    assert "it needs a joint width D of" in mistake(
        capsys, "classify", "--plugin", plugin, folder, "--backbone", narrow(world), "--device", "cpu"
    )
    assert flags.ONLY["top"] == ("classify",)


def narrow(world):
    if not (world.home / "narrow").exists():
        saved_locally(world.home / "narrow", 6, False, dim=24, width=16)
    return world.backbone("narrow")
