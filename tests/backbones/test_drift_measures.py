"""Layer drift as it is measured: against closed forms, open_clip's own passes and numpy; and an arch's controls."""

from __future__ import annotations

import json
from contextlib import ExitStack
from functools import partial

import numpy as np
import open_clip
import pytest
import scipy.stats
import torch
from drift_rows import by_layer, rows, song_cka
from references import hooked, relative
from tiny_towers import IMAGE_SIZE, tiny_model, wrap

from carryover.bench.backbones import drift, drift_streams, loading
from carryover.bench.backbones.arch_files import find_arch
from carryover.bench.backbones.archs import ARCHS, OTHER_ACTIVATION
from carryover.bench.backbones.drift_measures import debiased_cka, feature_change, structure
from carryover.bench.backbones.drift_names import POOLED
from carryover.bench.engine import drift_runs
from carryover.bench.engine.options import Options
from carryover.bench.engine.session import Session
from carryover.bench.errors import UserError

PROMPTS = {
    "pets": ("a photo of a cat.", "a photo of a red double decker bus.", "an aeroplane, a type of thing.", "dog."),
    "land": ("forest.", "a sea or a lake of some size.", "highway.", "a photo of a cat.", "annual crop land."),
}
LAYERS = ["0", "1", "2", "3", "ln_final", "projected"]


def wrapped(seed=0, change=lambda model: None, quick_gelu=True, **text):
    """A tiny backbone of its own; ``change`` may alter its weights before it is wrapped."""
    model = tiny_model(seed, quick_gelu, **text)
    with torch.no_grad():
        change(model)
    return wrap(model, f"tiny-{seed}", "quick_gelu" if quick_gelu else "gelu")


def pictures(count=6, seed=0):
    return torch.randn(count, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(seed))


# ---- closed forms ----------------------------------------------------------------------------------------------------


def test_identical_models_give_zero_everywhere_and_cka_1():
    pixels = pictures()
    measured = drift.measure(wrapped(), wrapped(), PROMPTS, (pixels, pixels))
    assert not measured["text"]["notes"] and not measured["vision"]["notes"]
    for tower in ("text", "vision"):
        assert measured[tower]["parameters"] and measured[tower]["features"]
        for row in (*measured[tower]["parameters"], *measured[tower]["features"]):
            assert row["absolute"] == row["relative"] == row["norm_ratio"] == 0
            assert row.get("one_minus_cosine", 0) == 0 and row.get("cka") in (None, pytest.approx(1, abs=1e-12))
    cka = by_layer(measured, "cka", "land")
    assert list(cka) == LAYERS and None not in cka.values()


def test_a_constant_added_to_one_blocks_mlp_shows_there_and_nowhere_else():
    def coarse(model):
        for value in model.parameters():
            value.copy_((value * 1024).round() / 1024)  # so that a sum with 1/4 is exact

    def moved(model):
        coarse(model)
        for value in model.text.transformer.resblocks[1].mlp.parameters():
            value.add_(0.25)

    measured = drift.measure(wrapped(change=coarse), wrapped(change=moved), PROMPTS)
    for row in measured["text"]["parameters"]:
        if (row["layer"], row["kind"]) not in {("2", "mlp"), ("2", "all")}:
            assert row["absolute"] == row["relative"] == row["norm_ratio"] == 0, row
    width = 32
    sizes = {"mlp": 8 * width**2 + 5 * width, "attention": 4 * width**2 + 4 * width, "layernorm": 4 * width}
    found = {row["kind"]: row for row in rows(measured, "text", "parameters", layer="2")}
    assert {kind: row["count"] for kind, row in found.items()} == {**sizes, "all": sum(sizes.values())}
    assert found["mlp"]["absolute"] == 0.25
    assert found["all"]["absolute"] == pytest.approx(0.25 * sizes["mlp"] / sum(sizes.values()), rel=1e-12)
    change = by_layer(measured, "relative")
    assert change["0"] == change["1"] == 0 and min(change[layer] for layer in LAYERS[2:]) > 0


def test_weights_scaled_by_a_factor_change_by_that_factor_less_1():
    def scaled(model):
        for value in model.text.transformer.resblocks[2].parameters():
            value.mul_(1.5)
        model.text.text_projection.mul_(0.75)

    measured = drift.measure(wrapped(), wrapped(change=scaled), PROMPTS)
    for row in measured["text"]["parameters"]:
        expected = {"3": 0.5, "projected": 0.25}.get(row["layer"], 0)
        assert row["relative"] == pytest.approx(expected, abs=1e-7)
        assert row["norm_ratio"] == pytest.approx(expected, abs=1e-7)


