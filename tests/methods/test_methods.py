"""Each method against something that is not its own code: scikit-learn, numpy, a loop from the paper's formula."""

import math
from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from references import encode_prompts
from sklearn.linear_model import LogisticRegression
from tiny_fits import make, make_support, short
from tiny_towers import DIM, NAMES, WIDTH

from carryover.bench.errors import UserError
from carryover.bench.training.trainer import fit
from carryover.methods import tip_adapter_f
from carryover.methods.base import METHODS, Classes, Shape
from carryover.methods.linear_probe import logistic_regression, without_waiting

TOKENIZER = open_clip.get_tokenizer("ViT-B-32")


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def close(found, expected, tolerance=1e-4):
    found, expected = (
        torch.as_tensor(np.asarray(x.detach() if torch.is_tensor(x) else x)).double() for x in (found, expected)
    )
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def zero_shot_by_hand(backbone, names, templates):
    """(C, D): normalise each template's feature of open_clip's own encoder, average, normalise."""
    total = 0
    with torch.no_grad():
        for template in templates:
            features = backbone.model.encode_text(TOKENIZER([template.format(name) for name in names]))
            total = total + features / features.norm(dim=-1, keepdim=True)
    return total / total.norm(dim=-1, keepdim=True)


# ---- ZS-CLIP ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("templates", [("a photo of a {}.",), ("itap of a {}.", "a origami {}.", "art of the {}.")])
def test_zero_shot_is_the_scaled_cosine_with_the_mean_of_template_features(tiny, support, templates):
    method = make("zs-clip")
    for backbone in (tiny.base, tiny.new):
        method.bind(backbone, Classes("toy", NAMES, templates))
        text = zero_shot_by_hand(backbone, NAMES, templates).numpy()
        scale = math.exp(float(backbone.model.logit_scale))
        close(method.predict(support.features), scale * unit(support.features.numpy()) @ text.T)


# ---- Linear Probe ----------------------------------------------------------------------------------------------------


def hard_set(per_class, seed):
    return make_support(count=4, shots=per_class, val=30, noise=1.6, seed=seed)


@pytest.mark.parametrize("c", [1e-4, 1e-2, 1.0, 1e2])
def test_logistic_regression_reaches_scikit_learns_optimum(c):
    support = hard_set(12, 3)
    x, y = support.features, support.labels
    reference = LogisticRegression(C=c, tol=1e-8, max_iter=20000).fit(x.double().numpy(), y.numpy())
    weight, bias = logistic_regression(x, y, 4, c, 1000)

    def objective(w, b):
        return c * F.cross_entropy(F.linear(x.double(), w, b), y, reduction="sum") + w.square().sum() / 2

    best = float(objective(torch.tensor(reference.coef_), torch.tensor(reference.intercept_)))
    assert float(objective(weight.double(), bias.double())) == pytest.approx(best, rel=1e-3)
    predicted = F.linear(support.val_features, weight, bias).argmax(1).numpy()
    assert (predicted == reference.predict(support.val_features.double().numpy())).mean() >= 0.99


def test_logistic_regression_is_never_above_the_published_call_which_stops_early():
    """lpclip's call at scikit-learn's default tolerance, over its own grid of C."""
    support = hard_set(12, 3)
    x, y = support.features.double(), support.labels
    above = {}
    for c in (1e6, 1e4, 1e2, 1.0, 1e-2, 1e-4, 1e-6):

        def objective(w, b, c=c):
            return float(F.cross_entropy(F.linear(x, w, b), y) + w.square().sum() / (2 * c * len(x)))

        published = LogisticRegression(solver="lbfgs", max_iter=1000, C=c).fit(x.numpy(), y.numpy())
        theirs = objective(torch.tensor(published.coef_), torch.tensor(published.intercept_))
        above[c] = theirs - objective(*(t.double() for t in logistic_regression(x, y, 4, c, 1000)))
    assert min(above.values()) > -1e-7, above
    assert max(above.values()) > 1e-6, "the published call should have stopped short somewhere"


