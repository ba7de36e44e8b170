"""The micro world: a procedural picture world with captions, eleven few-shot datasets and four shifted test sets."""

from .sets import IDS, OOD_IDS, load
from .world import WORLD_VERSION

__all__ = ["IDS", "OOD_IDS", "WORLD_VERSION", "load"]