def test_a_rotation_of_the_joint_space_moves_features_and_leaves_cka_at_1():
    rotation = torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(5)))[0]
    measured = drift.measure(
        wrapped(), wrapped(change=lambda m: m.text.text_projection.copy_(m.text.text_projection @ rotation)), PROMPTS
    )
    assert by_layer(measured, "cka", POOLED)["projected"] == pytest.approx(1, abs=1e-6)
    assert by_layer(measured, "relative")["projected"] > 0.5
    assert by_layer(measured, "one_minus_cosine")["projected"] > 0.2
    assert by_layer(measured, "relative")["ln_final"] == 0


def test_only_embeddings_of_tokens_in_the_prompts_count_as_used():
    used = open_clip.get_tokenizer("ViT-B-32")(["forest"])[0, 1].item()
    for token, seen in ((used, True), (20000, False)):
        other = wrapped(change=lambda m, token=token: m.text.token_embedding.weight[token].add_(1))
        measured = drift.measure(wrapped(), other, PROMPTS)
        found = {row["kind"]: row["absolute"] for row in rows(measured, "text", "parameters", layer="0")}
        assert found["tokens"] > 0 and found["positions"] == 0 and (found["tokens used"] > 0) == seen
        assert (max(by_layer(measured, "absolute").values()) > 0) == seen


# ---- the numbers against numpy ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 40), (5, 40), (60, 7), (30, 30)])
def test_cka_is_that_of_songs_hsic_and_blind_to_rotation_scale_and_shift(shape):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=shape) + 3, rng.normal(size=(shape[0], 11))
    rotation = np.linalg.qr(rng.normal(size=(shape[1], shape[1])))[0]
    assert debiased_cka(torch.tensor(x), torch.tensor(y)) == pytest.approx(song_cka(x, y), rel=1e-8)
    for changed in (x @ rotation, 7 * x, x - 5, -0.1 * x @ rotation + 2):
        assert debiased_cka(torch.tensor(x), torch.tensor(changed)) == pytest.approx(1, abs=1e-10)
        assert debiased_cka(torch.tensor(changed), torch.tensor(y)) == pytest.approx(song_cka(x, y), rel=1e-7)


@pytest.mark.parametrize("count", [5, 10, 50, 150])
def test_cka_of_features_with_nothing_in_common_is_about_0_at_any_number_of_rows(count):
    rng, independent, shuffled = np.random.default_rng(3), [], []
    stretched = np.diag(np.arange(1.0, 65.0) ** -0.5)  # directions of unequal spread, as features have
    for _ in range(400):
        x = rng.normal(size=(count, 64)) @ stretched
        y = x @ np.linalg.qr(rng.normal(size=(64, 64)))[0] + 0.1 * rng.normal(size=(count, 64))
        other = rng.normal(size=(count, 64)) @ stretched
        independent.append(debiased_cka(torch.tensor(x), torch.tensor(other)))
        shuffled.append(debiased_cka(torch.tensor(x), torch.tensor(y[rng.permutation(count)])))
        assert count < 10 or debiased_cka(torch.tensor(x), torch.tensor(y)) > 0.7
    for found in (independent, shuffled):  # the usual estimator gives 0.9 at 5 rows and 0.2 at 150
        assert abs(np.mean(found)) < 4 * np.std(found) / 20 + 0.01


def test_cka_of_few_rows_or_of_what_does_not_vary_is_not_defined():
    same = torch.randn(1, 8).expand(5, 8)
    assert debiased_cka(same, torch.randn(5, 8)) is None and debiased_cka(torch.randn(5, 8), same) is None
    assert debiased_cka(torch.randn(3, 8), torch.randn(3, 8)) is None
    assert debiased_cka(torch.eye(6), torch.randn(6, 8)) is None, "all at one distance"
    four = ("a cat.", "a dog.", "a cow.", "a hen.")  # EOT at one place
    prompts = {"short": four, "long": (*four, "a big dog.", "a big cat."), "few": four[:3]}
    measured = drift.measure(wrapped(0), wrapped(1), prompts)
    assert by_layer(measured, "cka", "short")["0"] is None and by_layer(measured, "cka", "long")["0"] is not None
    assert set(by_layer(measured, "cka", "few").values()) == {None}
    assert by_layer(measured, "cka")["0"] is None and by_layer(measured, "cka", POOLED)["0"] is not None
    json.dumps(measured, allow_nan=False)


