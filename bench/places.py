"""Where a method stands between a model's input and its output: the one place that knows the names, order and marks.

A method says it in ``depth``. The paper has two kinds: shallow-layer methods (here "input") and deep-layer methods
("output"). Records and methods written with its two words are read as these.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

DAGGER = "†"  # the paper's sign for a deep-layer method
DOUBLE_DAGGER, SECTION = "‡", "§"


@dataclass(frozen=True)
class Place:
    """``label`` says where; ``kind`` is the adjective in sentences; ``mark`` stands behind names in tables."""

    label: str
    kind: str = ""
    mark: str = ""


PLACES: dict[str, Place] = {  # in the order of tables, from nothing learned to whole towers
    "none": Place("nothing learned"),
    "input": Place("input tokens", "input-token"),
    "inner": Place("inner layers", "inner-layer", DOUBLE_DAGGER),
    "output": Place("output space", "output-space", DAGGER),
    "towers": Place("both towers", "both-tower", SECTION),
}
# The methods of the paper's tables in their order.
PAPER_ORDER = ("zs-clip", "linear-probe", "clip-adapter", "tip-adapter-f", "coop", "cocoop", "kgcoop", "contcoop")
PAPERS_WORDS = {"shallow": "input", "deep": "output"}


def place(depth: str) -> str:
    """The name in ``PLACES`` of what a method says of itself; a word that is not known stays as it is."""
    return PAPERS_WORDS.get(depth, depth)


def place_of(record: Mapping[str, Any]) -> str:
    """Where the method of a stored run stood. A context that the run's options put at the input of a later block
    (CoOp's ``layer``) is no longer among the input tokens."""
    found = place(record.get("depth", "none"))
    layer = (record["run"].get("config") or {}).get("layer")
    return "inner" if found == "input" and isinstance(layer, int) and layer > 0 else found


def label(depth: str) -> str:
    """In words; a depth that is not known is shown as it is."""
    return PLACES[place(depth)].label if place(depth) in PLACES else depth


def rank(depth: str) -> int:
    """Order among methods that the paper's tables do not order."""
    return [*PLACES, place(depth)].index(place(depth))


def ordered(depths: Mapping[str, str]) -> list[str]:
    """Method ids {id: depth} in the order of tables: the paper's first, the others from the input of a model to its
    output, then by name."""
    others = sorted((rank(depth), id) for id, depth in depths.items() if id not in PAPER_ORDER)
    return [id for id in PAPER_ORDER if id in depths] + [id for _, id in others]


def mark(name: str) -> str:
    return PLACES[name].mark if name in PLACES else ""


def legend(names: Iterable[str]) -> list[str]:
    """What each mark means that some of the places bear: "† output-space method"."""
    there = set(names)
    return [f"{one.mark} {one.kind} method" for name, one in PLACES.items() if one.mark and name in there]


def legend_remark(names: Iterable[str]) -> list[str]:
    """The legend as one sentence for the foot of a table; nothing without marks."""
    told = [one.split(" ", 1) for one in legend(names)]
    found = [f"{sign} marks a{'n' * (what[0] in 'aeiou')} {what}" for sign, what in told]
    return [f"{', '.join(found)}."] if found else []


def listed(places: Mapping[str, str], names: Mapping[str, str]) -> str:
    """Display names by place, in the order of places: "input tokens: CoOp, KgCoOp; output space: CLIP-Adapter"."""
    groups = {one: [names[id] for id, at in places.items() if at == one] for one in PLACES if one != "none"}
    return "; ".join(f"{PLACES[one].label}: {', '.join(found)}" for one, found in groups.items() if found)
