"""Products with frozen matrices, the most of a text pass: through oneDNN where that has MKL's bits and is faster.

To processors of other makers than Intel, MKL gives its AVX2 kernels; oneDNN, which torch brings too, takes AVX-512
where it is there: twice as fast on one AMD processor. MKL sums a long row in pieces, so oneDNN is asked for the same
pieces one after the other. Whether the bits agree is tried for each shape, in this process; where they do not, MKL
multiplies.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from carryover.bench.host import processor

FEWEST = 16  # rows: for fewer than 4 MKL takes other kernels, and for few rows there is nothing to gain
LARGEST = 1 << 21  # numbers of a matrix: packed copies of larger ones, as ViT-H/14 has, would take gigabytes
TRIED = (FEWEST, 17, 64, 331, 1024)  # rows
PIECE = 192  # numbers that MKL's AVX2 kernels sum at a time; up to twice as many they sum in two halves


class Product:
    """``x @ weight.T + bias`` for rows x (..., K), weight (N, K), bias (N,); differentiable in x, and in the weight
    where that learns."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None):
        self.weight, self.bias = weight, bias
        self._packed: dict[bool, list[Any]] = {}  # of the product and of its gradient

    def __call__(self, x: Tensor) -> Tensor:
        if self.weight.requires_grad or not self.quick(x.numel() // max(1, x.shape[-1])):
            return F.linear(x, self.weight, self.bias)
        return Frozen.apply(x, self)

    def quick(self, rows: int) -> bool:
        """Whether oneDNN multiplies so many rows."""
        if rows < FEWEST or self.weight.numel() > LARGEST:
            return False
        if self.weight.device.type != "cpu" or self.weight.dtype != torch.float32:
            return False
        return offered() and same_bits(*self.weight.shape, torch.get_num_threads())

    def by(self, x: Tensor, back: bool = False) -> Tensor:
        """The product, or (``back``) its gradient from that of its result, by oneDNN."""
        if back not in self._packed:
            self._packed[back] = packed(self.weight.T if back else self.weight)
        made = multiplied(x.reshape(-1, x.shape[-1]), self._packed[back], None if back else self.bias)
        return made.view(*x.shape[:-1], -1)


class Frozen(torch.autograd.Function):
    """A ``Product`` by oneDNN, whose operator has no gradient of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, product: Product) -> Tensor:
        ctx.product = product
        return product.by(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.product.by(gradient, back=True), None


@cache
def offered() -> bool:
    """Whether oneDNN has faster kernels than MKL here."""
    return (
        processor.library() == processor.LIBRARIES["mkl"]
        and processor.described().get("vendor_id") not in (None, "GenuineIntel")
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and torch.backends.mkldnn.is_available()
        and not any(processor.caps())
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )


@cache
def same_bits(outputs: int, inputs: int, threads: int) -> bool:
    """Whether products with a matrix of this shape, and their gradients, have the same bits by both libraries, with so
    many threads of torch's as it now has."""
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        weight, bias = torch.randn(outputs, inputs, generator=draw), torch.randn(outputs, generator=draw)
        product = Product(weight, bias)
        return all(
            torch.equal(product.by(x), F.linear(x, weight, bias))
            and torch.equal(product.by(gradient, back=True), gradient @ weight)
            for x, gradient in (
                (torch.randn(rows, inputs, generator=draw), torch.randn(rows, outputs, generator=draw))
                for rows in TRIED
            )
        )


def pieces(inputs: int) -> list[int]:
    """Lengths in which MKL sums a row of so many numbers."""
    if inputs <= PIECE:
        return [inputs]
    if inputs <= 2 * PIECE:
        return [inputs - inputs // 2, inputs // 2]
    return [min(PIECE, inputs - start) for start in range(0, inputs, PIECE)]


def packed(weight: Tensor) -> list[Tensor]:
    """Its pieces, as oneDNN wants them."""
    return [
        torch.ops.mkldnn._reorder_linear_weight(part.contiguous()) for part in weight.split(pieces(weight.shape[1]), 1)
    ]


def multiplied(x: Tensor, parts: list[Tensor], bias: Tensor | None) -> Tensor:
    """Rows x (M, K) times packed pieces: (M, N)."""
    made: Tensor | None = None
    for columns, part in zip(x.split(pieces(x.shape[1]), 1), parts, strict=True):
        if made is None:
            made = torch.ops.mkldnn._linear_pointwise(columns, part, bias, "none", [], "")
        else:
            made += torch.ops.mkldnn._linear_pointwise(columns, part, None, "none", [], "")
    assert made is not None
    return made
