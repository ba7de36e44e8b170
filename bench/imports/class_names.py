"""Class names from the token embeddings that CoOp's family keeps beside its context.

``token_prefix`` (C, 1, W) are rows of the text tower's embedding matrix at the start token, ``token_suffix`` (C, L, W)
those of ``name . EOT`` and padding. Both are copies, so they are compared exactly, in the file's own type, or where the
weights at hand went through half precision to its rounding: the first proves the text tower, the second says the names
and their order.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from carryover.bench.backbones.class_tokens import EOT, SOS
from carryover.bench.backbones.loading import Backbone
from carryover.bench.errors import UserError, quoted

NEAR = 5e-3  # length of a difference, relative: the rounding of half precision is a tenth to a half of it
AT_ONCE = 256  # rows compared with all of a vocabulary
# Spaces that the tokenizer's decoding puts into a name: between digits, around marks. Each is tried, most first.
JOINED = (
    (r"(?<=\d) (?=\d)", ""),
    (r" ?([-/&.'+]) ?", r"\1"),
    (r" ([,;:!?)\]])", r"\1"),
    (r"([(\[]) ", r"\1"),
    (r" '", "'"),
)


def matrix(backbone: Backbone) -> Tensor:
    """(V, W)"""
    return backbone.text.text.token_embedding.weight.detach().cpu()


def check_start(where: str, prefix: Tensor, backbone: Backbone) -> bool:
    """Whether every row of ``token_prefix`` (C, 1, W) is exactly the backbone's start token. Raises UserError unless it
    is near."""
    own = matrix(backbone)[SOS].to(prefix.dtype).expand_as(prefix)
    if not near(prefix, own).all():
        raise UserError(
            f"{where}: its start token is not that of {backbone.label}, so it was trained with another text tower: "
            "which of the two is meant? Give the backbone that it was trained on by --backbone"
        )
    return torch.equal(prefix, own)


def near(rows: Tensor, own: Tensor) -> Tensor:
    """(..., W) -> (...) bool. False for NaN."""
    rows, own = rows.float(), own.float()
    return (rows - own).norm(dim=-1) <= NEAR * own.norm(dim=-1)


def tokens_of(rows: Tensor, backbone: Backbone) -> list[int | None]:
    """Of rows (R, W) the tokens whose embeddings they are, None for none."""
    known = matrix(backbone).to(rows.dtype)
    tokens: dict[bytes, int] = {}
    for token, row in enumerate(known.contiguous().view(torch.uint8).numpy()):
        tokens.setdefault(row.tobytes(), token)
    found = [tokens.get(row.tobytes()) for row in rows.contiguous().view(torch.uint8).numpy()]
    if other := [i for i, token in enumerate(found) if token is None]:
        most = nearest(rows[other], known)
        for i, token, close in zip(other, most.tolist(), near(rows[other], known[most]).tolist(), strict=True):
            found[i] = token if close else None
    return found


def nearest(rows: Tensor, known: Tensor) -> Tensor:
    """(R, W) in (V, W) by cosine -> (R,)"""
    directions = F.normalize(known.float(), dim=-1).T
    return torch.cat([(part.float() @ directions).argmax(1) for part in rows.split(AT_ONCE)])


def rows_of(where: str, suffix: Tensor, backbone: Backbone) -> list[list[int]]:
    """Tokens in front of EOT of each class, from ``token_suffix`` (C, L, W). Raises UserError for a row that is no
    token of the backbone."""
    flat = suffix.flatten(0, 1)
    distinct, places = flat.unique(dim=0, return_inverse=True) if flat.numel() else (flat, flat.new_zeros(0).long())
    known, found = tokens_of(distinct, backbone), []
    for number, row in enumerate(places.view(suffix.shape[:2]).tolist(), start=1):
        tokens = [known[place] for place in row]
        if EOT not in tokens and None not in tokens:
            raise UserError(f"{where}: row {number} of token_suffix has no end token; the file is damaged")
        tokens = tokens[: tokens.index(EOT)] if EOT in tokens else tokens
        if None in tokens:
            raise UserError(
                f"{where}: place {tokens.index(None) + 1} behind the context of row {number} is no token of "
                f"{backbone.label}, so it was made with another text tower; give the one that it was trained on by "
                "--backbone"
            )
        found.append([token for token in tokens if token is not None])
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
