"""The archs of many targets: every fitting tag that open_clip lists is a target, or left out for a written reason."""

import open_clip
import pytest
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip_tags import LEFT_OUT, reasons

from carryover.bench.backbones import loading
from carryover.bench.backbones.archs import ARCHS, OTHER_ACTIVATION
from carryover.bench.plan import suites

MANY = ("micro-all", "vit-b16-all", "vit-l14-all")
PUBLISHED = MANY[1:]
TOWERS = [(arch, role) for arch in PUBLISHED for role in ARCHS[arch].towers]


def listed(arch):
    """(model, tag) of open_clip's list whose config has the base's text width and joint width."""
    base, found = ARCHS[arch].base, []
    for model, tag in open_clip.list_pretrained():
        config = open_clip.get_model_config(model)
        if (config["embed_dim"], config["text_cfg"].get("width")) == (base.dim, base.width):
            found.append((model, tag))
    return found


@pytest.mark.parametrize("arch", PUBLISHED)
def test_every_fitting_tag_is_in_the_arch_or_left_out_for_one_written_reason(arch):
    pair = {(ARCHS[arch].base.model, ARCHS[arch].base.pretrained), (ARCHS[arch].new.model, ARCHS[arch].new.pretrained)}
    targets = {(tower.model, tower.pretrained) for tower in ARCHS[arch].more.values()}
    found = listed(arch)
    assert len(found) > 40 and pair <= {*found} and targets <= {*found}
    judged = {one: reasons(arch, *one) for one in found}
    assert [one for one in found if one not in targets and len(judged[one]) != 1] == []
    assert [one for one in targets if judged[one]] == [] and not pair & targets


@pytest.mark.parametrize("arch", PUBLISHED)
def test_no_reason_is_left_of_a_tag_that_is_not_listed_any_more(arch):
    met = {reason for one in listed(arch) for reason in reasons(arch, *one)}
    assert met == {*LEFT_OUT[arch]}


def test_reasons_that_a_config_can_prove_are_true():
    """Causal mask, vocabulary, length and depth are in open_clip's configs; so are the pixels."""
    for arch in PUBLISHED:
        for model, tag in listed(arch):
            text = open_clip.get_model_config(model)["text_cfg"]
            of_tag = open_clip.get_pretrained_cfg(model, tag)
            said = (reasons(arch, model, tag) or [""])[0]
            vocabulary, length = text.get("vocab_size", 49408), text.get("context_length", 77)
            assert ("vocabulary" in said) == (vocabulary != 49408), (model, tag)
            assert ("not causal" in said) == bool(text.get("no_causal_mask") and vocabulary == 49408), (model, tag)
            assert ("16 blocks" in said) == (text.get("layers", 12) != 12), (model, tag)
            assert ("76 tokens" in said) == (length == 76) and ("32 tokens" in said) == (
                length == 32 and vocabulary == 49408
            )
            named = open_clip.get_model_config(model).get("quick_gelu", False)
            wrong = bool(of_tag.get("quick_gelu")) != bool(named)
            assert not wrong or "QuickGELU" in said or "vision tower is smaller" in said, (model, tag)
            assert "QuickGELU" not in said or wrong, (model, tag)


@pytest.mark.parametrize(("arch", "role"), TOWERS)
def test_activation_and_transform_of_a_target_are_its_tags(arch, role):
    tower = ARCHS[arch].towers[role]
    published, config = open_clip.get_pretrained_cfg(tower.model, tower.pretrained), None
    config = open_clip.get_model_config(tower.model)
    assert (tower.activation == "quick_gelu") == bool(published.get("quick_gelu", False))
    assert (tower.activation == "quick_gelu") == bool(config.get("quick_gelu", False))
    clips = (published["mean"], published["std"]) == (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)
    clips &= (published["interpolation"], published["resize_mode"]) == ("bicubic", "shortest")
    assert tower.clip_transform == clips
    assert (config["embed_dim"], config["text_cfg"]["width"]) == (tower.dim, tower.width)
    assert config["text_cfg"].get("layers", 12) == tower.layers
    assert config["vision_cfg"]["image_size"] == 224, "no target costs more pixels than the base"


@pytest.mark.long
@pytest.mark.parametrize(("arch", "role"), TOWERS)
def test_a_targets_towers_are_built_and_their_text_tower_is_causal(arch, role):
    """open_clip's own model, without weights (on the meta device)."""
    tower = ARCHS[arch].towers[role]
    model = open_clip.create_model(tower.model, load_weights=False, force_custom_text=True, device="meta")
    blocks = model.text.transformer.resblocks
    kinds = {type(module) for block in blocks for module in block.mlp if not isinstance(module, torch.nn.Linear)}
    assert kinds == {loading.ACTIVATIONS[tower.activation]} and len(blocks) == tower.layers
    assert model.text.positional_embedding.shape == (77, tower.width)
    assert model.text.attn_mask is not None and model.text.pool_type == "argmax"
    assert open_clip.get_tokenizer(tower.model)(["a"]).shape == (1, 77)


@pytest.mark.parametrize("name", MANY)
def test_an_arch_of_many_targets_keeps_its_pair_and_has_no_control_that_is_a_target(name):
    arch, pair = ARCHS[name], ARCHS[name.removesuffix("-all")]
    assert (arch.id, arch.base, arch.new, arch.protocol, arch.datasets) == (
        name,
        pair.base,
        pair.new,
        pair.protocol,
        pair.datasets,
    )
    assert len(arch.more) >= 3 and {"base", "new", OTHER_ACTIVATION}.isdisjoint(arch.more) and not arch.controls
    assert arch.suites[:2] == ("main", "targets") and arch.suites[-1] == "drift" and {*arch.suites} <= {*suites.SUITES}
    assert list(arch.towers) == ["base", "new", *arch.more]


def test_the_pairs_run_the_suites_they_ran_before_and_have_one_update():
    for name, count in {"micro": 10, "vit-b16": 10, "vit-l14": 2}.items():
        assert len(ARCHS[name].suites) == count and not ARCHS[name].more and "targets" not in ARCHS[name].suites
