"""How the values of flags are read: lists by space or comma, ids in any case, a folder's path as it is."""

from __future__ import annotations

import argparse

CUDA, ALL_CARDS = "cuda", "all"
DEVICES = ("auto", "cpu", CUDA, "mps")
FOLDER = "folder:"  # what a dataset of one's own starts with; a path keeps its case and its commas


def items(text: str) -> list[str]:
    """One word of a list, of which commas make more."""
    return [part.strip() for part in text.split(",") if part.strip()] or [text]


def lowered(text: str) -> list[str]:
    return items(text.lower())


def integers(text: str) -> list[int]:
    try:
        return [int(part) for part in items(text)]
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}': expected whole numbers") from None


def datasets(text: str) -> list[str]:
    """Ids, and at the end a ``folder:PATH``."""
    start = text.lower().find(FOLDER)
    before = text[: max(start, 0)]
    if start < 0 or (before and not before.endswith(",")):
        return lowered(text)
    return [*(lowered(before) if before else []), FOLDER + text[start + len(FOLDER) :]]


def dataset(text: str) -> str:
    return FOLDER + text[len(FOLDER) :] if text.lower().startswith(FOLDER) else text.lower()


def arch(text: str) -> str:
    return text if text.endswith(".toml") else text.lower()


def device(text: str) -> str:
    """--device, as it is; which cards there are is asked later (``bench.cli.device.device_of``)."""
    name, colon, cards = text.lower().partition(":")
    numbers = [] if cards == ALL_CARDS else cards.split(",")
    if not colon and name in DEVICES:
        return name
    if name != CUDA or not all(number.isdecimal() for number in numbers):
        raise argparse.ArgumentTypeError(
            f"'{text}': expected {', '.join(DEVICES)}, cuda:all, or numbers of cards as in cuda:0,1"
        )
    named = list(map(int, numbers))
    if twice := [card for card in named if named.count(card) > 1]:
        raise argparse.ArgumentTypeError(f"'{text}': card {twice[0]} is named twice; name each once")
    return f"{name}:{cards}"


def views(text: str) -> int:
    """--views; 0 stands for a fresh one every epoch (``plan.runs.FRESH_VIEWS``)."""
    if text == "epoch":
        return 0
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected 1 or more, or 'epoch'")
    return int(text)


class Lists(argparse.Action):
    """The items of all its words; a flag that is given again replaces them."""

    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, [item for value in values for item in value])


class MoreLists(Lists):
    """A flag that is given again adds to them."""

    def __call__(self, parser, namespace, values, option_string=None):
        before = getattr(namespace, self.dest) or []
        super().__call__(parser, namespace, values)
        setattr(namespace, self.dest, [*before, *getattr(namespace, self.dest)])
