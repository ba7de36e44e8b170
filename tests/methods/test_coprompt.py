"""CoPrompt against a plain restatement on open_clip's and timm's own towers, its sentences, and its two views."""

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from references import image_by_hand, relative, text_by_hand
from splits_in_memory import split
from tiny_eva import tiny_eva
from tiny_fits import bound, make, pixels_of, support_for
from tiny_towers import DIM, NAMES, tiny_model, wrap

from carryover.bench.errors import UserError
from carryover.bench.features import pixels
from carryover.bench.features.pixels import Pictures, views_of
from carryover.bench.features.store import FeatureStore
from carryover.bench.training.trainer import draw, fit
from carryover.methods.base import METHODS, Shape

LABELS = torch.arange(8) % len(NAMES)
PIXELS = torch.stack([pixels_of(LABELS, seed) for seed in (0, 1)])
KIND = METHODS["coprompt"]
SENTENCES = {
    "Cat": ["a cat sits", "cats have whiskers", "a third that others do not have"],
    "red_double_decker_bus": ["a bus is red", "it has two decks"],
    "aeroplane": ["an aeroplane flies", "with wings"],
    "boeing 737-800": ["a jet for short routes", "it has two engines"],
}


@pytest.fixture(scope="module", params=["open_clip", "eva"])
def backbone(request):
    if request.param == "open_clip":
        return wrap(tiny_model(0, True), "tiny-base", "quick_gelu")
    return wrap(tiny_eva(False), "tiny-eva", "gelu")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "sentences.json"
    path.write_text(json.dumps(SENTENCES))
    return path


def features_by_hand(method, backbone, x):
    """Image features (B, D) and class features (C, D) of prompts and adapters, by open_clip's own modules."""
    model, prompts = backbone.model, [method.context, *method.deep]
    image = [p @ w.T + b for p, w, b in zip(prompts, method.coupling, method.coupling_bias, strict=True)]
    texts = text_by_hand(model, backbone.text.tokenizer, [f"of a {name}" for name in NAMES], prompts[0], prompts[1:])
    found = []
    for share, plain, change in (
        (0.1, image_by_hand(model.visual, x, torch.stack(image)), method.image_adapter),
        (0.2, texts, method.text_adapter),
    ):
        down, up = change.parameters()
        assert down.shape == (DIM // 4, DIM) and up.shape == (DIM, DIM // 4)
        found.append(share * ((plain @ down.T).clamp(min=0) @ up.T).clamp(min=0) + (1 - share) * plain)
    return found


def test_loss_and_gradients_are_those_of_the_formula(backbone, classes, file):
    method = bound("coprompt", backbone, classes, weight=3.0, file=str(file))
    model, scale = backbone.model, backbone.model.logit_scale.exp().detach()
    images, texts = features_by_hand(method, backbone, PIXELS[0])
    with torch.no_grad():
        other = model.encode_image(PIXELS[1])
        both = [
            model.encode_text(backbone.text.tokenizer([own[i] for own in SENTENCES.values()]))
            for i in range(2)  # the class with the fewest has two
        ]
    crossed = F.cross_entropy(scale * F.normalize(images, dim=1) @ F.normalize(texts, dim=1).T, LABELS)
    away = 1 - F.cosine_similarity(images, other).mean()
    possible = [crossed + 3 * (1 - F.cosine_similarity(texts, one).mean() + away) for one in both]
    assert abs(possible[0].item() - possible[1].item()) > 1e-2, "sentences must matter"
    asked, seen = list(method.parameters()), set()
    with method.attach(backbone):
        for _ in range(12):
            loss = method.loss(PIXELS, LABELS)
            which = min((0, 1), key=lambda i: abs(possible[i].item() - loss.item()))
            assert relative(loss, possible[which]) < 1e-4
            if which not in seen:
                pairs = zip(
                    torch.autograd.grad(loss, asked),
                    torch.autograd.grad(possible[which], asked, retain_graph=True),
                    strict=True,
                )
                assert all(relative(one, right) < 1e-3 for one, right in pairs)
            seen.add(which)
    assert seen == {0, 1}, "another sentence at each step"


def test_predictions_are_those_of_prompts_and_adapters(backbone, classes):
    method = bound("coprompt", backbone, classes).eval()
    with torch.no_grad(), method.attach(backbone):
        found, again = method.predict(PIXELS[0]), method.logits(PIXELS[0])
    with torch.no_grad():
        images, texts = features_by_hand(method, backbone, PIXELS[0])
        expected = backbone.model.logit_scale.exp() * F.normalize(images, dim=1) @ F.normalize(texts, dim=1).T
    assert relative(found, expected) < 1e-4 and relative(again, expected) < 1e-4


# ---- two views -------------------------------------------------------------------------------------------------------


def test_a_step_is_given_two_views_of_the_same_pictures_and_their_labels(tiny, classes, monkeypatch):
    support, seen = support_for("pixels"), []
    where = {support.views[v, i].numpy().tobytes(): (v, i) for v in range(3) for i in range(24)}
    loss = KIND.loss
    monkeypatch.setattr(KIND, "loss", lambda self, x, y: seen.append((x, y)) or loss(self, x, y))
    method = make("coprompt", epochs=3, batch=8)
    method.bind(tiny.base, classes)
    with method.attach(tiny.base):
        fit(method, support, torch.Generator().manual_seed(0))
    assert len(seen) == 9
    views = []
    for x, y in seen:
        assert x.shape == (2, 8, *support.views.shape[2:])
        (first, second), labels = ([where[one.numpy().tobytes()] for one in each] for each in x), y.tolist()
        assert [i for _, i in first] == [i for _, i in second]
        assert labels == [support.labels[i].item() for _, i in first]
        views += [(a, b) for (a, _), (b, _) in zip(first, second, strict=True)]
    assert {*views} == {(a, b) for a in range(3) for b in range(3)}


def test_the_first_view_of_an_epoch_is_drawn_as_for_other_methods():
    support = support_for("pixels")
    one, two = (draw(1, support, torch.Generator().manual_seed(4), pairs) for pairs in (False, True))
    assert torch.equal(one, two[:2]) and two.shape == (3, 24)
    fresh = draw(2, replace(support, fresh=True), torch.Generator().manual_seed(4), True)
    assert set(fresh[0].tolist()) == {1} and len(set(fresh[2].tolist())) == 3


def test_pictures_that_are_decoded_as_they_are_drawn_give_the_same_bits(tiny, classes, monkeypatch, tmp_path):
    learned, plain, told, expect = [], support_for("features"), [], Pictures.expect
    monkeypatch.setattr(Pictures, "expect", lambda self, batches: told.append(len(batches)) or expect(self, batches))
    for keep in (1 << 28, 0):
        monkeypatch.setattr(pixels, "KEEP", keep)
        store = FeatureStore(tmp_path / str(keep), tiny.base, batch=5)
        views = Pictures(store, split(24, labels=plain.labels.tolist()), views_of(store, 3, (0.5, 1.0), 1))
        method = make("coprompt", epochs=2, batch=8, lr=0.01)
        method.bind(tiny.base, classes)
        with method.attach(tiny.base):
            fit(method, replace(plain, views=views), torch.Generator().manual_seed(0))
        learned.append({name: value.numpy().tobytes() for name, value in method.learned().items()})
    assert learned[0] == learned[1]
    assert told == 2 * 2 * [2 * 3], "two views of three batches an epoch, and none that nobody expected"


# ---- sentences -------------------------------------------------------------------------------------------------------


def test_without_a_file_the_teacher_reads_templates_and_every_table_says_so(tiny, classes, file):
    method = bound("coprompt", tiny.base, classes)
    texts = method.texts()
    assert [len(own) for own in texts] == [60] * 4
    assert (texts[0][0], texts[2][59]) == ("a bad photo of a cat.", "itap of the aeroplane.")
    assert KIND.marks(KIND.Config(), tiny.base) == ["CoPrompt without a file of sentences: its teacher reads templates"]
    assert KIND.marks(KIND.Config(file=str(file)), tiny.base) == []


def test_a_file_is_in_the_settings_with_its_hash_and_a_list_is_for_every_class(tiny, classes, file):
    told = KIND.Config(file=str(file)).file
    assert told.startswith(f"{file}#{len(file.read_bytes())}-") and KIND.Config(file=told).file == told
    file.write_text(json.dumps(["one {}", "two of {}"]))
    assert KIND.Config(file=str(file)).file != told
    assert bound("coprompt", tiny.base, classes, file=str(file)).texts()[1] == [
        "one red double decker bus",
        "two of red double decker bus",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no json", "coprompt.file '.*' is no JSON"),
        (json.dumps({"cat": ["a cat"]}), "has no texts for 3 of the 4 classes, e.g. 'red double decker bus'"),
    ],
)
def test_a_file_that_will_not_do_is_refused_in_one_line(tiny, classes, tmp_path, content, message):
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        bound("coprompt", tiny.base, classes, file=str(path)).texts()
    assert "\n" not in str(caught.value)


