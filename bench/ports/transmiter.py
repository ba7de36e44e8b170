"""TransMiter (Park et al. 2025): the plug-in as a correction of zero-shot logits, learned without labels on the old
backbone and carried to the new one in closed form.

An adapter learns on unlabelled pictures to make the plug-in's logits of the old zero-shot logits. Its input is widened
by words that are none of the classes, so that logits tell about as much as features. One orthogonal map between both
backbones' logits of the same pictures then takes its basis to the new backbone; no gradient runs there.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from carryover.bench.backbones.loading import Backbone
from carryover.bench.errors import UserError
from carryover.bench.ports import words
from carryover.bench.ports.anchors import Anchors
from carryover.bench.ports.base import Port, Ported, register
from carryover.bench.ports.mapped import classes_of, inside, told
from carryover.bench.ports.transmiter_parts import Adapter, Config, train, transferred
from carryover.bench.seeds import derive
from carryover.methods.base import Classes, Method, cosine_logits

PICTURES = 64  # of the anchors, through the old towers at a time, for plug-ins inside them


class Adapted(Ported):
    """New zero-shot logits of K words, adapted; the task's classes of them.

    texts (K, Dn)   the new text tower's features of classes and padding words, rows of length 1
    scale ()        the new backbone's own
    rows (C,)       where the classes stand among the K
    """

    kind = "adapted logits"
    texts: Tensor
    scale: Tensor
    rows: Tensor

    def __init__(self, adapter: Adapter, texts: Tensor, scale: Tensor, rows: Tensor, classes: Classes, home: str):
        super().__init__()
        self.adapter, self.classes, self.home = adapter.requires_grad_(False), classes, home
        for name, value in (("texts", texts), ("scale", scale), ("rows", rows)):
            self.register_buffer(name, value.detach().clone())
        self.eval()

    def logits(self, x: Tensor) -> Tensor:
        return self.adapter(cosine_logits(self.scale, x, self.texts))[:, self.rows]

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}, told(self)

    @classmethod
    def restore(cls, tensors: dict[str, Tensor], header: dict[str, Any]) -> Adapted:
        own = inside("adapter", tensors)
        adapter = Adapter(len(own["basis"]), len(own["up_bias"]) // len(own["basis"]), torch.Generator())
        adapter.load_state_dict(own)
        texts, scale, rows = (tensors[name] for name in ("texts", "scale", "rows"))
        ported = cls(adapter, texts, scale, rows, classes_of(header), header["home"])
        ported.about = dict(header["about"])
        return ported


@register("transmiter")
class TransMiter(Port):
    name = "TransMiter"
    source = "Park et al. 2025, arXiv 2508.08604"
    needs = ("images", "texts", "old_model")
    place = 11.0
    Config = Config
    # For 96 dimensions, some hundred phrases and 170 anchors: fewer words; smaller batches, for 60 steps not 20;
    # the published prior by N K of both, 500 (170 * 128) / (5,300 * 1,024), where 5,300 is the median of the numbers of
    # training pictures in ten of the paper's sets. A tenth or ten times as much changes next to nothing.
    micro: dict[str, Any] = {"words": 128, "batch": 32, "prior": 2.0}

    def __init__(self, config=None):
        self.config = config  # None: the published one, or `micro` on the micro models
        self._last: Taught | None = None

    @classmethod
    def works_on(cls, method: type[Method]) -> str | None:
        if method.depth == "none" or method.needs == "views":
            return "nothing is learned that could be carried"
        if not method.whole:
            return "what training made of the towers is not in the plug-in, so its logits on the anchors are lost"
        return None

    def fit(self, plugin: Any, old: Backbone, new: Backbone, classes: Classes, anchors: Anchors) -> Adapted:
        config = self.config or Config(**(self.micro if old.tower.is_micro else {}))
        padded, order = widened(classes, anchors.nouns, config)
        zero_old = cosine_logits(old.scale, anchors.old, old.zero_shot(padded))
        zero_new = cosine_logits(new.scale, anchors.new, new.zero_shot(padded))
        taught = answers(plugin, old, anchors)[:, order]
        learned = self._learned(Task(classes.dataset, config, zero_old, taught), anchors)
        adapter, losses = copy.deepcopy(learned.adapter), learned.losses
        adapter.basis.copy_(transferred(adapter.basis, zero_old, zero_new, config.prior))
        rows = torch.tensor(order).argsort().to(zero_old.device)
        ported = Adapted(adapter, new.zero_shot(padded), new.scale, rows, classes, new.fingerprint)
        padding = padded.names[len(classes) :]
        chosen = {"padding": len(padding), "padding_sha256": words.digest(padding), "loss": losses[-1]}
        ported.about = {**asdict(config), "anchors": len(zero_old), "steps": len(losses), **chosen}
        return ported

    def _learned(self, task: Task, anchors: Anchors) -> Taught:
        """An adapter that has learned the plug-in on the old backbone. Nothing in it depends on the new one, so the
        last is kept for the next; its time counts as spent on each."""
        if self._last is None or not self._last.task.same(task):
            start = time.perf_counter()
            generator = torch.Generator().manual_seed(derive("transmiter", "fit", task.dataset, task.config.seed))
            adapter = Adapter(task.config.words, task.config.widening, generator).to(task.given.device)
            losses = train(adapter, task.given, task.wanted, task.config, generator)
            self._last = Taught(task, adapter, losses, time.perf_counter() - start)
        else:
            anchors.clock["saved"] += self._last.seconds
        return self._last


@dataclass(frozen=True)
class Task:
    """All that a trained adapter depends on: given (N, K) and wanted (N, C) are logits on the old backbone."""

    dataset: str
    config: Config
    given: Tensor
    wanted: Tensor

    def same(self, other: Task) -> bool:
        plain = (self.dataset, self.config) == (other.dataset, other.config)
        return plain and torch.equal(self.given, other.given) and torch.equal(self.wanted, other.wanted)


@dataclass(frozen=True)
class Taught:
    task: Task
    adapter: Adapter
    losses: list[float]
    seconds: float


@torch.no_grad()
def answers(plugin: Any, old: Backbone, anchors: Anchors) -> Tensor:
    """The plug-in's logits (N, C) on the old backbone."""
    if plugin.needs != "pixels":
        return plugin.predict(anchors.old).float()
    with plugin.attach(old):
        return torch.cat([plugin.predict(part).float() for part in anchors.pixels_old().split(PICTURES)]).to(old.device)


def widened(classes: Classes, nouns: Sequence[str], config: Config) -> tuple[Classes, list[int]]:
    """K names, the classes first, then padding words; and the place of each of the first in ``classes``. The classes
    are sorted, as the adapter's start tells rows apart: the order in which a dataset lists them then decides nothing.
    Raises UserError for more classes than K."""
    if len(classes) > config.words:
        raise UserError(
            f"TransMiter's adapter holds {config.words:,} words, {classes.dataset} has {len(classes):,} classes: "
            "raise its `words` to that number or more"
        )
    order = sorted(range(len(classes)), key=lambda place: classes.names[place])
    seed = derive("transmiter", "words", classes.dataset, config.seed)
    padding = words.others(nouns, classes.names, config.words - len(classes), seed)
    names = (*(classes.names[place] for place in order), *padding)
    return Classes(classes.dataset, names, classes.templates), order
