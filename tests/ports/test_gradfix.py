"""GradFix against its authors' code, and against gradients of a copy of the towers, taken by hand."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from formula_towers import formula_factors, formula_labels, formula_pixels
from references import relative
from tiny_eva import tiny_eva
from tiny_towers import NAMES, TEMPLATES, wrap
from weight_ports import CLASSES, anchors_of, bits, formula_backbone, logits_of, plugin_of

from carryover.bench.errors import UserError
from carryover.bench.ports.gradfix import GradFix, agreeing, first_of_each, signs
from carryover.bench.ports.weight_deltas import Masked
from carryover.methods.base import METHODS

AUTHORS = json.loads(Path(__file__).with_name("authors.json").read_text())
PIXELS, LABELS = formula_pixels(8), formula_labels(8)
BLOCKS = {"text": "text.transformer.resblocks", "image": "visual.transformer.resblocks"}


@pytest.fixture(scope="module")
def old():
    return formula_backbone(1)


@pytest.fixture(scope="module")
def new():
    return formula_backbone(2)


@pytest.fixture
def anchors():
    return anchors_of(GradFix, PIXELS, labels=LABELS)


def by_hand(backbone, vote):
    """{tower: (L, 3 W, W)} summed signs or gradients of open_clip's own towers at 77 tokens, picture by picture."""
    model = copy.deepcopy(backbone.model)
    names = {t: [f"{p}.{i}.attn.in_proj_weight" for i in range(3 if t == "text" else 2)] for t, p in BLOCKS.items()}
    weights = [model.get_parameter(name).requires_grad_() for own in names.values() for name in own]
    ids = backbone.text.tokenizer([TEMPLATES[0].format(name) for name in NAMES])
    total = [torch.zeros_like(value) for value in weights]
    for x, y in zip(PIXELS, LABELS, strict=True):
        texts = model.encode_text(ids, normalize=True)
        logits = model.logit_scale.exp() * model.encode_image(x[None], normalize=True) @ texts.T
        for whole, found in zip(total, torch.autograd.grad(F.cross_entropy(logits, y[None]), weights), strict=True):
            whole -= found.sign() if vote == "max" else found
    return {"text": torch.stack(total[:3]), "image": torch.stack(total[3:])}


def theirs(change, sign):
    return torch.where(sign.sign() == change.sign(), change, torch.zeros_like(change))


def change_of(plugin, tower):
    part = getattr(plugin, tower)
    return (plugin.config.alpha / plugin.config.rank**0.5 * part.up.detach() @ part.down.detach()).flatten(1, 2)


@pytest.mark.parametrize("vote", ["max", "mean"])
def test_signs_and_what_they_leave_are_the_authors(new, vote):
    """GradFix@3e861a5, compute_real_gradient_signs and taskvector_from_gradient_signs (merge-and-rebase@345c570,
    apply_gradfix_mask, gives the same), on the same tower, pictures and change. A few signs are of gradients near 0."""
    expected = AUTHORS[f"gradfix {vote}"]
    found = signs(new, CLASSES, PIXELS, LABELS, ("image",), vote)["image"]
    for block, theirs_ in zip(found, expected["signs"], strict=True):
        own = "".join({-1: "-", 0: "0", 1: "+"}[int(value)] for value in block.flatten()[::61][:100])
        assert sum(a == b for a, b in zip(own, theirs_, strict=True)) >= 99
    down, up = formula_factors(2, 48)
    change = (up @ down / 2**0.5).flatten(1, 2)
    kept = change * agreeing(change, found)
    assert int((kept != 0).sum()) == pytest.approx(expected["kept"], rel=1e-3)
    assert kept.norm().item() == pytest.approx(expected["norm"], rel=1e-3)
    assert kept.sum().item() == pytest.approx(expected["sum"], abs=0.05)


@pytest.mark.parametrize("vote", ["max", "mean"])
@pytest.mark.parametrize("budget", [4 << 30, 200_000])
def test_signs_of_both_towers_are_those_of_gradients_by_hand_also_in_chunks(new, vote, budget):
    before, new.text.budget = new.text.budget, budget
    try:
        found = signs(new, CLASSES, PIXELS, LABELS, ("text", "image"), vote)
    finally:
        new.text.budget = before
    for tower, total in by_hand(new, vote).items():
        assert total.abs().max() > 0 and (found[tower] == total.sign()).double().mean() > 0.999


