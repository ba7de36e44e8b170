"""Contexts that CoOp's own code can train and ``coop`` here does not: a context for each class (CSC), and a class name
in the middle or in front of the context (KaiyangZhou/CoOp, trainers/coop.py).

A name in the middle or in front is put, as token embeddings, into a context of the class's own, for classes of names of
one length together; what follows is the rest of the prompt. So no other way through the text tower is needed.

Letters: n context tokens, C classes, K classes of one name's length L, W text width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from carryover.bench.backbones.class_tokens import ClassTokens
from carryover.bench.errors import UserError
from carryover.methods.base import register
from carryover.methods.parts.prompts import CONTEXT_STD, PromptConfig, PromptMethod


@dataclass(frozen=True)
class Config(PromptConfig):
    """``position`` of the class name: "end", "middle" (behind the first n // 2 tokens) or "front"; ``per_class``:
    whether each class has a context of its own."""

    position: str = "end"
    per_class: bool = False

    def __post_init__(self):
        super().__post_init__()
        if self.position not in ("end", "middle", "front"):
            raise UserError(f"coop-prompts: position is 'end', 'middle' or 'front'; found '{self.position}'")


@register("coop-prompts")
class CoOpPrompts(PromptMethod):
    name = "CoOp prompts"
    paper = "Zhou et al. 2022, arXiv 2109.01134"
    per = "class"
    trained_here = False
    Config = Config

    def __init__(self, config, shape):
        super().__init__(config, shape)
        if config.per_class:
            each = len(shape.classnames), config.context_length, shape.width
            self.context = nn.Parameter(torch.randn(each) * CONTEXT_STD)  # (C, n, W)

    def bind(self, backbone, classes):
        """Raises UserError for a class without a context where each has its own."""
        super().bind(backbone, classes)
        self.rows = self.class_rows(classes).to(backbone.device) if self.config.per_class else None
        place, n = self.config.position, self.config.context_length
        self.before = {"end": n, "middle": n // 2, "front": 0}[place]  # context tokens in front of the name
        bare = [0 if place == "end" else len(row) for row in backbone.text.behind(classes.names)]
        self.groups = []
        for length in sorted(set(bare)):
            chosen = [i for i, own in enumerate(bare) if own == length]
            rows = [self.tokens.rows[i] for i in chosen]
            ids = torch.tensor([row[:length] for row in rows], dtype=torch.long, device=backbone.device)
            names = backbone.text.embedding(ids).detach()  # (K, L, W)
            self.groups.append((chosen, names, ClassTokens(tuple(row[length:] for row in rows), self.tokens.device)))

    def contexts(self, x):
        """(C, n, W)"""
        if self.rows is not None:
            return self.context[self.rows]
        return self.context.expand(len(self.tokens), -1, -1)

    def class_features(self, x):
        contexts, parts, order = self.contexts(x), [], []
        for chosen, names, rest in self.groups:
            own = contexts[chosen]
            prompts = torch.cat([own[:, : self.before], names, own[:, self.before :]], dim=1)
            parts.append(self.backbone.text.encode(prompts, rest, per="class"))
            order += chosen
        return torch.cat(parts)[torch.tensor(order, device=parts[0].device).argsort()]
