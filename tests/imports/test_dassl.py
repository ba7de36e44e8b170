"""Checkpoints of CoOp's family: look-alikes as Dassl saves them, imported by the command line. Logits are held to the
authors' assembly of prompts, written out here over open_clip's own modules at full length."""

import contextlib
import json
import shutil
from types import SimpleNamespace

import open_clip
import pytest
import torch
import torch.nn.functional as F
from command_line import call, mistake
from dassl_files import saved
from local_towers import saved_locally
from safetensors.torch import load_file, save_file
from tiny_towers import DIM, WIDTH

from carryover import datasets
from carryover.bench import imports
from carryover.bench.backbones import loading
from carryover.bench.backbones.names import tower_of
from carryover.bench.errors import UserError
from carryover.bench.imports import writing
from carryover.bench.imports.base import FORMATS, Facts, Foreign
from carryover.bench.plugins.contract import config_of
from carryover.bench.plugins.format import read
from carryover.bench.ports import frozen
from carryover.methods.base import METHODS, Classes

NAMES = ("red double decker bus", "boeing 737-800", "cat", "dog's bed", "u.s.", "owl")
IMAGES, TOKENS, PATCHES, SIZE = 5, 77, 8, 32
SCALE = {"rtol": 2e-5, "atol": 2e-5}


@pytest.fixture(scope="module")
def towers(tmp_path_factory):
    """Two towers of one size in folders, and pixels; ``model`` is the first, whose files these checkpoints are of."""
    home = tmp_path_factory.mktemp("towers")
    model = saved_locally(home / "a", 0, True).eval()
    saved_locally(home / "b", 3, True)
    for name, change in (("half", lambda value: value.half().float()), ("tuned", lambda value: value * 1.02)):
        shutil.copytree(home / "a", home / name)
        file = home / name / "open_clip_model.safetensors"
        save_file({key: change(value) for key, value in load_file(file).items()}, file)
    torch.manual_seed(5)
    pixels = torch.randn(IMAGES, 3, SIZE, SIZE)
    return SimpleNamespace(
        home=home, model=model, pixels=pixels, a=f"local-dir:{home / 'a'}", b=f"local-dir:{home / 'b'}"
    )


def buffers(model, n, names=NAMES, words="", dtype=torch.float32):
    """token_prefix and token_suffix as all learners of prompts register them, and the tokens."""
    words = words or " ".join(["X"] * n)
    ids = torch.cat([open_clip.tokenize(f"{words} {name.replace('_', ' ')}.") for name in names])
    embedding = model.text.token_embedding(ids).detach().to(dtype)
    return {"token_prefix": embedding[:, :1], "token_suffix": embedding[:, 1 + n :]}, ids


def text_features(model, prompts, ids, deep=()):
    """(C, 77, W) -> (C, D): OpenAI's text tower; ``deep``: MaPLe's rows, each for the input of its block."""
    text = model.text
    x = prompts + text.positional_embedding
    for index, block in enumerate(text.transformer.resblocks):
        if 0 < index <= len(deep):
            n = len(deep[index - 1])
            x = torch.cat([x[:, :1], deep[index - 1].expand(len(x), -1, -1), x[:, 1 + n :]], dim=1)
        x = block(x, attn_mask=text.attn_mask)
    return text.ln_final(x)[torch.arange(len(x)), ids.argmax(-1)] @ text.text_projection


def logits_of(model, images, texts):
    return model.logit_scale.exp() * F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).t()


def assembled(state, ctx, place):
    """CoOp's prompts, class by class."""
    prefix, suffix, prompts, half = state["token_prefix"].float(), state["token_suffix"].float(), [], ctx.shape[-2] // 2
    for i, name in enumerate(NAMES):
        own, length = (ctx[i] if ctx.dim() == 3 else ctx).float(), len(open_clip.tokenizer._tokenizer.encode(name))
        first, rest = suffix[i, :length], suffix[i, length:]
        parts = {
            "end": [own, suffix[i]],
            "middle": [own[:half], first, own[half:], rest],
            "front": [first, own, rest],
        }[place]
        prompts.append(torch.cat([prefix[i], *parts]))
    return torch.stack(prompts)


