"""TPT and RAda at test time against plain loops over images in float64, and what they leave behind: nothing."""

import copy
import math

import pytest
import torch
from references import encode_prompts
from tiny_fits import make, views_of
from tiny_towers import DIM, NAMES, TEMPLATES, wrap
from toys import execute

from carryover.bench.engine.evaluator import predict
from carryover.bench.engine.record_draft import SELECTED_ON_TEST
from carryover.bench.errors import UserError
from carryover.bench.plan.grid import default_methods
from carryover.bench.plan.runs import Run
from carryover.bench.training.trainer import fit
from carryover.methods import Registered
from carryover.methods.base import METHODS, Classes
from carryover.methods.parts.test_time import PER_IMAGE, confident_views, marginal_entropy

CLASSES = Classes("toy", NAMES, TEMPLATES)
ENSEMBLE = Classes("toy", NAMES, ("{} texture.", "art of the {}."))
METHODS_HERE = ("tpt", "rada-tt")
FEW = {"views": 12, "confident": 0.25}  # three are kept


@pytest.fixture(params=["base", "new"])
def backbone(request, tiny):
    return getattr(tiny, request.param)


@pytest.fixture
def x(support):
    return views_of(support, FEW["views"])


def bound(name, backbone, classes=CLASSES, **changes):
    method = make(name, **{**FEW, **changes}).eval()
    method.bind(backbone, classes)
    return method


def zero_shot(backbone, x, classes=CLASSES):
    method = make("zs-clip")
    method.bind(backbone, classes)
    return method.predict(x)


def entropies(logits):
    """Of each row, written out."""
    shares = [[math.exp(v - max(row)) for v in row] for row in logits.tolist()]
    shares = [[v / sum(row) for v in row] for row in shares]
    return [-sum(p * math.log(p) for p in row if p > 0) for row in shares]


def lowered(start, logits_of, views, config, kept):
    """What one image's tensors become: torch's AdamW in float64 on the entropy of the chosen views' mean."""
    values = [value.clone().requires_grad_() for value in start]
    solver = torch.optim.AdamW(values, lr=config.lr, weight_decay=config.weight_decay, eps=config.eps)
    chosen = None
    for _ in range(config.updates):
        logits = torch.stack([logits_of(view, *values) for view in views])
        if chosen is None:
            found = entropies(logits)
            chosen = sorted(range(len(views)), key=lambda v: (found[v], v))[:kept]
        mean = torch.stack([logits[v].softmax(0) for v in chosen]).mean(0)
        solver.zero_grad()
        (-(mean * mean.log()).sum()).backward()
        solver.step()
    return [value.detach() for value in values]


# ---- TPT -------------------------------------------------------------------------------------------------------------


def tpt_by_images(backbone, x, config, kept):
    """Logits (B, C) by open_clip's own ``encode_text`` at full length, image after image."""
    model = copy.deepcopy(backbone.model).double()
    tokenizer, scale = backbone.text.tokenizer, model.logit_scale.detach().exp()
    words = tokenizer([config.words])[0]
    n = len(config.words.split())
    start = model.text.token_embedding.weight[words[1 : 1 + n]].detach()

    def logits_of(view, context):
        text = encode_prompts(model, tokenizer, NAMES, context)
        return scale * torch.stack([torch.cosine_similarity(view, row, dim=0) for row in text])

    found = []
    for views in x.double():
        (context,) = lowered([start], logits_of, views, config, kept)
        found.append(logits_of(views[0], context).detach())
    return torch.stack(found)


@pytest.mark.parametrize("changes", [{}, {"updates": 3}, {"lr": 0.03, "weight_decay": 2.0, "words": "one of"}])
def test_tpt_is_the_loop_over_images_in_float64(backbone, x, changes):
    method, x = bound("tpt", backbone, **changes), x[:6]
    expected = tpt_by_images(backbone, x, method.config, 3)
    assert (expected - bound("tpt", backbone, lr=0.0, words=method.config.words).predict(x)).abs().max() > 0.05
    torch.testing.assert_close(method.predict(x), expected.float(), rtol=1e-3, atol=2e-3)


def test_tpts_tangent_gives_each_image_the_step_that_a_pass_of_its_own_gives(backbone, x, monkeypatch):
    method, found = bound("tpt", backbone), {}
    for pays in (True, False):
        monkeypatch.setattr(type(method), "tangent_pays", lambda self, images, pays=pays: pays)
        found[pays] = method.predict(x)
    assert (found[False] - bound("tpt", backbone, lr=0.0).predict(x)).abs().max() > 0.05
    torch.testing.assert_close(found[True], found[False], rtol=1e-4, atol=1e-3)


