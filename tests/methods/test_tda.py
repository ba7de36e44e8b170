"""TDA against a loop over images in float64, what its authors' code gave, and the order of the evaluator's stream."""

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tiny_fits import make, make_support
from tiny_towers import DIM, NAMES

from carryover.bench.engine import evaluator
from carryover.bench.errors import UserError
from carryover.methods.base import METHODS, Classes, Shape

AUTHORS = json.loads((Path(__file__).parent.parent / "data" / "tda.json").read_text())


class Given:
    """A backbone that is no more than its text classifier."""

    def __init__(self, classifier):
        self.classifier = classifier

    def zero_shot(self, classes):
        return self.classifier


def bound(classifier, **changes):
    names = tuple(str(one) for one in range(len(classifier)))
    kind = METHODS["tda"]
    method = kind(kind.Config(**changes), Shape(8, classifier.shape[1], names, 0))
    method.bind(Given(classifier), Classes("toy", names, ("{}",)))
    return method


def world(classes, dim, count, noise, seed=0):
    """Text features that lie near each other as CLIP's do, and images near them; some come twice, so entropies tie."""
    g = torch.Generator().manual_seed(seed)
    drawn = torch.randn(classes + count + 1, dim, generator=g).double()
    text = F.normalize(0.25 * F.normalize(drawn[:classes], dim=-1) + F.normalize(drawn[-1], dim=-1), dim=-1)
    labels = torch.randint(classes, (count,), generator=g)
    x = 3 * text[labels] + 0.75 * noise * F.normalize(drawn[classes:-1], dim=-1)
    x[count // 2 : count // 2 + 10] = x[:10]
    return text, x


def by_images(text, x, size, alpha, beta, negative_size, negative_alpha, negative_beta, unsure, possible):
    """One image after the other, each cache a list of (class, entropy, feature, what it adds); also how many the
    negative one was offered."""
    caches, answers, offered = ([], []), [], 0
    for image in F.normalize(x, dim=-1):
        logits = 100 * text @ image
        p = logits.softmax(0)
        entropy, best = float(torch.special.entr(p).sum()), int(p.argmax())
        wanted = [(size, torch.eye(len(text)).double()[best])]
        if unsure[0] < entropy / math.log2(len(text)) < unsure[1]:
            offered += 1
            wanted.append((negative_size, ((p > possible[0]) & (p < possible[1])).double()))
        for number, (most, adds) in enumerate(wanted):
            own = [one for one in caches[number] if one[0] == best] + [(best, entropy, image, adds)]
            rest = [one for one in caches[number] if one[0] != best]
            caches[number][:] = rest + sorted(own, key=lambda one: one[1])[:most]
        for cache, sign, sharp in zip(caches, (alpha, -negative_alpha), (beta, negative_beta), strict=True):
            for _, _, key, adds in cache:
                logits = logits + sign * math.exp(-sharp * (1 - float(key @ image))) * adds
        answers.append(logits)
    return torch.stack(answers), offered


DEFAULTS = {
    "size": 3, "alpha": 2.0, "beta": 5.0, "negative_size": 2, "negative_alpha": 0.117, "negative_beta": 1.0,
    "unsure": (0.2, 0.5), "possible": (0.03, 1.0),
}  # fmt: skip


@pytest.mark.parametrize(
    "classes, count, noise, parts, changes",
    [
        (4, 90, 1.0, (90,), {}),
        (4, 90, 1.5, (1, 40, 49), {"size": 1, "negative_size": 4, "negative_alpha": 2.0}),
        (20, 700, 1.5, (700,), {}),
        (20, 300, 1.5, (299, 1), {"negative_size": 0, "beta": 8.0}),
        (20, 300, 1.5, (300,), {"size": 0, "negative_beta": 3.0, "unsure": (0.1, 0.6), "possible": (0.1, 0.6)}),
    ],
)
def test_it_is_the_loop_over_images_however_the_stream_is_cut(classes, count, noise, parts, changes):
    text, x = world(classes, 32, count, noise)
    expected, offered = by_images(text, x, **DEFAULTS | changes)
    assert 0 < offered < count
    method = bound(text, **changes)
    found = torch.cat([method.predict(part) for part in x.split(parts)])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def formula(classes=6, dim=16, count=60):
    """Text features and images that need no generator."""
    at = torch.arange(dim).double()
    text = torch.stack([torch.sin(1.3 * (c + 1) * at + c) for c in range(classes)])
    text = F.normalize(0.3 * F.normalize(text, dim=-1) + F.normalize(torch.cos(at), dim=-1), dim=-1)
    noise = torch.stack([torch.sin(0.7 * (i + 2) * at + 0.1 * i * i) for i in range(count)])
    return text, text[torch.arange(count) * 5 % classes] + 0.3 * F.normalize(noise, dim=-1)


@pytest.mark.parametrize("case", AUTHORS["cases"], ids=lambda case: f"{case['alpha']}-{case['size']}")
def test_it_gives_what_the_authors_code_gave(case):
    text, x = formula()
    changes = {name: case[name] for name in ("alpha", "beta", "size", "negative_size")}
    expected = torch.tensor(case["last"], dtype=torch.float64)
    found = bound(text, **changes).predict(x)
    torch.testing.assert_close(found[-len(expected) :], expected, rtol=0, atol=2e-6)
    zero_shot = 100 * F.normalize(x, dim=-1) @ text.T
    assert (found - zero_shot)[-len(expected) :].abs().max() > 1


def test_the_settings_are_the_authors():
    kind = METHODS["tda"]
    for dataset, (alpha, beta) in AUTHORS["configs"].items():
        config = kind.Config(**kind.published(dataset, 16))
        assert (config.alpha, config.beta) == (alpha, beta)


def test_each_backbone_starts_with_empty_caches_and_nothing_travels(tiny, classes):
    method, x = make("tda"), make_support(shots=12).features
    answers = []
    for backbone in (tiny.base, tiny.new, tiny.base):
        method.bind(backbone, classes)
        answers.append(method.predict(x))
    assert torch.equal(answers[0], answers[2]) and not torch.allclose(answers[0], answers[1])
    assert not torch.equal(method.predict(x), answers[2]), "the stream goes on"
    assert method.learned() == {}


def test_without_caches_it_is_zero_shot(tiny, classes):
    method, x = make("tda", size=0, negative_size=0), make_support().features
    method.bind(tiny.base, classes)
    expected = 100 * F.normalize(x, dim=-1) @ tiny.base.zero_shot(classes).T
    torch.testing.assert_close(method.predict(x), expected)


# ---- the evaluator's stream ------------------------------------------------------------------------------------------


def test_the_evaluator_gives_it_one_shuffled_stream_over_all_parts(tiny, classes, monkeypatch):
    text, x = world(4, DIM, 90, 1.5)
    x = x[x @ text[0] > x @ text[1]].float()  # in some order of their own
    method = make("tda", alpha=30.0)
    order = evaluator.stream_of(len(x))
    assert sorted(order.tolist()) == list(range(len(x))) != order.tolist()
    method.bind(tiny.base, classes)
    expected = torch.empty(len(x), len(NAMES))
    expected[order] = method.predict(x[order])
    for rows in (4096, 7):
        monkeypatch.setattr(evaluator, "ROWS", rows)
        found, _ = evaluator.predict(method, tiny.base, classes, x)
        assert torch.equal(found["predicted"], expected.argmax(1).int())
        torch.testing.assert_close(found["confidence"], expected.softmax(1).max(1).values, rtol=1e-4, atol=1e-4)
    method.bind(tiny.base, classes)
    assert not torch.allclose(method.predict(x), expected, atol=1e-3), "the order matters here"


def test_images_come_as_they_lie_to_a_method_that_says_nothing(tiny, classes):
    """So that what is drawn for others moves no number of theirs."""
    x = make_support().features
    seen, method = [], make("zs-clip")
    logits = method.logits
    method.logits = lambda part: seen.append(part) or logits(part)
    evaluator.predict(method, tiny.base, classes, x)
    assert torch.equal(torch.cat(seen), x)


@pytest.mark.parametrize("changes", [{"size": -1}, {"negative_size": -1}, {"unsure": (0.1,)}, {"possible": (1, 2, 3)}])
def test_it_refuses_settings_that_mean_nothing(changes):
    with pytest.raises(UserError, match="0 or more"):
        make("tda", **changes)
