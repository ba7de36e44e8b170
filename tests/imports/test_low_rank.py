"""CLIP-LoRA's files and peft's adapters, imported and asked, against weights merged by hand into a copy of a model."""

import copy
import json
import math
import re

import pytest
import torch
from imported import PROMPT, answered, at_full_length, facts, foreign, imported, towers_in
from references import relative
from tiny_fits import pixels_of
from tiny_towers import NAMES

from carryover.bench.backbones import loading
from carryover.bench.backbones.names import tower_of
from carryover.bench.errors import UserError
from carryover.bench.imports.clip_lora import blocks_at
from carryover.bench.imports.reading import read

PIXELS = pixels_of(torch.arange(8) % len(NAMES))
TOLERANCE = 1e-4
WIDTHS = {"text": 32, "image": 48}
LAYERS = {"text": 3, "image": 2}
JOINT = 32


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    return towers_in(tmp_path_factory.mktemp("towers"))


@pytest.fixture(scope="module")
def pair(names):
    return [loading.load(tower_of(name)) for name in names]


def values(*shape, seed):
    return 0.3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def weight_in(model, tower, module):
    """(parameter's values, bias's values) that transformers calls by that name, as views of open_clip's."""
    whole = model.text if tower == "text" else model.visual
    if module == "projection":
        return (model.text.text_projection if tower == "text" else model.visual.proj).data.T, None
    if "layers." not in module:
        norm = {"final_layer_norm": "ln_final", "pre_layrnorm": "ln_pre", "post_layernorm": "ln_post"}[module]
        return getattr(whole, norm).weight.data, getattr(whole, norm).bias.data
    _, layer, part = module.split(".", 2)
    block = whole.transformer.resblocks[int(layer)]
    if part[-6:] in ("q_proj", "k_proj", "v_proj"):
        rows = slice("qkv".index(part[-6]) * WIDTHS[tower], ("qkv".index(part[-6]) + 1) * WIDTHS[tower])
        return block.attn.in_proj_weight.data[rows], block.attn.in_proj_bias.data[rows]
    found = {
        "self_attn.out_proj": block.attn.out_proj,
        "mlp.fc1": block.mlp.c_fc,
        "mlp.fc2": block.mlp.c_proj,
        "layer_norm1": block.ln_1,
        "layer_norm2": block.ln_2,
    }[part]
    return found.weight.data, found.bias.data


# ---- CLIP-LoRA -------------------------------------------------------------------------------------------------------


def clip_lora(encoder="both", params=("q", "k", "v"), rank=2, alpha=1, position="all"):
    """A file as save_lora writes it: layers counted over the text tower's blocks, then the image tower's."""
    sides = {"text": ["text"], "vision": ["image"], "both": ["text", "image"]}[encoder]
    places = [(side, block) for side in sides for block in range(LAYERS[side])]
    modules = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "proj"}
    tensors = {}
    for number, (side, _) in enumerate(places):
        for param in params:
            key, seed = f"layer_{number}.{modules[param]}", 10 * number + "qkvo".index(param)
            tensors[f"{key}.w_lora_A"] = values(rank, WIDTHS[side], seed=seed)
            tensors[f"{key}.w_lora_B"] = values(WIDTHS[side], rank, seed=1000 + seed)
    metadata = {"r": rank, "alpha": alpha, "encoder": encoder, "params": list(params), "position": position}
    return foreign(tensors, metadata=metadata), places


def with_clip_lora(model, file, places):
    """Their layers.py, in a copy: W + alpha / sqrt(r) B A, of rows of in_proj_weight, or of out_proj."""
    made, told = copy.deepcopy(model), file.plain["metadata"]
    for number, (side, block) in enumerate(places):
        for param in told["params"]:
            module = {"o": "proj"}.get(param, f"{param}_proj")
            down, up = (file.tensors[f"layer_{number}.{module}.w_lora_{one}"] for one in "AB")
            name = "self_attn.out_proj" if param == "o" else f"self_attn.{module}"
            weight_in(made, side, f"layers.{block}.{name}")[0].add_(told["alpha"] / math.sqrt(told["r"]) * up @ down)
    return made