def test_the_ported_plugin_is_the_new_towers_plus_the_masked_change(old, new, anchors):
    plugin = plugin_of("clip-lora", old)
    before = bits(new)
    ported = GradFix().fit(plugin, old, new, CLASSES, anchors)
    found = logits_of(ported, new, PIXELS)
    assert bits(new) == before, "the towers are as they were, to the last bit"
    model, sign = copy.deepcopy(new.model), signs(new, CLASSES, PIXELS, LABELS, ("text", "image"), "max")
    with torch.no_grad():
        for tower, prefix in BLOCKS.items():
            masked = theirs(change_of(plugin, tower), sign[tower])
            assert 0.2 < (masked != 0).double().mean() < 0.7
            assert ported.about["kept"][tower] == pytest.approx((masked != 0).double().mean().item(), abs=1e-4)
            for block, more in enumerate(masked):
                model.get_parameter(f"{prefix}.{block}.attn.in_proj_weight").add_(more)
        ids = new.text.tokenizer([TEMPLATES[0].format(name) for name in NAMES])
        texts = model.encode_text(ids, normalize=True)
        expected = model.logit_scale.exp() * model.encode_image(PIXELS, normalize=True) @ texts.T
    assert relative(found, expected) < 1e-4
    assert relative(logits_of(plugin, new, PIXELS), expected) > 0.01, "the mask must matter"


def test_the_loss_at_the_anchors_falls_along_what_is_kept(old, new, anchors):
    """To first order every entry that the mean keeps lowers it."""
    plugin = plugin_of("clip-lora", old, spread=0.02)
    ported = GradFix(vote="mean").fit(plugin, old, new, CLASSES, anchors)
    zero_shot = new.scale * F.normalize(new.encode_images(PIXELS), dim=-1) @ new.zero_shot(CLASSES).T
    with_all = F.cross_entropy(logits_of(plugin, new, PIXELS), LABELS)
    assert F.cross_entropy(logits_of(ported, new, PIXELS), LABELS) < F.cross_entropy(zero_shot, LABELS)
    assert F.cross_entropy(logits_of(ported, new, PIXELS), LABELS) < with_all


def test_a_sign_of_0_drops_the_weight_as_the_authors_do():
    change, sign = torch.tensor([1.0, -1.0, 1.0, -2.0, 0.0]), torch.tensor([1.0, 1.0, 0.0, -1.0, 0.0])
    assert (change * agreeing(change, sign)).tolist() == theirs(change, sign).tolist() == [1.0, 0.0, 0.0, -2.0, 0.0]


def test_it_comes_back_from_its_state_with_one_bit_an_entry(old, new, anchors):
    ported = GradFix().fit(plugin_of("clip-lora", old), old, new, CLASSES, anchors)
    tensors, header = ported.state()
    assert tensors["keep.image"].numel() == 2 * 144 * 48 / 8 and tensors["keep.image"].dtype == torch.uint8
    again = Masked.restore(tensors, json.loads(json.dumps(header)))
    assert torch.equal(logits_of(again, new, PIXELS), logits_of(ported, new, PIXELS))
    assert again.about == ported.about and again.home == new.fingerprint
    with pytest.raises(UserError, match="ported to a backbone"):
        again.bind(old, CLASSES)


def test_a_refresh_reaches_the_factors_behind_the_mask(old, new, anchors):
    ported = GradFix().fit(plugin_of("clip-lora", old), old, new, CLASSES, anchors)
    method = ported.inner().train()
    with method.attach(new):
        method.loss(PIXELS, LABELS).backward()
    assert all(value.grad.abs().max() > 0 for value in method.parameters())
    assert len(list(method.parameters())) == 4


def test_labels_decide_and_are_asked_for(old, new, anchors):
    plugin, port = plugin_of("clip-lora", old), GradFix()
    found = port.fit(plugin, old, new, CLASSES, anchors)
    other = port.fit(plugin, old, new, CLASSES, anchors_of(GradFix, PIXELS, labels=(LABELS + 1) % 4))
    assert not torch.equal(found.inner().image.keep, other.inner().image.keep)
    with pytest.raises(UserError, match="no labels"):
        port.fit(plugin, old, new, CLASSES, anchors_of(GradFix, PIXELS, kind="other"))


def test_of_each_class_the_first_pictures_are_taken(old, new):
    labels = torch.tensor([2, 2, 0, 2, 1, 0, 0, 2])
    assert first_of_each(labels, 2) == [0, 1, 2, 4, 5]
    seen = anchors_of(GradFix, PIXELS, labels=labels)
    ported = GradFix(pictures=1).fit(plugin_of("clip-lora", old), old, new, CLASSES, seen)
    alone = signs(new, CLASSES, PIXELS[[0, 2, 4]], labels[[0, 2, 4]], ("image",), "max")["image"]
    assert ported.about["pictures"] == 3
    assert torch.equal(ported.inner().image.keep, agreeing(change_of(plugin_of("clip-lora", old), "image"), alone))


def test_towers_of_another_kind_and_the_same_shapes_take_it(old, anchors):
    eva = wrap(tiny_eva(False), "tiny-eva", "gelu")
    before = bits(eva)
    ported = GradFix().fit(plugin_of("clip-lora", old), old, eva, CLASSES, anchors)
    assert ported.about["marks"] == [] and torch.isfinite(logits_of(ported, eva, PIXELS)).all()
    assert bits(eva) == before