def imported(capsys, tmp_path, file, backbone, *more):
    to = tmp_path / "plugin.safetensors"
    status, out, err = call(capsys, "import", file, "--backbone", backbone, "--device", "cpu", "--to", to, *more)
    assert status == 0, err
    return read(to), out + err


def bound(plugin, backbone, classes=None, templates=("a photo of a {}.",)):
    kind = METHODS[plugin.method]
    config, wrong = config_of(kind, plugin.header["config"])
    assert not wrong
    method = kind(config, plugin.shape).eval()
    method.load_learned(plugin.tensors)
    method.bind(backbone, Classes("x", tuple(classes or plugin.shape.classnames), templates))
    return method


@pytest.fixture(scope="module")
def backbone(towers):
    return loading.load(tower_of(towers.a))


def predicted(method, backbone, pixels):
    with torch.no_grad(), method.attach(backbone):
        return method.predict(pixels if method.needs == "pixels" else backbone.encode_images(pixels))


def coops(model, n, per_class, dtype=torch.float32):
    torch.manual_seed(n)
    state, ids = buffers(model, n, dtype=dtype)
    ctx = (torch.randn(len(NAMES), n, WIDTH) if per_class else torch.randn(n, WIDTH)).to(dtype) * 0.3
    return {"ctx": ctx, **state}, ids


@pytest.mark.parametrize("place", ["end", "middle", "front"])
@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize(("n", "dtype"), [(5, torch.float32), (4, torch.float16)])
@torch.no_grad()
def test_coop_gives_its_own_logits(towers, backbone, capsys, tmp_path, place, per_class, n, dtype):
    state, ids = coops(towers.model, n, per_class, dtype)
    file = saved(tmp_path / f"ctp{place}", state)
    plugin, told = imported(capsys, tmp_path, file, towers.a)
    assert plugin.method == ("coop" if place == "end" and not per_class else "coop-prompts")
    assert plugin.shape.classnames == NAMES and "names of 6 classes in their order" in told
    prompts = assembled({**state, **buffers(towers.model, n)[0]}, state["ctx"], place)
    wanted = logits_of(
        towers.model, towers.model.encode_image(towers.pixels), text_features(towers.model, prompts, ids)
    )
    torch.testing.assert_close(predicted(bound(plugin, backbone), backbone, towers.pixels), wanted, **SCALE)
    assert plugin.home["fingerprint"] == backbone.fingerprint
    assert plugin.header["imported"]["proven"][1] == "names of 6 classes in their order"


def test_contexts_of_classes_go_with_their_names(towers, backbone, capsys, tmp_path):
    state, _ = coops(towers.model, 4, True)
    plugin, _ = imported(capsys, tmp_path, saved(tmp_path / "ctpfront", state), towers.a)
    all_classes = predicted(bound(plugin, backbone), backbone, towers.pixels)
    few = bound(plugin, backbone, (NAMES[3], NAMES[0]))
    torch.testing.assert_close(predicted(few, backbone, towers.pixels), all_classes[:, [3, 0]], **SCALE)
    with pytest.raises(
        Exception, match="coop-prompts|CoOp prompts has learned nothing for 1 of the classes, e.g. 'fox'"
    ):
        bound(plugin, backbone, (NAMES[0], "fox"))
    shared, _ = imported(capsys, tmp_path, saved(tmp_path / "ctpmiddle", coops(towers.model, 4, False)[0]), towers.a)
    assert predicted(bound(shared, backbone, ("a fox", "owl")), backbone, towers.pixels).shape == (IMAGES, 2)


def test_it_passes_through_ports_as_rows_of_classes(towers, backbone, capsys, tmp_path):
    plugin, _ = imported(capsys, tmp_path, saved(tmp_path / "ctpmiddle", coops(towers.model, 3, True)[0]), towers.a)
    method = bound(plugin, backbone)
    head = frozen.kept(method, Classes("x", NAMES, ("{}",)))
    x = torch.randn(4, DIM)
    assert isinstance(head, frozen.ClassRows)
    torch.testing.assert_close(head.logits(x), method.predict(x), **SCALE)


