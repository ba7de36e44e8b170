"""Slow, plain restatements that the tests hold the suite against; nothing here calls bench/backbones/text_tower.py."""

from __future__ import annotations

import contextlib

import torch


@contextlib.contextmanager
def hooked(handle):
    try:
        yield
    finally:
        handle.remove()


def encode_prompts(model, tokenizer, names, context, per="shared", layer=0):
    """open_clip's own ``encode_text`` at full length for ``[SOS, context, name, "."]``: (C, D), or (B, C, D) per image.

    The context overwrites rows 1..n of the token embeddings, or of the input of block ``layer``, through a hook.
    """
    if per == "image":
        return torch.stack([encode_prompts(model, tokenizer, names, one, "shared", layer) for one in context])
    n, text = context.shape[-2], model.text
    ids = tokenizer([" ".join(["X"] * n + [f"{name}."]) for name in names]).to(context.device)
    assert ids.shape == (len(names), text.context_length)
    own = context.expand(len(names), -1, -1)

    def place(x):
        assert x.shape[:2] == ids.shape
        return torch.cat([x[:, :1], own, x[:, 1 + n :]], dim=1)

    if layer == 0:
        handle = text.token_embedding.register_forward_hook(lambda module, args, output: place(output))
    else:
        block = text.transformer.resblocks[layer]
        handle = block.register_forward_pre_hook(lambda module, args: (place(args[0]), *args[1:]))
    with hooked(handle):
        return model.encode_text(ids)


def relative(found, expected):
    """Largest difference as a share of the largest expected value."""
    return float((found - expected).detach().abs().max() / expected.detach().abs().max())
