"""What a format of plug-ins made elsewhere says of itself, and what is asked for where its files do not say it.

A format is a class in a file of this folder, registered by its id. ``recognises`` goes by names and shapes of tensors
alone; ``facts`` are what the file does not say; ``made`` turns both into a plug-in of the suite.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from carryover.bench.backbones.archs import Tower
from carryover.bench.backbones.loading import Backbone
from carryover.bench.errors import UserError, quoted, unknown
from carryover.bench.plugins.format import is_templates
from carryover.bench.registry import Registry
from carryover.methods.base import Shape


@dataclass(frozen=True)
class Foreign:
    """A file, or a folder, made elsewhere, as it was read; nothing of it was run.

    tensors  by their names in the file, on the CPU, in the file's own types
    plain    what else it holds that is numbers, texts, lists and objects of them (a configuration, metadata)
    notes    what was passed over
    sha256   of the file with the tensors
    """

    path: Path
    tensors: dict[str, Tensor]
    plain: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    sha256: str = ""


@dataclass(frozen=True)
class Fact:
    """What a file does not say. ``about``: what it is, and where its user finds it; ``read`` makes a value of a text
    and raises ValueError with what is expected; ``flag``: its own flag, else it is given by ``--fact name=…``."""

    name: str
    about: str
    read: Callable[[str], Any] = str
    flag: str = ""
    default: Any = None  # None: it must be given
    unless: tuple[str, str] | None = None  # another fact and its value, with which it need not be

    @property
    def how(self) -> str:
        return self.flag or f"--fact {self.name}=…"


BACKBONE = Fact("backbone", "the model that it was trained on", flag="--backbone NAME")
CLASSES = Fact(
    "classes", "class names in the order of training", flag="--classes FILE (a name a line), or --dataset ID"
)
TEMPLATES = Fact("templates", "the prompts of the text classifier", flag="--template 'a photo of a {}.'")


class Facts:
    """What the user says of a file: names to texts, as flags and ``--facts FILE.toml`` give them (lists for classes and
    templates). ``tower`` and ``load`` find the backbone of a name, without and with its weights. ``listed``: class
    names as ``dataset`` has them, which may stand there twice (ImageNet's do)."""

    def __init__(
        self,
        given: Mapping[str, Any],
        tower: Callable[[str], Tower],
        load: Callable[[str], Backbone],
        dataset: str = "",
        listed: Sequence[str] = (),
    ):
        self.given, self._tower, self._load, self.dataset = dict(given), tower, load, dataset
        self.listed = tuple(listed)

    def also(self, **more: Any) -> Facts:
        return Facts({**self.given, **more}, self._tower, self._load, self.dataset, self.listed)

    def missing(self, wanted: Sequence[Fact]) -> list[Fact]:
        said = {(name, str(value).lower()) for name, value in self.given.items()}
        return [one for one in wanted if one.default is None and one.name not in self.given and one.unless not in said]

    def check(self, where: str, wanted: Sequence[Fact]) -> None:
        """Raises UserError, in one line, naming all that is missing, or a fact that the format does not ask for, or a
        backbone, classes or templates that are none."""
        self.check_texts()
        if missing := self.missing(wanted):
            told = "; ".join(f"{fact.name}: {fact.about} ({fact.how})" for fact in missing)
            raise UserError(f"{where} does not say all that is needed. {told}")
        names = [fact.name for fact in wanted]
        for name in self.given:
            if name not in names and name not in ("backbone", "classes", "templates"):
                raise unknown(f"fact of {where}", name, names or ["none"])

    def check_texts(self) -> None:
        backbone = self.given.get("backbone", "-")
        if not isinstance(backbone, str) or not backbone.strip():
            raise UserError(f"import: backbone is {shown(backbone)}, expected the name of a model (--backbone NAME)")
        for name in ("classes", "templates"):
            value = self.given.get(name, [])
            if not isinstance(value, (list, tuple)) or not all(isinstance(one, str) for one in value):
                raise UserError(f"import: {name} are {shown(value)}, expected a list of texts")
        if wrong := [one for one in self.templates if not is_templates([one])]:
            raise UserError(
                f"import: the template {quoted(wrong[0])} is none; expected a text with one {{}} for the class name "
                "(--template 'a photo of a {}.')"
            )

    def __getitem__(self, fact: Fact) -> Any:
        """Its value, read; its default where it was not given."""
        if fact.name not in self.given:
            return fact.default
        value = self.given[fact.name]
        try:
            if not isinstance(value, (str, int, float)):
                raise ValueError("a text or a number")
            return fact.read(str(value))
        except ValueError as error:
            raise UserError(f"import: {fact.name} is {shown(value)}, expected {error} ({fact.how})") from None

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.given.get("classes", ()))

    @property
    def templates(self) -> tuple[str, ...]:
        return tuple(self.given.get("templates", ()))

    @cached_property
    def tower(self) -> Tower:
        """The named backbone, resolved; its weights are not read."""
        return self._tower(self.given["backbone"])

    @cached_property
    def backbone(self) -> Backbone:
        """With its weights."""
        return self._load(self.given["backbone"])


def is_number(value: Any) -> bool:
    """Whether a value of a file is a number that fits one of double precision."""
    largest = sys.float_info.max
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -largest <= value <= largest


def shown(value: Any, write: Callable[[Any], str] = str) -> str:
    """A value of a file or of the user in quotes, for a message; short, whatever it is."""
    if isinstance(value, int) and not is_number(value) and not isinstance(value, bool):
        return "a number of more than 308 digits"
    try:
        return quoted(write(value))
    except ValueError:  # a number too long for Python to write, within a list
        return f"a {type(value).__name__}"


@dataclass(frozen=True)
class Imported:
    """A plug-in of the suite, made of a foreign file.

    proven     what was checked, a few words each ("class names", "text tower of ViT-B-16/openai")
    notes      what the user ought to know
    templates  prompts that it brings along; empty where it has none of its own
    repeats    whether a class name may stand there twice: the file's own tokens say so, and rows are made of texts
    """

    method: str
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    shape: Shape
    proven: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    fingerprint: str | None = None  # of the backbone, where its weights were read
    repeats: bool = False


class Format:
    """One kind of file. name: as messages have it; source: whose code writes it."""

    name = ""
    source = ""

    @classmethod
    def recognises(cls, file: Foreign) -> bool:
        raise NotImplementedError

    @classmethod
    def beside(cls, file: Foreign) -> str:
        """Of a file that it does not recognise, and would but for some tensors: which these are; else empty."""
        return ""

    @classmethod
    def facts(cls, file: Foreign) -> Sequence[Fact]:
        return (BACKBONE,)

    @classmethod
    def made(cls, file: Foreign, facts: Facts) -> Imported:
        """Raises UserError for a file that contradicts itself or what was said of it."""
        raise NotImplementedError


FORMATS: Registry[type[Format]] = Registry("format", Format)
register = FORMATS.register