# ---- what is proven, and what is asked -------------------------------------------------------------------------------


def test_class_names_are_spelled_as_the_user_does_where_tokens_agree(towers, capsys, tmp_path):
    file = saved(tmp_path / "ctpend", coops(towers.model, 4, False)[0])
    classes = tmp_path / "classes.txt"
    classes.write_text("Red_double_decker_BUS\nBoeing 737-800\nCat\nDog's bed\nU.S.\nOwl\n")
    plugin, _ = imported(capsys, tmp_path, file, towers.a, "--classes", classes)
    assert plugin.shape.classnames == ("Red double decker BUS", "Boeing 737-800", "Cat", "Dog's bed", "U.S.", "Owl")


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (("red double decker bus", "boeing 737-800", "dog"), "row 3 of the file is 'cat', --classes says 'dog'"),
        ((*NAMES[:3], "u.s.", "dog's bed", "owl"), "row 4 of the file is 'dog's bed', --classes says 'u.s.'"),
        (NAMES[:5], "the file has 6 classes, --classes 5; the file has 'owl' more"),
        ((*NAMES, "fox"), "the file has 6 classes, --classes 7; --classes has 'fox' more"),
        (NAMES[1:], "row 1 of the file is 'red double decker bus', --classes says 'boeing 737-800' (the file has 6"),
    ],
)
def test_other_class_names_are_refused_by_name(towers, capsys, tmp_path, names, line):
    file = saved(tmp_path / "ctpend", coops(towers.model, 4, False)[0])
    (tmp_path / "classes.txt").write_text("\n".join(names))
    common = ("--classes", tmp_path / "classes.txt", "--to", tmp_path / "p.safetensors", "--device", "cpu")
    found = mistake(capsys, "import", file, "--backbone", towers.a, *common)
    assert line in found
    assert not (tmp_path / "p.safetensors").exists()


def refused(capsys, tmp_path, file, backbone, *more):
    to = ("--to", tmp_path / "p.safetensors", "--device", "cpu")
    line = mistake(capsys, "import", file, "--backbone", backbone, *to, *more)
    assert not (tmp_path / "p.safetensors").exists()
    return line


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_another_backbone_is_refused_by_name(towers, capsys, tmp_path, dtype):
    state, _ = coops(towers.model, 4, False, dtype)
    file = saved(tmp_path / "ctpend", state)
    line = refused(capsys, tmp_path, file, towers.b)
    assert "its start token is not that of local-dir:" in line and "which of the two is meant?" in line
    assert "context has width 32, the text tower of micro-base 96" in refused(capsys, tmp_path, file, "micro-base")
    del state["token_prefix"]
    line = refused(capsys, tmp_path, saved(tmp_path / "ctpend", state), towers.b)
    assert "place 1 behind the context of row 1 is no token of local-dir:" in line


def test_weights_that_went_through_half_precision_are_the_same_backbone(towers, capsys, tmp_path):
    file = saved(tmp_path / "ctpend", coops(towers.model, 4, False)[0])
    plugin, told = imported(capsys, tmp_path, file, f"local-dir:{towers.home / 'half'}")
    assert plugin.shape.classnames == NAMES and "are, to the rounding of half precision, those of" in told
    state, _ = maples(towers.model)
    file = saved(tmp_path / "whole", state, "MultiModalPromptLearner")
    plugin, _ = imported(capsys, tmp_path, file, f"local-dir:{towers.home / 'half'}")
    assert plugin.shape.classnames == NAMES
    line = refused(capsys, tmp_path / "x", file, f"local-dir:{towers.home / 'tuned'}")
    assert "its start token is not that of local-dir:" in line


