"""ContCoOp (Wang et al. 2024, section 3.2): context vectors that attend to the class name's own embeddings.

``p(c_i) = p + Attn([p, c_i])`` (first n rows), ``w_i = T([p(c_i), c_i])`` (eq. 1-3), trained with cross-entropy and
``lambda * mean_i |w_i - w_zs,i|`` (eq. 4). After an update the embeddings c_i are the new backbone's, so the context
changes with it. No code was published; PROTOCOL.md lists what the paper leaves open and the options below.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from carryover.bench.errors import UserError
from carryover.methods.base import Method, cosine_logits, register
from carryover.methods.parts.prompts import PromptConfig, PromptMethod, coop_epochs
from carryover.methods.parts.templates import TemplateConfig

NEAR_ZERO = 1e-12  # under the root of the distance, whose gradient is undefined at 0


@dataclass(frozen=True)
class Config(PromptConfig, TemplateConfig):
    """Options where the paper is silent or was ablated.

    lam          weight of the distillation term, 0 = none (Table 5)
    attention    False = plain CoOp context (Table 4)
    heads        of the attention layer (Table 6)
    condition    text whose embeddings the context attends to, "{}" = the class name (Table 7)
    tokens       "all": each real token of it is a key; "mean": their average, the (n+1)-row reading of eq. 1
    init         "uniform": nn.Linear's Kaiming uniform with a = sqrt 5; "normal": Kaiming normal
    squared      squared distance in the distillation term, as KgCoOp's paper writes it
    single_template  of the teacher; the prompts themselves have no template
    """

    lam: float = 1.0
    attention: bool = True
    heads: int = 1
    condition: str = "{}"
    tokens: str = "all"
    init: str = "uniform"
    squared: bool = False

    def __post_init__(self):
        super().__post_init__()
        if self.tokens not in ("all", "mean") or self.init not in ("uniform", "normal"):
            raise UserError(
                "contcoop: tokens is 'all' or 'mean', init is 'uniform' or 'normal'; "
                f"found '{self.tokens}' and '{self.init}'"
            )
        if self.heads < 1 or self.lam < 0 or "{}" not in self.condition:
            raise UserError(
                "contcoop: heads is 1 or more, lam is not negative, condition holds {}; found "
                f"{self.heads}, {self.lam}, '{self.condition}'"
            )


@register("contcoop")
class ContCoOp(PromptMethod):
    name = "ContCoOp"
    paper = "Wang et al. 2024, arXiv 2412.20895"
    per = "class"
    Config = Config
    micro = {**Method.micro, "lr": 0.01}
    cost_free = ("context_length", "heads", "condition", "tokens", "init", "squared")  # the length by ``own_tokens``

    def __init__(self, config, shape):
        super().__init__(config, shape)
        if shape.width % config.heads:
            raise UserError(f"contcoop.heads={config.heads} does not divide the text width {shape.width}")
        if config.attention:
            self.query, self.key, self.value, self.out = (
                nn.Linear(shape.width, shape.width, bias=False) for _ in range(4)
            )
            if config.init == "normal":
                for layer in (self.query, self.key, self.value, self.out):
                    nn.init.kaiming_normal_(layer.weight)

    @classmethod
    def published(cls, dataset, shots):
        return {"epochs": coop_epochs(dataset, shots)}

    @classmethod
    def own_tokens(cls, config):
        return config.context_length if config.attention else 0

    def bind(self, backbone, classes):
        super().bind(backbone, classes)
        self.teacher = backbone.zero_shot(self.config.worded(classes))
        names, real = backbone.text.name_embeddings([self.config.condition.format(name) for name in classes.names])
        if self.config.tokens == "mean":
            names = names.sum(1, keepdim=True) / real.sum(1)[:, None, None]
            real = real[:, :1]
        self.names, self.real = names, real

    def contexts(self, x) -> Tensor:
        """(C, n, W): the context of each class."""
        p, count = self.context, len(self.names)
        if not self.config.attention:
            return p.expand(count, -1, -1)
        rows = torch.cat([p.expand(count, -1, -1), self.names], dim=1)  # (C, n + L, W)
        visible = torch.cat([self.real.new_ones(count, len(p)), self.real], dim=1)

        def split(x: Tensor) -> Tensor:
            return x.unflatten(-1, (self.config.heads, -1)).transpose(-3, -2)

        mixed = F.scaled_dot_product_attention(
            split(self.query(p)).expand(count, -1, -1, -1),
            split(self.key(rows)),
            split(self.value(rows)),
            attn_mask=visible[:, None, None],
        )
        return p + self.out(mixed.transpose(-3, -2).flatten(-2))

    def objective(self, features, x, y):
        features = F.normalize(features, dim=-1)
        loss = F.cross_entropy(cosine_logits(self.backbone.scale, x, features), y)
        if self.config.lam:
            squares = (features - self.teacher).square().sum(-1)
            loss = loss + self.config.lam * (squares if self.config.squared else (squares + NEAR_ZERO).sqrt()).mean()
        return loss