def test_tpts_slopes_are_the_derivatives_of_open_clips_features(backbone):
    method = bound("tpt", backbone)
    model = copy.deepcopy(backbone.model).double()

    def features(context):
        return encode_prompts(model, backbone.text.tokenizer, NAMES, context)

    expected = torch.autograd.functional.jacobian(features, method.context.double())  # (C, D, n, W)
    found = method.slopes()
    assert found.shape == (DIM, len(NAMES), method.context.numel())
    expected = expected.flatten(2).transpose(0, 1).float()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_tpt_takes_the_tangent_for_many_images_only_and_within_the_text_memory(tiny, monkeypatch):
    method = bound("tpt", tiny.base)
    assert method.tangent_pays(4096) and not method.tangent_pays(1)
    monkeypatch.setattr(tiny.base.text, "budget", method.slopes().nbytes - 1)
    assert not method.tangent_pays(4096)


def test_tpt_that_takes_no_step_is_zero_shot_with_its_words(backbone, x):
    expected = zero_shot(backbone, x[:, 0], Classes("toy", NAMES, ("a photo of a {}.",)))
    for changes in ({"lr": 0.0}, {"updates": 0}, {"lr": 0.0, "updates": 2}):
        found = bound("tpt", backbone, ENSEMBLE, **changes).predict(x)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_tpt_has_nothing_that_travels(tiny):
    method = bound("tpt", tiny.base)
    assert method.learned() == {} and not list(method.parameters()) and not list(method.buffers())


# ---- RAda ------------------------------------------------------------------------------------------------------------


def rada_logits(method, backbone, classes=CLASSES):
    """RAda's forward pass of one view in float64, the C x C maps written out, as a function of all projections."""
    s, heads, temperature = backbone.scale.double(), method.config.heads, method.config.temperature
    text, d = backbone.zero_shot(classes).double(), DIM // method.config.heads
    count = len(text)

    def logits_of(view, w):
        image = (view / view.norm()).expand(count, -1)
        rational = image * text

        def made(name, rows):
            return (rows @ w[f"{name}.weight"].T + w[f"{name}.bias"]).view(count, heads, d)

        keys, values = made("key", s * rational), made("value", s * rational)
        asked = {"query_image": s.sqrt() * image, "query_class": s.sqrt() * text, "query_both": s * rational}
        maps = 0
        for name, rows in asked.items():
            scores = torch.einsum("ihd,jhd->hij", made(name, rows), keys) / (math.sqrt(d) * temperature)
            maps = maps + count / 3 * scores.flatten(1).softmax(1).view_as(scores)
        read = torch.einsum("hij,jhd->ihd", maps, values).reshape(count, DIM)
        mask = torch.relu(1 + read @ w["out.weight"].T + w["out.bias"])
        return s * (mask * rational).sum(1)

    return logits_of


def doubled(method):
    return {name: value.detach().double() for name, value in method.named_parameters()}


@pytest.mark.parametrize("changes", [{}, {"updates": 3}, {"lr": 0.05, "heads": 2, "temperature": 0.5}])
def test_rada_at_test_time_is_the_dense_loop_over_images_in_float64(backbone, x, changes):
    method, x = bound("rada-tt", backbone, **changes), x[:6]
    fixed, dense, found = doubled(method), rada_logits(method, backbone), []

    def logits_of(view, weight, bias):
        return dense(view, {**fixed, "out.weight": weight, "out.bias": bias})

    for views in x.double():
        moved = lowered([fixed["out.weight"], fixed["out.bias"]], logits_of, views, method.config, 3)
        found.append(logits_of(views[0], *moved))
    expected = torch.stack(found)
    assert (expected - zero_shot(backbone, x[:, 0])).abs().max() > 0.05
    torch.testing.assert_close(method.predict(x), expected.float(), rtol=1e-3, atol=2e-3)


def test_only_radas_last_projection_has_a_gradient_at_the_start(tiny, x):
    method = bound("rada-tt", tiny.base)
    weights = {name: value.requires_grad_() for name, value in doubled(method).items()}
    logits = torch.stack([rada_logits(method, tiny.base)(view, weights) for view in x[0].double()])
    marginal_entropy(logits[None]).sum().backward()
    moved = {name for name, value in weights.items() if value.grad.any()}
    assert moved == {"out.weight", "out.bias"} and len(weights) == 12