def test_without_its_buffers_a_file_asks_for_class_names(towers, backbone, capsys, tmp_path):
    state, _ = coops(towers.model, 4, True)
    file = saved(tmp_path / "x", {"ctx": state["ctx"]})
    line = refused(capsys, tmp_path, file, towers.a)
    assert "does not say all that is needed. classes: class names in the order of training" in line
    assert "position: where the class name stands: end, middle or front" in line and "--fact position=…" in line
    (tmp_path / "classes.txt").write_text("\n".join(NAMES[:4]))
    told = ("--fact", "position=end", "--classes", tmp_path / "classes.txt")
    assert "the file has 6 classes, --classes 4" in refused(capsys, tmp_path, file, towers.a, *told)
    (tmp_path / "classes.txt").write_text("\n".join(NAMES))
    plugin, _ = imported(capsys, tmp_path, file, towers.a, *told)
    assert plugin.shape.classnames == NAMES and plugin.home["fingerprint"] is None
    assert plugin.header["imported"]["proven"] == []


def test_a_name_stands_twice_where_the_file_has_it_so_and_has_no_rows_of_its_own(towers, capsys, tmp_path):
    """As in CoOp's names of ImageNet."""
    names = ("cat", "owl", "cat")
    state = {"ctx": torch.randn(4, WIDTH), **buffers(towers.model, 4, names)[0]}
    plugin, _ = imported(capsys, tmp_path, saved(tmp_path / "ctpend", state), towers.a)
    assert plugin.shape.classnames == names
    state["ctx"] = torch.randn(3, 4, WIDTH)
    assert "the name 'cat' stands twice" in refused(capsys, tmp_path, saved(tmp_path / "csc_ctpend", state), towers.a)


def test_the_position_is_read_of_path_and_log_and_else_asked(towers, capsys, tmp_path):
    state, _ = coops(towers.model, 4, False)
    file = saved(tmp_path / "nctx4_cscFalse_ctpmiddle" / "seed1", state)
    plugin, told = imported(capsys, tmp_path, file, towers.a)
    assert plugin.header["config"] == {"context_length": 4, "position": "middle", "per_class": False}
    assert "position middle, as the path or the log of the file says" in told
    log = "TRAINER:\n  COOP:\n    CLASS_TOKEN_POSITION: {}\n    CSC: False\n"
    (file.parent.parent / "log.txt").write_text(log.format("front"))
    assert "its path and its logs say middle and front" in refused(capsys, tmp_path, file, towers.a)
    file = saved(tmp_path / "run" / "seed1", state)
    for name, place in (("log.txt", "front"), ("log.txt-2", "end")):
        (file.parent.parent / name).write_text(log.format(place))
    assert "its path and its logs say end and front" in refused(capsys, tmp_path, file, towers.a)
    plugin, _ = imported(capsys, tmp_path, file, towers.a, "--fact", "position=middle")
    assert plugin.header["config"]["position"] == "middle"
    (file.parent.parent / "log.txt-2").unlink()
    plugin, _ = imported(capsys, tmp_path, file, towers.a)
    assert plugin.header["config"]["position"] == "front"
    plugin, told = imported(capsys, tmp_path, file, towers.a, "--fact", "position=end")
    assert plugin.method == "coop" and "says position front, it was told end" in told
    line = refused(capsys, tmp_path, file, towers.a, "--fact", "position=last")
    assert "position is 'last', expected end or middle or front (--fact position=…)" in line
    assert "unknown fact of" in refused(capsys, tmp_path, file, towers.a, "--fact", "ratio=1")


def test_tensors_that_contradict_each_other_are_refused(towers, capsys, tmp_path):
    state, _ = coops(towers.model, 4, True)
    file = saved(tmp_path / "ctpend", {**state, "token_suffix": state["token_suffix"][:4]})
    assert "its tensors are not of one model: ctx (6, 4, 32)" in refused(capsys, tmp_path, file, towers.a)
    file = saved(tmp_path / "ctpend", {**state, "token_suffix": state["token_suffix"][:, :1]})
    assert "row 1 of token_suffix has no end token" in refused(capsys, tmp_path, file, towers.a)
    state["ctx"][0, 0, 0] = float("nan")
    file = saved(tmp_path / "ctpend", state)
    assert "tensor 'context' holds NaN or infinity" in refused(capsys, tmp_path, file, towers.a)
    for kind in ("coop", "cocoop", "kgcoop", "maple", "clip-adapter"):
        file = saved(tmp_path / "ctpend", {"x": torch.ones(2, 2)})
        facts = ["--template", "a {}.", "--fact", "ratio=1"] if kind == "clip-adapter" else []
        facts += ["--fact", "position=end"] if kind == "coop" else []
        (tmp_path / "classes.txt").write_text("a\nb\n")
        line = refused(capsys, tmp_path, file, towers.a, "--kind", kind, "--classes", tmp_path / "classes.txt", *facts)
        assert "is missing" in line or "expected" in line


