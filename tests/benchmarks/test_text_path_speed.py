"""A CoOp step (forward and backward, 20 classes, ViT-B/16) by the fast text path and at open_clip's full length.

Skipped by default; run ``pytest tests/benchmarks --benchmark-only --benchmark-group-by=group``.
"""

from functools import cache

import pytest
import torch
from references import encode_prompts

from bench import backbones
from bench.prompts import TextTower

NAMES = [
    f"{adjective} {noun}"
    for adjective in ("red", "very small", "old", "double decker", "left")
    for noun in ("bus", "sea lion", "accordion", "motorbike")
]
CONTEXT = 16


@cache
def model():
    # Built in the test, not in a fixture, so that a skipped benchmark costs nothing.
    return backbones.build("ViT-B-16-quickgelu").eval().requires_grad_(False)


@pytest.mark.benchmark(group="CoOp step, 20 classes, ViT-B/16")
@pytest.mark.parametrize("path", ["fast", "open_clip at 77 tokens"])
def test_coop_step(benchmark, path):
    tokenizer = backbones.tokenizer("ViT-B-16-quickgelu")
    text = TextTower(model().text, tokenizer)
    context = torch.nn.Parameter(torch.randn(CONTEXT, text.width) * 0.02)
    tokens = text.class_tokens(NAMES)

    def step():
        context.grad = None
        if path == "fast":
            features = text.encode(context, tokens)
        else:
            features = encode_prompts(model(), tokenizer, NAMES, context)
        features.square().sum().backward()
        return context.grad

    assert benchmark.pedantic(step, rounds=3, warmup_rounds=1).abs().max() > 0
