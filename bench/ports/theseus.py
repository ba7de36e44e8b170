"""Theseus (arXiv 2602.12952): a change of weights is turned into the axes of the new backbone, layer by layer.

For each query, key and value matrix, ``T_in`` and ``T_out`` are the orthogonal maps that bring the old backbone's
inputs and outputs closest to the new one's, on the tokens of the same unlabelled pictures and prompts. The change D
becomes ``T_out' D T_in`` (apanariello4/merge-and-rebase, rebase/methods/theseus.py). Of ``D = s B A`` that is
``s (T_out' B) (A T_in)``: a CLIP-LoRA of the same rank, whatever the two widths. No strength is chosen: alpha is 1,
where the authors search one for each task. The authors carry the image tower alone; here both.

Few tokens span few directions, so the text towers read prompts of common nouns beside those of the classes. In a
direction that no token has, the polar factor is rounding; here it is dropped: T is a partial isometry, and what the
change does there is lost.

Letters: L blocks, r rank, Wo and Wn widths of the old and the new tower.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from carryover.bench.backbones.attention import Stack, biases, matrices, weights
from carryover.bench.backbones.loading import Backbone
from carryover.bench.errors import UserError
from carryover.bench.ports import activations
from carryover.bench.ports.activations import Products
from carryover.bench.ports.base import Port, register
from carryover.bench.ports.carried import Carried
from carryover.bench.ports.weight_deltas import (
    Factors,
    Masked,
    halves,
    left_out,
    method_of,
    on_weights,
    parts,
    refusal,
    remade,
    stacks,
)
from carryover.methods.base import Classes
from carryover.methods.clip_lora import ClipLora, Updates

# Of the largest sum of squares along one direction. Below it lies what fp32 activations round to.
UNSEEN = 1e-11
ROUNDING = 1e-13  # of the largest product, in float64


@dataclass(frozen=True)
class Maps:
    """One tower's: into (L, Wo, Wn), out (L, 3, Wo, Wn), each a partial isometry; ``seen``: the least directions that a
    block's T_in and T_out have, and of how many tokens."""

    into: Tensor
    out: Tensor
    seen: dict[str, int]


@register("theseus")
class Theseus(Port):
    name = "Theseus"
    source = "arXiv 2602.12952"
    needs = ("images", "texts", "old_model")
    place = 9.0

    @classmethod
    def works_on(cls, method):
        return on_weights(method)

    def fits(self, plugin, old, new):
        if isinstance(plugin, Masked):
            return "what GradFix left is no product of small matrices any more, which Theseus turns"
        plugin = method_of(plugin)
        need = f"{self.name} needs towers of as many blocks, and text towers that read the same tokens"
        if why := refusal(plugin, new, as_deep, need):
            return why
        wrong = unmatched(plugin, old, new)
        return f"{need}: {'; '.join(wrong.values())}" if set(wrong) == set(parts(plugin)) else None

    def fit(self, plugin, old, new, classes, anchors):
        if why := self.fits(plugin, old, new):
            raise UserError(why)
        plugin = method_of(plugin)
        wrong, factors, seen, length = unmatched(plugin, old, new), {}, {}, {}
        for tower, part in parts(plugin).items():
            if tower in wrong:
                continue
            maps = anchors.once(
                f"theseus {tower} {plugin.classes}",
                lambda tower=tower: fitted(tower, old, new, plugin.classes, anchors),
            )
            factors[tower] = turned(part, maps)
            seen[tower] = maps.seen
            length[tower] = norm(*factors[tower]) / max(norm(part.down.detach(), part.up.detach()), 1e-30)
        ported = Carried(remade(plugin, new, factors), classes)
        ported.about = {"alpha": 1.0, "seen": seen, "length": length, "marks": halves(plugin, wrong)}
        ported.bind(new, classes)
        return ported


def unmatched(plugin: ClipLora, old: Backbone, new: Backbone) -> dict[str, str]:
    """By tower, why the plug-in's half of it cannot be turned: too few or too many blocks, or other tokens."""
    wrong = left_out(plugin, new, as_deep)
    if "text" in wrong or activations.same_tokens(old, new, prompts(plugin.classes)):
        return wrong
    return {"text": f"{old.label} and {new.label} cut texts into other tokens", **wrong}


def prompts(classes: Classes, nouns: Sequence[str] = ()) -> list[str]:
    return [t.format(name) for t in classes.templates for name in (*classes.names, *nouns)]


def as_deep(own, there) -> bool:
    return own[0] == there[0]


def fitted(tower: str, old, new, classes, anchors) -> Maps:
    """Of one tower, from the anchors' pictures, or from prompts of the classes and of nouns, as many as its width."""
    if tower == "text":
        step = max(1, len(anchors.nouns) // max(old.width, new.width))
        products = activations.of_texts(old, new, prompts(classes, anchors.nouns[::step]))
    else:
        products = activations.of_pictures(old, new, anchors.pixels_old(), anchors.pixels_new())
    return maps_of(products, stacks(old)[tower], stacks(new)[tower])


def maps_of(products: list[Products], old: Stack, new: Stack) -> Maps:
    into, out, ranks = [], [], []
    for sums, *blocks in zip(products, old.blocks, new.blocks, strict=True):
        t, rank = aligned(sums.inputs())
        into.append(t)
        layers = [list(zip(*letters(block), strict=True)) for block in blocks]
        found = [aligned(sums.through(*pair)) for pair in zip(*layers, strict=True)]
        out.append(torch.stack([t for t, _ in found]))
        ranks.append((rank, min(rank for _, rank in found)))
    least = {"in": min(rank for rank, _ in ranks), "out": min(rank for _, rank in ranks)}
    return Maps(torch.stack(into), torch.stack(out), {"tokens": products[0].tokens, **least})


def letters(block) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """(W, W) and (W,) of query, key and value."""
    return torch.cat(weights(matrices(block))).detach().chunk(3), biases(block).chunk(3)


def aligned(sums: Products) -> tuple[Tensor, int]:
    """The partial isometry T (p, q), fp32, for which ``old @ T`` is nearest to ``new`` among those that take the
    directions seen on the one side to those seen on the other, and its rank. On the CPU, in float64."""
    left, both, right = span(sums.old.cpu()), sums.both.cpu(), span(sums.new.cpu())
    both = both if left is None else left.T @ both
    both = both if right is None else both @ right
    u, s, v = torch.linalg.svd(both, full_matrices=False)
    seen = s > ROUNDING * s.max() if len(s) else s > 0
    u, v = u[:, seen], v[seen]
    u, v = u if left is None else left @ u, v if right is None else v @ right.T
    return (u @ v).float(), int(seen.sum())


def span(gram: Tensor) -> Tensor | None:
    """Orthonormal columns: directions in which there is more than rounding; None where these are all."""
    # Positive definite even without more than the limit in each direction (the trace is no less than the largest): a
    # tenth of the eigenvalues' time.
    limit = UNSEEN * gram.trace() * torch.eye(len(gram), dtype=gram.dtype)
    if torch.linalg.cholesky_ex(gram - limit).info == 0:
        return None
    values, vectors = torch.linalg.eigh(gram)
    return vectors[:, values > UNSEEN * values[-1]]


def turned(part: Updates, maps: Maps) -> Factors:
    """A (L, 3, r, Wn) and B (L, 3, Wn, r)."""
    down, up = part.down.detach().to(maps.into), part.up.detach().to(maps.out)
    return down @ maps.into[:, None], maps.out.mT @ up


def norm(down: Tensor, up: Tensor) -> float:
    """Of all ``B A``."""
    return float((up.double() @ down.double()).norm())