def test_a_half_of_another_shape_is_left_out_and_marked(old):
    wide, plugin = formula_backbone(2, width=64), plugin_of("clip-lora", old)
    ported = GradFix().fit(plugin, old, wide, CLASSES, anchors_of(GradFix, PIXELS, labels=LABELS))
    (mark,) = ported.about["marks"]
    assert "image half is left out" in mark and "(2, 3, 2, 48)" in mark and "(2, 3, 2, 64)" in mark
    assert list(ported.about["kept"]) == ["text"] and ported.inner().image is None
    tensors, header = ported.state()
    assert torch.equal(logits_of(Masked.restore(tensors, header), wide, PIXELS), logits_of(ported, wide, PIXELS))


def test_where_no_shape_is_the_same_one_line_names_both(old):
    wide, plugin = formula_backbone(2, width=64), plugin_of("clip-lora", old)
    wide.text.text.transformer.resblocks = wide.text.text.transformer.resblocks[:2]
    line = GradFix().fits(plugin, old, wide)
    assert "\n" not in line and "text.down is (3, 3, 2, 32), formula-2 takes (2, 3, 2, 32)" in line
    with pytest.raises(UserError, match="same shapes"):
        GradFix().fit(plugin, old, wide, CLASSES, anchors_of(GradFix, PIXELS, labels=LABELS))


def test_votes_and_counts_that_are_none_are_refused():
    for wrong in ({"vote": "median"}, {"pictures": 0}):
        with pytest.raises(UserError, match="gradfix: vote"):
            GradFix(**wrong)


@pytest.mark.parametrize("vote", ["max", "mean"])
def test_of_a_task_vector_those_entries_stay_that_the_new_loss_agrees_with(old, new, anchors, vote):
    """All weights of open_clip's own towers, picture by picture."""
    plugin, generator = plugin_of("task-vector", old), torch.Generator().manual_seed(3)
    own = {name: value for name, value in old.model.named_parameters() if name != "logit_scale"}
    changes = {name: 0.02 * torch.randn(value.shape, generator=generator) for name, value in own.items()}
    plugin.hold(changes)
    model = copy.deepcopy(new.model)
    weights = {name: value.requires_grad_() for name, value in model.named_parameters() if name in changes}
    ids = new.text.tokenizer([TEMPLATES[0].format(name) for name in NAMES])
    total = {name: torch.zeros_like(value) for name, value in weights.items()}
    for x, y in zip(PIXELS, LABELS, strict=True):
        texts = model.encode_text(ids, normalize=True)
        logits = model.logit_scale.exp() * model.encode_image(x[None], normalize=True) @ texts.T
        found = torch.autograd.grad(F.cross_entropy(logits, y[None]), list(weights.values()))
        for name, gradient in zip(weights, found, strict=True):
            total[name] -= gradient.sign() if vote == "max" else gradient
    with torch.no_grad():
        masked = {name: theirs(change, total[name]) for name, change in changes.items()}
        for name, value in weights.items():
            value += masked[name]
        texts = model.encode_text(ids, normalize=True)
        expected = model.logit_scale.exp() * model.encode_image(PIXELS, normalize=True) @ texts.T
    before = bits(new)
    ported = GradFix(vote=vote).fit(plugin, old, new, CLASSES, anchors)
    assert relative(logits_of(ported, new, PIXELS), expected) < 1e-2
    assert bits(new) == before, "the towers are as they were, to the last bit"
    assert relative(logits_of(plugin, new, PIXELS), expected) > 0.05, "the mask must matter"
    for tower, prefix in (("image", "visual."), ("text", "text.")):
        share = torch.cat([one.flatten() != 0 for name, one in masked.items() if name.startswith(prefix)])
        assert ported.about["kept"][tower] == pytest.approx(share.double().mean().item(), abs=1e-3)


def test_a_weight_that_no_answer_depends_on_gets_no_change(anchors):
    """As the bias of SigLIP's loss, or the caption decoder of CoCa."""
    old, new = formula_backbone(1), formula_backbone(2)
    for one in (old, new):
        one.model.logit_bias = torch.nn.Parameter(torch.zeros(()), requires_grad=False)
    plugin = plugin_of("task-vector", old)
    plugin.hold({"logit_bias": torch.ones(()), "text.text_projection": torch.ones_like(new.model.text.text_projection)})
    ported = GradFix().fit(plugin, old, new, CLASSES, anchors)
    kept = ported.inner().fitting(new)
    assert kept["logit_bias"] == 0
    assert kept["text.text_projection"].count_nonzero() > 0


def test_a_task_vector_of_which_nothing_fits_is_refused_in_one_line(old, new, anchors):
    plugin = plugin_of("task-vector", old)
    plugin.hold({"text.text_projection": torch.zeros(3, 3)})
    with pytest.raises(UserError, match="same names and shapes; formula-2 has none") as told:
        GradFix().fit(plugin, old, new, CLASSES, anchors)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "name, why",
    [
        ("maple", "no weight"),
        ("prolip", "last matrix"),
        ("taskres", "no weight"),
        ("fine-tuning", "not kept"),
        ("2sfs", "changes norms"),
        ("clip-lora", None),
    ],
)
def test_methods_without_a_change_of_weights_get_the_reason(name, why):
    found = GradFix.works_on(METHODS[name])
    assert found is None if why is None else why in found