def test_feature_numbers_are_those_of_numpy():
    rng = np.random.default_rng(2)
    old, new = rng.normal(size=(9, 6)), rng.normal(size=(9, 6)) * 2
    found = feature_change(torch.tensor(old), torch.tensor(new))
    lengths = [np.linalg.norm(b - a) / np.linalg.norm(a) for a, b in zip(old, new, strict=True)]
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(old, new, strict=True)]
    assert found["absolute"] == pytest.approx(np.abs(new - old).mean())
    assert found["relative"] == pytest.approx(np.mean(lengths))
    assert found["norm_ratio"] == pytest.approx(np.linalg.norm(new - old) / np.linalg.norm(old))
    assert found["one_minus_cosine"] == pytest.approx(1 - np.mean(cosines))
    assert found["count"] == 9


def test_the_average_is_over_datasets_and_pooling_over_distinct_prompts():
    measured = drift.measure(wrapped(0), wrapped(1), PROMPTS)
    for value in ("absolute", "relative", "one_minus_cosine", "cka"):
        each = [by_layer(measured, value, name)["2"] for name in PROMPTS]
        assert by_layer(measured, value)["2"] == pytest.approx(np.mean(each))
    assert by_layer(measured, "count")["2"] == 9 and by_layer(measured, "count", POOLED)["2"] == 8  # one is in both
    once = drift.measure(wrapped(0), wrapped(1), {"all": tuple(dict.fromkeys(sum(PROMPTS.values(), ())))})
    assert by_layer(measured, "cka", POOLED)["2"] == pytest.approx(by_layer(once, "cka", "all")["2"], rel=1e-6)


@pytest.mark.parametrize("shape", [(3, 5, 5), (12, 4, 9), (40, 16, 16)])
def test_structure_is_the_correlation_of_scipys_cosine_distances(shape):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(shape[0], shape[1])), rng.normal(size=(shape[0], shape[2]))
    expected = scipy.stats.pearsonr(*(scipy.spatial.distance.pdist(side, "cosine") for side in (x, y))).statistic
    assert structure(torch.tensor(x), torch.tensor(y)) == pytest.approx(expected, abs=1e-10)
    turn = np.linalg.qr(rng.normal(size=(shape[1], shape[1])))[0]
    assert structure(torch.tensor(x), torch.tensor(3 * x @ turn)) == pytest.approx(1, abs=1e-10)


def test_structure_of_two_rows_or_of_equal_cosines_is_not_defined():
    assert structure(torch.randn(2, 4), torch.randn(2, 4)) is None
    assert structure(torch.eye(4), torch.randn(4, 4)) is None
    assert structure(torch.randn(4, 6), torch.ones(4, 6)) is None


# ---- features against open_clip's own passes -------------------------------------------------------------------------


def watched(backbone, texts):
    """Every layer at EOT through hooks on open_clip's own ``encode_text`` at 77 tokens."""
    text, kept = backbone.model.text, {}
    ids = open_clip.get_tokenizer("ViT-B-32")(list(texts))
    at = torch.arange(len(ids)), ids.argmax(dim=1)
    blocks = text.transformer.resblocks
    with ExitStack() as stack:
        stack.enter_context(
            hooked(blocks[0].register_forward_pre_hook(lambda m, given: kept.update({"0": given[0][at]})))
        )
        for number, block in enumerate(blocks, 1):
            hook = block.register_forward_hook(lambda m, given, x, n=str(number): kept.update({n: x[at]}))
            stack.enter_context(hooked(hook))
        stack.enter_context(
            hooked(text.ln_final.register_forward_hook(lambda m, given, x: kept.update({"ln_final": x[at]})))
        )
        with torch.no_grad():
            kept["projected"] = backbone.model.encode_text(ids)
    assert ids.shape[1] == 77
    return kept


@pytest.mark.parametrize("name", ["tiny", "micro-base", "micro-update"])
def test_features_are_what_hooks_see_in_open_clips_own_pass(name, monkeypatch):
    monkeypatch.setattr(drift_streams, "TEXTS_AT_ONCE", 3)
    towers = {tower.model: tower for tower in ARCHS["micro"].towers.values()}
    backbone = wrapped() if name == "tiny" else loading.load(towers[name])
    texts = sum(PROMPTS.values(), ())
    found, expected = drift.residuals(backbone, backbone.text.tokens(texts)), watched(backbone, texts)
    assert list(found) == list(expected) == ["0", *map(str, range(1, len(backbone.text.blocks) + 1)), *LAYERS[-2:]]
    for layer in expected:
        assert relative(found[layer], expected[layer]) < 2e-5, layer


def test_vision_features_end_in_open_clips_own():
    backbone, pixels = wrapped(), pictures()
    visual, found = backbone.model.visual, drift.vision_residuals(backbone, pixels)
    assert list(found) == ["0", "1", "2", "projected"]
    with torch.no_grad():
        expected = backbone.model.encode_image(pixels)
        assert torch.equal(found["projected"], expected)
        assert relative(visual.ln_post(found["2"]) @ visual.proj, expected) < 1e-5
    assert not visual.transformer.resblocks[0]._forward_hooks