@pytest.mark.parametrize(
    "encoder, params, rank, alpha, method",
    [
        ("both", "qkv", 2, 1, "clip-lora"),
        ("both", "qkv", 3, 4, "clip-lora"),
        ("text", "qkv", 2, 1, "clip-lora"),
        ("vision", "qkv", 2, 1, "lora"),
        ("both", "qv", 2, 1, "lora"),
        ("both", "qkvo", 4, 3, "lora"),
    ],
)
def test_a_file_of_clip_lora_answers_as_its_weights_merged_by_hand(
    names, pair, tmp_path, encoder, params, rank, alpha, method
):
    file, places = clip_lora(encoder, tuple(params), rank, alpha)
    plugin = imported("clip-lora", file, tmp_path / "p.safetensors", facts(names[0]))
    assert plugin.method == method and plugin.templates == (PROMPT,)
    for backbone in pair:  # the new one's own weights take the same change
        expected = at_full_length(with_clip_lora(backbone.model, file, places), PIXELS)
        assert relative(at_full_length(backbone.model, PIXELS), expected) > 0.05, "the change must matter"
        assert relative(answered(plugin, backbone, PIXELS), expected) < TOLERANCE


def test_the_first_prompt_alone_is_read_and_said_to_be(names, pair, tmp_path):
    file, places = clip_lora()
    told = facts(names[0], templates=["{} in the wild.", "a {}."])
    plugin = imported("clip-lora", file, tmp_path / "p.safetensors", told)
    expected = at_full_length(with_clip_lora(pair[0].model, file, places), PIXELS, templates=("{} in the wild.",))
    assert relative(answered(plugin, pair[0], PIXELS), expected) < TOLERANCE
    assert "of 2 the first is taken" in plugin.header["imported"]["notes"][0]


def test_positions_are_the_blocks_of_its_tables():
    """loralib/utils.py, INDEX_POSITIONS_TEXT and INDEX_POSITIONS_VISION, as MaxZanella/CLIP-LoRA has them."""
    twelve = {
        "bottom": [0, 1, 2, 3],
        "mid": [4, 5, 6, 7],
        "up": [8, 9, 10, 11],
        "half-up": [6, 7, 8, 9, 10, 11],
        "half-bottom": [0, 1, 2, 3, 4, 5],
        "all": list(range(12)),
        "top3": [9, 10, 11],
    }
    for side in ("text", "image"):
        assert {position: blocks_at(position, side, 12) for position in twelve} == twelve
    assert blocks_at("top2", "text", 12) == [10, 11] and blocks_at("top1", "text", 12) == [11]
    assert blocks_at("top", "image", 12) == [11]
    large = {"half-up": list(range(12, 24)), "half-bottom": list(range(12)), "all": list(range(24))}
    assert {position: blocks_at(position, "image", 24) for position in large} == large


@pytest.mark.parametrize(
    "told, expected",
    [
        ({"num_experts": 4}, "metadata names 'num_experts'.*another method's"),
        ({"r": 3}, "shape .* not of rank 3"),
        ({"r": "2"}, "r of its metadata is ''2'', expected a whole number"),
        ({"params": ["q", "k"]}, "layer_0 also holds v_proj.w_lora_A, and params of its metadata are q, k"),
        ({"params": ["q", "k", "v", "o"]}, "layer_0 lacks proj.w_lora_A"),
        ({"params": [["q"]]}, "params of its metadata is"),
        ({"encoder": "vision"}, "holds 5 layers, and position 'all' of encoder 'vision' there is 2 of image"),
        ({"position": "mid"}, "holds 5 layers, and position 'mid' of encoder 'both' there is 0 of text"),
        ({"position": "nowhere"}, "position of its metadata is"),
    ],
)
def test_a_file_that_contradicts_its_metadata_is_refused_by_name(names, tmp_path, told, expected):
    file, _ = clip_lora()
    file.plain["metadata"].update(told)
    with pytest.raises(UserError, match=expected):
        imported("clip-lora", file, tmp_path / "p.safetensors", facts(names[0]))
    assert not (tmp_path / "p.safetensors").exists()


