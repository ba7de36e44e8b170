"""A plug-in that does not fit is refused by name of the mismatch, all of them at once, before weights or pictures."""

import contextlib
import shutil
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from local_towers import saved_locally
from safetensors.torch import load_file
from worlds import made, pictures_in, rewritten

from carryover.bench.backbones import loading, names
from carryover.bench.backbones.archs import ARCHS
from carryover.bench.cli import main, parsing
from carryover.bench.errors import UserError
from carryover.bench.host.source_identity import SCHEME
from carryover.bench.plugins import contract, homes
from carryover.bench.plugins.contract import Incompatible, check
from carryover.bench.plugins.format import read
from carryover.datasets import folder
from carryover.methods.base import METHODS, Method, register

TRAINED = ("coop", "linear-probe", "tip-adapter-f", "contcoop", "clip-lora", "maple")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    world = made(tmp_path_factory.mktemp("world"), methods=TRAINED)
    saved_locally(world.home / "wide", 5, False, width=48)
    saved_locally(world.home / "shallower", 5, False, layers=2)
    pictures_in(world.home / "talkative", ("cat", "long"), per_class=4)
    (world.home / "talkative" / "classes.txt").write_text(f"cat\nlong = {'very ' * 90}long\n")
    return world


def reasons(world, file, tower="b", data="animals"):
    """Why the contract check refuses; nothing where it does not."""
    found = names.tower_of(world.backbone(tower))
    try:
        check(read(file), found, folder.load(f"folder:{data}", str(world.home / data)))
    except Incompatible as error:
        assert "\n" not in str(error) and all(reason in str(error) for reason in error.reasons)
        return error.reasons
    return []


def changed(world, tmp_path, of, tensors=None, **header):
    return rewritten(world.plugin(of), tmp_path / "changed.safetensors", lambda h: {**h, **header}, tensors)


def with_option(world, tmp_path, method="coop", tensors=None, **options):
    def change(header):
        header["config"] |= options

    return rewritten(world.plugin(method), tmp_path / "changed.safetensors", change, tensors)


@pytest.mark.parametrize("method", TRAINED)
def test_a_plugin_fits_the_update_and_the_backbone_it_was_trained_on(world, method):
    assert reasons(world, world.plugin(method), "a") == reasons(world, world.plugin(method), "b") == []


def test_another_text_width_is_named_with_both_numbers(world):
    (reason,) = reasons(world, world.plugin("coop"), "wide")
    assert reason.startswith("it needs a text width W of 32 (its 'context')") and reason.endswith("has 48")


def test_another_joint_width_is_named_with_both_numbers(world, tmp_path):
    shape = {"width": 32, "dim": 64, "classnames": ["cat"], "support": 4}
    assert reasons(world, changed(world, tmp_path, "coop", shape=shape)) == [], "a context asks nothing of D"
    reason, *_ = reasons(world, changed(world, tmp_path, "linear-probe", shape=shape))
    assert reason.startswith("it needs a joint width D of 64 (its 'weight')") and reason.endswith("has 32")


def test_tensors_that_are_not_the_methods_are_named_with_their_shapes(world, tmp_path):
    own = load_file(world.plugin("linear-probe"))
    weight = own.pop("weight")
    given = {"bias": own["bias"][:2].clone(), "wieght": weight}
    found = reasons(world, changed(world, tmp_path, "linear-probe", given))
    assert found == [
        "tensor 'weight' (4, 32) is missing",
        "tensor 'bias' has shape (2,), the method's has (4,)",
        "tensor 'wieght' is none of the method's (weight, bias)",
    ]
    bad = {"context": load_file(world.plugin("coop"))["context"].index_fill(0, torch.tensor([0]), torch.nan)}
    assert reasons(world, changed(world, tmp_path, "coop", bad)) == ["tensor 'context' holds NaN or infinity"]


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.complex64])
def test_tensors_of_numbers_that_are_not_floating_point_are_named_with_both_types(world, tmp_path, dtype):
    given = {"context": load_file(world.plugin("coop"))["context"].to(dtype)}
    (reason,) = reasons(world, changed(world, tmp_path, "coop", given))
    name = str(dtype).removeprefix("torch.")
    assert reason == f"tensor 'context' is of type {name}, the method's of float32"


