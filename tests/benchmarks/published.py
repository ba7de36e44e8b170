"""The published training step of the prompt methods, plainly: what the suite's speed is measured against.

As the methods' own repositories train: the image encoder runs at every step, every class is encoded in full at 77
tokens by open_clip's ``encode_text``, CoCoOp goes image by image, ContCoOp (which published no code) mixes its contexts
class by class. The numbers are the suite's; only the way is longer. ``tests/engine/test_published_step.py`` holds both
to the same loss and gradients.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from references import hooked
from torch import Tensor

from carryover.bench.backbones.loading import Backbone
from carryover.methods.base import Classes, Method


class PublishedStep:
    """One training step of ``method``: the suite's instance lends its learned tensors and options, nothing else.

    ``id`` is coop, cocoop, kgcoop or contcoop, the latter with its default options (one head, the class name as
    condition). The model is the backbone's own open_clip model, called as open_clip is. ``precision`` "bf16" runs both
    towers under autocast.
    """

    def __init__(self, id: str, method: Method, backbone: Backbone, classes: Classes, precision: str = "fp32"):
        if id not in ("coop", "cocoop", "kgcoop", "contcoop"):
            raise ValueError(f"no published step of '{id}'")
        self.id, self.method, self.model, self.precision = id, method, backbone.model, precision
        tokenizer, n = backbone.text.tokenizer, len(method.context)
        self.ids = tokenizer([" ".join(["X"] * n + [f"{name}."]) for name in classes.names]).to(backbone.device)
        names = tokenizer(list(classes.names)).to(backbone.device)
        self.names = [row[1 : int(row.argmax())] for row in names]  # bare: without SOS and EOT
        with torch.no_grad():  # the repositories too make the hand-written prompts' features once, before training
            each = [tokenizer([t.format(name) for name in classes.names]) for t in classes.templates]
            rows = [F.normalize(self.model.encode_text(ids.to(backbone.device)), dim=-1) for ids in each]
            self.teacher = F.normalize(torch.stack(rows).mean(0), dim=-1)

    def backward(self, pixels: Tensor, labels: Tensor) -> float:
        """Pixels (B, 3, H, H), labels (B,) -> loss; gradients are added to the method's parameters."""
        with torch.no_grad(), self.autocast():
            features = self.model.encode_image(pixels)
        return self.backward_text(features.float(), labels)

    def backward_text(self, features: Tensor, labels: Tensor) -> float:
        """The same from image features (B, D): the text side alone."""
        if self.id != "cocoop":
            loss = self.loss(features, labels)
            loss.backward()
            return loss.item()
        total = 0.0
        for x, y in zip(features.split(1), labels.split(1), strict=True):  # a graph an image, or memory would not do
            loss = F.cross_entropy(self.cosine(x, self.encode(self.image_context(x))), y) / len(labels)
            loss.backward()
            total += loss.item()
        return total

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        context = self.class_contexts() if self.id == "contcoop" else self.method.context
        text = F.normalize(self.encode(context), dim=-1)
        loss = F.cross_entropy(self.cosine(features, text), labels)
        if self.id == "kgcoop":
            loss = loss + self.method.config.weight * (1 - F.cosine_similarity(text, self.teacher).mean())
        if self.id == "contcoop":
            loss = loss + self.method.config.lam * (text - self.teacher).norm(dim=-1).mean()
        return loss

    def encode(self, context: Tensor) -> Tensor:
        """open_clip's ``encode_text`` over all 77 tokens with the context, (n, W) or (C, n, W), in their rows 1..n."""
        n, own = context.shape[-2], context.expand(len(self.ids), -1, -1)

        def place(module, args, rows: Tensor) -> Tensor:
            return torch.cat([rows[:, :1], own, rows[:, 1 + n :]], dim=1)

        with hooked(self.model.text.token_embedding.register_forward_hook(place)), self.autocast():
            return self.model.encode_text(self.ids).float()

    def cosine(self, features: Tensor, text: Tensor) -> Tensor:
        return self.model.logit_scale.exp() * F.normalize(features, dim=-1) @ F.normalize(text, dim=-1).T

    def image_context(self, x: Tensor) -> Tensor:
        """CoCoOp's context of one image, features (1, D) -> (n, W)."""
        return self.method.context + self.method.meta_net(x / x.norm(dim=-1, keepdim=True))

    def class_contexts(self) -> Tensor:
        """ContCoOp's (C, n, W), one head, a class at a time, its name alone and unpadded (eq. 1)."""
        method, p, made = self.method, self.method.context, []
        for ids in self.names:
            rows = torch.cat([p, self.model.text.token_embedding(ids)])
            query, key, value = method.query(rows), method.key(rows), method.value(rows)
            share = (query @ key.T / key.shape[-1] ** 0.5).softmax(-1)
            made.append(p + method.out(share @ value)[: len(p)])
        return torch.stack(made)

    def autocast(self):
        device = self.model.logit_scale.device.type
        return torch.autocast(device, torch.bfloat16, enabled=self.precision == "bf16")
