"""PromptSRC (Khattak et al. 2023, ICCV; muzairkhattak/PromptSRC): deep prompts in both towers, whose features stay near
those without prompts.

n learned tokens stand at the inputs of the first J blocks of each tower, those of the image tower its own. The loss is
``CE + a mean|w - t| + b mean|f - v| + KL(zero-shot || prompted) / (B C)``: w, f are the features with prompts, t, v
without, all of length 1; v is of the same view, t a mean over 60 templates. What is kept is an average of the prompts
after each epoch, weighted by a Gaussian over the epochs. The prompts travel. The file is long, for a step
needs the towers both with and without prompts, and the average is its own.

Letters: n prompts a block, J blocks (depth), V width of the image tower.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES
from torch import Tensor, nn

from carryover.bench.backbones.attention import added_tokens
from carryover.bench.errors import UserError
from carryover.methods.base import Method, TrainConfig, register
from carryover.methods.parts.inside import InsideMethod
from carryover.methods.parts.prompts import CONTEXT_STD, start_from_words
from carryover.methods.parts.schedule import Schedule, epoch_steps

SIXTY = tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES[:60])  # for every dataset
LATE = ("stanford_cars", "flowers102", "fgvc_aircraft", "dtd", "eurosat")  # whose average is over the last epochs


@dataclass(frozen=True)
class Config(TrainConfig):
    """``context_length``: n; ``depth``: J, at most the blocks of either tower; ``initial_words``: n tokens from which
    the context starts (empty: random); ``text_weight``, ``image_weight``: a, b; ``sixty``: the 60 templates for t, else
    the dataset's own; ``centre``, ``spread``: mean and deviation of the Gaussian, as shares of all epochs."""

    lr: float = 2.5e-3
    batch: int = 4
    epochs: int = 50
    context_length: int = 4
    depth: int = 9
    initial_words: str = "a photo of a"
    text_weight: float = 25.0
    image_weight: float = 10.0
    sixty: bool = True
    centre: float = 0.6
    spread: float = 0.6

    def __post_init__(self):
        super().__post_init__()
        if self.context_length < 1 or self.depth < 1 or min(self.text_weight, self.image_weight) < 0:
            raise UserError(
                "promptsrc: context_length and depth are 1 or more, text_weight and image_weight not negative; found "
                f"{self.context_length}, {self.depth}, {self.text_weight}, {self.image_weight}"
            )
        if self.spread <= 0:
            raise UserError(f"promptsrc.spread is above 0; found {self.spread}")


@register("promptsrc")
class PromptSRC(InsideMethod):
    name = "PromptSRC"
    paper = "Khattak et al. 2023, arXiv 2307.06948"
    Config = Config
    micro = {**Method.micro, "batch": 32}
    cost_free = ("text_weight", "image_weight", "sixty", "centre", "spread")

    def __init__(self, config, shape):
        super().__init__(config, shape)
        n, depth = config.context_length, min(config.depth, shape.text_layers, shape.image_layers or shape.text_layers)
        self.context = nn.Parameter(torch.randn(n, shape.width) * CONTEXT_STD)
        self.deep = nn.Parameter(torch.randn(depth - 1, n, shape.width) * CONTEXT_STD)
        if shape.image_layers:
            self.image = nn.Parameter(torch.randn(depth, n, shape.image_width) * CONTEXT_STD)  # (J, n, V)
        self.told: Tensor | None = None
        self.average: dict[str, Tensor] = {}  # of the prompts, by name, after the epochs that are over
        self.epoch = 0  # how many those are

    @classmethod
    def published(cls, dataset, shots):
        return {"centre": 0.9, "spread": 0.1} if dataset in LATE else {}

    def bind(self, backbone, classes):
        super().bind(backbone, classes)
        self.tokens, self.classes, self.told = backbone.text.class_tokens(classes.names), classes, None

    def start(self, support):
        """Raises UserError where the words are not n tokens."""
        if self.config.initial_words:
            start_from_words(self.context, self.backbone, self.config.initial_words)

    def changes(self, backbone):
        return contextlib.nullcontext()  # a step asks for the tower as it is, too

    def prompted(self) -> contextlib.AbstractContextManager:
        if not self.shape.image_layers:
            return contextlib.nullcontext()
        stack, (depth, n, _) = self.backbone.image_stack, self.image.shape
        return added_tokens(stack, n, depth, self.image.__getitem__)

    def class_features(self):
        return self.backbone.text.encode(self.context, self.tokens, deep=self.deep)

    @torch.no_grad()
    def teacher(self) -> Tensor:
        """t (C, D). Training alone asks for it."""
        if self.told is None:
            templates = SIXTY if self.config.sixty else self.classes.templates
            texts = [template.format(name) for template in templates for name in self.classes.names]
            made = self.backbone.text.encode_texts(texts).unflatten(0, (len(templates), -1))
            self.told = F.normalize(made.mean(0), dim=-1)
        return self.told

    def logits(self, x):
        with self.prompted():
            return super().logits(x)

    def predict(self, x):
        with self.prompted():
            return super().predict(x)

    def loss(self, x, y):
        with self.prompted():
            images = F.normalize(self.backbone.encode_images(x), dim=-1)
        with torch.no_grad():
            plain = F.normalize(self.backbone.encode_images(x), dim=-1) if self.shape.image_layers else images
        texts, told = F.normalize(self.class_features(), dim=-1), self.teacher()
        logits, zero_shot = (self.backbone.scale * one @ other.T for one, other in ((images, texts), (plain, told)))
        apart = self.config.text_weight * F.l1_loss(texts, told) + self.config.image_weight * F.l1_loss(images, plain)
        found, expected = logits.log_softmax(-1), zero_shot.log_softmax(-1)
        shift = F.kl_div(found, expected, reduction="sum", log_target=True) / logits.numel()
        return F.cross_entropy(logits, y) + apart + shift

    @torch.no_grad()
    def end_epoch(self, support):
        """Adds to the average; after the last epoch the prompts are the average."""
        epochs = Schedule(self.config, epoch_steps(self.config, len(support.labels))).epochs
        away = (torch.arange(1, epochs + 1, dtype=torch.float64) / epochs - self.config.centre) / self.config.spread
        weights = -(away[: self.epoch + 1] ** 2) / 2  # logarithms
        share = (weights[-1] - weights.logsumexp(0)).exp().item()  # of what is averaged so far
        for name, value in self.named_parameters():
            self.average.setdefault(name, value.clone()).lerp_(value, share)
        self.epoch += 1
        if self.epoch == epochs:
            for name, value in self.named_parameters():
                value.copy_(self.average[name])
            self.epoch, self.average = 0, {}