def test_a_file_that_is_gone_or_another_than_planned_is_refused(tiny, classes, file):
    with pytest.raises(UserError, match="coprompt.file: cannot read 'nowhere.json'"):
        KIND.Config(file="nowhere.json")
    method = bound("coprompt", tiny.base, classes, file=str(file))
    file.write_text(json.dumps({**SENTENCES, "Cat": ["another"]}))
    with pytest.raises(UserError, match="is another than when the run was planned"):
        method.texts()


# ---- settings --------------------------------------------------------------------------------------------------------


def test_published_settings():
    usual = KIND.Config()
    assert (usual.lr, usual.batch, usual.epochs, usual.depth, usual.context_length, usual.weight) == (
        3.5e-3, 4, 8, 9, 2, 1.0,
    )  # fmt: skip
    assert KIND.published("dtd", 16) == {"depth": 12, "context_length": 2, "weight": 8.0}
    assert KIND.published("food101", 16) == {"depth": 9, "context_length": 4, "weight": 0.5, "epochs": 5}
    assert KIND.published("micro_stars", 16) == {}
    method = KIND(replace(usual, **KIND.published("imagenet", 16)), Shape(512, 512, NAMES, 4, 12, 12, 768))
    prompts, layers, adapters = 12 * 4 * 512, 12 * (768 * 512 + 768), 4 * 512 * 128
    assert sum(value.numel() for value in method.parameters()) == prompts + layers + adapters


def test_what_does_not_fit_is_refused_by_its_own_name(tiny, classes):
    with pytest.raises(UserError, match="^coprompt: context_length and depth are 1 or more"):
        replace(KIND.Config(), depth=0)
    with pytest.raises(UserError, match="^coprompt: initial_words 'a photo of a' are fewer than 5 tokens"):
        bound("coprompt", tiny.base, classes, context_length=5)
    method = KIND(KIND.Config(), replace(Shape.of(tiny.base, NAMES, 8), dim=DIM + 1))
    with pytest.raises(UserError, match="the joint space of tiny-base has width 32, the plug-in was learned in one of"):
        method.bind(tiny.base, classes)
