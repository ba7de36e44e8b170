"""Figures by their file name, whichever analysis draws them."""

from carryover.bench.analyses.base import ordered


def figure_of(name, selection):
    """None where the selection has nothing to show in it."""
    (found,) = [(one, drawing) for one in ordered() for drawing in one.drawings if drawing.name == name]
    return found[0].drawn(found[1], selection)


def figure_names():
    return [drawing.name for one in ordered() for drawing in one.drawings]
