"""Full fine-tuning of both towers on the prompts' cross-entropy (Wortsman et al. 2022; Goyal et al. 2023, "FLYP-CE").

The baseline of methods that train a module beside the towers: it has no module, so nothing of it travels, and on every
other backbone it is that backbone's zero-shot.
"""

from __future__ import annotations

from carryover.methods.base import cosine_logits, register
from carryover.methods.parts.towers import TowersConfig, TowersMethod


@register("fine-tuning")
class FineTuning(TowersMethod):
    name = "Fine-tuning"
    paper = "Wortsman et al. 2022, arXiv 2109.01903"
    Config = TowersConfig
    micro = {"steps": 100, "epochs": 1, "crop": (0.7, 1.0), "lr": 1e-4}

    def trained(self):
        return [(1.0, list(self.towers().values()))]

    def logits(self, x):
        return cosine_logits(self.backbone.scale, self.features(x), self.weights())
