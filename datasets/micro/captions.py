"""Captions of scenes, as varied and as incomplete as those of the web.

A caption leaves most attributes out; it tells colour less often than shape and fill (else colour alone would satisfy a
contrastive loss), usually says "star" and "flower" and seldom which, and names a backdrop only as a backdrop ("on a red
background"). A caption, too, is a pure function of its scene's key (and of ``telling``, the number of the retelling).
"""

from __future__ import annotations

import numpy as np

from .hashing import uniforms
from .shapes import FLOWERS, GROUNDS, SHAPE_NAMES, STARS, TILES
from .world import (
    ARRANGEMENTS,
    BACKDROPS,
    COLOURS,
    FILLS,
    LAND_KINDS,
    PLACES,
    RELATIONS,
    SHADE_COLOUR,
    SHADE_NAMES,
    SIZES,
    STYLES,
    TIMES,
    Scenes,
)

FRAMES = {
    "photo": (
        "a photo of {}",
        "a photo of {}",
        "a photo of {}",
        "a picture of {}",
        "an image of {}",
        "{}",
        "{}",
        "this is {}",
        "there is {}",
        "a close photo of {}",
        "my picture of {}",
        "{} in a photo",
        "a good photo of {}",
        "a photo of {} that i took on my trip last year",
        "here is a nice little picture that shows {}",
        "in this picture from my old album you can see {}",
        "one of the many pictures we have made, showing {}",
    ),
    "sketch": (
        "a sketch of {}",
        "a drawing of {}",
        "a pencil drawing of {}",
        "a pencil sketch of {}",
        "{} drawn in pencil",
        "a picture of {}",
    ),
    "painting": (
        "a painting of {}",
        "a cartoon of {}",
        "a poster of {}",
        "art of {}",
        "a painted picture of {}",
        "a picture of {}",
    ),
    "noisy": (
        "a blurry photo of {}",
        "a bad photo of {}",
        "a noisy picture of {}",
        "an old photo of {}",
        "a photo of {}",
    ),
}
SIZE_WORDS = {"small": ("small", "little", "tiny"), "medium": ("",), "large": ("large", "big", "huge")}
PLACE_WORDS = {
    "center": ("in the middle", "in the center"),
    "top": ("at the top", "up high"),
    "bottom": ("at the bottom", "down low"),
    "corner": ("in the corner", "in a corner"),
}
ARRANGED = {
    "scattered": ("", "", "scattered about"),
    "row": ("in a row", "in a line", "side by side"),
    "column": ("in a column", "in a stack", "one above another"),
    "circle": ("in a circle", "in a ring"),
}
RELATION_WORDS = {
    "above": ("above", "over"),
    "below": ("below", "under"),
    "inside": ("inside", "in"),
    "around": ("around", "enclosing"),
    "beside": ("beside", "next to", "and", "with"),
}
GROUND_WORDS = {
    "sea": ("the sea", "the ocean", "water"),
    "desert": ("the desert", "sand dunes"),
    "forest": ("a forest", "the woods"),
    "mountains": ("the mountains", "mountain peaks"),
    "city": ("a city", "the town"),
    "field": ("a field", "a farm field"),
    "hills": ("the hills", "green hills"),
    "snow": ("the snow", "a snowy land"),
}
TIME_WORDS = {
    "day": ("by day", "on a clear day", "under a blue sky", ""),
    "sunset": ("at sunset", "in the evening", "at dusk"),
    "night": ("at night", "in the dark"),
}
LAND_WORDS = {
    "forest": ("a forest", "trees", "a wood"),
    "river": ("a river", "a stream"),
    "road": ("a road", "a highway", "a street"),
    "farm": ("fields", "crops", "a farm"),
    "town": ("houses", "buildings", "a town"),
    "lake": ("a lake", "a pond", "water"),
    "beach": ("the coast", "a shore", "a beach"),
    "orchard": ("rows of trees", "planted trees", "an orchard"),
    "desert": ("dunes", "sand", "a desert"),
    "marsh": ("wet land", "a swamp", "a marsh"),
}
LAND_FRAMES = (
    "a satellite photo of {}",
    "{} from above",
    "an aerial view of {}",
    "{} seen from the air",
    "a map of {}",
)
FILL_NOUNS = {
    "striped": "stripes",
    "dotted": "dots",
    "checkered": "checks",
    "plaid": "a plaid pattern",
    "wavy": "waves",
    "speckled": "speckles",
    "scaly": "scales",
    "bricked": "bricks",
}
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight")
STAR_KINDS, FLOWER_NAMES = tuple(STARS), tuple(FLOWERS)
DRAWS = 36  # uniforms spent on one caption at most


def plural(noun: str) -> str:
    if noun.endswith(("s", "x")):
        return noun + "es"
    return noun[:-1] + "ies" if noun.endswith("y") and noun[-2] not in "aeiou" else noun + "s"


def with_article(phrase: str) -> str:
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