@pytest.mark.parametrize(
    "backbone, expected",
    [
        ("ViT-B-32-quickgelu/openai", "holds 5 layers, .* 12 of text . 12 of image"),
        ("micro-base", "that of micro-base has no attention blocks"),
    ],
)
def test_another_backbone_is_refused_by_name(tmp_path, backbone, expected):
    with pytest.raises(UserError, match=expected):
        imported("clip-lora", clip_lora()[0], tmp_path / "p.safetensors", facts(backbone))


def test_missing_metadata_numbers_that_are_none_and_strange_tensors_are_refused(names, tmp_path):
    for change, expected in (
        (lambda file: file.plain["metadata"].pop("alpha"), "metadata lacks alpha"),
        (
            lambda file: file.plain["metadata"].update(alpha=10**400),
            "alpha of its metadata is a number of more than 308",
        ),
        (lambda file: file.tensors["layer_1.q_proj.w_lora_A"].fill_(math.nan), "holds NaN"),
        (lambda file: file.tensors.update({"layer_0.q_proj.expert_0.w_lora_A": torch.zeros(2, 32)}), "is none that"),
        (lambda file: file.tensors.pop("layer_1.q_proj.w_lora_A"), "layer_1 lacks q_proj.w_lora_A"),
    ):
        file, _ = clip_lora()
        change(file)
        with pytest.raises(UserError, match=expected):
            imported("clip-lora", file, tmp_path / "p.safetensors", facts(names[0]))


# ---- peft ------------------------------------------------------------------------------------------------------------

BOTH = {"text": "text_model.encoder.", "image": "vision_model.encoder."}
PLAIN = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": "/somewhere/clip", "task_type": None}
SIZES = {"fc1": (4, 1), "fc2": (1, 4)}  # of a matrix, in widths


def adapter(targets, config=None, front=BOTH, ranks=lambda module: 4, extra=()):
    """Tensors as peft saves them for these modules of every block, e.g. "self_attn.q_proj"; {module: (tower, name)}."""
    tensors, modules = {}, {}
    for tower, start in front.items():
        for layer in range(LAYERS[tower]):
            for target in targets:
                module, width = f"{start}layers.{layer}.{target}", WIDTHS[tower]
                out, into = (width * size for size in SIZES.get(target[-3:], (1, 1)))
                key, seed = f"base_model.model.{module}", len(tensors)
                rank = ranks(module)
                tensors[f"{key}.lora_A.weight"] = values(rank, into, seed=seed)
                tensors[f"{key}.lora_B.weight"] = values(out, rank, seed=1000 + seed)
                modules[module] = (tower, f"layers.{layer}.{target}")
    tensors |= {f"base_model.model.{name}": value for name, value in dict(extra).items()}
    return foreign(tensors, adapter_config={**PLAIN, **(config or {})}), modules


def with_adapter(model, file, modules, scale=lambda module, rank: 8 / rank):
    """W + s B A in a copy."""
    made = copy.deepcopy(model)
    for module, (tower, name) in modules.items():
        down, up = (file.tensors[f"base_model.model.{module}.lora_{one}.weight"] for one in "AB")
        weight_in(made, tower, name)[0].add_(scale(module, len(down)) * up @ down)
    return made


ALL = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2")