# ---- controls and what cannot be compared ----------------------------------------------------------------------------


def test_the_other_activation_moves_features_and_no_weight():
    base = wrapped()
    other = drift.other_activation(base)
    plain = tiny_model(0, False)  # built with GELU by open_clip itself
    plain.load_state_dict(base.model.state_dict())
    ids = open_clip.get_tokenizer("ViT-B-32")(["a photo of a cat."])
    with torch.no_grad():
        assert torch.equal(other.model.encode_text(ids), plain.eval().encode_text(ids))
        assert not torch.equal(other.model.encode_text(ids), base.model.encode_text(ids))
    assert other.fingerprint != base.fingerprint and drift.other_activation(other).fingerprint == base.fingerprint
    measured = drift.measure(base, other, PROMPTS)
    assert {row["absolute"] for row in measured["text"]["parameters"]} == {0.0}
    change = by_layer(measured, "relative")
    assert change["0"] == 0 and min(change[layer] for layer in LAYERS[1:]) > 0
    assert measured["vision"] == {"parameters": [], "features": [], "notes": ["vision: the tower is the same"]}


def test_what_cannot_be_compared_is_left_out_with_a_reason():
    deeper = drift.measure(wrapped(), wrapped(layers=4), PROMPTS)
    (note,) = deeper["text"]["notes"]
    assert "3 and 4 blocks are compared at equal parts of their depth, by similarities alone" in note
    assert {row["layer"] for row in deeper["text"]["parameters"]} == set(LAYERS)
    whole = drift.measure(wrapped(), wrapped(), PROMPTS)
    assert "no pictures" in whole["vision"]["notes"][0] and whole["vision"]["parameters"]
    pair = [loading.load(tower) for tower in ARCHS["micro"].towers.values()]
    micro = drift.measure(*pair, {"land": PROMPTS["land"]}, (pictures(), pictures()))
    assert micro["vision"]["parameters"] == micro["vision"]["features"] == []
    assert "no counterpart" in micro["vision"]["notes"][0] and "ModifiedResNet" in micro["vision"]["notes"][1]


def test_an_embedding_of_another_size_is_no_layer_of_rows():
    short = partial(open_clip.get_tokenizer("ViT-B-32"), context_length=60)
    other = loading.Backbone(tiny_model(0, True, context_length=60), wrapped().tower, short)
    measured = drift.measure(wrapped(), other, PROMPTS)
    assert [row["kind"] for row in rows(measured, "text", "parameters", layer="0")] == ["tokens", "tokens used"]
    assert "1 of" in measured["text"]["notes"][0] and by_layer(measured, "absolute")["3"] >= 0


# ---- controls of an arch ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["vit-b16", "vit-l14"])
def test_published_controls_are_known_to_open_clip_and_fit_the_base(name):
    arch = ARCHS[name]
    for tower in arch.controls.values():
        assert tower.pretrained in open_clip.list_pretrained_tags_by_model(tower.model)
        config = open_clip.get_model_config(tower.model)
        assert (config["text_cfg"]["width"], config["embed_dim"]) == (arch.base.width, arch.base.dim)
        loading.check_tag(tower, tower.activation)
    assert not set(arch.controls) & set(arch.towers)


MICRO_TOML = '[base]\nmodel = "micro-base"\n[new]\nmodel = "micro-update"\n'


def test_an_arch_file_may_name_controls(tmp_path):
    (tmp_path / "pair.toml").write_text(MICRO_TOML + '[controls.other]\nmodel = "micro-unrelated"\n')
    arch = find_arch(str(tmp_path / "pair.toml"))
    assert list(arch.controls) == ["other"] and "other" not in arch.towers
    assert drift_runs.pairs_of(Session(Options(arch, "cpu", "", ""))) == ["new", OTHER_ACTIVATION, "other"]


@pytest.mark.parametrize(
    "text, expected",
    [
        ('[more.a]\nmodel = "micro-base"\n[controls.a]\nmodel = "micro-base"\n', "[controls.a]"),
        ('[controls.other_activation]\nmodel = "micro-base"\n', "[controls.other_activation]"),
        ("[controls]\na = 1\n", "[controls.NAME]"),
        ("[controls.a]\n", "controls.a"),
    ],
)
def test_controls_that_do_not_fit_are_one_line(tmp_path, text, expected):
    (tmp_path / "pair.toml").write_text(MICRO_TOML + text)
    with pytest.raises(UserError) as caught:
        find_arch(str(tmp_path / "pair.toml"))
    assert expected in str(caught.value) and "\n" not in str(caught.value)