@pytest.mark.parametrize("kind", ["coop", "csc", "cocoop", "kgcoop", "maple", "clip-adapter"])
def test_a_tensor_of_any_other_shape_or_type_is_one_line(towers, backbone, kind):
    state = {
        "coop": lambda: coops(towers.model, 4, False)[0],
        "csc": lambda: coops(towers.model, 4, True)[0],
        "cocoop": lambda: cocoops(towers.model, 4, torch.float32)[0],
        "kgcoop": lambda: {**coops(towers.model, 4, False)[0], "bias_vectors": torch.ones(1, 512)},
        "maple": lambda: maples(towers.model)[0],
        "clip-adapter": lambda: {"fc.0.weight": torch.ones(8, DIM), "fc.2.weight": torch.ones(DIM, 8)},
    }[kind]()
    given = {"backbone": towers.a, "classes": NAMES, "templates": ["a {}."], "position": "front", "ratio": "0.5"}
    imports.discover()
    format = FORMATS["coop" if kind == "csc" else kind]
    for name, value in state.items():
        if name == "logit_scale" or (name.startswith(("text_encoder.", "image_encoder.")) and "proj" not in name):
            continue
        sizes = [(), (2,), (0,), (0, WIDTH), (2, 2), (3, 1, WIDTH), (2, 2, 2, 2)]
        sizes.append((*value.shape[:-1], value.shape[-1] + 1))
        others = [torch.ones(size) for size in sizes if size != tuple(value.shape)]
        for other in [*others, None, value.bool(), value.long(), value * float("inf"), value * float("nan")]:
            changed = {**state, name: other} if other is not None else {k: v for k, v in state.items() if k != name}
            file = Foreign(towers.home / "model.pth.tar-1", changed)
            with contextlib.suppress(UserError):
                writing.format_of(file)
            try:
                asked = {fact.name for fact in format.facts(file)} | {"backbone", "classes", "templates"}
                own = {key: what for key, what in given.items() if key in asked}
                facts = Facts(own, lambda name: backbone.tower, lambda name: backbone)
                writing.imported(file, format, facts)
            except UserError as error:
                assert "\n" not in str(error)
            else:
                # what no prediction goes by, or class names that were given besides
                harmless = "token_" in name or name.startswith(("bias_vectors", "text_encoder.", "image_encoder."))
                assert harmless, (name, other)


# ---- the other methods -----------------------------------------------------------------------------------------------