@pytest.mark.parametrize(
    "targets, config, ranks, scale, method",
    [
        (ALL[:3], {}, lambda m: 4, lambda m, r: 2, "clip-lora"),
        (ALL[:3], {"lora_alpha": -8}, lambda m: 4, lambda m, r: -2, "lora"),
        (ALL, {}, lambda m: 4, lambda m, r: 2, "lora"),
        (ALL[3:], {"use_rslora": True}, lambda m: 4, lambda m, r: 4, "lora"),
        (
            ALL,
            {
                "rank_pattern": {"fc1": 2, "vision_model.encoder.layers.0.self_attn.q_proj": 6},
                "alpha_pattern": {r"layers\.1\..*q_proj": 3.0, "out_proj": 1, "proj": 100},
            },
            lambda m: 2 if m.endswith("fc1") else 6 if m == "vision_model.encoder.layers.0.self_attn.q_proj" else 4,
            lambda m, r: (3 if ".1.self_attn.q_proj" in m else 1 if m.endswith("out_proj") else 8) / r,
            "lora",
        ),
    ],
)
def test_an_adapter_answers_as_its_weights_merged_by_hand(names, pair, tmp_path, targets, config, ranks, scale, method):
    file, modules = adapter(targets, config, ranks=ranks)
    plugin = imported("peft", file, tmp_path / "p.safetensors", facts(names[0]))
    assert plugin.method == method
    for backbone in pair:
        expected = at_full_length(with_adapter(backbone.model, file, modules, scale), PIXELS)
        assert relative(at_full_length(backbone.model, PIXELS), expected) > 0.05
        assert relative(answered(plugin, backbone, PIXELS), expected) < TOLERANCE


@pytest.mark.parametrize("template", ["a photo.", "{} or {}", "a {0}", "a {"])
def test_a_prompt_without_one_place_for_the_name_is_refused(names, tmp_path, template):
    with pytest.raises(UserError, match="expected a text with one {} for the class name"):
        imported("peft", adapter(ALL[:1])[0], tmp_path / "p.safetensors", facts(names[0], templates=[template]))
    assert not (tmp_path / "p.safetensors").exists()


@pytest.mark.parametrize(
    "kind, expected",
    [
        ("clip-lora", "metadata lacks r, alpha, encoder, params, position"),
        ("tip-adapter", "holds no values with keys or best_F"),
        ("peft", "there is no adapter_config.json beside it"),
    ],
)
def test_a_kind_that_the_file_is_not_is_refused(names, tmp_path, kind, expected):
    with pytest.raises(UserError, match=expected):
        imported(kind, foreign({"weight": torch.ones(2, 3)}), tmp_path / "p.safetensors", facts(names[0]))


def test_several_prompts_are_averaged(names, pair, tmp_path):
    file, modules = adapter(ALL[:3])
    prompts = ["{} in the wild.", "a {}."]
    plugin = imported("peft", file, tmp_path / "p.safetensors", facts(names[0], templates=prompts))
    expected = at_full_length(with_adapter(pair[0].model, file, modules), PIXELS, templates=prompts)
    assert relative(answered(plugin, pair[0], PIXELS), expected) < TOLERANCE


def copies_of(model, near=0.02):
    """What peft saves whole, by transformers' names: the base's, a little changed."""
    found = {}
    for tower, name, key in (
        ("text", "final_layer_norm", "text_model.final_layer_norm"),
        ("image", "pre_layrnorm", "vision_model.pre_layrnorm"),
        ("image", "post_layernorm", "vision_model.post_layernorm"),
        ("text", "projection", "text_projection"),
        ("image", "projection", "visual_projection"),
        ("text", "layers.1.layer_norm1", "text_model.encoder.layers.1.layer_norm1"),
        ("text", "layers.0.self_attn.q_proj", "text_model.encoder.layers.0.self_attn.q_proj"),
        ("image", "layers.1.mlp.fc2", "vision_model.encoder.layers.1.mlp.fc2"),
    ):
        weight, bias = weight_in(model, tower, name)
        if not key.endswith("q_proj"):  # of a module with a low-rank pair, its bias alone
            found[f"{key}.weight"] = (tower, name, 0, weight + values(*weight.shape, seed=len(found)) * near)
        if bias is not None:
            end = "base_layer.bias" if key.endswith("q_proj") else "bias"
            found[f"{key}.{end}"] = (tower, name, 1, bias + values(*bias.shape, seed=len(found)) * near)
    return found