def test_labels_stored_as_floating_point_are_named(world, tmp_path):
    given = load_file(world.plugin("tip-adapter-f"))
    given["labels"] = given["labels"].float() + 0.9
    (reason,) = reasons(world, changed(world, tmp_path, "tip-adapter-f", given))
    assert reason == "tensor 'labels' is of type float32, the method's of int64"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floating_point_of_another_width_is_taken_where_the_methods_holds_it(world, tmp_path, dtype):
    context = load_file(world.plugin("coop"))["context"].to(dtype)
    assert reasons(world, changed(world, tmp_path, "coop", {"context": context})) == []
    context[0, 0] = torch.finfo(dtype).max
    beyond = reasons(world, changed(world, tmp_path, "coop", {"context": context}))
    assert beyond == (["tensor 'context' holds NaN or infinity as float32"] if dtype is torch.float64 else [])


@pytest.mark.parametrize("method, rows", [("linear-probe", True), ("tip-adapter-f", True), ("coop", False)])
def test_classes_without_a_row_are_named_for_methods_that_have_rows_alone(world, method, rows):
    found = reasons(world, world.plugin(method), "b", "vehicles")
    assert len(found) == rows
    if rows:
        assert "none for 3 of the 4 classes" in found[0] and found[0].endswith("'canoe', 'red bus', 'tram'")


def test_options_that_the_method_does_not_have_or_take_are_named(world, tmp_path):
    (unknown,) = reasons(world, with_option(world, tmp_path, context_lenght=16))
    assert unknown.startswith("config: unknown option 'context_lenght'. Did you mean 'context_length'?")
    (kind,) = reasons(world, with_option(world, tmp_path, lr="fast"))
    assert kind.startswith("config: lr is") and "fast" in kind and kind.endswith("a value like 0.002 (float)")
    (refused,) = reasons(world, with_option(world, tmp_path, start="anywhere"))
    assert refused == "config: start is 'fixed' or 'rows'; found 'anywhere'"
    (large,) = reasons(world, with_option(world, tmp_path, lr=10**400))
    assert large.startswith("config: lr is '1000") and large.endswith("a value like 0.002 (float)")
    two = reasons(world, with_option(world, tmp_path, context_length=True, momentum=[0.9]))
    assert len(two) == 2 and all(reason.startswith("config: ") for reason in two)


def test_a_context_that_leaves_no_room_for_a_name_is_named(world, tmp_path):
    file = with_option(world, tmp_path, tensors={"context": torch.zeros(75, 32)}, context_length=75)
    (reason,) = reasons(world, file)
    assert "room for 75 tokens of context and a name" in reason and reason.endswith("has 77")


def test_class_names_longer_than_the_tower_reads_are_named(world):
    (reason,) = reasons(world, world.plugin("coop"), "b", "talkative")
    assert reason.startswith("class names longer than the text tower's 77 tokens: 'very very")


def test_a_layer_that_the_tower_does_not_have_is_named(world, tmp_path):
    assert reasons(world, with_option(world, tmp_path, layer=2)) == []
    (reason,) = reasons(world, with_option(world, tmp_path, layer=7))
    assert reason.startswith("it needs block 7 of a text tower") and reason.endswith("has 3")


@pytest.mark.parametrize("method", ["clip-lora", "maple"])
def test_towers_of_other_blocks_than_a_method_inside_them_learned_for_are_named(world, tmp_path, method):
    assert reasons(world, world.plugin(method), "b") == []
    assert read(world.plugin(method)).shape.text_layers == 3
    (reason,) = reasons(world, world.plugin(method), "shallower")
    assert reason.startswith("it needs a text tower of 3 blocks") and reason.endswith("has 2")


