"""Operations and bytes of a training step, counted by formula: the published way, and the least that is needed.

    python -m tests.benchmarks.operations --peak 989e12 --bandwidth 4.8e12

prints the tables of ``docs/performance.md``. An operation is one multiplication or one addition of a matrix product;
softmax, norms and activations are left out. W text width, D joint width, C classes, B images, n context tokens, L
tokens; m rows computed, of which row i sees k + i + 1 keys (k before them).

    one block, forward      24 m W^2  (qkv 6, out 2, MLP 16)  +  4 W sum_i (k + i + 1)
    its backward            24 m W^2  (weights are frozen, so inputs' gradients alone)  +  8 W sum_i (k + i + 1)
    projection at EOT       2 W D a prompt, and again backward

*Published*: every prompt is 77 rows in every block, and its attention is dense (77 keys a row); CoCoOp makes C prompts
for each image. *Needed*: rows after EOT and keys a causal mask hides are left out; the prefix [SOS, context] is
computed once (once an image in CoCoOp), SOS never again, for it sees only itself; the first block's qkv of class names
do not depend on what is learned; the last block computes keys and values of all rows (4 m W^2) and the rest of EOT's
row alone (20 W^2). Nothing that is needed is computed twice, as checkpoints would.

Bytes: the blocks' weights are read forward and backward, and ten values a row and width are kept for the backward
(inputs of both norms 2, qkv 3, attention's output 1, MLP's hidden layer before its activation 4), written once and
read once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tabulate import tabulate

KEPT = 10  # values a row keeps for the backward pass in one block, as a multiple of W
FULL_STOP_AND_EOT = 2


@dataclass(frozen=True)
class Sizes:
    """Of a text tower with CLIP's blocks (an MLP of 4 W)."""

    width: int = 512
    dim: int = 512
    blocks: int = 12
    tokens: int = 77

    @classmethod
    def of(cls, backbone) -> Sizes:
        text = backbone.text
        assert text.blocks[0].mlp.c_fc.out_features == 4 * text.width
        return cls(text.width, backbone.dim, len(text.blocks), text.text.context_length)


@dataclass(frozen=True)
class Work:
    """Operations forward and backward; ``rows``, over all blocks but the last, decide the bytes."""

    forward: float
    backward: float
    rows: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.forward + other.forward, self.backward + other.backward, self.rows + other.rows)

    def times(self, factor: float) -> Work:
        return Work(self.forward * factor, self.backward * factor, self.rows * factor)

    @property
    def total(self) -> float:
        return self.forward + self.backward

    def bytes(self, sizes: Sizes, element: int, backward: bool = True) -> float:
        """Moved to and from memory; ``element`` bytes a value. Forward alone, nothing is kept."""
        weights = 12 * sizes.width**2 * sizes.blocks * element
        return 2 * weights + 2 * KEPT * sizes.width * self.rows * sizes.blocks * element if backward else weights


def published(sizes: Sizes, prompts: float) -> Work:
    """So many prompts in full."""
    w, length = sizes.width, sizes.tokens
    linear, attention = 24 * length * w**2, 4 * length**2 * w
    project = 2 * w * sizes.dim
    forward, backward = (sizes.blocks * (linear + k * attention) + project for k in (1, 2))
    return Work(prompts * forward, prompts * backward, prompts * length)


def causal(sizes: Sizes, rows: int, before: int, known: int = 0, ends: bool = True) -> Work:
    """``rows`` behind ``before`` keys, through all blocks. The first block's qkv of ``known`` rows are known; ``ends``:
    the last row is EOT and gives a feature, else only keys and values are wanted of the last block."""
    w, full = sizes.width, sizes.blocks - 1
    linear = full * 24 * rows * w**2 - 6 * known * w**2 + 4 * rows * w**2
    attention = full * 4 * w * (before * rows + rows * (rows + 1) / 2)
    if ends:
        linear += 20 * w**2 + 2 * w * sizes.dim
        attention += 4 * w * (before + rows)
    return Work(linear + attention, linear + 2 * attention, rows)