def test_rada_that_takes_no_step_is_zero_shot_to_the_last_bit(backbone, x):
    for changes in ({"lr": 0.0}, {"updates": 0}):
        found = bound("rada-tt", backbone, ENSEMBLE, **changes).predict(x)
        assert torch.equal(found, zero_shot(backbone, x[:, 0].clone(), ENSEMBLE))


def test_radas_plugin_at_test_time_is_the_start_of_its_other_projections(tiny):
    """Drawn as RAda's are, so that a seed gives both the same."""
    learned, rada = make("rada-tt").learned(), make("rada").learned()
    assert set(learned) == {name for name in rada if not name.startswith("out.")}
    assert all(torch.equal(value, rada[name]) for name, value in learned.items())


def test_radas_smoothness_term_counts_from_the_second_update_on(tiny, x):
    def found(**changes):
        return bound("rada-tt", tiny.base, lr=0.05, **changes).predict(x)

    assert torch.equal(found(alpha=5.0), found())
    assert not torch.allclose(found(alpha=5.0, updates=2), found(updates=2), atol=1e-3)


# ---- what both share -------------------------------------------------------------------------------------------------


def test_the_views_of_lowest_entropy_are_kept_and_of_equal_ones_the_first():
    g = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(5, 12, 4, generator=g)
    logits[0] = logits[0, :1]  # all alike
    logits[1, 7] = logits[1, 2]
    logits[2, 3] = logits[2, 9] + 11  # a shift of all logits changes no probability; rounding may order the two
    logits[3] = 0
    logits[3, 5, 2] = logits[3, 8, 1] = 9  # alike but for the class
    found = confident_views(logits, 4)
    assert found[0].tolist() == [0, 1, 2, 3] and found[3].tolist() == [5, 8, 0, 1]
    for row, views in zip(found, logits, strict=True):
        values = entropies(views)
        kept = [values[v] for v in row.tolist()]
        assert len(set(row.tolist())) == 4 and kept == pytest.approx(sorted(values)[:4], abs=1e-5)
    order = confident_views(logits, 12)[1].tolist()
    assert order.index(7) == order.index(2) + 1


@pytest.mark.parametrize(
    "views, confident, kept", [(64, 0.1, 6), (16, 0.25, 4), (16, 0.01, 1), (1, 0.5, 1), (10, 1.0, 10)]
)
def test_the_number_of_views_kept_is_rounded_down_but_one_at_least(views, confident, kept):
    for name in METHODS_HERE:
        assert METHODS[name].Config(views=views, confident=confident).kept == kept


def test_entropy_is_that_of_the_mean_probabilities_not_the_mean_of_entropies():
    logits = torch.tensor([[[50.0, 0, 0], [0, 50.0, 0]], [[1.0, 2, 3], [-400.0, 0, 400]]])
    mean = logits.double().softmax(-1).mean(1)
    expected = [-sum(p * math.log(p) for p in row if p > 0) for row in mean.tolist()]
    assert expected[0] == pytest.approx(math.log(2))
    assert marginal_entropy(logits).tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", METHODS_HERE)
def test_a_small_step_lowers_the_entropy_of_what_confident_views_agree_on(name, tiny, x):
    def entropy(lr):
        """The logits of each view by what its image adapts to: the view goes first, and chooses nothing."""
        method = bound(name, tiny.base, lr=lr)
        chosen = confident_views(torch.stack([method.logits(view) for view in x.unbind(1)], dim=1), 3)
        seen = x[torch.arange(len(x))[:, None], chosen]
        fill = seen.repeat(1, 4, 1)  # twelve views, of which the three most confident are these
        logits = []
        for view in range(3):
            turned = fill.clone()
            turned[:, 0] = seen[:, view]
            logits.append(method.predict(turned))
        return marginal_entropy(torch.stack(logits, dim=1))

    before, after = entropy(0.0), entropy(1e-4)
    free = before > 1e-2  # the others have nothing to lose
    assert free.sum() >= 10
    assert ((after < before)[free]).float().mean() > 0.9