def test_what_is_saved_whole_becomes_a_difference_to_the_base(names, pair, tmp_path):
    """On its own backbone the copies stand in the place of the weights; on another their difference is added."""
    base, new = pair
    copies = copies_of(base.model)
    file, modules = adapter(ALL[:1], {"bias": "all"}, extra={name: one[3].clone() for name, one in copies.items()})
    plugin = imported("peft", file, tmp_path / "p.safetensors", facts(names[0]))
    assert plugin.home["fingerprint"] == base.fingerprint
    assert any("weights of the backbone" in line for line in plugin.header["imported"]["proven"])
    expected, moved = (with_adapter(backbone.model, file, modules) for backbone in pair)
    for tower, name, side, value in copies.values():
        own = weight_in(base.model, tower, name)[side]
        weight_in(moved, tower, name)[side].add_(value - own)
        weight_in(expected, tower, name)[side].copy_(value)
    for backbone, model in ((base, expected), (new, moved)):
        wanted = at_full_length(model, PIXELS)
        assert relative(at_full_length(with_adapter(backbone.model, file, modules), PIXELS), wanted) > 1e-3
        assert relative(answered(plugin, backbone, PIXELS), wanted) < TOLERANCE


def test_copies_of_another_model_are_refused_by_name(names, pair, tmp_path):
    copies = {name: one[3].clone() for name, one in copies_of(pair[1].model).items() if "norm" not in name}
    file, _ = adapter(ALL[:1], extra=copies)
    with pytest.raises(UserError, match=r"weights that it holds whole \(\d+\) are not those of local-dir:\S*a trained"):
        imported("peft", file, tmp_path / "p.safetensors", facts(names[0]))


def test_dora_is_taken_as_what_it_changed_on_its_base(names, pair, tmp_path):
    """Liu et al. 2024, equation 5: the direction's rows at their learned magnitudes."""
    file, modules = adapter(ALL[:1] + ALL[4:5], {"use_dora": True})
    expected = copy.deepcopy(pair[0].model)
    for number, (module, (tower, name)) in enumerate(modules.items()):
        weight = weight_in(expected, tower, name)[0]
        down, up = (file.tensors[f"base_model.model.{module}.lora_{one}.weight"] for one in "AB")
        magnitude = weight.norm(dim=1) * (1 + values(len(weight), seed=number))
        file.tensors[f"base_model.model.{module}.lora_magnitude_vector"] = magnitude
        turned = weight + 2 * up @ down
        weight.copy_(magnitude[:, None] * turned / turned.norm(dim=1, keepdim=True))
    plugin = imported("peft", file, tmp_path / "p.safetensors", facts(names[0]))
    assert relative(answered(plugin, pair[0], PIXELS), at_full_length(expected, PIXELS)) < TOLERANCE
    assert any(note.startswith("DoRA: the change of 10 matrices") for note in plugin.header["imported"]["notes"])


def test_a_bias_of_the_second_factor_is_scaled_with_it(names, pair, tmp_path):
    file, modules = adapter(ALL[4:5], {"lora_bias": True})
    expected = with_adapter(pair[0].model, file, modules)
    for number, (module, (tower, name)) in enumerate(modules.items()):
        bias = weight_in(expected, tower, name)[1]
        file.tensors[f"base_model.model.{module}.lora_B.bias"] = values(len(bias), seed=number)
        bias.add_(2 * file.tensors[f"base_model.model.{module}.lora_B.bias"])
    plugin = imported("peft", file, tmp_path / "p.safetensors", facts(names[0]))
    assert relative(answered(plugin, pair[0], PIXELS), at_full_length(expected, PIXELS)) < TOLERANCE


@pytest.mark.parametrize("tower, kind", [("text", "CLIPTextModel"), ("image", "CLIPVisionModelWithProjection")])
def test_layers_that_do_not_say_their_tower_go_by_the_models_class_or_by_what_is_said(
    names, pair, tmp_path, tower, kind
):
    front = {tower: "encoder."}
    mapping = {"auto_mapping": {"base_model_class": kind}}
    for config, more in ((mapping, {}), ({"auto_mapping": None}, {"tower": tower})):
        file, modules = adapter(ALL[4:], config, front=front)
        plugin = imported("peft", file, tmp_path / "p.safetensors", facts(names[0], **more))
        expected = at_full_length(with_adapter(pair[0].model, file, modules), PIXELS)
        assert relative(answered(plugin, pair[0], PIXELS), expected) < TOLERANCE
    with pytest.raises(UserError, match="tower: which tower its layers are of"):
        imported("peft", adapter(ALL[4:], front=front)[0], tmp_path / "p.safetensors", facts(names[0]))
    other = "image" if tower == "text" else "text"
    with pytest.raises(UserError, match="was not trained on local-dir.*0.fc1.weight is"):
        file = adapter(ALL[4:], front=front)[0]
        imported("peft", file, tmp_path / "p.safetensors", facts(names[0], tower=other))