@pytest.mark.parametrize("installed", [False, True])
def test_a_model_with_a_tokenizer_of_another_package_is_named_beside_all_else(world, monkeypatch, capsys, installed):
    """Without that package, and with it where the tokenizer's files cannot be had."""

    class Missing:
        @staticmethod
        def from_pretrained(*args, **kwargs):
            raise OSError("cannot reach the hub\nat all")

    monkeypatch.setitem(sys.modules, "transformers", SimpleNamespace(AutoTokenizer=Missing) if installed else None)
    loading.tokenizer.cache_clear()
    argv = ["evaluate", "--dry-run", "--plugin", world.plugin("coop"), "--backbone", "ViT-B-16-SigLIP/webli"]
    capsys.readouterr()
    assert main.main([*map(str, argv), "--dataset", world.data()]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "it needs a text width W of 32" in line
    assert "its tokenizer" in line and ("cannot reach the hub" if installed else "transformers") in line


def test_a_tower_that_the_method_cannot_attach_to_is_named(world, tmp_path, clean_registry):
    @register("fastidious")
    class Fastidious(METHODS["coop"]):
        @contextlib.contextmanager
        def attach(self, backbone):
            if len(backbone.model.visual.transformer.resblocks) < 12:
                raise UserError("needs 12 blocks in the image tower")
            yield

    file = changed(world, tmp_path, "coop", method="fastidious")
    (reason,) = reasons(world, file)
    assert "cannot be attached to the towers" in reason and reason.endswith("needs 12 blocks in the image tower")


def test_a_method_that_trained_towers_is_refused_at_home_alone(world, tmp_path, clean_registry):
    @register("opened")
    class Opened(METHODS["coop"]):
        whole = False

    file = changed(world, tmp_path, "coop", method="opened")
    plugin = read(file)
    loaded = {name: loading.load(names.tower_of(world.backbone(name))) for name in "ab"}
    (reason,) = homes.left_home(plugin, loaded["a"])
    assert "what they became is not in the file" in reason
    assert homes.left_home(plugin, loaded["b"]) == reasons(world, file, "b") == []
    by_name = changed(world, tmp_path, "coop", method="opened", trained_on=[home_called("micro-base")])
    micro = ARCHS["micro"].base
    assert homes.left_home(read(by_name), micro) and not homes.left_home(
        read(by_name), replace(micro, weights="mine.safetensors")
    )


def home_called(label):
    return {"backbone": label, "fingerprint": None, "width": 96, "dim": 96, "activation": None}


def test_all_mismatches_are_named_at_once_and_the_status_is_2(world, tmp_path, capsys):
    file = changed(
        world, tmp_path, "linear-probe", shape={"width": 32, "dim": 64, "classnames": ["a", "b"], "support": 4}
    )
    argv = ["evaluate", "--plugin", file, "--backbone", world.backbone("wide"), "--dataset", world.data("talkative")]
    capsys.readouterr()
    assert main.main([*map(str, argv), "--out", str(tmp_path / "out")]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "is incompatible with local-dir:" in line and "because (1) " in line
    for part in ("a joint width D of 64", "'weight' has shape (4, 32)", "'bias' has shape (4,)", "longer than"):
        assert part in line
    assert not (tmp_path / "out" / "evaluations").is_dir() or not list((tmp_path / "out").rglob("*.json"))


def test_a_probe_is_asked_for_its_rows_on_a_tower_of_another_text_width(world):
    found = reasons(world, world.plugin("linear-probe"), "wide", "vehicles")
    assert len(found) == 1 and "'tram'" in found[0], "a probe asks nothing of W"


def test_a_dry_run_checks_without_weights_or_pictures_and_writes_nothing(world, tmp_path, capsys):
    shutil.copytree(world.home / "b", tmp_path / "bare")
    (tmp_path / "bare" / "open_clip_model.safetensors").unlink()
    argv = ["evaluate", "--dry-run", "--plugin", world.plugin("coop"), "--dataset", world.data()]
    argv += ["--backbone", f"local-dir:{tmp_path / 'bare'}", "--out", tmp_path / "out"]
    capsys.readouterr()
    assert main.main([*map(str, argv)]) == 0
    assert capsys.readouterr().out.startswith("compatible: ")
    assert not (tmp_path / "out").exists()
    argv[argv.index("--dataset") + 1] = world.data("vehicles")
    argv[argv.index("--plugin") + 1] = world.plugin("linear-probe")
    assert main.main([*map(str, argv)]) == 2
    assert "'canoe', 'red bus', 'tram'" in capsys.readouterr().err


def test_a_changed_source_is_noted_and_not_refused(world, tmp_path):
    file = changed(world, tmp_path, "coop", source=f"{SCHEME}:{'ab' * 32}")
    tower = names.tower_of(world.backbone("b"))
    assert reasons(world, file) == []
    (note,) = homes.warnings_of(read(file), tower)
    assert note.startswith("coop has changed since") and "source abababababab" in note
    assert homes.warnings_of(read(world.plugin("coop")), tower) == []
    assert homes.warnings_of(read(changed(world, tmp_path, "coop", source=None)), tower) == []


def test_of_a_file_that_hashes_the_method_in_the_older_way_it_is_said_that_this_tells_nothing(world, tmp_path):
    file = changed(world, tmp_path, "coop", source="ab" * 32)
    (note,) = homes.warnings_of(read(file), names.tower_of(world.backbone("b")))
    assert note.startswith("whether coop has changed since") and "not known" in note and "\n" not in note
    assert reasons(world, file) == []


def test_a_header_of_enormous_numbers_takes_no_memory(world, tmp_path):
    shape = {"width": 32, "dim": 32, "classnames": ["cat"], "support": 10**7}
    (reason,) = [r for r in reasons(world, changed(world, tmp_path, "tip-adapter-f", shape=shape)) if "keys" in r]
    assert "the method's has (10000000, 32)" in reason
    assert any("(1000000000, 32)" in r for r in reasons(world, with_option(world, tmp_path, context_length=10**9)))


def test_a_method_that_cannot_be_made_on_no_device_is_made_on_one(world, tmp_path, clean_registry):
    @register("reads-itself")
    class ReadsItself(METHODS["coop"]):
        def __init__(self, config, shape):
            super().__init__(config, shape)
            self.norm = float(self.context.detach().norm())

    assert reasons(world, changed(world, tmp_path, "coop", method="reads-itself")) == []


@pytest.mark.parametrize("needs, shape", [("pixels", (1, 3, 32, 32)), ("views", (1, 5, 32)), ("features", (1, 32))])
def test_a_method_is_tried_on_what_it_needs(needs, shape, world):
    kind = SimpleNamespace(needs=needs, test_views=lambda config: (5, (0.5, 1.0)))
    backbone = contract.architecture(names.tower_of(world.backbone("a")))
    assert tuple(contract.trial(kind, None, backbone).shape) == shape
    assert Method.needs == "features"


# ---- names of backbones ----------------------------------------------------------------------------------------------


def test_each_form_of_a_backbones_name_is_that_backbone(world, tmp_path):
    micro, large = ARCHS["micro"], ARCHS["vit-b16"]
    for given, arch, expected in (
        ("base", "micro", micro.base),
        ("new", "vit-b16", large.new),
        ("vit-b16:base", "micro", large.base),
        ("micro:unrelated", "vit-b16", micro.controls["unrelated"]),
        ("micro-update", "vit-b16", micro.new),
        ("ViT-B-16/laion2b_s34b_b88k", "micro", large.controls["unrelated"]),
        ("ViT-B-16-quickgelu/openai", "micro", large.base),
    ):
        found = names.tower_of(given, arch)
        for name in ("model", "pretrained", "activation", "width", "dim", "layers", "weights"):
            assert getattr(found, name) == getattr(expected, name), (given, name)
    of_file = names.tower_of(f"{world.arch}:new")
    assert of_file.model.endswith("/b") and of_file.width == 32
    assert names.tower_of("new", str(world.arch)).model == of_file.model
    weights = tmp_path / "w=1.safetensors"
    weights.write_bytes(b"")
    found = names.tower_of(f"ViT-B-16={weights}")
    assert (found.model, found.weights, found.width, found.activation) == ("ViT-B-16", str(weights), 512, "gelu")
    assert names.tower_of("base", "micro", base_weights=str(weights)).weights == str(weights)


@pytest.mark.parametrize(
    "given, expected",
    [
        ("nwe", "Did you mean 'new'"),
        ("micro-updat", "Did you mean 'micro-update'"),
        ("micro:nwe", "Did you mean 'new'"),
        ("ViT-B-16/laion2b_s34b_b88", "Did you mean 'laion2b_s34b_b88k'"),
        ("ViT-B-17/openai", "unknown open_clip model 'ViT-B-17'. Did you mean 'ViT-B-16'"),
        ("micro-update/openai", "unknown pretrained tag of micro-update 'openai': its weights are embedded; leave the"),
        ("ViT-M-16/laion2b", "open_clip has no weights of it; leave the tag out and give a checkpoint"),
        ("ViT-B-16/openai", "another activation than gelu"),
        ("ViT-B-16=nowhere.pt", "no file at 'nowhere.pt'"),
        ("local-dir:nowhere", "no open_clip_config.json"),
        ("nowhere.toml:new", "cannot read 'nowhere.toml'"),
    ],
)
def test_a_name_that_is_no_backbones_is_one_line_with_the_nearest(given, expected):
    with pytest.raises(UserError) as caught:
        names.tower_of(given)
    assert expected in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_help_names_every_form():
    text = " ".join(parsing.parser("evaluate").format_help().split())
    for form in ("a role of --arch", "vit-b16:new", "micro-update", "MODEL/TAG", "MODEL=FILE", "hf-hub:ORG/NAME"):
        assert form in text
    assert "local-dir:PATH" in text
