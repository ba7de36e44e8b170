"""What the attention blocks of two towers read of the same pictures or texts, token beside token, as sums of products.

Letters: B inputs, T tokens of one, L blocks, Wo and Wn widths of the old and the new tower.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from carryover.bench.backbones.attention import Stack
from carryover.bench.backbones.loading import Backbone
from carryover.bench.errors import UserError
from carryover.bench.ports.weight_deltas import stacks

PICTURES, TEXTS = 8, 64  # at a time: all blocks' inputs are held


@dataclass
class Products:
    """Sums over matched tokens at one block's input, in float64. A constant 1 stands behind the values, so that what
    the block's affine layers make of the tokens has its sums too (``through``).

    old (Wo + 1, Wo + 1), both (Wo + 1, Wn + 1), new (Wn + 1, Wn + 1); tokens counts them
    """

    old: Tensor
    both: Tensor
    new: Tensor
    tokens: int

    @classmethod
    def of(cls, old: Tensor, new: Tensor) -> Products:
        """Rows (N, Wo) and (N, Wn)."""
        a, b = (F.pad(double(rows), (0, 1), value=1.0) for rows in (old, new))
        return cls(a.T @ a, a.T @ b, b.T @ b, len(a))

    def __add__(self, other: Products) -> Products:
        return Products(self.old + other.old, self.both + other.both, self.new + other.new, self.tokens + other.tokens)

    def inputs(self) -> Products:
        """Of the values alone."""
        return Products(self.old[:-1, :-1], self.both[:-1, :-1], self.new[:-1, :-1], self.tokens)

    def through(self, old: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor]) -> Products:
        """Of what comes out of each tower's own ``x @ weight.T + bias``."""
        a, b = (double(torch.cat([weight, bias[:, None]], dim=1)).to(self.both) for weight, bias in (old, new))
        return Products(a @ self.old @ a.T, a @ self.both @ b.T, b @ self.new @ b.T, self.tokens)


def double(x: Tensor) -> Tensor:
    return (x.cpu() if x.device.type == "mps" else x).double()  # Apple's GPUs have no float64


def read_by(stack: Stack, run: Callable[[], object]) -> list[Tensor]:
    """The (B, T, W) that the attention of each block is given while ``run`` runs."""
    seen: list[Tensor] = []

    def keep(module, args):
        seen.append(args[0] if getattr(module, "batch_first", True) else args[0].transpose(0, 1))

    hooks = [block.attn.register_forward_pre_hook(keep) for block in stack.blocks]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return seen


@torch.no_grad()
def of_pictures(old: Backbone, new: Backbone, pixels_old: Tensor, pixels_new: Tensor) -> list[Products]:
    """Per block, of the image towers, for the same pictures (N, 3, H, H) as each tower takes them."""

    def batches() -> Iterator[list[tuple[Tensor, Tensor]]]:
        for x, y in zip(pixels_old.split(PICTURES), pixels_new.split(PICTURES), strict=True):
            left, right = picture_tokens(old, x), picture_tokens(new, y)
            prefixes = stacks(old)["image"].prefix, stacks(new)["image"].prefix
            yield [matched(a, b, *prefixes) for a, b in zip(left, right, strict=True)]

    return summed(batches())


def picture_tokens(backbone: Backbone, pixels: Tensor) -> list[Tensor]:
    return read_by(stacks(backbone)["image"], lambda: backbone.model.encode_image(pixels.to(backbone.device)))


@torch.no_grad()
def of_texts(old: Backbone, new: Backbone, texts: list[str]) -> list[Products]:
    """Per block, of the text towers: all tokens of the texts with their start and end, no padding. Raises UserError
    where the two tokenizers cut a text into other tokens."""

    def batches() -> Iterator[list[tuple[Tensor, Tensor]]]:
        for start in range(0, len(texts), TEXTS):
            some = texts[start : start + TEXTS]
            if not same_tokens(old, new, some):
                raise UserError(
                    f"{old.label} and {new.label} cut texts into other tokens, so that the text towers cannot be "
                    "matched token by token"
                )
            around = len(old.text.layout.start) + 1
            lengths = torch.tensor([len(row) + around for row in old.text.tokens(some)])
            longest = int(lengths.max())
            pairs = zip(text_tokens(old, some, longest), text_tokens(new, some, longest), strict=True)
            yield [(real(a, lengths), real(b, lengths)) for a, b in pairs]

    return summed(batches())


def same_tokens(old: Backbone, new: Backbone, texts: list[str]) -> bool:
    """Whether both text towers read the texts as the same tokens, start and end included."""
    ends = [(backbone.text.layout.start, backbone.text.layout.end) for backbone in (old, new)]
    return ends[0] == ends[1] and old.text.tokens(texts) == new.text.tokens(texts)


def text_tokens(backbone: Backbone, texts: list[str], longest: int) -> list[Tensor]:
    """By the tower's own blocks, as the fast path has no modules to hook. A causal tower reads no further than the
    longest text."""
    text, ids = backbone.text.text, backbone.text.tokenizer(texts).to(backbone.device)
    if not backbone.text.causal:
        return read_by(stacks(backbone)["text"], lambda: text(ids))
    x = text.token_embedding(ids[:, :longest]) + text.positional_embedding[:longest]
    return read_by(stacks(backbone)["text"], lambda: text.transformer(x, attn_mask=text.attn_mask[:longest, :longest]))


def real(x: Tensor, lengths: Tensor) -> Tensor:
    """The first tokens of each of (B, T, W), as many as it has -> (N, W)."""
    return x[torch.arange(x.shape[1])[None] < lengths[:, None]]


def matched(old: Tensor, new: Tensor, prefix_old: int, prefix_new: int) -> tuple[Tensor, Tensor]:
    """Tokens of the same pictures (B, To, Wo) and (B, Tn, Wn) -> rows (N, Wo) and (N, Wn). Tokens in front of the
    patches that both have are matched as they are, the old patches drawn to the new ones' grid."""
    front = min(prefix_old, prefix_new)
    patches = redrawn(old[:, prefix_old:], new.shape[1] - prefix_new)
    left = torch.cat([old[:, :front], patches], dim=1)
    right = torch.cat([new[:, :front], new[:, prefix_new:]], dim=1)
    return left.flatten(0, 1), right.flatten(0, 1)


def redrawn(patches: Tensor, count: int) -> Tensor:
    """(B, T, W) of a square grid -> (B, count, W) of another, bilinear."""
    if patches.shape[1] == count:
        return patches
    sides = math.isqrt(patches.shape[1]), math.isqrt(count)
    if sides[0] ** 2 != patches.shape[1] or sides[1] ** 2 != count:
        raise UserError(f"{patches.shape[1]} and {count} patches of a picture: only square grids can be matched")
    grid = patches.transpose(1, 2).unflatten(2, (sides[0], sides[0]))
    return F.interpolate(grid, (sides[1], sides[1]), mode="bilinear", align_corners=False).flatten(2).transpose(1, 2)


def summed(batches: Iterator[list[tuple[Tensor, Tensor]]]) -> list[Products]:
    total: list[Products] = []
    for blocks in batches:
        here = [Products.of(a, b) for a, b in blocks]
        total = [a + b for a, b in zip(total, here, strict=True)] if total else here
    return total
