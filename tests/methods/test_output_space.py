"""RAda and TaskRes against their formulas, and where methods stand."""

import math

import pytest
import torch
import torch.nn.functional as F
from tiny_fits import make
from tiny_towers import DIM, NAMES, TEMPLATES

from carryover.bench.errors import UserError
from carryover.bench.places import legend_remark, listed, mark
from carryover.bench.records import reading
from carryover.methods import ordered
from carryover.methods.base import METHODS, Classes

CLASSES = Classes("toy", NAMES, TEMPLATES)
ENSEMBLE = Classes("toy", NAMES, ("a photo of a {}.", "art of the {}."))


@pytest.fixture(params=["base", "new"])
def backbone(request, tiny):
    return getattr(tiny, request.param)


def zero_shot(backbone, x, classes=CLASSES):
    method = make("zs-clip")
    method.bind(backbone, classes)
    return method.logits(x)


def stirred(seed=3, **changes):
    """RAda away from its start: every projection drawn at random, large enough that the mask also clips at 0."""
    method = make("rada", **changes)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in method.parameters():
            value.copy_(torch.randn(value.shape, generator=generator) * (0.6 if value.dim() == 2 else 0.2))
    return method


def dense(method, backbone, x, classes=CLASSES):
    """RAda's forward pass in float64 as its authors define it, entry by entry: logits (B, C) and mask (B, C, D)."""
    w = {name: value.detach().double() for name, value in method.named_parameters()}
    s, heads, temperature = backbone.scale.double(), method.config.heads, method.config.temperature
    text, d = backbone.zero_shot(classes).double(), DIM // heads
    count = len(text)
    logits, mask = torch.zeros(len(x), count, dtype=torch.double), torch.zeros(len(x), count, DIM, dtype=torch.double)

    def project(name, row):
        return w[f"{name}.weight"] @ row + w[f"{name}.bias"]

    for b, image in enumerate(x.double()):
        image = image / image.norm()
        rational = [image * text[k] for k in range(count)]
        keys = [project("key", s * one) for one in rational]
        values = [project("value", s * one) for one in rational]
        queries = (
            [project("query_image", s.sqrt() * image) for _ in range(count)],
            [project("query_class", s.sqrt() * text[k]) for k in range(count)],
            [project("query_both", s * one) for one in rational],
        )
        read = torch.zeros(count, DIM, dtype=torch.double)
        for h in range(heads):
            part = slice(h * d, (h + 1) * d)
            weights = torch.zeros(count, count, dtype=torch.double)
            for query in queries:
                scores = torch.tensor([[float(q[part] @ k[part]) / math.sqrt(d) for k in keys] for q in query])
                weights += torch.softmax(scores.double().flatten() / temperature, 0).view(count, count) * count / 3
            for i in range(count):
                read[i, part] = sum(weights[i, j] * values[j][part] for j in range(count))
        for k in range(count):
            mask[b, k] = torch.relu(1 + project("out", read[k]))
            logits[b, k] = s * sum(mask[b, k] * rational[k])
    return logits, mask


@pytest.mark.parametrize("options", [{}, {"heads": 2, "temperature": 0.4}, {"heads": 1, "temperature": 3.0}])
def test_radas_logits_are_those_of_the_dense_computation_in_float64(backbone, support, options):
    method, x = stirred(**options), support.features[:5]
    method.bind(backbone, CLASSES)
    expected, mask = dense(method, backbone, x)
    assert (mask == 0).any() and (mask > 1.5).any(), "the mask must be far from its start"
    assert (expected - zero_shot(backbone, x)).abs().max() > 1
    torch.testing.assert_close(method.predict(x), expected.float(), rtol=1e-4, atol=1e-3)


def test_radas_loss_is_cross_entropy_and_the_mean_over_images_of_the_masks_largest_distance_from_1(tiny, support):
    x, y = support.features[:6], support.labels[:6]
    found = {}
    for alpha in (0.0, 0.7):
        method = stirred(alpha=alpha)
        method.bind(tiny.base, CLASSES)
        logits, mask = dense(method, tiny.base, x)
        found[alpha] = method.loss(x, y).item()
        farthest = sum(max(abs(float(value) - 1) for value in one.flatten()) for one in mask) / len(x)
        assert found[alpha] == pytest.approx(float(F.cross_entropy(logits, y)) + alpha * farthest, rel=1e-4)
    assert found[0.7] > found[0.0]


