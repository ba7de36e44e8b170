"""Distillation (Hinton et al. 2015): the same method trained anew on the new backbone, with the old model's soft
answers on unlabelled anchors in place of labels.

The method keeps its own recipe: optimiser, rate, steps, regularisers. Its cross-entropy takes the probabilities of the
old plug-in (temperature 1). What it starts from (a cache, a logistic regression) takes the most probable classes, as
does its few-shot validation, on a fifth of the anchors kept apart. Each anchor has one view, its test transform.
On the few-shot pictures, whose labels the old plug-in was fitted to, this is retraining by other means.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from carryover.bench.backbones.sizes import loaded_sizes
from carryover.bench.errors import UserError
from carryover.bench.ports.base import Port, register
from carryover.bench.ports.carried import Carried
from carryover.bench.seeds import derive
from carryover.bench.training.generators import generator
from carryover.bench.training.trainer import FitError, fit_together
from carryover.methods.asks import begins
from carryover.methods.base import Method, Shape, Support, TrainConfig

HELD = 5  # of so many anchors one is kept for validation


@register("distill")
class Distill(Port):
    name = "Distill"
    source = "Hinton et al. 2015, arXiv 1503.02531"
    needs = ("images", "old_model")
    anchors = ("support", "other")
    place = 10.0

    @classmethod
    def works_on(cls, method):
        if method.depth == "none" or method.needs == "views":
            return "nothing is learned that could be distilled"
        if method.needs != "features":
            return "it trains inside the towers on augmented pictures, which the anchors' features are not"
        return None

    def fits(self, plugin, old, new):
        return begins(type(plugin), plugin.config, loaded_sizes(new))

    def fit(self, plugin, old, new, classes, anchors):
        if len(anchors) < HELD:
            raise UserError(f"distill needs {HELD} anchors or more, found {len(anchors)}")
        with torch.no_grad():
            soft = plugin.predict(anchors.old).float().softmax(-1)
        held = torch.arange(len(soft), device=soft.device) % HELD == 0
        x, val = anchors.new[~held], anchors.new[held]
        taught = Support(x, soft[~held], x[None], val, soft[held].argmax(-1))
        student = begun(type(plugin), plugin.config, Shape.of(new, classes.names, len(x)), new.device)
        student.bind(new, classes)
        student.start(replace(taught, labels=taught.labels.argmax(-1)))
        draw = generator("distill", classes.dataset, type(plugin).__name__)
        (outcome,) = fit_together([student], [taught], [draw], resume=True)
        if isinstance(outcome, FitError):
            raise UserError(f"distill: {outcome}")
        ported = Carried(student.eval(), classes)
        ported.about = {"temperature": 1.0, "steps": len(outcome)}
        return ported


def begun(kind: type[Method], config: TrainConfig, shape: Shape, device: torch.device) -> Method:
    """With initial values of its own stream, whatever was drawn before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive("distill", kind.__name__))
        return kind(config, shape).to(device)