@pytest.mark.parametrize("noise", [1.6, 0.4], ids=["overlapping", "separable"])
@pytest.mark.parametrize("warm", [False, True])
def test_a_fit_that_does_not_wait_for_its_device_ends_where_scikit_learn_and_the_cpus_fit_do(noise, warm):
    support = make_support(count=4, shots=12, val=30, noise=noise, seed=3)
    x, y, held_out = support.features, support.labels, support.val_features
    last = None
    for c in (1e2, 1.0, 1e-2, 1e-4):
        reference = LogisticRegression(C=c, tol=1e-10, max_iter=50000).fit(x.double().numpy(), y.numpy())
        found, on_cpu = without_waiting(x, y, 4, c, 1000, last if warm else None), logistic_regression(x, y, 4, c, 1000)
        last = found

        def objective(w, b, c=c):
            w, b = w.double(), b.double()
            return float(F.cross_entropy(F.linear(x.double(), w, b), y) + w.square().sum() / (2 * c * len(x)))

        best = objective(*map(torch.tensor, (reference.coef_, reference.intercept_)))
        assert objective(*found) == pytest.approx(best, rel=1e-4)
        assert objective(*found) == pytest.approx(objective(*on_cpu), rel=1e-4, abs=1e-7)  # where that stops early
        logits = torch.tensor(reference.decision_function(held_out.double().numpy()))
        assert (F.linear(held_out, *found) - logits).abs().max() < 1e-2 * logits.abs().max()
        assert found[0].dtype == torch.float32 and found[0].device == x.device


def test_linear_probe_searches_c_as_lpclip_does(tiny):
    """The coarse grid's best, then halvings in log10 C from [0.1, 10] of it; ties go left."""
    support = hard_set(8, 5)
    config = replace(short("linear-probe"), coarse=(1.0, 1e-2, 1e-4), search_steps=3, max_iter=1000)
    x, y, vx, vy = (t.numpy() for t in (support.features, support.labels, support.val_features, support.val_labels))
    models = {}

    def score(c):
        models[c] = LogisticRegression(C=c, tol=1e-8, max_iter=20000).fit(x.astype(float), y)
        return models[c].score(vx.astype(float), vy)

    best = max(config.coarse, key=score)
    low, high = math.log10(best) - 1, math.log10(best) + 1
    for _ in range(config.search_steps):
        left, right = score(10**low), score(10**high)
        middle = (low + high) / 2
        best, low, high = (10**high, middle, high) if left < right else (10**low, low, middle)
    method = make("linear-probe", support=32, config=config)
    method.bind(tiny.base, Classes("toy", NAMES, ("{}",)))
    fit(method, support, torch.Generator())
    close(method.predict(support.val_features), models[best].decision_function(vx.astype(float)), 2e-3)


@pytest.mark.parametrize("name", ["linear-probe", "tip-adapter-f"])
def test_weights_per_class_follow_names_and_refuse_new_ones(tiny, classes, support, name):
    method = make(name)
    method.bind(tiny.base, classes)
    fit(method, support, torch.Generator().manual_seed(0))
    full = method.predict(support.features)
    method.bind(tiny.base, replace(classes, names=(NAMES[3], NAMES[1])))
    close(method.predict(support.features), full[:, [3, 1]])
    with pytest.raises(UserError, match="submarine"):
        method.bind(tiny.base, replace(classes, names=("cat", "submarine")))


