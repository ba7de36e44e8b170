"""Slow, plain restatements that the tests hold the suite against; nothing here calls bench/backbones/text_tower.py."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import torch
import torch.nn.functional as F


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


def text_by_hand(model, tokenizer, names, context, deep=()):
    """open_clip's own text tower at 77 tokens for ``[SOS, context, name, "."]``, through hooks."""
    n, text = len(context), model.text
    ids = tokenizer([" ".join(["X"] * n + [f"{name}."]) for name in names])

    def overwrite(x, rows):
        assert x.shape[:2] == ids.shape
        return torch.cat([x[:, :1], rows.expand(len(x), -1, -1), x[:, 1 + n :]], dim=1)

    handles = [text.token_embedding.register_forward_hook(lambda module, args, out: overwrite(out, context))]
    for block, rows in zip(text.transformer.resblocks[1:], deep, strict=False):
        handles.append(
            block.register_forward_pre_hook(lambda module, args, rows=rows: (overwrite(args[0], rows), *args[1:]))
        )
    with hooked(SimpleNamespace(remove=lambda: [handle.remove() for handle in handles])):
        return model.encode_text(ids)


def image_by_hand(visual, pixels, prompts):
    """Prompts behind the last patch, replaced at the inputs of the first blocks, in a plain loop."""
    trunk = getattr(visual, "trunk", None)
    count, n = len(pixels), prompts.shape[1]
    if trunk is None:
        x = visual.conv1(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([visual.class_embedding.expand(count, 1, -1), x], dim=1) + visual.positional_embedding
        x = visual.ln_pre(torch.cat([x, prompts[0].expand(count, -1, -1)], dim=1))
        blocks = [lambda x, block=block: block(x) for block in visual.transformer.resblocks]
    else:
        x = torch.cat([trunk.cls_token.expand(count, -1, -1), trunk.patch_embed(pixels)], dim=1) + trunk.pos_embed
        x = trunk.norm_pre(torch.cat([x, prompts[0].expand(count, -1, -1)], dim=1))
        blocks = [lambda x, block=block: eva_block(block, x, trunk.rope.get_embed(), n) for block in trunk.blocks]
    for index, block in enumerate(blocks):
        if 0 < index < len(prompts):
            x = torch.cat([x[:, :-n], prompts[index].expand(count, -1, -1)], dim=1)
        x = block(x)
    if trunk is None:
        return visual.ln_post(x[:, 0]) @ visual.proj
    return trunk.head(trunk.fc_norm(trunk.norm(x)[:, 0]))


def eva_block(block, x, rope, n):
    """EVA-02's block by its formulas: queries and keys of patches alone are turned, by pairs of neighbouring values."""
    attn, y = block.attn, block.norm1(x)
    if attn.qkv is not None:
        bias = torch.cat([attn.q_bias, torch.zeros_like(attn.q_bias), attn.v_bias])
        q, k, v = F.linear(y, attn.qkv.weight, bias).chunk(3, dim=-1)
    else:
        q, k, v = attn.q_proj(y), attn.k_proj(y), attn.v_proj(y)
    q, k, v = (part.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2) for part in (q, k, v))
    sin, cos = rope.chunk(2, dim=-1)

    def turn(part):
        head, patches, prompts = part.split([1, part.shape[2] - 1 - n, n], dim=2)
        even, odd = patches[..., ::2], patches[..., 1::2]
        turned = torch.stack([-odd, even], dim=-1).flatten(-2)
        return torch.cat([head, patches * cos + turned * sin, prompts], dim=2)

    scores = turn(q) @ turn(k).transpose(-2, -1) / q.shape[-1] ** 0.5
    mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
    x = x + attn.proj(attn.norm(mixed))
    return x + block.mlp(block.norm2(x))
