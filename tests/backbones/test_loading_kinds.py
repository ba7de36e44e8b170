"""Backbones of other kinds than CLIP's as they are loaded: features, logit bias, activation, transform, tokenizer."""

import json
import os

import huggingface_hub
import open_clip
import pytest
import torch
from local_towers import saved_locally
from references import relative
from safetensors.torch import save_file
from text_kinds import DIM, KINDS, WIDTH, as_open_clip, config_of, made

from carryover.bench.backbones import configs, loading, weight_checks
from carryover.bench.backbones.archs import Tower
from carryover.bench.backbones.sizes import sizes_of
from carryover.bench.errors import UserError
from carryover.bench.plugins import contract
from carryover.datasets.micro import checkpoint

TEXTS = ["a photo of a cat.", "a red double decker bus"]
PIXELS = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
OPENAI = (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF, NONE = ((0.5,) * 3, (0.5,) * 3), ((0.0,) * 3, (1.0,) * 3)


def backbone(name):
    model, tokenizer, kind = made(name)
    return model, loading.Backbone(model, Tower(name, "", "gelu", WIDTH, DIM), tokenizer)


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.named])
def test_a_folder_of_each_kind_with_clips_tokens_loads_and_gives_open_clips_features(tmp_path, name):
    model, tokenizer, kind = made(name)
    save_file(
        {key: value.contiguous() for key, value in model.state_dict().items()}, tmp_path / "open_clip_model.safetensors"
    )
    config = {"model_cfg": config_of(kind), "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    tower = Tower(f"local-dir:{tmp_path}", clip_transform=False, layers=0)
    loaded = loading.load(tower)
    assert (loaded.width, loaded.dim, loaded.tower.layers) == (WIDTH, DIM, 3)
    assert loaded.tower.activation == ("quick_gelu" if kind.quick else "gelu")
    with torch.no_grad():
        images = model.encode_image(PIXELS, normalize=False)
        assert relative(loaded.encode_images(PIXELS), images) < 2e-5
        assert relative(loaded.text.encode_texts(TEXTS), as_open_clip(model, tokenizer, TEXTS)) < 2e-5
    assert (images.norm(dim=-1) - 1).abs().min() > 0.01  # CoCa's, too, are not of length one


def test_the_logit_bias_is_a_number_of_sigmoid_models_and_none_of_others():
    assert backbone("CLIP")[1].bias is None
    model, found = backbone("SigLIP")
    assert found.bias.shape == () and found.bias.item() == -10
    model.logit_bias.data = torch.full((1,), -3.0)  # as some checkpoints hold it
    assert found.bias.shape == () and found.bias.item() == -3


def test_a_models_own_zero_shot_probabilities_are_those_of_sigmoid_with_its_bias():
    """Zhai et al. 2023: sigmoid of scale times cosine plus bias, as open_clip's ``get_logits``."""
    model, found = backbone("SigLIP")
    with torch.no_grad():
        expected, _ = model.get_logits(PIXELS, found.text.tokenizer(TEXTS))
        images, texts = (
            torch.nn.functional.normalize(x, dim=-1)
            for x in (found.encode_images(PIXELS), found.text.encode_texts(TEXTS))
        )
    torch.testing.assert_close(found.scale * images @ texts.T + found.bias, expected, rtol=1e-5, atol=1e-5)


def test_micro_siglip_loads_by_its_own_words(tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = loading.build("micro-siglip").eval()
    checkpoint.save(model, tmp_path / "weights.safetensors", range(len(model.text.token_embedding.weight)))
    loaded = loading.load(Tower("micro-siglip", "", "gelu", 96, 96, str(tmp_path / "weights.safetensors"), layers=6))
    assert loaded.text.layout.start == () and loaded.text.layout.length == 32
    with torch.no_grad():
        expected = model.encode_text(loading.tokenizer("micro-siglip")(TEXTS))
    assert relative(loaded.text.encode_texts(TEXTS), expected) < 0.01  # weights are stored in half precision
    assert loaded.bias.item() == -10


# ---- what is checked -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model, tag, expected",
    [
        ("ViT-B-16-SigLIP", "webli", ("squash", "bicubic", *HALF)),
        ("ViT-B-16-SigLIP2", "webli", ("squash", "bicubic", *HALF)),
        ("PE-Core-B-16", "meta", ("squash", "bilinear", *HALF)),
        ("MobileCLIP2-S0", "dfndr2b", ("shortest", "bilinear", *NONE)),
        ("MobileCLIP2-S3", "dfndr2b", ("shortest", "bilinear", *OPENAI)),
        ("ViT-L-14-CLIPA", "datacomp1b", ("squash", "bilinear", *IMAGENET)),
        ("ViT-H-14-quickgelu", "dfn5b", ("squash", "bicubic", *OPENAI)),
        ("ViT-L-14", "laion2b_s32b_b82k", ("shortest", "bicubic", *HALF)),
        ("coca_ViT-B-32", "laion2b_s13b_b90k", ("shortest", "bicubic", *OPENAI)),
        ("ViT-H-14-worldwide-quickgelu", "metaclip2_worldwide", ("shortest", "bicubic", *OPENAI)),
    ],
)
def test_the_transform_of_each_family_is_the_tags(model, tag, expected):
    """Values by hand, as each family's authors give them."""
    network, _, _ = made("CLIP")
    names = ("resize_mode", "interpolation", "mean", "std")
    own = dict(network.visual.preprocess_cfg) | dict(zip(names, expected, strict=True))
    network.visual.preprocess_cfg = own
    weight_checks.check_transform(network, Tower(model, tag, clip_transform=False))
    other = {"resize_mode": "longest", "interpolation": "nearest", "mean": (0.1, 0.2, 0.3), "std": (0.1, 0.2, 0.3)}
    for name in names:
        network.visual.preprocess_cfg = own | {name: other[name]}
        with pytest.raises(UserError, match=f"expected that of '{tag}'"):
            weight_checks.check_transform(network, Tower(model, tag, clip_transform=False))


def test_gelu_by_tanh_is_held_to_what_the_config_says(monkeypatch):
    model, _, kind = made("SigLIP 2")
    tower = Tower("SigLIP 2", "", "gelu", WIDTH, DIM)
    monkeypatch.setattr(weight_checks, "model_config", lambda name: config_of(kind))
    weight_checks.check_activation(model, tower)
    monkeypatch.setattr(weight_checks, "model_config", lambda name: config_of(KINDS["SigLIP"]))
    with pytest.raises(UserError, match=r"GELU \(tanh\), expected GELU"):
        weight_checks.check_activation(model, tower)


def test_a_tags_activation_is_refused_where_a_model_name_has_the_other():
    with pytest.raises(UserError, match="'ViT-B-16-quickgelu'"):
        weight_checks.check_tag(Tower("ViT-B-16", "openai"), "gelu")
    with pytest.raises(UserError, match="'ViT-B-16-quickgelu' and declare no other"):
        weight_checks.check_tag(Tower("ViT-B-16-quickgelu", "openai"), "gelu")
    weight_checks.check_tag(Tower("roberta-ViT-B-32", "laion2b_s12b_b32k"), "quick_gelu")  # one name, by its config


@pytest.mark.parametrize(
    "error, expected",
    [
        (ImportError("No module named 'transformers'"), "No module named 'transformers'.*pip install transformers"),
        (OSError("timm/x is not a local folder\nmore"), "timm/x is not a local folder; check the network"),
    ],
)
def test_a_tokenizer_that_cannot_be_had_is_one_line_that_says_what_to_do(monkeypatch, tmp_path, error, expected):
    asked = {}

    def get_tokenizer(name, **options):
        asked.update(options, name=name)
        raise error

    monkeypatch.setattr(open_clip, "get_tokenizer", get_tokenizer)
    with pytest.raises(UserError, match=expected) as caught:
        loading.tokenizer("ViT-B-16-SigLIP", str(tmp_path))
    assert asked == {"name": "ViT-B-16-SigLIP", "cache_dir": str(tmp_path)} and "\n" not in str(caught.value)


@pytest.mark.parametrize("model, width, layers", [("nllb-clip-base", 1024, 12), ("roberta-ViT-B-32", 768, 12)])
def test_sizes_of_hugging_face_towers_are_known_without_transformers(model, width, layers):
    found = loading.resolve(Tower(model, layers=0))
    assert (found.width, found.layers, found.dim) == (width, layers, 512)


def test_an_encoder_that_nobody_knows_needs_transformers_or_its_config(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(UserError, match="'some/encoder' needs the package transformers"):
        configs.text_sizes("hf-hub:a/b", {"hf_model_name": "some/encoder"})


def test_a_hugging_face_tower_that_cannot_be_built_is_one_line(monkeypatch):
    monkeypatch.setattr(open_clip.hf_model, "transformers", None)
    with pytest.raises(UserError, match="nllb-clip-base: its text tower cannot be built here: .*transformers"):
        loading.build("nllb-clip-base")


def test_a_hub_models_config_is_had_from_the_cache_that_is_named_and_no_weights_are_asked_for(tmp_path, monkeypatch):
    """A cache as huggingface_hub lays it out, of a config alone; weights come into it later."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    place, asked, download = tmp_path / "models--me--mine", [], huggingface_hub.hf_hub_download
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("abc")
    (place / "snapshots").mkdir()
    saved_locally(tmp_path / "made", 0, False, layers=2, width=48)
    os.replace(tmp_path / "made", place / "snapshots" / "abc")
    os.replace(place / "snapshots" / "abc" / "open_clip_model.safetensors", tmp_path / "weights")
    monkeypatch.setattr(
        open_clip.pretrained, "hf_hub_download", lambda **given: asked.append(given["filename"]) or download(**given)
    )
    with pytest.raises(UserError, match="hf-hub:me/mine: its open_clip config cannot be had"):
        loading.resolve(Tower("hf-hub:me/mine", layers=0))
    tower = loading.resolve(Tower("hf-hub:me/mine", clip_transform=False, layers=0), str(tmp_path))
    sizes = sizes_of(tower, str(tmp_path))
    assert (sizes.width, sizes.text_layers, sizes.image_layers, sizes.image_width) == (48, 2, 2, 48)
    assert contract.architecture(tower, str(tmp_path)).width == 48
    assert {*asked} == {"open_clip_config.json"}
    os.replace(tmp_path / "weights", place / "snapshots" / "abc" / "open_clip_model.safetensors")
    assert loading.load(tower, cache_dir=str(tmp_path)).label == "hf-hub:me/mine"