class Teller:
    """One caption's writer: spends a row of uniforms, in order."""

    def __init__(self, row: np.ndarray):
        self.row, self.spent = row.tolist(), 0

    def draw(self) -> float:
        self.spent += 1
        return self.row[self.spent - 1]

    def chance(self, odds: float) -> bool:
        return self.draw() < odds

    def pick(self, options):
        return options[int(self.draw() * len(options))]

    def colour(self, shade: int) -> str:
        """The coarse colour's name, or a shade's own."""
        coarse = COLOURS[SHADE_COLOUR[shade]]
        return SHADE_NAMES[shade] if self.chance(0.3) else coarse

    def noun(self, shape: int, variant: int) -> str:
        name, u = SHAPE_NAMES[shape], self.draw()
        if u < 0.05:
            return ("shape", "thing", "object")[int(u * 60)]
        if name == "star" and u < 0.42:
            points, thick = STAR_KINDS[variant]
            word = "" if u > 0.3 else "thick " if thick else "thin "
            return word + ("star" if u < 0.12 else f"{NUMBERS[points]} pointed star")
        if name == "flower" and u < 0.42:
            return FLOWER_NAMES[variant]
        return name

    def thing(self, shape, variant, fill, shade, size, count=1, detail=1.0) -> str:
        """A noun phrase without its article."""
        before, after = [], ""
        noun = self.noun(shape, variant)
        if size is not None and self.chance(0.28 * detail):
            before.append(self.pick(SIZE_WORDS[SIZES[size]]))
        if self.chance(0.36 * detail):
            before.append(self.colour(shade))
        filled, u = FILLS[fill], self.draw()
        if u < 0.6 * detail:
            if u < 0.12 and filled in FILL_NOUNS:
                after = " with " + FILL_NOUNS[filled]
            elif filled != "plain":
                before.append(filled)
            elif u < 0.3:
                before.append("plain" if u < 0.15 else "solid")
        if count == 1 and self.chance(0.03):
            return "something " + (self.colour(shade) if self.chance(0.5) else filled)
        if noun in FLOWER_NAMES or noun.endswith("pointed star"):
            after += f", a type of {SHAPE_NAMES[shape]}" if count == 1 and self.chance(0.2) else ""
        noun = plural(noun) if count > 1 else noun
        return " ".join([w for w in before if w] + [noun]) + after


def tell(t: Teller, s: dict) -> str:
    """One caption of one scene; ``s`` maps each field to its index."""
    backdrop, style = BACKDROPS[s["backdrop"]], STYLES[s["style"]]
    if backdrop == "land":
        name = t.pick(LAND_WORDS[LAND_KINDS[s["land"]]]) if t.chance(0.8) else "land"
        return t.pick(LAND_FRAMES).format(name)
    parts = []
    if backdrop == "surface":
        fill = FILLS[s["fill"]].replace("outlined", "plain")
        words = [fill] if t.chance(0.8) else []
        words = [t.colour(s["shade"])] + words if t.chance(0.35) else words
        parts.append(with_article(" ".join(words + [t.pick(("pattern", "texture", "surface", "background"))])))
    elif s["present"]:
        thing = t.thing(
            s["shape"], s["variant"], s["fill"], s["shade"], None if s["relation"] else s["size"], s["count"]
        )
        if s["count"] > 1:
            u = t.draw()
            number = (
                NUMBERS[s["count"]] if u < 0.7 else "some" if u < 0.8 else "many" if u < 0.9 and s["count"] > 3 else ""
            )
            thing = f"{number} {thing}".strip()
            arranged = t.pick(ARRANGED[ARRANGEMENTS[s["arrangement"]]]) if t.chance(0.55) else ""
            thing = f"{thing} {arranged}".strip()
        else:
            if not thing.startswith("something"):
                thing = with_article(thing) if t.chance(0.93) else "one " + thing
        if s["relation"]:
            other = t.thing(s["shape2"], s["variant2"], s["fill2"], s["shade2"], None, detail=0.6)
            other = other if other.startswith("something") else with_article(other)
            word = t.pick(RELATION_WORDS[RELATIONS[s["relation"]]]) if t.chance(0.85) else "and"
            flip = {
                "above": "below",
                "over": "under",
                "below": "above",
                "under": "over",
                "inside": "around",
                "in": "around",
                "around": "inside",
                "enclosing": "inside",
            }
            thing = f"{other} {flip.get(word, word)} {thing}" if t.chance(0.4) else f"{thing} {word} {other}"
        elif s["count"] == 1 and t.chance(0.3):
            thing += " " + t.pick(PLACE_WORDS[PLACES[s["place"]]])
        parts.append(thing)
    if backdrop == "scene" and (not parts or t.chance(0.6)):
        where = t.pick(GROUND_WORDS[GROUNDS[s["ground"]]])
        when = t.pick(TIME_WORDS[TIMES[s["time"]]]) if t.chance(0.6) else ""
        parts.append(f"{t.pick(('over', 'in front of', 'above')) if parts else ''} {where} {when}".strip())
    elif backdrop in ("plain", "gradient", "textured") and style != "sketch":
        u = t.draw()
        if u < 0.3 or not parts:
            parts.append(f"{'on ' if parts else ''}{with_article(t.colour(s['back_shade']) + ' background')}")
        elif u < 0.45 and backdrop == "textured":
            parts.append(f"on {with_article(TILES[s['back_tile']] + ' background')}")
    caption = t.pick(FRAMES[style]).format(" ".join(parts) or "nothing")
    return caption + "." if t.chance(0.5) else caption


def captions(scenes: Scenes, telling: int = 0) -> list[str]:
    """N captions; another ``telling`` words the same scenes afresh."""
    rows = np.stack([uniforms(scenes.keys, f"caption-{telling}-{i}") for i in range(DRAWS)], 1)
    names = [n for n in vars(scenes) if n != "keys"]
    columns = [getattr(scenes, n).tolist() for n in names]
    return [
        tell(Teller(row), dict(zip(names, values, strict=True))) for row, *values in zip(rows, *columns, strict=True)
    ]
