"""What methods are measured on in place of real pictures: made-up features and pixels, and a number of threads."""

from __future__ import annotations

import torch

from carryover.bench.features.store import FeatureStore
from carryover.bench.training.generators import generator
from carryover.datasets.fewshot import VAL_SHOTS
from carryover.methods.base import Support

NOISE = 1.4  # of made-up features around their class's centre, as share of the classes' spread (micro's real ones)
SPECTRUM = 100.0  # between the widest and narrowest direction of made-up features: solvers are slow on real ones


class Noise:
    """In place of ``bench.features.pixels.Pictures``: the same pixels for every picture, as the tower reads them."""

    def __init__(self, store: FeatureStore):
        draw = generator("calibration", "pixels")
        self.pixels = torch.randn(1, 3, *store.size, generator=draw).to(store.backbone.device)

    def __len__(self) -> int:
        return 1

    def __getitem__(self, drawn: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return self.pixels.expand(len(drawn[1]), -1, -1, -1).contiguous()


def made_up(dim: int, classes: int, shots: int, views: int, device) -> Support:
    """Support features clustered by class, as far apart as makes a probe work for it."""
    draw = generator("calibration", "support", classes)
    centres, widths = torch.randn(classes, dim, generator=draw), torch.logspace(0, 1, dim, base=1 / SPECTRUM)

    def sample(per_class: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.arange(classes).repeat_interleave(per_class)
        features = 2 * widths * (centres[labels] + NOISE * torch.randn(len(labels), dim, generator=draw))
        return features.to(device), labels.to(device)

    (x, y), val = sample(shots), sample(min(shots, VAL_SHOTS))
    return Support(x, y, x.expand(views, -1, -1), *val, {"test": val, "selection": val})


class threads_set:
    """Torch's threads within a block."""

    def __init__(self, threads: int):
        self.threads = threads

    def __enter__(self):
        self.before = torch.get_num_threads()
        torch.set_num_threads(self.threads)

    def __exit__(self, *_):
        torch.set_num_threads(self.before)
