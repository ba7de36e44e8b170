"""The method interface: learned state travels to the next backbone, derived state is derived there again.

A method is one class in one file: a frozen config dataclass, learned tensors made in ``__init__``, ``bind`` and
``logits``. Letters: B images, C classes, D joint width, W text-tower width, n context tokens, N support images,
V augmented views.
"""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from carryover.bench.errors import UserError
from carryover.bench.registry import Registry
from carryover.methods.train_config import TrainConfig as TrainConfig


@dataclass(frozen=True)
class Classes:
    """The class names of a dataset as prompts read them, and the templates of its zero-shot classifier."""

    dataset: str
    names: tuple[str, ...]
    templates: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Shape:
    """What a method needs to make its learned tensors: W, D, the names it is trained on, N, and the towers' attention
    blocks (0: the image tower has none, as a ResNet). Saved with the plug-in."""

    width: int
    dim: int
    classnames: tuple[str, ...]
    support: int
    text_layers: int = 0
    image_layers: int = 0
    image_width: int = 0

    @classmethod
    def of(cls, backbone, classnames: Sequence[str], support: int) -> Shape:
        text, image = backbone.text_stack, backbone.image_stack
        size = (len(image), image.width) if image else (0, 0)
        return cls(backbone.width, backbone.dim, tuple(classnames), support, len(text) if text else 0, *size)


@dataclass(frozen=True)
class Support:
    """All that a method may learn from: the few-shot training images and the few-shot validation images.

    features (N, D), labels (N,)   test-transform features of the support images, not normalised
    views (V, N, D)                features of augmented views of the same images; for a method that needs pixels
                                   their pixels (V, N, 3, H, H), indexed alike (``bench.features.pixels.Pictures``)
    fresh                          whether epoch e takes view e - 1 of every image, instead of one of V at random
    val_features, val_labels       the few-shot validation set (4 a class)
    leak                           None, unless the method's config asks for a published protocol that selects on more
                                   than that (Tip-Adapter): then the features and labels it selects on
    """

    features: Tensor
    labels: Tensor
    views: Any  # Tensor or Pictures
    val_features: Tensor
    val_labels: Tensor
    leak: dict[str, tuple[Tensor, Tensor]] | None = None
    fresh: bool = False


