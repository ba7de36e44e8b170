"""Texts in place of templates: CuPL's descriptions (Pratt et al. 2023, ICCV; sarahpratt/CuPL, classify_imagenet.py)
from a file, or WaffleCLIP's random letters (Roth et al. 2023, ICCV; ExplainableML/WaffleCLIP, waffle_tools.py) by rule.

A class is the mean of its texts' normalised features, normalised again. The texts are the plug-in, and the current
backbone encodes them anew: they travel for ever.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import torch
import torch.nn.functional as F
from torch import Tensor

from carryover.bench.errors import UserError, quoted
from carryover.bench.host.identity import parse_json
from carryover.methods.base import Classes, Method, TrainConfig, cosine_logits, register

EXPECTED = (
    'expected JSON in UTF-8: an object {"class name": ["text", ...], ...} as CuPL publishes it, or a list of texts '
    "with {} in the place of the class name"
)
OPTION = "descriptions.file"
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Config(TrainConfig):
    """``file``: the path of a JSON file of texts, to which its size and hash are added, so that they are in a run's
    key; "": texts with random letters, ``pairs`` times one of words and one of letter groups. Raises UserError for a
    file that cannot be read or is not such JSON."""

    epochs: int = 0
    crop: tuple[float, float] = (1.0, 1.0)
    file: str = ""
    pairs: int = 15

    def __post_init__(self):
        super().__post_init__()
        if self.pairs < 1:
            raise UserError(f"descriptions.pairs is 1 or more; found {self.pairs}")
        object.__setattr__(self, "file", stamped(self.file, OPTION))


@register("descriptions")
class Descriptions(Method):
    name = "Descriptions"
    paper = "Pratt et al. 2023, arXiv 2209.03320"
    depth = "input"
    usual = False
    learned_buffers = ("texts",)
    Config = Config
    micro = {}
    texts: Tensor  # the JSON, byte by byte (N,) uint8

    def __init__(self, config, shape):
        super().__init__(config, shape)
        size = size_of(config.file)
        if size is None:
            content = json.dumps(waffle(shape.classnames, config.pairs)).encode()
        else:
            path, _, _ = config.file.rpartition("#")
            found = content_of(path, OPTION) if Path(path).is_file() else b""
            content = found if config.file.endswith(stamp(found)) else bytes(size)
        self.register_buffer("texts", torch.tensor(list(content), dtype=torch.uint8))

    def bind(self, backbone, classes):
        told = self.told(classes)
        features = F.normalize(backbone.text.encode_texts([text for texts in told for text in texts]), dim=-1)
        parts = features.split([len(texts) for texts in told])
        self.classifier = F.normalize(torch.stack([part.mean(0) for part in parts]), dim=-1)
        self.scale = backbone.scale

    def logits(self, x: Tensor) -> Tensor:
        return cosine_logits(self.scale, x, self.classifier)

    def start(self, support):
        """Raises UserError for texts of a class that the dataset does not have: mostly a name that is spelled otherwise
        there."""
        texts = self.held()
        known = {folded(name) for name in self.shape.classnames}
        if isinstance(texts, dict) and (strange := [name for name in texts if folded(name) not in known]):
            raise UserError(
                f"{self.where}: {len(strange)} of its {len(texts)} classes are none of the {len(known)} to be learned, "
                f"e.g. {quoted(strange[0])}; names count without regard to case and underscores: rename them or take "
                "them out"
            )

    @property
    def where(self) -> str:
        return f"{OPTION} '{self.config.file.rpartition('#')[0]}'"

    def held(self) -> dict[str, list[str]] | list[str]:
        content = bytes(self.texts.cpu().numpy())
        if not any(content):
            raise UserError(f"{self.where} is gone or another than when the run was planned; start the run again")
        return texts_of(content, "the plug-in's tensor 'texts'")

    def told(self, classes: Classes) -> list[list[str]]:
        """The texts of each class. Raises UserError where it has none for some."""
        return by_class(self.held(), classes, self.where)


def folded(name: str) -> str:
    return " ".join(name.replace("_", " ").split()).casefold()


def by_class(texts: dict[str, list[str]] | list[str], classes: Classes, where: str) -> list[list[str]]:
    """The texts of each class. Raises UserError where there are none for some."""
    if isinstance(texts, list):
        return [[text.replace("{}", name) for text in texts] for name in classes.names]
    own = {folded(name): found for name, found in texts.items()}
    if missing := [name for name in classes.names if folded(name) not in own]:
        raise UserError(
            f"{where} has no texts for {len(missing)} of the {len(classes)} classes, e.g. {quoted(missing[0])}; it has "
            f"{len(own)}, e.g. {quoted(next(iter(texts)))}: names count without regard to case and underscores, so "
            "rename its classes as the dataset calls them"
        )
    return [own[folded(name)] for name in classes.names]


def stamped(file: str, option: str) -> str:
    """The path with its size and hash behind it, where it has none yet. Raises UserError for a file that cannot be read
    or is not such JSON."""
    if not file or size_of(file) is not None:
        return file
    content = content_of(file, option)
    texts_of(content, f"{option} '{file}'")
    return f"{file}{stamp(content)}"


def stamp(content: bytes) -> str:
    return f"#{len(content)}-{hashlib.sha256(content).hexdigest()[:16]}"


def size_of(file: str) -> int | None:
    """The bytes of a file that has its stamp already; None where it has none."""
    size, _, digest = file.rpartition("#")[2].partition("-")
    stamped = "#" in file and size.isdecimal() and len(digest) == 16 and not digest.strip("0123456789abcdef")
    return int(size) if stamped else None


def content_of(path: str, option: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{option}: cannot read '{path}': {error.strerror or error}; {EXPECTED}") from None


def texts_of(content: bytes, where: str) -> dict[str, list[str]] | list[str]:
    """Texts a class, or for every class those with {}. Raises UserError, in one line, for what is not such JSON."""
    try:
        found = parse_json(content.decode("utf-8"))
    except ValueError:
        raise UserError(f"{where} is no JSON in UTF-8; {EXPECTED}") from None
    if isinstance(found, list):
        if not is_texts(found) or not all("{}" in text for text in found):
            raise UserError(f"{where} is a list, but not of texts with {{}} in each; {EXPECTED}")
        return found
    if not isinstance(found, dict) or not found:
        raise UserError(f"{where} holds no object and no list with something in it; {EXPECTED}")
    if wrong := [name for name, texts in found.items() if not is_texts(texts)]:
        raise UserError(f"{where}: class {quoted(wrong[0])} has no list of texts, with one at least; {EXPECTED}")
    if twice := [name for name, count in Counter(map(folded, found)).items() if count > 1]:
        raise UserError(
            f"{where}: class {quoted(twice[0])} stands there twice, but for case or underscores; {EXPECTED}"
        )
    return found


def is_texts(value) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(text, str) and text.strip() for text in value)


def waffle(names: tuple[str, ...], pairs: int) -> list[str]:
    """Sentences with random letters, as many words of as many letters as the class names have on average, half of them
    as words and half as groups between commas. One draw for all classes, by torch's generator."""
    words = [name.replace("_", " ").split() for name in names]
    count = max(1, round(mean(len(one) for one in words)))
    length = max(1, round(mean(len(word) for one in words for word in one)))
    drawn = torch.randint(len(LETTERS), (pairs, 2, count, length)).tolist()
    found = []
    for pair in drawn:
        for between, groups in zip((" ", ", "), pair, strict=True):
            noise = between.join("".join(LETTERS[letter] for letter in group) for group in groups)
            found.append(f"A photo of a {{}}, which has {noise}.")
    return found