def test_a_model_of_ones_own_around_clip_is_seen_through_and_said_to_be(names, pair, tmp_path):
    file, modules = adapter(ALL[:2], front={"text": "clip.text_model.encoder.", "image": "clip.vision_model.encoder."})
    plugin = imported("peft", file, tmp_path / "p.safetensors", facts(names[0]))
    expected = at_full_length(with_adapter(pair[0].model, file, modules), PIXELS)
    assert relative(answered(plugin, pair[0], PIXELS), expected) < TOLERANCE
    assert plugin.header["imported"]["notes"] == ["its CLIP stands under 'clip.' in a model of its own"]


@pytest.mark.parametrize("front", ["", "text."])
def test_an_adapter_of_open_clips_own_modules_is_read_and_its_output_matrices_twice(names, pair, tmp_path, front):
    """peft's layer around torch's attention merges the change of out_proj before and within out_proj's own merge."""
    tensors, expected = {}, copy.deepcopy(pair[0].model)
    for tower, start in {"text": f"{front}transformer.", "image": "visual.transformer."}.items():
        width = WIDTHS[tower]
        for layer in range(LAYERS[tower]):
            for number, (name, out, into, alpha) in enumerate(
                (
                    ("attn", 3 * width, width, 11),
                    ("attn.base_layer.out_proj", width, width, 2 * 11),
                    ("mlp.c_fc", 4 * width, width, 8),
                    ("mlp.c_proj", width, 4 * width, 8),
                )
            ):
                key, seed = f"base_model.model.{start}resblocks.{layer}.{name}", 10 * layer + number
                down, up = values(4, into, seed=seed), values(out, 4, seed=1000 + seed)
                tensors |= {f"{key}.lora_A.weight": down, f"{key}.lora_B.weight": up}
                block = (expected.text if tower == "text" else expected.visual).transformer.resblocks[layer]
                own = {
                    "attn": block.attn.in_proj_weight,
                    "attn.base_layer.out_proj": block.attn.out_proj.weight,
                    "mlp.c_fc": block.mlp.c_fc.weight,
                    "mlp.c_proj": block.mlp.c_proj.weight,
                }[name]
                own.data.add_(alpha / 4 * up @ down)
    config = {**PLAIN, "alpha_pattern": {r"resblocks\.\d\.attn": 11}, "base_model_name_or_path": None}
    file = foreign(tensors, adapter_config=config)
    plugin = imported("peft", file, tmp_path / "p.safetensors", facts(names[0]))
    assert relative(answered(plugin, pair[0], PIXELS), at_full_length(expected, PIXELS)) < TOLERANCE
    assert "output matrix twice" in plugin.header["imported"]["notes"][0]


@pytest.mark.parametrize("bias", ["none", "all"])
def test_peft_itself_around_open_clips_towers_answers_the_same(names, pair, tmp_path, bias):
    peft = pytest.importorskip("peft")
    theirs = copy.deepcopy(pair[0].model)
    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=["attn", "c_fc"], modules_to_save=["ln_post"], bias=bias)
    made = peft.get_peft_model(theirs, config)
    for number, (name, value) in enumerate(made.named_parameters()):
        if value.requires_grad:
            value.data.add_(values(*value.shape, seed=number) * (1 if "lora_" in name else 0.05))
    made.save_pretrained(tmp_path / "adapter")
    plugin = imported("peft", read(tmp_path / "adapter"), tmp_path / "p.safetensors", facts(names[0]))
    assert relative(answered(plugin, pair[0], PIXELS), at_full_length(theirs, PIXELS)) < TOLERANCE


