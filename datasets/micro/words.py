"""The tokenizer of the micro model of SigLIP's kind: a small vocabulary of its own, of whole words and single letters.

A text is lower-cased and parted at blanks and punctuation. A word of the vocabulary is one token, any other is spelled.
Rows are ``[tokens, END, PAD, …]``: no start, and the tower attends to the padding.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from .checkpoint import WEIGHTS

PAD, END, STRANGE = 0, 1, 2
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789,.-'&/()!?:"
LENGTH = 32


@cache
def vocabulary() -> dict[str, int]:
    """Ids of letters, then of the words that captions use, from 3 on."""
    words = (WEIGHTS / "micro-siglip.txt").read_text(encoding="utf-8").split()
    return {piece: number for number, piece in enumerate(dict.fromkeys([*LETTERS, *words]), start=STRANGE + 1)}


def size() -> int:
    return len(vocabulary()) + STRANGE + 1


class Words:
    """Called as open_clip's tokenizers are."""

    def encode(self, text: str) -> list[int]:
        known, ids = vocabulary(), []
        for word in re.findall(r"[^\s,.]+|[,.]", text.lower()):
            ids += [known[word]] if word in known else [known.get(letter, STRANGE) for letter in word]
        return ids

    def __call__(self, texts: str | Sequence[str], context_length: int = LENGTH) -> Tensor:
        """(B, context_length) ids; a longer text loses its end."""
        rows = torch.full((len([texts] if isinstance(texts, str) else texts), context_length), PAD)
        for row, text in zip(rows, [texts] if isinstance(texts, str) else texts, strict=True):
            ids = [*self.encode(text)[: context_length - 1], END]
            row[: len(ids)] = torch.tensor(ids)
        return rows