class Method(nn.Module):
    """Base class. Only ``nn.Parameter``s (and the buffers named in ``learned_buffers``) are saved and carried over.

    name, paper   as tables show it; authors, year and arXiv number
    depth         where it stands (``bench.places``): "input" (tokens), "inner" (layers of a tower), "output" (the
                  joint space), "towers" (inside both), or "none" (nothing learned)
    needs         what ``logits`` and ``predict`` are given: "features" (B, D) of the frozen image tower; "pixels"
                  (B, 3, H, H), preprocessed, for methods that change or open the towers; "views": to ``predict``
                  (B, V, D), features of ``test_views`` views of each test image, the first its test transform (else
                  as "features")
    whole         whether the plug-in is all that training leaves. False where towers were trained too: what they
                  became stays with the backbone it was trained on (``home``), so no other test set can be tried later
    cost_free     options that do not change how long a step or a prediction takes, beside learning rates and epochs:
                  ``--dry-run`` measures rows of an ablation that differ in them alone only once
    transductive  whether it predicts an image with the help of other test images, as test-time caches do. Every table
                  then says so; a method that does not declare it is asked twice about some images, and marked
    least_views   augmented views that ``start`` wants where a fresh one is made for every epoch

    CONTRIBUTING.md says what a method may have beside these: ``usual``, ``pairs``, ``asks``, ``sized``. They
    are not here, so that no run's key hangs on them.
    """

    name = ""
    paper = ""
    depth = "none"
    needs = "features"
    whole = True
    transductive = False
    least_views = 1
    cost_free: tuple[str, ...] = ()
    learned_buffers: tuple[str, ...] = ()
    Config = TrainConfig
    # What protocol "micro", a short schedule, changes in Config.
    micro: dict = {"steps": 150, "warmup_epochs": 0, "crop": (0.7, 1.0)}

    def __init__(self, config, shape: Shape):
        super().__init__()
        self.config, self.shape = config, shape
        #: Options that few-shot validation chose (`candidates`), and what each candidate reached. Plug-in files and
        #: records hold both.
        self.chosen: dict[str, float] = {}
        self.tried: list[dict[str, float]] = []
        #: What training made of the backbone itself, by its fingerprint; not saved, and no part of the plug-in.
        self.home: dict[str, dict[str, Tensor]] = {}

    @classmethod
    def published(cls, dataset: str, shots: int) -> dict:
        """What the published protocol changes in ``Config`` for this dataset and number of shots."""
        return {}

    def bind(self, backbone, classes: Classes) -> None:
        """Derive everything that depends on this backbone or these class names. Called again for every target;
        calling it twice changes nothing."""
        raise NotImplementedError

    def logits(self, x: Tensor) -> Tensor:
        """Image features (B, D), not normalised -> (B, C)."""
        raise NotImplementedError

    def start(self, support: Support) -> None:
        """Initialise from the support set; called once, on the base backbone, after ``bind``."""

    def candidates(self) -> Sequence[dict[str, float]]:
        """Values of options that sources leave open. With several, the trainer fits each side by side from the same
        start on the same batches, and keeps the one that is best on few-shot validation (`bench.training.chosen`).
        For methods on features alone."""
        return [{}]

    def choose(self, values: dict[str, float]) -> None:
        """Take a candidate's values, after training or as a plug-in file names them."""
        self.config, self.chosen = replace(self.config, **values), dict(values)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(self.logits(x), y)

    def end_epoch(self, support: Support) -> None:
        """Called by the trainer after each epoch."""

    def finish(self, support: Support) -> None:
        """Choose what is chosen after training, e.g. by few-shot validation."""

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        return self.logits(x)

    def attach(self, backbone) -> contextlib.AbstractContextManager:
        """For methods that change the backbone itself: a context manager that undoes the change on exit, to the last
        bit. Training and prediction run inside, each entered after ``bind``."""
        return contextlib.nullcontext()

    def trained(self) -> list[tuple[float, list[nn.Parameter]]]:
        """What the trainer updates, as (factor on the learning rate, parameters); asked for inside ``attach``."""
        return [(1.0, [value for value in self.parameters() if value.requires_grad])]

    @classmethod
    def test_views(cls, config) -> tuple[int, tuple[float, float]]:
        """With needs = "views": how many views of each test image (V, the test transform included), and the area range
        of their crops."""
        return 1, (1.0, 1.0)

    @classmethod
    def own_tokens(cls, config) -> int:
        """Learned tokens in the prompt of each class that no other class shares: with them the cost of a class grows as
        with the tokens of its name."""
        return 0

    @classmethod
    def selects_on_test(cls, config) -> bool:
        """Whether this config asks for a published protocol that chooses on test images. Only then does the support
        set hold them (``leak``), and every table says so beside the method's numbers."""
        return False

    @classmethod
    def marks(cls, config, base) -> list[str]:
        """What every table says beside the method's numbers, e.g. what of it the base backbone cannot take."""
        return []

    # -- runs side by side ---------------------------------------------------------------------------------------------

    @classmethod
    def alike(cls, config) -> Hashable | None:
        """Runs on one dataset whose values here agree can be trained as one batched computation, with the same result
        (``losses``); None: each by itself."""
        return None

    def tokens_a_step(self, batch: int) -> int:
        """Size of one run's training step, in tokens of the text tower; bounds how many runs go side by side."""
        return 1

    @classmethod
    def losses(cls, methods: Sequence[Method], xs: Sequence[Tensor], ys: Sequence[Tensor]) -> list[Tensor]:
        """Each method's loss on its own batch."""
        return [method.loss(x, y) for method, x, y in zip(methods, xs, ys, strict=True)]

    # -- what travels --------------------------------------------------------------------------------------------------

    def learned(self) -> dict[str, Tensor]:
        """The tensors that are saved: trainable parameters and the buffers named as learned."""
        tensors = {name: value for name, value in self.named_parameters() if value.requires_grad}
        buffers = dict(self.named_buffers())
        return {
            name: value.detach().cpu().contiguous()
            for name, value in {**tensors, **{name: buffers[name] for name in self.learned_buffers}}.items()
        }

    def load_learned(self, tensors: dict[str, Tensor]) -> None:
        """Put saved tensors back. Raises UserError when names or shapes are not this method's."""
        own = {name: tuple(value.shape) for name, value in self.learned().items()}
        given = {name: tuple(value.shape) for name, value in tensors.items()}
        if own != given:
            raise UserError(f"plug-in does not fit {type(self).__name__}: it holds {given}, expected {own}")
        with torch.no_grad():
            for name, value in [*self.named_parameters(), *self.named_buffers()]:
                if name in tensors:
                    value.copy_(tensors[name])

    def class_rows(self, classes: Classes) -> Tensor:
        """For methods with a learned row per class: where the rows of these classes are, by name (repeats in order)."""
        where: dict[str, list[int]] = {}
        for row, name in enumerate(self.shape.classnames):
            where.setdefault(name, []).append(row)
        missing = [name for name in classes.names if not where.get(name)]
        if missing:
            raise UserError(
                f"{self.name} has learned nothing for {len(missing)} of the classes, e.g. '{missing[0]}': "
                "a method with weights per class can only be evaluated on classes it was trained on"
            )
        used: dict[str, int] = {}
        rows = []
        for name in classes.names:
            rows.append(where[name][min(used.get(name, 0), len(where[name]) - 1)])
            used[name] = used.get(name, 0) + 1
        return torch.tensor(rows)


def cosine_logits(scale: Tensor, x: Tensor, weights: Tensor) -> Tensor:
    """``scale * cos(x, weights)``: (B, D) against (C, D), or against one classifier an image (B, C, D) -> (B, C)."""
    x, weights = F.normalize(x, dim=-1), F.normalize(weights, dim=-1)
    if weights.dim() == 3:
        return scale * torch.einsum("bd,bcd->bc", x, weights)
    return scale * x @ weights.T


METHODS: Registry[type[Method]] = Registry("method", Method)
register = METHODS.register
