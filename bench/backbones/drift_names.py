"""What layer drift is told by, beside its numbers (``bench.backbones.drift_measures``)."""

from __future__ import annotations

DRIFT_VERSION = 3  # raised whenever a change in drift or drift_measures changes numbers
POOLED = "pooled"  # in the place of a dataset: one measurement over the prompts of all
MEASURES = ("absolute", "relative", "norm_ratio", "one_minus_cosine", "cka", "structure")