@pytest.mark.parametrize(
    "config, expected",
    [
        ({"peft_type": "LOHA"}, "peft_type is 'LOHA', expected LORA; merge it in peft"),
        ({"task_type": "SEQ_CLS"}, "task_type is 'SEQ_CLS', an adapter with a head of that task"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights is 'pissa_niter_4', which changed the base's own"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out is true"),
        ({"layer_replication": [[0, 4], [2, 5]]}, "sets 'layer_replication', which is not read"),
        ({"a_field_of_tomorrow": {"x": 1}}, "sets 'a_field_of_tomorrow', which is not read"),
        ({"r": 8}, r"shapes \(4, 32\) and \(32, 4\), expected those of rank 8"),
        ({"r": None}, "r is 'None', expected a number"),
        ({"lora_alpha": 10**400}, "lora_alpha is a number of more than 308 digits, expected a number"),
        ({"r": 10**400}, "r is a number of more than 308 digits, expected a number"),
        ({"alpha_pattern": {"q_proj": 10**400}}, "alpha_pattern is no object of names and numbers"),
        ({"lora_alpha": math.nan}, "lora_alpha is 'nan', expected a number"),
        ({"rank_pattern": {"(a+)+q_proj": 4}}, "rank_pattern has the pattern .* is not read"),
        ({"alpha_pattern": {"(": 4}}, "alpha_pattern has the pattern"),
        ({"alpha_pattern": ["q_proj"]}, "alpha_pattern is no object of names and numbers"),
    ],
)
def test_a_configuration_that_is_not_read_is_refused_by_name(names, tmp_path, config, expected):
    with pytest.raises(UserError, match=expected):
        imported("peft", adapter(ALL[:1], config)[0], tmp_path / "p.safetensors", facts(names[0]))


@pytest.mark.parametrize(
    "name, shape, expected",
    [
        ("classifier.weight", (2, 32), "'base_model.model.classifier.weight' is of a head of its own"),
        ("text_model.embeddings.token_embedding.weight", (8, 32), "changes an embedding, which is not read"),
        ("text_model.encoder.layers.0.self_attn.gate.weight", (8, 32), "is of no layer of CLIP's towers that is read"),
        ("text_model.encoder.layers.0.self_attn.v_proj.lora_A.weight", (4, 32), "v_proj. has lora_A alone"),
        ("text_model.encoder.layers.9.layer_norm1.weight", (32,), "text.9.ln_1.weight is 32, .* has no such weight"),
        ("vision_model.post_layernorm.bias", (32,), "image.ln_post.bias is 32, .* has 48"),
        ("clip.text_model.final_layer_norm.bias", (32,), "stand under '' and 'clip.'; expected one model's"),
    ],
)
def test_a_tensor_without_a_place_is_refused_by_name(names, tmp_path, name, shape, expected):
    file, _ = adapter(ALL[:1], extra={name: torch.ones(shape)})
    with pytest.raises(UserError, match=expected):
        imported("peft", file, tmp_path / "p.safetensors", facts(names[0]))


def test_the_name_of_the_base_suggests_a_backbone_and_another_is_refused(names, tmp_path):
    file, _ = adapter(ALL[:1], {"base_model_name_or_path": "openai/clip-vit-base-patch32"})
    told = facts(names[0])
    del told.given["backbone"]
    with pytest.raises(UserError, match="clip-vit-base-patch32': --backbone ViT-B-32-quickgelu/openai"):
        imported("peft", file, tmp_path / "p.safetensors", told)
    with pytest.raises(UserError, match="which is ViT-B-32-quickgelu/openai; --backbone names ViT-B-16-quickgelu/open"):
        imported("peft", file, tmp_path / "p.safetensors", facts("ViT-B-16-quickgelu/openai"))
    imported("peft", file, tmp_path / "p.safetensors", facts(names[0]))  # a folder has no name to compare


def test_what_was_trained_and_is_not_in_the_file_is_said_to_be_lost(names, tmp_path):
    file, _ = adapter(ALL[:1], {"bias": "lora_only", "modules_to_save": ["visual_projection"]})
    notes = imported("peft", file, tmp_path / "p.safetensors", facts(names[0])).header["imported"]["notes"]
    assert "holds no bias" in notes[0] and "modules_to_save names 'visual_projection'" in notes[1]


@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": ["q_proj", "k_proj", "v_proj"], "lora_alpha": 3},
        {"target_modules": ["out_proj", "fc1", "fc2", "text_projection"], "use_rslora": True, "bias": "all"},
        {
            "target_modules": ["q_proj", "fc1"],
            "use_dora": True,
            "rank_pattern": {"fc1": 2},
            "alpha_pattern": {"fc1": 5},
        },
        {"target_modules": ["v_proj"], "modules_to_save": ["visual_projection", "post_layernorm"]},
    ],
)
def test_peft_itself_answers_the_same(names, pair, tmp_path, config):
    """Its own layers around transformers' CLIP of the same weights, its own files; where both are installed."""
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    size = {"num_hidden_layers": 3, "num_attention_heads": 4, "hidden_size": 32, "intermediate_size": 128}
    text = {**size, "eos_token_id": 49407, "projection_dim": JOINT}
    size = {"num_hidden_layers": 2, "num_attention_heads": 3, "hidden_size": 48, "intermediate_size": 192}
    image = {**size, "image_size": 32, "patch_size": 8, "projection_dim": JOINT}
    own = transformers.CLIPConfig(text_config=text, vision_config=image, projection_dim=JOINT)
    theirs, model = transformers.CLIPModel(own).eval(), pair[0].model
    for name, value in theirs.state_dict().items():
        copied(model, name, value)
    made = peft.get_peft_model(theirs, peft.LoraConfig(**{"r": 4, "lora_alpha": 8, **config}))
    for number, (name, value) in enumerate(made.named_parameters()):
        if value.requires_grad:
            value.data.add_(values(*value.shape, seed=number) * (1 if "lora_B" in name else 0.1))
    made.save_pretrained(tmp_path / "adapter")
    plugin = imported("peft", read(tmp_path / "adapter"), tmp_path / "p.safetensors", facts(names[0]))
    ids = loading.tokenizer("ViT-B-32")([PROMPT.format(name) for name in NAMES])
    with torch.no_grad():
        images = theirs.visual_projection(theirs.vision_model(pixel_values=PIXELS).pooler_output)
        texts = theirs.text_projection(theirs.text_model(input_ids=ids).pooler_output)
    images, texts = (torch.nn.functional.normalize(one, dim=-1) for one in (images, texts))
    assert relative(answered(plugin, pair[0], PIXELS), model.logit_scale.exp() * images @ texts.T) < TOLERANCE


