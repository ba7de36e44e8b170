"""The suite's lists of backbones: every tag that open_clip lists is in one, or left out for a written reason."""

from fnmatch import fnmatchcase

import open_clip
import pytest
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip_tags import CAPTIONS, LANGUAGES, LARGER_PICTURES, LEFT_OUT, TRAP, WRONG_ACTIVATION, reasons

from carryover.bench.backbones.archs import ARCHS, OTHER_ACTIVATION, Tower
from carryover.bench.plan import suites

MANY = ("micro-all", "vit-b16-all", "vit-l14-all", "vit-h14-all")
PUBLISHED = (*MANY[1:], "vit-b16", "vit-l14", "siglip-b16")
TOWERS = list(
    dict.fromkeys(t for arch in PUBLISHED for t in (*ARCHS[arch].towers.values(), *ARCHS[arch].controls.values()))
)
LISTED = {(tower.model, tower.pretrained) for tower in TOWERS}
TAGS = [(model, tag) for model, tag in open_clip.list_pretrained()]


def quick(model, tag):
    """Whether the weights were trained with QuickGELU, and whether the model of that name has it."""
    return tuple(
        bool(config.get("quick_gelu"))
        for config in (open_clip.get_pretrained_cfg(model, tag), open_clip.get_model_config(model))
    )


def pixels(model):
    return open_clip.get_model_config(model)["vision_cfg"]["image_size"]


def test_every_tag_of_open_clip_is_in_a_list_or_left_out_for_one_written_reason():
    assert len(TAGS) > 190 and LISTED <= {*TAGS}
    judged = {one: reasons(*one) for one in TAGS}
    assert [(one, judged[one]) for one in TAGS if len(judged[one]) != (one not in LISTED)] == []


def test_every_pattern_of_a_reason_is_met_by_a_tag():
    patterns = [pattern for several in LEFT_OUT.values() for pattern in several]
    assert [one for one in patterns if not any(fnmatchcase(f"{model}/{tag}", one) for model, tag in TAGS)] == []
    assert len(patterns) == len({*patterns})


def test_reasons_that_a_config_can_prove_are_true():
    """Activation, pixels and text towers are in open_clip's configs."""
    by_config = {(model, tag) for model, tag in TAGS if quick(model, tag) == (True, False)}
    assert by_config == {one for one in TAGS if WRONG_ACTIVATION in reasons(*one)}
    for model, tag in by_config:
        assert (f"{model}-quickgelu", tag) in TAGS, "its right name is listed too"
    for model, tag in TAGS:
        config, said = open_clip.get_model_config(model), reasons(model, tag)
        assert (CAPTIONS in said) == ("multimodal_cfg" in config), model
        foreign = "hf_model_name" in config["text_cfg"] or "i18n" in model
        assert (LANGUAGES in said) == foreign, model
        assert LARGER_PICTURES not in said or pixels(model) > 224, model
        assert (TRAP in said) == ("-384" in model and pixels(model) != 384), model


@pytest.mark.parametrize("tower", TOWERS, ids=lambda tower: tower.label)
def test_what_is_declared_of_a_listed_backbone_is_its_tags(tower: Tower):
    published = open_clip.get_pretrained_cfg(tower.model, tower.pretrained)
    config = open_clip.get_model_config(tower.model)
    assert quick(tower.model, tower.pretrained) == (tower.activation == "quick_gelu",) * 2
    clips = (published["mean"], published["std"]) == (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)
    clips &= (published["interpolation"], published["resize_mode"]) == ("bicubic", "shortest")
    assert tower.clip_transform == clips
    assert (config["embed_dim"], config["text_cfg"]["width"]) == (tower.dim, tower.width)
    assert config["text_cfg"].get("layers", 12) == tower.layers


def test_no_target_has_more_pixels_than_the_fewest_of_its_family():
    """More pixels cost more and tell no more of plug-ins; PE's L and bigG are published at one size each."""
    for model, _ in LISTED:
        others = [other for other, _ in TAGS if other.startswith(model.split("-336")[0].split("-448")[0])]
        assert pixels(model) == min(pixels(other) for other in others), model
        assert pixels(model) <= 256 or model.startswith("PE-Core-")


@pytest.mark.long
@pytest.mark.parametrize("tower", TOWERS, ids=lambda tower: tower.label)
def test_a_listed_backbone_is_built_with_the_text_tower_that_is_declared(tower: Tower):
    """open_clip's own model, without weights (on the meta device)."""
    with torch.device("meta"):
        model = open_clip.create_model(tower.model, load_weights=False, force_custom_text=True, device="meta")
    blocks = model.text.transformer.resblocks
    kinds = {
        type(module).__name__ for block in blocks for module in block.mlp if not isinstance(module, torch.nn.Linear)
    }
    assert kinds == {"QuickGELU" if tower.activation == "quick_gelu" else "GELU"} and len(blocks) == tower.layers
    assert model.text.positional_embedding.shape[1] == tower.width
    made = model.text.text_projection
    assert (made.out_features if isinstance(made, torch.nn.Linear) else made.shape[1]) == tower.dim


@pytest.mark.parametrize("name", MANY[:3])
def test_an_arch_of_many_targets_keeps_its_pair_and_has_no_control_that_is_a_target(name):
    arch, pair = ARCHS[name], ARCHS[name.removesuffix("-all")]
    assert (arch.id, arch.base, arch.new, arch.protocol, arch.datasets) == (
        name,
        pair.base,
        pair.new,
        pair.protocol,
        pair.datasets,
    )


@pytest.mark.parametrize("name", MANY)
def test_targets_are_others_than_the_base_once_each_and_their_suites_are_known(name):
    arch = ARCHS[name]
    assert len(arch.more) >= 3 and {"base", "new", OTHER_ACTIVATION}.isdisjoint(arch.more) and not arch.controls
    assert len({tower.label for tower in arch.towers.values()}) == len(arch.towers)
    assert arch.suites[:2] == ("main", "targets") and arch.suites[-1] == "drift" and {*arch.suites} <= {*suites.SUITES}
    assert list(arch.towers) == ["base", "new", *arch.more]


def test_the_upgrades_that_people_make_are_in_the_lists():
    """SigLIP to SigLIP 2, CLIP to PE, MetaCLIP 2 and MobileCLIP2, B to L, L to H."""
    names = {arch: " ".join(t.label for role, t in ARCHS[arch].towers.items() if role != "base") for arch in PUBLISHED}
    assert ARCHS["siglip-b16"].base.label == "ViT-B-16-SigLIP/webli" and "SigLIP2" in names["siglip-b16"]
    wanted = {
        "vit-b16-all": ("SigLIP/", "SigLIP2/", "PE-Core-B", "MobileCLIP2-", "ViT-L-14"),
        "vit-l14-all": ("SigLIP-", "SigLIP2-", "PE-Core-L", "MobileCLIP2-L", "ViT-H-14/", "worldwide"),
        "vit-h14-all": ("SigLIP2/", "PE-Core-bigG", "worldwide", "ViT-bigG-14"),
    }
    assert [(arch, one) for arch, ones in wanted.items() for one in ones if one not in names[arch]] == []


def test_the_pairs_run_the_suites_they_ran_before_and_have_one_update():
    for name, count in {"micro": 10, "vit-b16": 10, "vit-l14": 2, "siglip-b16": 2}.items():
        assert len(ARCHS[name].suites) == count and not ARCHS[name].more and "targets" not in ARCHS[name].suites