@torch.no_grad()
def cocoops(model, n, dtype):
    torch.manual_seed(1)
    state, ids = buffers(model, n, words="a photo of a", dtype=dtype)
    own = {"ctx": (torch.randn(n, WIDTH) * 0.3).to(dtype), **state}
    layers = torch.nn.Linear(DIM, DIM // 16), torch.nn.Linear(DIM // 16, WIDTH)
    for name, layer in zip(("linear1", "linear2"), layers, strict=True):
        layer.to(dtype)
        own |= {f"meta_net.{name}.{part}": getattr(layer, part).data for part in ("weight", "bias")}
        layer.float()
    return own, ids, *layers


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@torch.no_grad()
def test_cocoop_gives_its_own_logits(towers, backbone, capsys, tmp_path, dtype):
    model, n = towers.model, 4
    own, ids, first, second = cocoops(model, n, dtype)
    plugin, _ = imported(capsys, tmp_path, saved(tmp_path, own), towers.a)
    assert plugin.method == "cocoop" and plugin.shape.classnames == NAMES
    images = F.normalize(model.encode_image(towers.pixels), dim=-1)
    whole, rows = buffers(model, n, words="a photo of a")[0], []
    for image in images:
        shifted = (own["ctx"].float() + second(F.relu(first(image)))).expand(len(NAMES), -1, -1)
        prompts = torch.cat([whole["token_prefix"], shifted, whole["token_suffix"]], dim=1)
        rows.append(logits_of(model, image[None], text_features(model, prompts, ids)))
    torch.testing.assert_close(predicted(bound(plugin, backbone), backbone, towers.pixels), torch.cat(rows), **SCALE)


@torch.no_grad()
def test_kgcoop_is_its_context_alone(towers, backbone, capsys, tmp_path):
    state, ids = coops(towers.model, 4, False)
    unused = {"bias_vectors": torch.randn(1, 512)}
    unused |= {"meta_net.linear1.weight": torch.randn(512, 512), "meta_net.linear1.bias": torch.randn(512)}
    plugin, told = imported(capsys, tmp_path, saved(tmp_path, {**state, **unused}), towers.a)
    assert plugin.method == "kgcoop" and set(plugin.tensors) == {"context"}
    assert "left out, as KgCoOp makes no use of it in predictions: bias_vectors, meta_net.linear1.bias" in told
    texts = text_features(towers.model, assembled(state, state["ctx"], "end"), ids)
    wanted = logits_of(towers.model, towers.model.encode_image(towers.pixels), texts)
    torch.testing.assert_close(predicted(bound(plugin, backbone), backbone, towers.pixels), wanted, **SCALE)


def maples(model, n=2, depth=2, words="a photo of a", half=False):
    """The whole model, as MaPLe registers it."""
    torch.manual_seed(2)
    visual, parts = model.visual.conv1.weight.shape[0], "prompt_learner."
    state, ids = buffers(model, n, words=words)
    own = {"ctx": torch.randn(n, WIDTH) * 0.3, **state}
    for i, layer in enumerate(torch.nn.Linear(WIDTH, visual) for _ in range(depth)):
        at = "proj" if i == 0 else f"compound_prompt_projections.{i - 1}"
        own |= {f"{at}.{part}": getattr(layer, part).data for part in ("weight", "bias")}
    own |= {f"compound_prompts_text.{i}": torch.randn(n, WIDTH) * 0.3 for i in range(depth - 1)}
    towers = {}
    for name, value in model.state_dict().items():
        if name.startswith("visual."):
            towers[f"image_encoder.{name[7:]}"] = value
        elif name.startswith("text.") and "token_embedding" not in name and "attn_mask" not in name:
            towers[f"text_encoder.{name[5:]}"] = value
    if half:
        own["proj.weight"], own["proj.bias"] = own["proj.weight"].half(), own["proj.bias"].half()
        towers = {name: value.half() if value.dim() > 1 else value for name, value in towers.items()}
    return {
        **{parts + name: value for name, value in own.items()},
        "logit_scale": model.logit_scale.data,
        **towers,
    }, ids


def maples_images(model, state, pixels, depth):
    """OpenAI's image tower with MaPLe's tokens behind the patches, before the first layer norm and at later blocks."""
    part = {name.removeprefix("prompt_learner."): value.float() for name, value in state.items()}
    visual, rows = model.visual, [part["ctx"] @ part["proj.weight"].t() + part["proj.bias"]]
    for i in range(depth - 1):
        layer = f"compound_prompt_projections.{i}"
        rows.append(part[f"compound_prompts_text.{i}"] @ part[f"{layer}.weight"].t() + part[f"{layer}.bias"])
    x = visual.conv1(pixels).flatten(2).transpose(1, 2)
    x = torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], dim=1) + visual.positional_embedding
    x = visual.ln_pre(torch.cat([x, rows[0].expand(len(x), -1, -1)], dim=1))
    for i, block in enumerate(visual.transformer.resblocks):
        if 0 < i < depth:
            x = torch.cat([x[:, : -len(rows[i])], rows[i].expand(len(x), -1, -1)], dim=1)
        x = block(x)
    return visual.ln_post(x[:, 0]) @ visual.proj