def needed(sizes: Sizes, method: str, lengths: Iterable[int], context: int, images: int) -> Work:
    """The text side of one step of coop, kgcoop, cocoop or contcoop: ``lengths`` are tokens of the bare names."""
    lengths = list(lengths)
    if method == "contcoop":
        return sum((causal(sizes, context + own(n), 1, own(n)) for n in lengths), Work(0, 0)) + mixing(
            sizes, lengths, context
        )
    suffixes = sum((causal(sizes, own(n), 1 + context, own(n)) for n in lengths), Work(0, 0))
    each = causal(sizes, context, 1, ends=False) + suffixes
    return each.times(images) if method == "cocoop" else each


def own(length: int) -> int:
    """Rows of a class's own: its name, full stop and EOT."""
    return length + FULL_STOP_AND_EOT


def mixing(sizes: Sizes, lengths: Sequence[int], context: int) -> Work:
    """ContCoOp's attention layer: its weights are learned, so weights' gradients are needed too; inputs' gradients of
    the context alone."""
    w, names, count = sizes.width, sum(lengths), len(lengths)
    inputs, out = (3 * context + 2 * names) * 2 * w**2, 2 * count * context * w**2
    attention = 4 * w * context * (count * context + names)
    return Work(inputs + out + attention, inputs + 3 * context * 2 * w**2 + 2 * out + 2 * attention)


def published_step(sizes: Sizes, method: str, classes: int, images: int) -> Work:
    """The text side of one published step (ContCoOp's attention layer left out)."""
    return published(sizes, classes * (images if method == "cocoop" else 1))


def image_forward(width: int = 768, dim: int = 512, blocks: int = 12, patches: int = 196, patch: int = 16) -> float:
    """Operations of one picture through a vision transformer with a class token; default: CLIP's ViT-B/16."""
    tokens = patches + 1
    block = 24 * tokens * width**2 + 4 * tokens**2 * width
    return 2 * patches * 3 * patch**2 * width + blocks * block + 2 * width * dim


def floor_seconds(operations: float, bytes: float, peak: float, bandwidth: float) -> float:
    """No device of that peak (operations a second) and bandwidth (bytes a second) is quicker."""
    return max(operations / peak, bytes / bandwidth)


def step_table(sizes: Sizes, lengths: Sequence[int], peak: float, bandwidth: float, element: int) -> str:
    """A row a method at its published batch and 16 context tokens (CoCoOp's ratio is the benchmark's: 8 images)."""
    rows = []
    for method, images in (("coop", 32), ("kgcoop", 32), ("contcoop", 32), ("cocoop", 8)):
        plain, least = published_step(sizes, method, len(lengths), images), needed(sizes, method, lengths, 16, images)
        moved = least.bytes(sizes, element)
        floor = floor_seconds(least.total, moved, peak, bandwidth)
        bound = "operations" if least.total / peak > moved / bandwidth else "bytes"
        row = (method, plain.total / 1e9, least.total / 1e9, plain.total / least.total, moved / 1e6)
        rows.append((*row, floor * 1e6, bound))
    headers = ("step", "published (Gop)", "needed (Gop)", "ratio", "needed (MB)", "floor (µs)", "bound by")
    return tabulate(rows, headers, tablefmt="pipe", floatfmt=("", ".0f", ".1f", ".1f", ".0f", ".0f", ""))


def main(argv: Sequence[str] | None = None) -> int:
    from benchmarks import table2, workload

    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.operations", description=__doc__.split("\n")[0])
    parser.add_argument("--peak", type=float, default=989e12, help="operations a second; default: H200, bf16")
    parser.add_argument("--bandwidth", type=float, default=4.8e12, help="bytes a second; default: H200")
    parser.add_argument("--element", type=int, default=2, help="bytes a value: 2 is bf16, 4 fp32")
    chosen = parser.parse_args(argv)
    sizes = Sizes()
    lengths = table2.name_lengths(workload.caltech().names)
    speed = f"{chosen.peak / 1e12:.4g} Top/s, {chosen.bandwidth / 1e12:.3g} TB/s, {chosen.element} bytes a value"
    print(f"One step, Caltech101's 100 names, text side alone; floor at {speed}\n")
    print(step_table(sizes, lengths, chosen.peak, chosen.bandwidth, chosen.element))
    print(f"\nTable 2, {table2.SEEDS} seeds, {table2.SHOTS} shots, both backbones, text side; floor at {speed}\n")
    print(table2.floor_table(sizes, chosen.peak, chosen.bandwidth, chosen.element))
    return 0


if __name__ == "__main__":
    sys.exit(main())