# ---- CLIP-Adapter ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0.2, 0.6])
def test_clip_adapter_blends_a_relu_bottleneck_of_the_raw_feature(tiny, classes, support, ratio):
    method = make("clip-adapter", seed=4, ratio=ratio)
    first, second = (w.detach().numpy() for w in method.parameters())
    assert first.shape == (DIM // 4, DIM) and second.shape == (DIM, DIM // 4), "two matrices and no biases"
    f = support.features.numpy()
    adapted = np.maximum(np.maximum(f @ first.T, 0) @ second.T, 0)
    for backbone in (tiny.base, tiny.new):
        method.bind(backbone, classes)
        text = zero_shot_by_hand(backbone, NAMES, classes.templates).numpy()
        expected = float(backbone.scale) * unit(ratio * adapted + (1 - ratio) * f) @ text.T
        close(method.predict(support.features), expected)


# ---- Tip-Adapter-F ---------------------------------------------------------------------------------------------------


def tip_logits(x, keys, labels, text, alpha, beta):
    """The paper's formula, image by image and key by key."""
    found = np.zeros((len(x), len(text)))
    for b, image in enumerate(unit(x)):
        found[b] = 100 * text @ image
        for key, label in zip(keys, labels, strict=True):
            found[b, label] += alpha * math.exp(-beta * (1 - key @ image))
    return found


def started_tip(tiny, classes, support, **changes):
    method = make("tip-adapter-f", support=len(support.labels), **changes)
    method.bind(tiny.base, classes)
    return method


def test_tip_adapter_starts_at_the_training_free_cache_model(tiny, classes, support):
    method = started_tip(tiny, classes, support, alpha=1.7, beta=2.5)
    method.start(support)
    keys = unit(support.views.numpy().mean(0))  # averaged before they are normalised
    for backbone in (tiny.base, tiny.new):
        method.bind(backbone, classes)
        text = zero_shot_by_hand(backbone, NAMES, classes.templates).numpy()
        x = support.val_features.numpy()
        close(method.predict(support.val_features), tip_logits(x, keys, support.labels.numpy(), text, 1.7, 2.5), 1e-3)


def test_tip_adapter_averages_ten_views_at_most(tiny, classes):
    support = make_support(views=13)
    method = started_tip(tiny, classes, support)
    method.start(support)
    close(method.keys, unit(support.views[:10].numpy().mean(0)))


class Forbidden(dict):
    def __getitem__(self, key):
        raise AssertionError(f"a clean run read '{key}'")

    get = items = values = __iter__ = __getitem__


def searched(x, y, keys, labels, text, max_beta, max_alpha, start):
    """First strict maximum over the published grid: beta outer (200 points), alpha inner (20)."""
    image = unit(x)
    plain, affinity = 100 * image @ text.T, image @ keys.T
    onehot = np.eye(len(text))[labels]

    def right(beta, alpha):
        return ((plain + alpha * np.exp(-beta * (1 - affinity)) @ onehot).argmax(1) == y).mean()

    best = (right(*start), *start)
    for i in range(200):
        for j in range(20):
            beta, alpha = i * (max_beta - 0.1) / 200 + 0.1, j * (max_alpha - 0.1) / 20 + 0.1
            score = right(beta, alpha)
            if score > best[0]:
                best = (score, beta, alpha)
    return best


def test_clean_tip_adapter_searches_the_published_grid_on_few_shot_validation_and_never_the_leak(tiny, classes):
    support = replace(make_support(noise=2.0, val=25, seed=8), leak=Forbidden())
    method = started_tip(tiny, classes, support, alpha=0.01, max_beta=12.0, max_alpha=40.0, epochs=2)
    fit(method, support, torch.Generator().manual_seed(0))
    text = zero_shot_by_hand(tiny.base, NAMES, classes.templates).double().numpy()
    score, beta, alpha = searched(
        support.val_features.double().numpy(),
        support.val_labels.numpy(),
        method.keys.detach().double().numpy(),
        support.labels.numpy(),
        text,
        12.0,
        40.0,
        (1.0, 0.01),
    )
    assert alpha > 0.05, "this set must reward the search"
    assert (float(method.beta), float(method.alpha)) == pytest.approx((beta, alpha), rel=1e-5)
    found = (method.predict(support.val_features).argmax(1) == support.val_labels).double().mean()
    assert float(found) == pytest.approx(score)
    assert not method.selects_on_test(method.config)


@pytest.mark.parametrize("cells, rows", [(1, 7), (5000, 4096), (2**22, 4096)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_tip_adapters_batched_search_is_the_plain_double_loop_however_it_is_cut(
    tiny, classes, monkeypatch, cells, rows, seed
):
    monkeypatch.setattr(tip_adapter_f, "CELLS", {"cpu": cells})
    monkeypatch.setattr(tip_adapter_f, "ROWS", rows)
    support = make_support(noise=1.5 + seed, seed=seed)
    method = started_tip(tiny, classes, support, max_beta=9.0, max_alpha=25.0)
    method.start(support)
    x, y = support.val_features, support.val_labels  # 16 images: most points of the grid tie
    image, onehot = F.normalize(x, dim=-1), torch.eye(len(NAMES))[support.labels]
    plain, affinity = 100.0 * image @ method.classifier.T, image @ method.keys.detach().T
    counts = torch.zeros(200, 20, dtype=torch.long)
    best = (0.0, 1.0, 1.17)
    for i in range(200):
        for j in range(20):
            beta, alpha = 0.1 + i * (9.0 - 0.1) / 200, 0.1 + j * (25.0 - 0.1) / 20
            logits = plain + alpha * (torch.exp(-beta * (1 - affinity)) @ onehot)
            counts[i, j] = sum(int(row.argmax()) == label for row, label in zip(logits, y.tolist(), strict=True))
            if counts[i, j] / len(y) > best[0]:
                best = (float(counts[i, j]) / len(y), beta, alpha)
    assert (counts == counts.max()).sum() > 1, "ties must be among what is tried"
    with torch.no_grad():
        assert method.search(x, y) == best
        betas, alphas = (tip_adapter_f.grid(end, steps) for end, steps in ((9.0, 200), (25.0, 20)))
        assert torch.equal(method.count_right(x, y, betas, alphas), counts)


def test_a_search_that_gets_nothing_right_keeps_alpha_and_beta(tiny, classes, support):
    method = started_tip(tiny, classes, support)
    method.start(support)
    with torch.no_grad():
        found = method.search(support.val_features, torch.full_like(support.val_labels, -1))
    assert found == pytest.approx((0.0, 1.0, 1.17))


def test_published_tip_adapter_keeps_the_best_epoch_on_test_and_says_so(tiny, classes):
    class Spy(dict):
        read = set()

        def __getitem__(self, key):
            self.read.add(key)
            return super().__getitem__(key)

    test, selection = (make_support(noise=2.0, shots=20, seed=s) for s in (21, 22))
    leak = Spy(test=(test.features, test.labels), selection=(selection.features, selection.labels))
    support = replace(make_support(noise=2.0, seed=8), leak=leak)
    method = started_tip(tiny, classes, support, selection="published", epochs=8, lr=0.5)
    epochs = []

    def accuracy():
        return float((method.predict(test.features).argmax(1) == test.labels).double().mean())

    def noted(given, end_epoch=method.end_epoch):
        epochs.append(accuracy())
        end_epoch(given)

    method.end_epoch = noted
    fit(method, support, torch.Generator().manual_seed(0))
    assert len(set(epochs)) > 1 and accuracy() >= max(epochs)
    assert Spy.read == {"test", "selection"}
    assert method.selects_on_test(method.config)


def test_tip_adapter_refuses_another_selection():
    with pytest.raises(UserError, match="clean"):
        make("tip-adapter-f", selection="best")


# ---- CoOp ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [0, 2])
def test_coop_is_the_scaled_cosine_with_prompts_whose_context_enters_at_its_layer(tiny, classes, support, layer):
    method = make("coop", context_length=5, layer=layer, seed=2)
    assert [tuple(value.shape) for value in method.learned().values()] == [(5, WIDTH)]
    for backbone in (tiny.base, tiny.new):
        method.bind(backbone, classes)
        with torch.no_grad():
            text = encode_prompts(backbone.model, TOKENIZER, NAMES, method.context.detach(), layer=layer)
        close(
            method.predict(support.features),
            float(backbone.scale) * unit(support.features.numpy()) @ unit(text.numpy()).T,
        )


def test_coop_starts_as_published():
    context = make("coop", width=512, config=METHODS["coop"].Config()).context.detach()
    assert context.shape == (16, 512)
    assert float(context.mean()) == pytest.approx(0, abs=1e-3) and float(context.std()) == pytest.approx(0.02, rel=0.05)


# ---- CoCoOp ----------------------------------------------------------------------------------------------------------


def test_cocoop_with_a_silent_meta_net_is_coop(tiny, classes, support):
    cocoop, coop = make("cocoop"), make("coop", context_length=4)
    with torch.no_grad():
        coop.context.copy_(cocoop.context)
        for parameter in list(cocoop.meta_net.parameters())[-2:]:
            parameter.zero_()
    for backbone in (tiny.base, tiny.new):
        cocoop.bind(backbone, classes)
        coop.bind(backbone, classes)
        close(cocoop.predict(support.features), coop.predict(support.features))


def test_cocoop_shifts_every_context_token_by_the_meta_net_of_the_unit_feature(tiny, classes, support):
    method = make("cocoop", seed=6)
    w1, b1, w2, b2 = (p.detach().double().numpy() for p in method.meta_net.parameters())
    assert w1.shape == (DIM // 16, DIM) and w2.shape == (WIDTH, DIM // 16)
    x = support.features[:3]
    f = unit(x.double().numpy())
    shift = np.maximum(f @ w1.T + b1, 0) @ w2.T + b2
    contexts = torch.tensor(method.context.detach().double().numpy() + shift[:, None]).float()
    for backbone in (tiny.base, tiny.new):
        method.bind(backbone, classes)
        with torch.no_grad():
            text = encode_prompts(backbone.model, TOKENIZER, NAMES, contexts, "image").double().numpy()
        expected = float(backbone.scale) * np.einsum("bd,bcd->bc", f, unit(text))
        close(method.predict(x), expected)


@pytest.mark.parametrize("name", ["cocoop", "kgcoop"])
def test_context_started_from_words_is_their_token_embeddings(tiny, classes, support, name):
    method = make(name)
    method.bind(tiny.base, classes)
    method.start(support)
    ids = TOKENIZER(["a photo of a"])[0, 1:5]
    assert torch.equal(method.context.detach(), tiny.base.model.text.token_embedding.weight[ids])


# ---- KgCoOp ----------------------------------------------------------------------------------------------------------


def test_kgcoop_adds_half_its_weight_times_the_mean_squared_distance_to_the_teacher(tiny, classes, support):
    method = make("kgcoop", weight=8.0)
    method.bind(tiny.base, classes)
    x, y = support.features, support.labels
    with torch.no_grad():
        text = encode_prompts(tiny.base.model, TOKENIZER, NAMES, method.context.detach())
        text = (text / text.norm(dim=-1, keepdim=True)).double()
        teacher = zero_shot_by_hand(tiny.base, NAMES, classes.templates).double()
        distance = (text - teacher).square().sum(1).mean()
        logits = float(tiny.base.scale) * (x / x.norm(dim=-1, keepdim=True)).double() @ text.T
        expected = F.cross_entropy(logits, y) + 8.0 / 2 * distance
        assert float(method.loss(x, y)) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("dataset, template", [("dtd", "a photo of a {}, a type of texture."), ("toy", "{} texture.")])
def test_kgcoops_teacher_reads_its_own_template_for_textures(tiny, dataset, template):
    method = make("kgcoop")
    method.bind(tiny.base, Classes(dataset, NAMES, ("{} texture.",)))
    close(method.teacher, zero_shot_by_hand(tiny.base, NAMES, (template,)))


# ---- ContCoOp --------------------------------------------------------------------------------------------------------


def attended(method, backbone, texts, heads):
    """p + first n rows of softmax(Q K^T / sqrt(W / h)) V W_O over [p, real tokens], class by class, float64."""
    p = method.context.detach().double().numpy()
    q, k, v, o = (
        layer.weight.detach().double().numpy().T for layer in (method.query, method.key, method.value, method.out)
    )
    table = backbone.model.text.token_embedding.weight.detach().double().numpy()
    depth, found = WIDTH // heads, []
    for text in texts:
        ids = [i for i in TOKENIZER([text])[0].tolist() if 0 < i < 49406]
        rows = np.concatenate([p, table[ids]])
        parts = []
        for h in range(heads):
            columns = slice(h * depth, (h + 1) * depth)
            scores = (p @ q[:, columns]) @ (rows @ k[:, columns]).T / math.sqrt(depth)
            shares = np.exp(scores - scores.max(1, keepdims=True))
            shares /= shares.sum(1, keepdims=True)
            parts.append(shares @ (rows @ v[:, columns]))
        found.append(p + np.concatenate(parts, axis=1) @ o)
    return np.stack(found)


def loud_contcoop(**changes):
    """With weights large enough that the attention is far from uniform."""
    method = make("contcoop", context_length=6, seed=3, **changes)
    with torch.no_grad():
        for layer in (method.query, method.key):
            layer.weight.mul_(12)
        method.context.mul_(10)
    return method


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("condition", ["{}", "a photo of a {}"])
def test_contcoop_attends_to_context_and_real_name_tokens_alone(tiny, classes, heads, condition):
    method = loud_contcoop(heads=heads, condition=condition)
    for backbone in (tiny.base, tiny.new):
        method.bind(backbone, classes)
        expected = attended(method, backbone, [condition.format(name) for name in NAMES], heads)
        close(method.contexts(None), expected, 1e-5)
        with torch.no_grad():
            text = encode_prompts(backbone.model, TOKENIZER, NAMES, torch.tensor(expected).float(), "class")
        x = make_support().features
        close(method.predict(x), float(backbone.scale) * unit(x.numpy()) @ unit(text.numpy()).T, 5e-4)


def test_contcoop_with_mean_tokens_sees_one_average_row(tiny):
    method, one = loud_contcoop(tokens="mean"), loud_contcoop()
    classes = Classes("toy", ("cat", "dog"), ("{}",))  # one token each: both readings agree
    for m in (method, one):
        m.bind(tiny.base, classes)
    close(method.contexts(None), one.contexts(None))
    method.bind(tiny.base, Classes("toy", ("red bus",), ("{}",)))
    table = tiny.base.model.text.token_embedding.weight
    ids = TOKENIZER(["red bus"])[0, 1:3]
    close(method.names[0], table[ids].mean(0, keepdim=True), 1e-6)


def test_contcoop_without_attention_and_with_silent_attention_is_coop(tiny, classes, support):
    off, silent, coop = make("contcoop", attention=False), make("contcoop"), make("coop")
    assert list(off.learned()) == ["context"]
    with torch.no_grad():
        silent.out.weight.zero_()
        for method in (off, silent):
            method.context.copy_(coop.context)
    for backbone in (tiny.base, tiny.new):
        for method in (off, silent, coop):
            method.bind(backbone, classes)
        for method in (off, silent):
            close(method.predict(support.features), coop.predict(support.features))


@pytest.mark.parametrize("squared", [False, True])
def test_contcoop_loss_adds_lambda_times_the_mean_distance_to_the_zero_shot_classifier(tiny, classes, support, squared):
    method = make("contcoop", lam=0.7, squared=squared)
    method.bind(tiny.base, classes)
    x, y = support.features, support.labels
    with torch.no_grad():
        context = torch.tensor(attended(method, tiny.base, NAMES, 1)).float()
        text = encode_prompts(tiny.base.model, TOKENIZER, NAMES, context, "class").double()
        text = text / text.norm(dim=-1, keepdim=True)
        distance = (text - zero_shot_by_hand(tiny.base, NAMES, classes.templates)).norm(dim=-1)
        logits = float(tiny.base.scale) * (x / x.norm(dim=-1, keepdim=True)).double() @ text.T
        expected = F.cross_entropy(logits, y) + 0.7 * (distance**2 if squared else distance).mean()
        assert float(method.loss(x, y)) == pytest.approx(float(expected), rel=1e-4)


def test_contcoop_has_the_papers_number_of_parameters():
    shape = Shape(512, 512, NAMES, 4)
    method = METHODS["contcoop"](METHODS["contcoop"].Config(), shape)
    assert sum(p.numel() for p in method.parameters()) == 1_056_768  # 4 W^2 + n W, W = 512, n = 16


def test_contcoop_distillation_has_a_gradient_even_at_distance_zero(tiny, classes, support):
    method = make("contcoop", attention=False)
    method.bind(tiny.base, classes)
    method.teacher = F.normalize(method.class_features(None).detach(), dim=-1)
    method.loss(support.features, support.labels).backward()
    assert torch.isfinite(method.context.grad).all()


@pytest.mark.parametrize("changes", [{"heads": 3}, {"tokens": "some"}, {"init": "zeros"}])
def test_contcoop_refuses_options_that_do_not_exist(changes):
    with pytest.raises(UserError, match=str(next(iter(changes.values())))):
        make("contcoop", **changes)
