"""CoPrompt (Roy & Etemad 2024, ICLR; ShuvenduRoy/CoPrompt): MaPLe with an adapter behind each tower, held consistent
with the towers as they are.

An adapter makes ``x`` to ``(1 - r) x + r ReLU(B ReLU(A x))``. The loss is ``CE + weight ((1 - cos(w, t)) +
(1 - cos(f, v)))``, means of cosines: v of another view of the same picture, t of one sentence of each class, another
at each step. Sentences come from a file; without one from the 60 templates of PromptSRC. Prompts and adapters travel.
The file is long, for it reads sentences, and names what the released code sets for each dataset.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from carryover.bench.errors import UserError
from carryover.methods import maple
from carryover.methods.base import cosine_logits, register
from carryover.methods.descriptions import by_class, content_of, stamp, stamped, texts_of
from carryover.methods.promptsrc import SIXTY

OPTION = "coprompt.file"
IMAGE_SHARE, TEXT_SHARE, REDUCTION = 0.1, 0.2, 4  # r of the adapters, and D / hidden units
# (depth, context_length, weight) where the released code overwrites its config file.
PUBLISHED = {
    "imagenet": (12, 4, 8.0),
    "caltech101": (12, 4, 4.0),
    "oxford_pets": (12, 2, 0.1),
    "stanford_cars": (12, 4, 4.0),
    "flowers102": (9, 4, 8.0),
    "food101": (9, 4, 0.5),
    "fgvc_aircraft": (9, 4, 2.0),
    "sun397": (12, 4, 8.0),
    "dtd": (12, 2, 8.0),
    "eurosat": (12, 2, 0.1),
    "ucf101": (12, 4, 2.0),
}


@dataclass(frozen=True)
class Config(maple.Config):
    """``weight`` of the consistency terms; ``file``: the path of a JSON file of sentences, as Descriptions reads them,
    to which its size and hash are added. Raises UserError for a file that cannot be read or is not such JSON."""

    epochs: int = 8
    weight: float = 1.0
    file: str = ""

    def __post_init__(self):
        if self.context_length < 1 or self.depth < 1 or self.weight < 0:
            raise UserError(
                "coprompt: context_length and depth are 1 or more, weight is not negative; found "
                f"{self.context_length}, {self.depth}, {self.weight}"
            )
        super().__post_init__()
        object.__setattr__(self, "file", stamped(self.file, OPTION))


@register("coprompt")
class CoPrompt(maple.MaPLe):
    name = "CoPrompt"
    paper = "Roy & Etemad 2024, arXiv 2306.01195"
    pairs = True  # a step sees two views of each picture
    Config = Config
    micro = {**maple.MaPLe.micro, "lr": 0.03}
    cost_free = ("weight", "file")

    def __init__(self, config, shape):
        super().__init__(config, shape)
        self.text_adapter, self.image_adapter = adapter(shape.dim), adapter(shape.dim)
        self.draw = torch.Generator().manual_seed(int(torch.randint(1 << 62, ())))  # of the sentences
        self.told: Tensor | None = None

    @classmethod
    def published(cls, dataset, shots):
        found = dict(zip(("depth", "context_length", "weight"), PUBLISHED.get(dataset, ()), strict=False))
        return {**found, "epochs": 5} if dataset == "food101" else found

    @classmethod
    def marks(cls, config, base):
        own = [] if config.file else [f"{cls.name} without a file of sentences: its teacher reads templates"]
        return [*super().marks(config, base), *own]

    def bind(self, backbone, classes):
        """Raises UserError where the words are fewer than n tokens, or the joint width is another."""
        if backbone.dim != self.shape.dim:
            raise UserError(
                f"{self.name}: the joint space of {backbone.label} has width {backbone.dim}, the plug-in was learned "
                f"in one of {self.shape.dim}: it can only be carried over to one like it"
            )
        try:
            super().bind(backbone, classes)
        except UserError as error:
            raise UserError(str(error).replace("maple:", "coprompt:")) from None
        self.classes, self.told = classes, None

    def changes(self, backbone):
        return contextlib.nullcontext()  # a step asks for the tower as it is, too

    def class_features(self):
        return blended(super().class_features(), self.text_adapter, TEXT_SHARE)

    def image_features(self, x: Tensor) -> Tensor:
        with super().changes(self.backbone):
            return blended(self.backbone.encode_images(x), self.image_adapter, IMAGE_SHARE)

    def logits(self, x):
        return cosine_logits(self.backbone.scale, self.image_features(x), self.class_features())

    @torch.no_grad()
    def predict(self, x):
        state = [value._version for value in self.parameters()]
        if self.kept is None or self.kept[0] != state:
            self.kept = state, self.class_features()
        return cosine_logits(self.backbone.scale, self.image_features(x), self.kept[1])

    def loss(self, x, y):
        """x (2, B, 3, H, H): two views of each picture; (B, 3, H, H) is both."""
        x, other = x if x.dim() == 5 else (x, x)
        images, texts, told = self.image_features(x), self.class_features(), self.sentences()
        with torch.no_grad():
            plain = self.backbone.encode_images(other)
        now = told[int(torch.randint(len(told), (), generator=self.draw))]
        apart = 2 - F.cosine_similarity(texts, now).mean() - F.cosine_similarity(images, plain).mean()
        return F.cross_entropy(cosine_logits(self.backbone.scale, images, texts), y) + self.config.weight * apart

    @torch.no_grad()
    def sentences(self) -> Tensor:
        """(S, C, D): features of S sentences of each class, as many as the class with the fewest has. Training alone
        asks for them."""
        if self.told is None:
            texts = self.texts()
            count = min(map(len, texts))
            made = self.backbone.text.encode_texts([own[i] for i in range(count) for own in texts])
            self.told = made.unflatten(0, (count, -1))
        return self.told

    def texts(self) -> list[list[str]]:
        """The sentences of each class. Raises UserError for a file that has changed, or has none for some class."""
        if not self.config.file:
            return by_class(list(SIXTY), self.classes, "")
        path, _, _ = self.config.file.rpartition("#")
        content, where = content_of(path, OPTION), f"{OPTION} '{path}'"
        if not self.config.file.endswith(stamp(content)):
            raise UserError(f"{where} is another than when the run was planned; start the run again")
        return by_class(texts_of(content, where), self.classes, where)


def adapter(dim: int) -> nn.Sequential:
    hidden = max(dim // REDUCTION, 1)
    return nn.Sequential(nn.Linear(dim, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, dim, bias=False), nn.ReLU())


def blended(x: Tensor, change: nn.Module, share: float) -> Tensor:
    return (1 - share) * x + share * change(x)
