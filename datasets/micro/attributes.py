"""The attribute heads of pre-training: one linear classifier for each thing that can be asked of a picture."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .shapes import FLOWERS, GROUNDS, SHAPE_NAMES, STARS
from .world import (
    ARRANGEMENTS,
    BACKDROPS,
    COLOURS,
    FILLS,
    LAND_KINDS,
    MAX_COUNT,
    PLACES,
    RELATIONS,
    SHADE_COLOUR,
    SHADE_NAMES,
    SIZES,
    STYLES,
    TIMES,
    Scenes,
)

ATTRIBUTES = {  # classes of each head
    "style": len(STYLES),
    "backdrop": len(BACKDROPS),
    "back_colour": len(COLOURS),
    "ground": len(GROUNDS),
    "time": len(TIMES),
    "land": len(LAND_KINDS),
    "shape": len(SHAPE_NAMES),
    "star": len(STARS),
    "flower": len(FLOWERS),
    "fill": len(FILLS),
    "shade": len(SHADE_NAMES),
    "size": len(SIZES),
    "place": len(PLACES),
    "count": MAX_COUNT,
    "arrangement": len(ARRANGEMENTS),
    "relation": len(RELATIONS),
    "shape2": len(SHAPE_NAMES),
}
WEIGHTS = {"shape": 3.0, "fill": 2.0, "star": 1.5, "flower": 1.5}  # the hard ones; the others count 1
UNASKED = -100  # cross_entropy's ignore_index: the picture does not decide this attribute


def attribute_labels(s: Scenes) -> np.ndarray:
    """(A, N) int64 labels, UNASKED where the attribute cannot be seen."""
    backdrop, present = {n: s.backdrop == i for i, n in enumerate(BACKDROPS)}, s.present > 0
    coloured = (s.style == STYLES.index("photo")) | (s.style == STYLES.index("noisy"))
    alone = present & (s.relation == 0)
    asked = {
        "back_colour": (
            SHADE_COLOUR[s.back_shade],
            coloured & (backdrop["plain"] | backdrop["gradient"] | backdrop["textured"]),
        ),
        "ground": (s.ground, backdrop["scene"]),
        "time": (s.time, backdrop["scene"] & (s.style != STYLES.index("sketch"))),
        "land": (s.land, backdrop["land"]),
        "shape": (s.shape, present),
        "star": (s.variant, present & (s.shape == SHAPE_NAMES.index("star"))),
        "flower": (s.variant, present & (s.shape == SHAPE_NAMES.index("flower"))),
        "fill": (s.fill, present | backdrop["surface"]),
        "shade": (s.shade, coloured & (present | backdrop["surface"])),
        "size": (s.size, alone & (s.count == 1)),
        "place": (s.place, alone & (s.count == 1)),
        "count": (s.count - 1, alone),
        "arrangement": (s.arrangement, alone & (s.count > 1)),
        "relation": (s.relation, present),
        "shape2": (s.shape2, s.relation > 0),
    }
    everywhere = np.ones(len(s), bool)
    rows = (asked.get(name, (getattr(s, name, None), everywhere)) for name in ATTRIBUTES)
    return np.stack([np.where(seen, value, UNASKED) for value, seen in rows]).astype(np.int64)


class AttributeHeads(nn.Module):
    """Linear heads on the image embedding's direction, (B, D) in; gives the mean loss and each head's accuracy."""

    def __init__(self, width: int):
        super().__init__()
        self.heads = nn.Linear(width, sum(ATTRIBUTES.values()))

    def forward(self, images: Tensor, labels: np.ndarray) -> tuple[Tensor, dict[str, Tensor]]:
        logits = self.heads(F.layer_norm(images, images.shape[1:])).split(list(ATTRIBUTES.values()), 1)
        losses, accuracy = [], {}
        for name, score, label in zip(ATTRIBUTES, logits, torch.from_numpy(labels), strict=True):
            asked = label != UNASKED
            if asked.any():
                # weighted by how often it is asked, but a rare attribute still counts
                losses.append(
                    F.cross_entropy(score[asked], label[asked]) * asked.float().mean() ** 0.5 * WEIGHTS.get(name, 1.0)
                )
                accuracy[name] = (score[asked].argmax(1) == label[asked]).float().mean()
        return torch.stack(losses).sum() / 6, accuracy
