"""How a text tower's row of tokens is laid out, which row of the tower's output is the feature, and what may be cut.

No vocabulary is known here: a tokenizer's own rows of a few short texts show its start, end and padding.

    CLIP, PE, EVA       SOS, text, EOT, 0 …         read at the end; later tokens never matter
    MetaCLIP 2          0, text, 2, 1 …             the same
    MobileCLIP S        SOS, text, EOT, 0 …         read at the end; the padding is attended to
    CoCa                SOS, text, EOT, 0 …, class  read at the class token that the tower appends
    SigLIP, SigLIP 2    text, 1, 1 or 0 …           read at the last position; the padding is attended to
    CLIPA               101, text, 0, 0 …           the same
    Hugging Face        its own                     pooled by its own pooler; the padding is masked
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from carryover.bench.backbones.class_tokens import EOT, PLACEHOLDER, SOS
from carryover.bench.backbones.text_parts import embedding, hosted
from carryover.bench.errors import UserError

WORD = "X"  # what CoOp puts under its context
WORDS = ("a", "dog", "2012")  # each alone and behind ``WORD`` shows whether pieces depend on what is in front


@dataclass(frozen=True)
class Layout:
    """
    start        ids in front of every text; none in SigLIP's rows
    end, pad     the id behind a text, and the one that fills the row up; SigLIP's are the same
    length       ids of a row, start, end and padding included
    placeholder  the last piece of "X", which stands under a learned context
    by_place     whether a word has other pieces at the start of a text than behind a word (Gemma's, RoBERTa's)
    read         the row that is the feature: "end", "first", "last", "class" (behind the row), or "pooled" of several
    pads         how many rows of padding behind the longest text have to be computed; None: the whole row
    """

    start: tuple[int, ...]
    end: int
    pad: int
    length: int
    placeholder: int
    by_place: bool = False
    read: str = "end"
    pads: int | None = None

    def pieces(self, row: Sequence[int]) -> list[int]:
        """The text's ids alone, of a row as the tokenizer gives it."""
        body = list(row[len(self.start) :])
        return body[: body.index(self.end)] if self.end in body else body

    def fits(self, pieces: int) -> bool:
        """Whether so many ids fit with start and end. A row that they fill is taken for one that lost its end."""
        return len(self.start) + pieces + 1 < self.length

    def span(self, longest: int) -> int:
        """Rows that have to be computed where the longest text has so many, its start and end included."""
        return self.length if self.pads is None else min(self.length, longest + self.pads)

    def filled(self, ids: Sequence[int], span: int | None = None) -> list[int]:
        """Ids that begin a row, start and end included, with padding up to ``span`` (else the row's length)."""
        return [*ids, *[self.pad] * ((span or self.length) - len(ids))]

    def row(self, pieces: Sequence[int]) -> list[int]:
        """The whole row of a text, as the tokenizer gives it."""
        return self.filled([*self.start, *pieces, self.end])


CLIP = Layout((SOS,), EOT, 0, 77, PLACEHOLDER, pads=0)


def layout_of(text: Any, tokenizer: Any) -> Layout:
    """The layout of a text tower's rows. Raises UserError where tower and tokenizer do not go together."""
    tried = ["", WORD, f"{WORD} {WORD}", *WORDS, *(f"{WORD} {word}" for word in WORDS)]
    rows = tokenizer(tried).tolist()
    if len(rows) != len(tried):
        raise UserError(
            f"its tokenizer gives {len(rows)} rows for {len(tried)} texts: choose a model of another tokenizer"
        )
    empty = rows[0]
    start = tuple(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], zip(empty, rows[1], strict=True)))
    pad = empty[-1]
    ends = list(empty[len(start) :])
    while ends and ends[-1] == pad:
        ends.pop()
    read, pads = reading(text)
    found = Layout(start, (ends or [pad])[0], pad, len(empty), 0, False, read, pads)
    pieces = [found.pieces(row) for row in rows]
    if len(ends) > 1 or not all(pieces[1:]) or list(map(found.row, pieces)) != rows:
        raise UserError(
            f"its tokenizer lays out '{WORD}' as {shown(rows[1])} and an empty text as "
            f"{shown(empty)}: expected a start, the text, one end and padding; choose a model of another tokenizer"
        )
    alone, behind = pieces[3 : 3 + len(WORDS)], pieces[3 + len(WORDS) :]
    by_place = any(pieces[1] + one != other for one, other in zip(alone, behind, strict=True))
    check(text, found, max(map(max, rows)))
    return Layout(start, found.end, pad, len(empty), pieces[2][-1], by_place, read, pads)


def reading(text: Any) -> tuple[str, int | None]:
    """``Layout.read`` and ``Layout.pads`` of a tower."""
    if hosted(text):
        return "pooled", 0
    if text.cls_emb is not None:  # its mask is shifted by one: the class token sees the first pad, and not itself
        return "class", 1
    read = {"argmax": "end", "eos": "end", "first": "first", "last": "last"}.get(text.pool_type)
    if read is None:
        raise UserError(f"its text tower pools nothing (pool_type '{text.pool_type}'): choose a model of CLIP's kind")
    masked = text.attn_mask is not None or text.use_pad_mask
    return read, 0 if masked and read != "last" else None


def check(text: Any, layout: Layout, highest: int) -> None:
    """What has to hold between a tower and its tokenizer, whose highest id seen is given."""
    rows = embedding(text).weight.shape[0]
    if highest >= rows:
        raise UserError(
            f"its tokenizer gives id {highest}, its text tower has {rows} embeddings: they are of two models"
        )
    if hosted(text):
        if text.config.pad_token_id != layout.pad:
            raise UserError(
                f"its tokenizer fills rows up with id {layout.pad}, its text tower masks id "
                f"{text.config.pad_token_id}: they are of two models"
            )
        return
    if layout.length != text.context_length:
        raise UserError(
            f"its tokenizer gives rows of {layout.length} tokens, its text tower reads {text.context_length}: "
            "set context_length in its config to what it was trained with"
        )
    sought = text.eos_id if text.pool_type == "eos" else highest
    if layout.read == "end" and sought != layout.end:
        raise UserError(
            f"its text tower reads at id {sought}, its tokenizer ends a text with {layout.end}: they are of two models"
        )


def shown(row: Sequence[int]) -> str:
    return f"[{', '.join(map(str, row[:4]))}, …]"