@pytest.mark.parametrize("name", METHODS_HERE)
def test_an_images_logits_do_not_depend_on_its_place_or_on_how_many_go_at_once(name, tiny, x, monkeypatch):
    method = bound(name, tiny.new)
    together, order = method.predict(x), torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(method.predict(x[order]), together[order], rtol=1e-4, atol=1e-3)
    parts = torch.cat([method.predict(part) for part in x.split(5)])
    torch.testing.assert_close(parts, together, rtol=1e-4, atol=1e-3)
    if name == "tpt":
        monkeypatch.setattr(tiny.new.text, "budget", 1 << 20)
        assert method.images_at_once() < len(x)
    else:
        method.values_at_once = 20_000
        assert method.adapted_at_once() < len(x) and method.images_at_once() < len(x)
    torch.testing.assert_close(method.predict(x), together, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", METHODS_HERE)
@pytest.mark.parametrize("grad", [True, False])
def test_whether_gradients_are_on_around_it_does_not_matter_and_none_is_left(name, tiny, x, grad):
    method = bound(name, tiny.base)
    before = {key: value.clone() for key, value in method.state_dict().items()}
    model = {key: value.clone() for key, value in tiny.base.model.state_dict().items()}
    with torch.set_grad_enabled(grad):
        found = method.predict(x)
        assert torch.is_grad_enabled() == grad
    assert not found.requires_grad and torch.equal(found, method.predict(x))
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())
    assert all(torch.equal(value, model[key]) for key, value in tiny.base.model.state_dict().items())
    assert all(value.grad is None for value in [*method.parameters(), *tiny.base.model.parameters()])
    outcome, _ = predict(method, tiny.base, CLASSES, x)
    assert torch.equal(outcome["predicted"], found.argmax(1).int())


@pytest.mark.parametrize("name", METHODS_HERE)
def test_bf16_towers_give_fp32_logits_near_those_of_fp32(name, tiny, x):
    half = wrap(copy.deepcopy(tiny.base.model), "tiny-base", "quick_gelu")
    half.text = type(half.text)(half.model.text, half.text.tokenizer, precision="bf16")
    found, expected = bound(name, half).predict(x), bound(name, tiny.base).predict(x)
    assert found.dtype == torch.float32 and not torch.equal(found, expected)
    assert (found - expected).abs().mean() < 0.05 * expected.std()


def test_records_say_that_they_adapt_to_each_image_and_seeds_agree_where_nothing_is_drawn(session_on):
    session, right = session_on("one"), {}
    for name in (*METHODS_HERE, "zs-clip"):
        config = METHODS[name].Config(**({} if name == "zs-clip" else {"views": 4, "confident": 0.5, "lr": 0.02}))
        for seed in (1, 2):
            run = Run("tiny", "toy", name, seed, 4, "published", "fp32", 2, None, config)
            record = execute(session, run, session.keys.of(run))
            assert record["status"] == "done", record["error"]
            assert (PER_IMAGE in record["marks"]) == (name != "zs-clip") and SELECTED_ON_TEST not in record["marks"]
            predictions = session.store.read_predictions(record["key"])
            right[name, seed] = [predictions[role][0].tolist() for role in ("base", "new")]
    assert right["tpt", 1] == right["tpt", 2]


def test_they_are_run_where_they_are_named_only():
    assert not set(METHODS_HERE) & set(default_methods(Registered()))
    assert [METHODS[name].depth for name in METHODS_HERE] == ["input", "output"]


@pytest.mark.parametrize("name", METHODS_HERE)
def test_the_trainer_has_nothing_to_do_whatever_the_epochs(name, tiny, support):
    method = bound(name, tiny.base, epochs=3)
    before = {key: value.clone() for key, value in method.state_dict().items()}
    assert fit(method, support, torch.Generator().manual_seed(0)) == []
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())


@pytest.mark.parametrize(
    "name, options, told",
    [
        ("tpt", {"views": 0}, "views is 1 or more"),
        ("tpt", {"confident": 0.0}, "confident above 0"),
        ("rada-tt", {"confident": 1.5}, "confident above 0"),
        ("rada-tt", {"updates": -1}, "updates 0 or more"),
        ("tpt", {"area": (0.5, 0.2)}, "the smaller first"),
        ("tpt", {"area": (0.5,)}, "two numbers"),
        ("rada-tt", {"temperature": 0.0}, "temperature above 0"),
        ("tpt", {"lr": -1.0}, "lr"),
        ("tpt", {"words": " "}, "at least one word"),
    ],
)
def test_options_that_make_no_sense_are_refused(name, options, told):
    with pytest.raises(UserError, match=told):
        METHODS[name].Config(**options)