@pytest.mark.parametrize(
    ("n", "depth", "words", "half"),
    [
        (2, 2, "a photo of a", False),
        (2, 2, "a photo of a", True),
        (4, 1, "a photo of a", False),
        (5, 2, "", False),
        (2, 1, "", False),
    ],
)
@torch.no_grad()
def test_maple_gives_its_own_logits_and_proves_both_towers(towers, backbone, capsys, tmp_path, n, depth, words, half):
    model = towers.model
    state, ids = maples(model, n, depth, words, half)
    file = saved(tmp_path, state, "MultiModalPromptLearner")
    plugin, told = imported(capsys, tmp_path, file, towers.a)
    assert plugin.method == "maple" and plugin.shape.classnames == NAMES
    assert "tensors of the image tower" in told and "tensors of the text tower" in told
    whole, _ = buffers(model, n, words=words)
    ctx = state["prompt_learner.ctx"].float().expand(len(NAMES), -1, -1)
    prompts = torch.cat([whole["token_prefix"], ctx, whole["token_suffix"]], dim=1)
    deep = [state[f"prompt_learner.compound_prompts_text.{i}"] for i in range(depth - 1)]
    wanted = logits_of(
        model, maples_images(model, state, towers.pixels, depth), text_features(model, prompts, ids, deep)
    )
    torch.testing.assert_close(predicted(bound(plugin, backbone), backbone, towers.pixels), wanted, **SCALE)


def test_maples_words_in_front_of_the_names(towers, capsys, tmp_path):
    state, _ = maples(towers.model, 2, 2, "this is one")
    file = saved(tmp_path, state, "MultiModalPromptLearner")
    line = refused(capsys, tmp_path, file, towers.a)
    assert "does not go on 'a photo of a'; give the words that it started from by --fact initial_words='…'" in line
    plugin, _ = imported(capsys, tmp_path, file, towers.a, "--fact", "initial_words=this is one")
    assert plugin.shape.classnames == NAMES and plugin.header["config"]["initial_words"] == "this is one"


def test_a_tower_in_maples_file_that_is_not_the_backbones_is_refused(towers, capsys, tmp_path):
    for name, tower, more in (
        ("image_encoder.conv1.weight", "image", 0.1),
        ("text_encoder.ln_final.bias", "text", 0.1),
        ("text_encoder.text_projection", "text", float("nan")),
    ):
        state, _ = maples(towers.model)
        state[name] = state[name] + more
        line = refused(capsys, tmp_path, saved(tmp_path, state, "MultiModalPromptLearner"), towers.a)
        assert f"its {tower} tower is not that of local-dir:" in line and f"'{name}' differs" in line
    state, _ = maples(towers.model)
    del state["prompt_learner.proj.bias"]
    line = refused(capsys, tmp_path, saved(tmp_path, state, "MultiModalPromptLearner"), towers.a)
    assert "tensor 'proj.bias' is missing" in line


@pytest.mark.parametrize("kind", ["cocoop", "kgcoop", "maple"])
def test_a_tensor_that_its_code_does_not_write_is_refused_by_name(towers, kind):
    state = maples(towers.model)[0] if kind == "maple" else cocoops(towers.model, 4, torch.float32)[0]
    if kind == "kgcoop":
        state = {name: value for name, value in state.items() if "linear2" not in name}
    imports.discover()
    file = Foreign(towers.home / "given.pt", state)
    assert FORMATS[kind].recognises(file) and FORMATS[kind].facts(file)
    start = "prompt_learner." if kind == "maple" else ""
    for name in ("gate", "meta_net.linear3.weight", "compound_prompts_text.0.gain"):
        file = Foreign(towers.home / "given.pt", {**state, start + name: torch.ones(3)})
        with pytest.raises(UserError, match=f"tensor '{name}' is none that .*'s own code writes"):
            writing.imported(file, FORMATS[kind], Facts({"backbone": towers.a}, tower_of, None))


