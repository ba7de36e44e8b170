"""Class names from the token embeddings that CoOp's family keeps beside its context.

``token_prefix`` (C, 1, W) are rows of the text tower's embedding matrix at the start token, ``token_suffix`` (C, L, W)
those of ``name . EOT`` and padding. Both are copies, so they are compared exactly, in the file's own type: the first
proves the text tower, the second says the names and their order.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from carryover.bench.backbones.class_tokens import EOT, SOS
from carryover.bench.backbones.loading import Backbone
from carryover.bench.errors import UserError, quoted

# Spaces that the tokenizer's decoding puts into a name: between digits, around marks. Each is tried, most first.
JOINED = (
    (r"(?<=\d) (?=\d)", ""),
    (r" ?([-/&.'+]) ?", r"\1"),
    (r" ([,;:!?)\]])", r"\1"),
    (r"([(\[]) ", r"\1"),
    (r" '", "'"),
)


class Embeddings:
    """A text tower's embedding matrix (V, W) in another type, looked up from row to token."""

    def __init__(self, backbone: Backbone, dtype: torch.dtype):
        self.rows = backbone.text.text.token_embedding.weight.detach().cpu().to(dtype)
        data = self.rows.contiguous().view(torch.uint8).numpy()
        self.tokens: dict[bytes, int] = {}
        for token, row in enumerate(data):
            self.tokens.setdefault(row.tobytes(), token)

    def token(self, row: Tensor) -> int | None:
        return self.tokens.get(row.contiguous().view(torch.uint8).numpy().tobytes())


def check_start(where: str, prefix: Tensor, backbone: Backbone) -> None:
    """Raises UserError unless every row of ``token_prefix`` (C, 1, W) is the backbone's start token."""
    own = backbone.text.text.token_embedding.weight.detach()[SOS].cpu().to(prefix.dtype)
    if not torch.equal(prefix, own.expand_as(prefix)):
        raise UserError(
            f"{where}: its start token is not that of {backbone.label}, so it was trained with another text tower: "
            "which of the two is meant? Give the backbone that it was trained on by --backbone"
        )


def rows_of(where: str, suffix: Tensor, backbone: Backbone) -> list[list[int]]:
    """Tokens in front of EOT of each class, from ``token_suffix`` (C, L, W). Raises UserError for a row that is no
    token of the backbone."""
    known, found = Embeddings(backbone, suffix.dtype), []
    for number, row in enumerate(suffix, start=1):
        tokens: list[int] = []
        for place, one in enumerate(row):
            token = known.token(one)
            if token is None:
                raise UserError(
                    f"{where}: place {place + 1} behind the context of row {number} is no token of {backbone.label}, "
                    "so it was made with another text tower; give the backbone that it was trained on by --backbone"
                )
            if token == EOT:
                break
            tokens.append(token)
        else:
            raise UserError(f"{where}: row {number} of token_suffix has no end token; the file is damaged")
        found.append(tokens)
    return found


def name_of(tokens: Sequence[int], backbone: Backbone) -> str:
    """The name whose ``name.`` has these tokens, in lower case, with as few spaces as spell it."""
    text = backbone.text.tokenizer.decode(list(tokens)).strip()
    name = text.removesuffix(".").strip()
    for pattern, joined in JOINED:
        shorter = re.sub(pattern, joined, name)
        if shorter != name and spelled(shorter, tokens, backbone):
            name = shorter
    return name


def spelled(name: str, tokens: Sequence[int], backbone: Backbone) -> bool:
    try:
        return bool(name.strip()) and backbone.text.tokens([f"{name}."])[0] == list(tokens)
    except UserError:
        return False


def names(where: str, rows: Sequence[Sequence[int]], said: Sequence[str], backbone: Backbone) -> tuple[str, ...]:
    """The classes' names in the file's order: as the user spells them, where that makes the same tokens. Raises
    UserError naming the first disagreement."""
    found = [name_of(tokens, backbone) for tokens in rows]
    if not said:
        return tuple(found)
    taken = [
        given if spelled(given, tokens, backbone) else given.replace("_", " ")
        for given, tokens in zip(said, rows, strict=False)
    ]
    for number, (name, given, tokens) in enumerate(zip(found, taken, rows, strict=False), start=1):
        if not spelled(given, tokens, backbone):
            counts = f" (the file has {len(found)} classes, --classes {len(said)})" if len(found) != len(said) else ""
            raise UserError(
                f"{where}: row {number} of the file is {quoted(name)}, --classes says {quoted(given)}{counts}; leave "
                "--classes out to take the file's"
            )
    if len(found) != len(said):
        more, side = (found, "the file") if len(found) > len(said) else (list(said), "--classes")
        raise UserError(
            f"{where}: the file has {len(found)} classes, --classes {len(said)}; {side} has "
            f"{quoted(more[min(len(found), len(said))])} more; leave --classes out to take the file's"
        )
    return tuple(taken)