@pytest.mark.parametrize("classes", [CLASSES, ENSEMBLE], ids=["one template", "ensemble"])
def test_rada_starts_at_zero_shot_to_the_last_bit_on_both_backbones(backbone, support, classes):
    method = make("rada")
    method.bind(backbone, classes)
    assert torch.equal(method.predict(support.features), zero_shot(backbone, support.features, classes))
    logits, farthest = method.masked(support.features)
    assert not farthest.any()
    loss = method.loss(support.features, support.labels)
    assert torch.equal(loss, F.cross_entropy(logits, support.labels))


def test_rada_with_the_single_template_starts_at_zero_shot_of_that_template(tiny, support):
    classes = Classes("toy", NAMES, ("{} texture.",))
    method, plain = make("rada", single_template=True), make("zs-clip", single_template=True)
    method.bind(tiny.base, classes)
    plain.bind(tiny.base, classes)
    assert torch.equal(method.predict(support.features), plain.predict(support.features))
    assert not torch.equal(method.predict(support.features), zero_shot(tiny.base, support.features, classes))


@pytest.mark.parametrize("values", [1, 400, 3000, 20000])
def test_rada_in_chunks_of_images_and_of_rows_is_rada_in_one(tiny, support, values):
    x, y = support.features, support.labels

    def run(at_once):
        method = stirred()
        method.values_at_once = at_once
        method.bind(tiny.base, CLASSES)
        method.loss(x, y).backward()
        return method.images_at_once(), method.predict(x), {n: p.grad for n, p in method.named_parameters()}

    whole, logits, gradients = run(1 << 27)
    chunk, again, regained = run(values)
    assert whole >= len(x) > chunk
    torch.testing.assert_close(again, logits, rtol=1e-5, atol=1e-4)
    for name, gradient in gradients.items():
        torch.testing.assert_close(regained[name], gradient, rtol=1e-4, atol=1e-5 + 1e-5 * float(gradient.abs().max()))


def test_radas_scores_at_once_stay_within_the_bound(tiny, support):
    """The largest tensor of scores, for a bound below one image's (C x C x h, twice) and for one of a few images'."""
    seen = []

    class Watched(METHODS["rada"]):
        def rows(self, queries, keys, values):
            seen.append(queries.shape[0] * queries.shape[1] * queries.shape[2] * keys.shape[2])
            return super().rows(queries, keys, values)

    for bound in (150, 10_000):
        method = make("rada")
        watched = Watched(method.config, method.shape)
        watched.values_at_once = bound
        watched.bind(tiny.base, CLASSES)
        watched.predict(support.features)
        assert 2 * max(seen) <= bound
        seen.clear()


def test_radas_plugin_is_the_six_projections_and_takes_another_number_of_classes(tiny, support):
    method = stirred()
    assert sum(value.numel() for value in method.learned().values()) == 6 * (DIM**2 + DIM)
    method.bind(tiny.new, Classes("other", NAMES[:2], TEMPLATES))
    expected, _ = dense(method, tiny.new, support.features[:3], Classes("other", NAMES[:2], TEMPLATES))
    torch.testing.assert_close(method.predict(support.features[:3]), expected.float(), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    "options, told", [({"heads": 5}, "divide"), ({"heads": 0}, "heads"), ({"alpha": -1.0}, "alpha")]
)
def test_rada_refuses_what_it_cannot_do(options, told):
    with pytest.raises(UserError, match=told):
        make("rada", **options)


# ---- TaskRes ---------------------------------------------------------------------------------------------------------


def test_taskres_without_a_residual_is_zero_shot(backbone, support):
    method = make("taskres")
    method.bind(backbone, CLASSES)
    expected = zero_shot(backbone, support.features)
    torch.testing.assert_close(method.predict(support.features), expected, rtol=1e-5, atol=1e-4)