def copied(model, name, value):
    """Put open_clip's weight where transformers has it."""
    if name == "logit_scale" or name.endswith("position_ids"):
        return
    tower = "text" if name.startswith("text") else "image"
    whole = model.text if tower == "text" else model.visual
    special = {
        "text_model.embeddings.token_embedding.weight": lambda: whole.token_embedding.weight,
        "text_model.embeddings.position_embedding.weight": lambda: whole.positional_embedding,
        "vision_model.embeddings.class_embedding": lambda: whole.class_embedding,
        "vision_model.embeddings.patch_embedding.weight": lambda: whole.conv1.weight,
        "vision_model.embeddings.position_embedding.weight": lambda: whole.positional_embedding,
    }
    if name in special:
        value.copy_(special[name]().data)
        return
    module, _, kind = re.sub(r"^(text|vision)_model\.(encoder\.)?", "", name).rpartition(".")
    module = "projection" if module.endswith("_projection") else module
    value.copy_(weight_in(model, tower, module)[kind == "bias"])


def test_what_is_written_is_plain_json(names, tmp_path):
    header = imported("peft", adapter(ALL)[0], tmp_path / "p.safetensors", facts(names[0])).header
    assert json.loads(json.dumps(header)) == header and header["imported"]["format"] == "peft"