@torch.no_grad()
def test_clip_adapter_gives_its_own_logits(towers, backbone, capsys, tmp_path):
    torch.manual_seed(3)
    down, up = torch.randn(DIM // 4, DIM) * 0.3, torch.randn(DIM, DIM // 4) * 0.3
    file = saved(tmp_path, {"fc.0.weight": down, "fc.2.weight": up}, "clip_adapter")
    line = refused(capsys, tmp_path, file.parent, towers.a)
    assert "does not say all that is needed. classes: " in line and "templates: " in line
    assert "ratio: share of the adapter's output in the blend, 0.2 in the released code (--fact ratio=…)" in line
    (tmp_path / "classes.txt").write_text("\n".join(NAMES))
    told = ("--classes", tmp_path / "classes.txt", "--template", "a photo of a {}, a thing.", "--fact")
    assert "ratio is '1.5', expected a number from 0 to 1" in refused(
        capsys, tmp_path, file, towers.a, *told, "ratio=1.5"
    )
    plugin, _ = imported(capsys, tmp_path, file, towers.a, *told, "ratio=0.3")
    assert plugin.header["templates"] == ["a photo of a {}, a thing."]
    images = towers.model.encode_image(towers.pixels)
    blend = 0.3 * F.relu(F.relu(images @ down.t()) @ up.t()) + 0.7 * images
    ids = open_clip.tokenize([f"a photo of a {name}, a thing." for name in NAMES])
    wanted = logits_of(towers.model, blend, towers.model.encode_text(ids))
    method = bound(plugin, backbone, templates=("a photo of a {}, a thing.",))
    torch.testing.assert_close(predicted(method, backbone, towers.pixels), wanted, **SCALE)


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ({"meta_net.linear1.weight": (2, WIDTH), "meta_net.linear2.weight": (4 * WIDTH, 2)}, "TCP"),
        ({"prompt_learner.ZS_image_encoder.proj": (2, 2), "image_encoder.VPT": (4, 48)}, "PromptSRC"),
        ({"image_encoder.VPT": (4, 48)}, "VPT or IVLP"),
    ],
)
def test_methods_that_are_not_read_are_refused_by_name(towers, capsys, tmp_path, more, name):
    state, _ = coops(towers.model, 4, False)
    file = saved(tmp_path, {**state, **{key: torch.zeros(size) for key, size in more.items()}})
    assert f"is a checkpoint of {name}, which is not read" in refused(capsys, tmp_path, file, towers.a)


def test_an_imported_context_goes_all_the_way_on_micro(capsys, tmp_path):
    """Imported of its folder, evaluated on the update, ported and evaluated again."""
    micro = loading.load(tower_of("micro-base"))
    names = list(datasets.load("micro_stars", "").classnames)
    state, _ = buffers(micro.model, 3, names)
    torch.manual_seed(0)
    saved(tmp_path / "seed1", {"ctx": torch.randn(len(names), 3, 96) * 0.02, **state})
    told = ("--fact", "position=middle", "--dataset", "micro_stars")
    plugin, _ = imported(capsys, tmp_path, tmp_path / "seed1", "micro-base", *told)
    assert plugin.method == "coop-prompts" and plugin.header["dataset"] == "micro_stars"
    common = ("--dataset", "micro_stars", "--limit", 1, "--device", "cpu", "--out", tmp_path / "out", "--json")
    results = {}
    for name in ("micro-base", "micro-update"):
        status, out, err = call(capsys, "evaluate", "--plugin", plugin.path, "--backbone", name, *common)
        assert status == 0, err
        results[name] = json.loads(out)
    assert results["micro-base"]["method"]["name"] == "CoOp prompts"
    to = tmp_path / "ported.safetensors"
    common = ("--device", "cpu", "--out", tmp_path / "out")
    status, _, err = call(
        capsys, "port", "--plugin", plugin.path, "--backbone", "micro-update", "--port", "texts", "--to", to, *common
    )
    assert status == 0 and read(to).ported is not None, err
