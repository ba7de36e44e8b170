"""Common nouns that ports show to both text towers: padding classes of TransMiter, rows of a map fitted on texts.

For CLIP they are ImageNet-21k's: the first name of each WordNet synset that timm ships. For the micro world, whose text
towers know no other words, they are what its captions name. ``others`` takes those that name no class of the task.
"""

from __future__ import annotations

import hashlib
import pkgutil
import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from carryover.bench.errors import UserError
from carryover.bench.seeds import derive
from carryover.datasets.micro import captions, rules, world

SYNSETS, LEMMAS = "_info/imagenet12k_synsets.txt", "_info/imagenet_synset_to_lemma.txt"  # in package timm.data
PERSONS = ("n09500000", "n11400000")  # WordNet 3.0 keeps its nouns of persons there; some of them are slurs
COMMON = re.compile(r"[a-z]+( [a-z]+)?")  # one or two words in lower case: no proper name, no Latin species
ARTICLES = ("a", "an", "the")
IRREGULAR = {
    "children": "child", "feet": "foot", "geese": "goose", "lice": "louse", "mice": "mouse", "oxen": "ox",
    "people": "person", "teeth": "tooth",
}  # fmt: skip


def nouns(backbone: Any) -> tuple[str, ...]:
    """The nouns that this backbone's text tower knows, each once, in a fixed order (thousands; micro: hundreds)."""
    return micro_nouns() if backbone.tower.is_micro else imagenet_nouns()


def others(nouns: Iterable[str], classnames: Sequence[str], count: int, seed: int) -> tuple[str, ...]:
    """``count`` of the nouns, drawn by ``seed``, that are none of the class names: not in another case or number, nor
    by a synonym. The draw depends on neither the order of the nouns nor that of the classes. Raises UserError where
    too few are left."""
    taken = names_of(classnames)
    once = {key(noun): noun for noun in sorted(set(nouns), reverse=True)}
    free = [noun for name, noun in once.items() if name not in taken]
    if len(free) < count:
        raise UserError(
            f"{count} nouns that name none of the {len(classnames)} classes are needed, {len(free)} are known: ask for "
            "fewer words"
        )
    return tuple(sorted(free, key=lambda noun: (derive("noun", seed, noun), noun))[:count])


def digest(words: Iterable[str]) -> str:
    """A short name for a list of words: the start of its sha256."""
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:12]


def names_of(classnames: Iterable[str]) -> set[str]:
    """Keys of the class names and of all their synonyms."""
    groups = synonyms()
    own = {key(name) for name in classnames}
    return own.union(*(groups.get(name, ()) for name in own))


def key(name: str) -> str:
    """What names have in common that differ in case, number, article, hyphens and spaces alone."""
    words = re.sub(r"[^\w]|_", " ", name.casefold()).split()
    words = words[1:] if words[:1] and words[0] in ARTICLES and len(words) > 1 else words
    return "".join(stem(word) for word in words)


def stem(word: str) -> str:
    """One form for singular and plural. It need be no word: "leaves" and "leaf" are "leaf", "pony" is "poni"."""
    word = IRREGULAR.get(word, word)
    if word.endswith("men"):
        word = word[:-3] + "man"
    if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 2:
        word = word[:-1]
    word = word[:-1] if word.endswith("e") and len(word) > 2 else word
    return {"v": word[:-1] + "f", "y": word[:-1] + "i"}.get(word[-1:], word)


@cache
def synonyms() -> dict[str, frozenset[str]]:
    """Key of a name -> keys of all names that share a meaning with it, in WordNet or in the micro world."""
    found: dict[str, set[str]] = {}
    micro = [(*names, *extra) for names, extra in micro_groups()]
    for names in [*lemmas().values(), *micro]:
        keys = {key(name) for name in names}
        for name in keys:
            found.setdefault(name, set()).update(keys)
    return {name: frozenset(keys) for name, keys in found.items()}


@cache
def lemmas() -> dict[str, tuple[str, ...]]:
    """WordNet id -> its names, for the 21,844 synsets of ImageNet."""
    lines = (pkgutil.get_data("timm.data", LEMMAS) or b"").decode().splitlines()
    pairs = (line.split("\t", 1) for line in lines)
    return {synset: tuple(names.split(", ")) for synset, names in pairs}


@cache
def imagenet_nouns() -> tuple[str, ...]:
    """First names of the synsets of ImageNet-12k (those with enough pictures to learn them), persons left out."""
    synsets = (pkgutil.get_data("timm.data", SYNSETS) or b"").decode().split()
    first = (lemmas()[synset][0] for synset in synsets if not PERSONS[0] <= synset < PERSONS[1])
    return tuple(sorted({name for name in first if COMMON.fullmatch(name)}))


@cache
def micro_nouns() -> tuple[str, ...]:
    """What the micro world's captions name: shapes by fill, colour and size, kinds of star and flower, places."""
    shapes = captions.SHAPE_NAMES
    stars = [f"{'thick' if thick else 'thin'} {captions.NUMBERS[n]} pointed star" for n, thick in captions.STAR_KINDS]
    places = [name for names, _ in micro_groups() for name in names]
    phrases = [*shapes, *captions.FLOWER_NAMES, *stars, *(bare(place) for place in places)]
    for words, things in (
        (world.COLOURS, (*shapes, "background")),
        (world.FILLS, (*shapes, "pattern")),
        (("small", "large"), shapes),
        (world.SHADE_NAMES, ("thing",)),
    ):
        phrases += [f"{word} {thing}" for word in words for thing in things]
    return tuple(dict.fromkeys(phrases))


def micro_groups() -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Names of one thing in the micro world's captions, and further names of it that only class names use."""
    grounds = [(names, (rules.SCENE_WORDS.get(ground, ground),)) for ground, names in captions.GROUND_WORDS.items()]
    lands = [(names, (land, rules.LANDS[land])) for land, names in captions.LAND_WORDS.items()]
    texture = dict(zip(rules.TEXTURES, rules.TEXTURE_NAMES, strict=True))
    fills = [((noun,), (fill, texture[fill])) for fill, noun in captions.FILL_NOUNS.items()]
    return [*grounds, *lands, *fills]


def bare(name: str) -> str:
    """Without its article."""
    first, _, rest = name.partition(" ")
    return rest if first in ARTICLES and rest else name
