"""Whether runs trained side by side have the bits that they have alone: tried on this processor, with this library.

Side by side the rows of several runs are one product (``Method.losses``). The library may take other kernels for so
many rows than for the rows of one run, and some do for very few rows alone, which only sets of so few classes have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn

from carryover.bench.backbones.class_tokens import EOT, SOS, ClassTokens, pad
from carryover.bench.backbones.layout import CLIP
from carryover.bench.backbones.text_pass import Pass
from carryover.bench.host import processor

WIDTHS = ((32, 128), (96, 288), (384, 96))  # inputs and outputs of products in small text towers, micro's the last two
FEW = tuple(range(1, 9))  # rows of one run, one by one; then odd, even and round numbers
MANY = (13, 33, 86, 100, 131)
RUNS = 3
SHIFT = 1  # floats by which an operand is moved off the alignment that torch gives a new tensor
NAME_LENGTHS = (2, 3, 3, 5, 6, 4, 3, 2, 5)


@dataclass(frozen=True)
class Answer:
    """
    fewest  classes from which on runs side by side have the bits of runs alone; None: never
    """

    fewest: int | None

    def holds(self, classes: int) -> bool:
        return self.fewest is not None and classes >= self.fewest

    def __str__(self) -> str:
        """In one plain sentence, as records and `doctor` hold it."""
        if self.fewest is None:
            return (
                f"{processor.library()} gives the rows of several runs other last bits than those of one run here, so "
                "each run is trained alone (unless --together says otherwise)"
            )
        few = f"; on fewer than {self.fewest} classes they would not, so there each run is trained alone"
        return f"runs side by side have the bits of runs alone{few if self.fewest > 2 else ''}"  # no set has one class


def apart(device: torch.device, classes: int) -> bool:
    """Whether a run on so many classes would have other last bits beside other runs than alone, where the same are
    promised: on a CPU. They are known with one thread; how several share a product may depend on its rows."""
    return device.type == "cpu" and (torch.get_num_threads() > 1 or not answer().holds(classes))


@cache
def answer() -> Answer:
    """Found once a process, on the CPU with one thread; it takes about a tenth of a second."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(0)
            return Answer(tried())
    finally:
        torch.set_num_threads(before)


def tried() -> int | None:
    """`Answer.fewest`: products alone first, then text passes of that many classes and of more."""
    unlike = {rows for rows in (*FEW, *MANY) if not all(alike(*width, rows) for width in WIDTHS)}
    fewest = max(unlike, default=0) + 1
    if fewest > FEW[-1]:
        return None
    text = tower()
    return fewest if all(passes_alike(text, classes) for classes in {max(fewest, 2), len(NAME_LENGTHS)}) else None


def alike(inputs: int, outputs: int, rows: int) -> bool:
    """Whether a layer and its gradient give each of several runs' rows what they give these alone, wherever in memory
    they lie."""
    weight, bias = torch.randn(outputs, inputs), torch.randn(outputs)
    x, gradient = torch.randn(RUNS, rows, inputs), torch.randn(RUNS, rows, outputs)
    forward = [F.linear(moved(one), weight, bias) for one in x]
    backward = [moved(one) @ weight for one in gradient]
    return torch.equal(F.linear(x, weight, bias), torch.stack(forward)) and torch.equal(
        gradient @ weight, torch.stack(backward)
    )


def moved(x: Tensor) -> Tensor:
    """A copy that does not begin where a tensor of its own would."""
    return torch.empty(x.numel() + SHIFT)[SHIFT:].view_as(x).copy_(x)


def passes_alike(text: Any, count: int) -> bool:
    """Whether the text pass (`bench.backbones.text_pass`) gives contexts of several runs what it gives each alone,
    backward too; contexts that all classes share, then one for each class."""
    classes = pad([[*range(1, length), EOT] for length in NAME_LENGTHS[:count]])
    shared, own = torch.randn(RUNS, 4, text.width), torch.randn(RUNS, count, 4, text.width)
    return all(
        torch.equal(whole, part)
        for run, context in ((text.passing.shared, shared), (text.passing.own, own))
        for whole, part in zip(
            passed(run, context, classes, [slice(RUNS)]),
            passed(run, context, classes, [slice(i, i + 1) for i in range(RUNS)]),
            strict=True,
        )
    )


def passed(run: Any, context: Tensor, classes: ClassTokens, parts: Sequence[slice]) -> tuple[Tensor, Tensor]:
    """Class features of all runs and the gradients of their contexts, a part of the runs at a time."""
    context = context.clone().requires_grad_()
    features = torch.cat([run(context[part], classes, 0) for part in parts])
    features.square().sum().backward()
    assert context.grad is not None
    return features.detach(), context.grad


def tower(width: int = 96, heads: int = 4, blocks: int = 2) -> Any:
    """As much of a small text tower as a pass reads, with random weights."""
    embedding = torch.zeros(EOT + 1, width)  # of its rows those alone are written that names are made of
    embedding[: max(NAME_LENGTHS)] = torch.randn(max(NAME_LENGTHS), width)
    embedding[SOS:] = torch.randn(EOT + 1 - SOS, width)
    text = SimpleNamespace(
        token_embedding=nn.Embedding.from_pretrained(embedding),
        positional_embedding=0.1 * torch.randn(32, width),
        transformer=SimpleNamespace(resblocks=[ResidualAttentionBlock(width, heads) for _ in range(blocks)]),
        ln_final=nn.LayerNorm(width),
        text_projection=torch.randn(width, width),
    )
    for block in text.transformer.resblocks:
        block.requires_grad_(False)
    text.ln_final.requires_grad_(False)
    return SimpleNamespace(width=width, passing=Pass(text, CLIP, torch.float32))