def test_taskres_averages_the_features_of_several_templates_as_long_as_they_are(backbone, support):
    method = make("taskres")
    method.bind(backbone, ENSEMBLE)
    tokens = [backbone.text.tokenizer([t.format(name) for name in NAMES]) for t in ENSEMBLE.templates]
    with torch.no_grad():
        text = sum(backbone.model.encode_text(each) for each in tokens) / len(tokens)
        cosine = F.cosine_similarity(support.features[:, None], text[None], dim=-1)
    torch.testing.assert_close(method.predict(support.features), backbone.scale * cosine, rtol=1e-4, atol=1e-3)
    assert not torch.allclose(method.predict(support.features), zero_shot(backbone, support.features, ENSEMBLE))


def test_taskres_adds_alpha_times_a_row_a_class_to_text_features_of_their_own_length(backbone, support):
    method = make("taskres", scale=0.7)
    with torch.no_grad():
        method.residual.copy_(torch.randn(len(NAMES), DIM, generator=torch.Generator().manual_seed(5)))
    some = Classes("toy", (NAMES[3], NAMES[1]), TEMPLATES)
    method.bind(backbone, some)
    found = method.predict(support.features)
    for column, row in enumerate((3, 1)):
        tokens = backbone.text.tokenizer([TEMPLATES[0].format(NAMES[row])])
        text = backbone.model.encode_text(tokens)[0].double().detach()
        weight = text + 0.7 * method.residual[row].detach().double()
        for b, image in enumerate(support.features.double()):
            cosine = sum(image * weight) / math.sqrt(sum(image**2) * sum(weight**2))
            assert float(found[b, column]) == pytest.approx(float(backbone.scale * cosine), rel=1e-4, abs=1e-3)


@pytest.mark.parametrize(
    "dataset, shots, expected",
    [
        ("stanford_cars", 16, {"lr": 2e-3, "epochs": 200, "scale": 0.5}),
        ("stanford_cars", 4, {"lr": 2e-3, "epochs": 100, "scale": 0.5}),
        ("flowers102", 1, {"lr": 2e-3, "epochs": 100, "scale": 1.0}),
        ("imagenet", 8, {"lr": 2e-4, "epochs": 200, "scale": 0.5}),
    ],
)
def test_taskres_published_schedule_is_that_of_its_scripts(dataset, shots, expected):
    """geekyutao/TaskRes: train_regular.sh."""
    assert METHODS["taskres"].published(dataset, shots) == expected


# ---- where methods stand ---------------------------------------------------------------------------------------------


def stored(method, depth, **config):
    return {"run": {"method": method, "config": config}, "depth": depth}


def test_records_of_both_vocabularies_are_read_alike_and_a_deeper_context_stands_in_inner_layers():
    records = [
        stored("zs-clip", "none"),
        stored("coop", "shallow", layer=0),
        stored("kgcoop", "input"),
        stored("coop-3", "shallow", layer=3),
        stored("coop-4", "input", layer=4),
        stored("tip-adapter-f", "deep"),
        stored("linear-probe", "output", layer=2),
        stored("maple", "towers"),
    ]
    found = reading.depths(records)
    assert list(found.values()) == ["none", "input", "input", "inner", "inner", "output", "output", "towers"]
    assert [mark(place) for place in found.values()] == ["", "", "", "‡", "‡", "†", "†", "§"]
    assert "".join(legend_remark(found.values())) == (
        "‡ marks an inner-layer method, † marks an output-space method, § marks a both-tower method."
    )
    assert legend_remark(["input", "none", "output"]) == ["† marks an output-space method."]
    assert legend_remark(["input"]) == []
    assert listed(found, {name: name.upper() for name in found}) == (
        "input tokens: COOP, KGCOOP; inner layers: COOP-3, COOP-4; output space: TIP-ADAPTER-F, LINEAR-PROBE; "
        "both towers: MAPLE"
    )


def test_methods_that_the_paper_does_not_order_follow_from_input_to_output(monkeypatch):
    def kind(depth):
        return type("Some", (METHODS["zs-clip"],), {"depth": depth})

    places = {"a-towers": "towers", "a-deep": "deep", "z-inner": "inner", "z-input": "input", "odd": "elsewhere"}
    monkeypatch.setattr(METHODS, "entries", {**METHODS.entries, **{n: kind(d) for n, d in places.items()}})
    names = [name for name in ordered() if name in places or name in ("rada", "taskres", "contcoop")]
    assert names == ["contcoop", "z-input", "z-inner", "a-deep", "rada", "taskres", "a-towers", "odd"]
