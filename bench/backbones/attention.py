"""The attention blocks of a tower, whatever its implementation: the one place that knows how open_clip's and timm's
transformers are built, for plug-ins that change attention or add tokens.

Letters: L blocks, W the tower's own width, n added tokens, B images, T tokens of an image.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Add = Callable[[Tensor], None]


@dataclass(frozen=True)
class Stack:
    """A tower's blocks, from the first to the last.

    entry   of an image tower: the module that reads the tokens (B, T, W), positions added, before the first block
    prefix  tokens in front of the patches
    """

    blocks: tuple[Any, ...]  # modules: their parts have no types of their own
    width: int
    entry: Any = None
    prefix: int = 0

    def __len__(self) -> int:
        return len(self.blocks)


def text_stack(text: Any) -> Stack | None:
    """Of open_clip's ``TextTransformer``; None for a text tower of another kind."""
    return stack(getattr(getattr(text, "transformer", None), "resblocks", ()))


def image_stack(visual: Any) -> Stack | None:
    """Of open_clip's ``VisionTransformer``, or of the timm transformer that it wraps; None for an image tower that is
    none of these, such as a ResNet."""
    transformer: Any = getattr(visual, "transformer", None)
    trunk: Any = getattr(visual, "trunk", None)
    if hasattr(transformer, "resblocks") and transformer.batch_first and hasattr(visual, "ln_pre"):
        return stack(transformer.resblocks, visual.ln_pre, 1)
    if hasattr(trunk, "blocks") and hasattr(trunk, "norm_pre") and hasattr(trunk, "num_prefix_tokens"):
        return stack(trunk.blocks, trunk.norm_pre, trunk.num_prefix_tokens)
    return None


def stack(blocks: Any, entry: Any = None, prefix: int = 0) -> Stack | None:
    """None where a block has no queries, keys and values of the tower's own width."""
    found = [matrices(block) for block in blocks]
    shapes = {(sum(len(weight) for weight in own), own[0].shape[1]) if own else None for own in map(weights, found)}
    if len(shapes) != 1 or None in shapes:
        return None
    ((rows, width),) = [shape for shape in shapes if shape]
    return Stack(tuple(blocks), width, entry, prefix) if rows == 3 * width else None


def matrices(block: Any) -> list[tuple[Any, str]]:
    """(module, name of the parameter) of the matrices whose rows are, one below the other, W of the query, W of the key
    and W of the value: one matrix, or three."""
    attention: Any = getattr(block, "attn", None)
    if isinstance(attention, nn.MultiheadAttention):
        return [(attention, "in_proj_weight")] if attention.in_proj_weight is not None else []
    if isinstance(getattr(attention, "qkv", None), nn.Linear):
        return [(attention.qkv, "weight")]
    parts = [getattr(attention, f"{letter}_proj", None) for letter in "qkv"]
    return [(part, "weight") for part in parts if isinstance(part, nn.Linear)]


def weights(found: list[tuple[Any, str]]) -> list[Tensor]:
    return [getattr(module, name) for module, name in found]


def biases(block: Any) -> Tensor:
    """(3 W,) what a block adds to its queries, keys and values, in the order of ``matrices``; 0 where there is none."""
    if getattr(block.attn, "q_bias", None) is not None:  # EVA-02's, beside its one matrix
        return torch.cat([block.attn.q_bias, block.attn.k_bias, block.attn.v_bias]).detach()
    pairs = [(getattr(m, name), getattr(m, name.replace("weight", "bias"))) for m, name in matrices(block)]
    return torch.cat([weight.new_zeros(len(weight)) if bias is None else bias for weight, bias in pairs]).detach()


@contextlib.contextmanager
def open_projections(stack: Stack) -> Iterator[Add]:
    """Inside, the given function adds (L, 3 W, W) to the frozen query, key and value matrices of all blocks, in place
    of what it added before, and so that gradients reach what was added. On exit the parameters themselves are back
    where they were. (Tensors stand in the modules' dictionaries of parameters, so that whoever keeps something made of
    these sees that they are others.)"""
    found = [matrices(block) for block in stack.blocks]
    frozen = [weights(own) for own in found]

    def add(change: Tensor) -> None:
        for own, kept, more in zip(found, frozen, change, strict=True):
            rows = more.split([len(weight) for weight in kept])
            for (module, name), weight, part in zip(own, kept, rows, strict=True):
                module._parameters[name] = weight + part.to(weight.dtype)

    try:
        yield add
    finally:
        for own, kept in zip(found, frozen, strict=True):
            for (module, name), weight in zip(own, kept, strict=True):
                module._parameters[name] = weight


@contextlib.contextmanager
def added_tokens(stack: Stack, n: int, depth: int, rows: Callable[[int], Tensor]) -> Iterator[None]:
    """Inside, an image tower sees n more tokens: ``rows(0)`` (n, W) enters before the first block, ``rows(i)`` replaces
    what has become of them at the input of block i < depth; they are taken out after the last block. They stand behind
    the prefix, where no rotation by position reaches them (attention is the same wherever they stand)."""
    here = slice(stack.prefix, stack.prefix + n)

    def enter(module, args):
        x = args[0]
        return (join(x[:, : here.start], rows(0), x[:, here.start :]), *args[1:])

    def replace(index: int):
        def at_block(module, args):
            x = args[0]
            return (join(x[:, : here.start], rows(index), x[:, here.stop :]), *args[1:])

        return at_block

    def leave(module, args, x):
        return torch.cat([x[:, : here.start], x[:, here.stop :]], dim=1)

    rotated = [block.attn for block in stack.blocks if hasattr(block.attn, "num_prefix_tokens")]
    before = [attention.num_prefix_tokens for attention in rotated]
    with contextlib.ExitStack() as undo:
        undo.callback(set_prefixes, rotated, before)
        set_prefixes(rotated, [count + n for count in before])
        hooks = [stack.entry.register_forward_pre_hook(enter), stack.blocks[-1].register_forward_hook(leave)]
        hooks += [stack.blocks[i].register_forward_pre_hook(replace(i)) for i in range(1, depth)]
        for hook in hooks:
            undo.callback(hook.remove)
        yield


def set_prefixes(rotated: list[Any], counts: list[int]) -> None:
    for attention, count in zip(rotated, counts, strict=True):
        attention.num_prefix_tokens = count


def join(before: Tensor, rows: Tensor, after: Tensor) -> Tensor:
    return torch.cat([before, rows.to(before.dtype).expand(len(before), -1, -1), after], dim=1)
