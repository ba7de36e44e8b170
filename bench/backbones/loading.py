"""The one place that knows open_clip: how towers are loaded and identified."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from open_clip.transform import PreprocessCfg, image_transform_v2
from torch import Tensor, nn

from carryover.bench.backbones.archs import Arch, Tower
from carryover.bench.backbones.attention import Stack, image_stack, text_stack
from carryover.bench.backbones.configs import MICRO, first_line, here, model_config, text_sizes, tokenizer
from carryover.bench.backbones.text_parts import projection as text_projection
from carryover.bench.backbones.text_tower import TextTower
from carryover.bench.backbones.weight_checks import ACTIVATIONS, check, check_checkpoint, check_tag
from carryover.bench.errors import UserError, unknown


class Backbone:
    """A frozen image and text tower, as methods and the evaluator see it.

    text         the exact text path (``TextTower``)
    scale        exp(logit_scale), this backbone's own (a float tensor of no dimension)
    bias         what a sigmoid model adds to every logit (of no dimension), else None; a softmax over classes does not
                 depend on it
    width, dim   W and D
    fingerprint  sha256 over architecture and every weight; part of every key of a file made with this backbone
    """

    def __init__(self, model: Any, tower: Tower, tokenizer, budget: int = 4 << 30, precision: str = "fp32"):
        self.model = model.eval().requires_grad_(False)
        self.tower, self.label = tower, tower.label
        try:
            self.text = TextTower(model.text, tokenizer, budget, precision=precision)
        except UserError as error:
            raise UserError(f"{tower.model}: {error}") from error
        self.width, self.dim = self.text.width, tower.dim
        self.fingerprint = fingerprint(model, tower)
        self.preprocess_config = PreprocessCfg(**model.visual.preprocess_cfg)
        self.preprocess = image_transform_v2(self.preprocess_config, is_train=False)
        self._zero_shot: dict = {}

    @property
    def device(self) -> torch.device:
        return self.text.device

    @property
    def text_stack(self) -> Stack | None:
        return text_stack(self.model.text)

    @property
    def image_stack(self) -> Stack | None:
        """None where the image tower is no transformer."""
        return image_stack(self.model.visual)

    @property
    def scale(self) -> Tensor:
        return self.model.logit_scale.detach().exp()

    @property
    def bias(self) -> Tensor | None:
        found = getattr(self.model, "logit_bias", None)
        return None if found is None else found.detach().reshape(())

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Preprocessed pixels (B, 3, H, H) -> features (B, D), fp32, projected, not normalised. Differentiable in
        whatever a method has attached to the image tower."""
        half = self.text.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16) if half else contextlib.nullcontext():
            return self.model.encode_image(pixels.to(self.device), normalize=False).float()  # CoCa's default is True

    def classifier(self, classes) -> Tensor:
        """The zero-shot classifier (C, D), rows of length 1: each template's features normalised, averaged over
        templates, normalised again (Radford et al. 2021, section 3.1.4). Differentiable in whatever a method has
        attached to the text tower."""
        features = [
            F.normalize(self.text.features([t.format(name) for name in classes.names]), dim=-1)
            for t in classes.templates
        ]
        return F.normalize(torch.stack(features).mean(0), dim=-1)

    @torch.no_grad()
    def zero_shot(self, classes) -> Tensor:
        """``classifier`` of the tower as it was loaded, kept for all that ask."""
        key = (classes.names, classes.templates)
        if key not in self._zero_shot:
            self._zero_shot[key] = self.classifier(classes)
        return self._zero_shot[key].clone()

    def to(self, device) -> Backbone:
        self.model.to(device)
        self._zero_shot.clear()
        return self


def load(
    tower: Tower,
    device: str | torch.device = "cpu",
    cache_dir: str | None = None,
    budget: int = 4 << 30,
    precision: str = "fp32",
) -> Backbone:
    """Load, check, freeze. Raises UserError for weights that are missing, damaged or of another shape or activation."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # fp32 means fp32
    tower = resolve(tower, cache_dir)
    if tower.weights:
        check_checkpoint(tower)
    try:
        model = read_micro(tower) if tower.is_micro else read_published(tower, cache_dir)
    except UserError:
        raise
    except Exception as error:  # a file that nobody vouches for makes its readers raise all kinds
        source = tower.weights or f"open_clip tag {tower.pretrained}"
        raise UserError(
            f"{tower.model}: cannot load {source}: {first_line(error)}; give a checkpoint of this "
            "architecture by --base-weights / --new-weights, or check the network"
        ) from error
    check(model, tower)
    return Backbone(model.to(device), tower, tokenizer(tower.model, cache_dir), budget, precision)


def resolve(tower: Tower, cache_dir: str | None = None) -> Tower:
    """The tower with activation, W and D taken from its open_clip config where they were not declared, before any
    weights are read. Raises UserError for a model that is not known."""
    if tower.activation and tower.width and tower.dim and tower.layers:
        return tower
    config = model_config(tower.model, cache_dir)
    text = config.get("text_cfg", {})
    width, layers = text_sizes(tower.model, text, cache_dir)
    activation = tower.activation or ("quick_gelu" if config.get("quick_gelu") else "gelu")
    if activation not in ACTIVATIONS:
        raise unknown(f"activation of {tower.model}", activation, ACTIVATIONS)
    check_tag(tower, activation)
    return replace(tower, activation=activation, width=width, dim=config["embed_dim"], layers=layers)


def resolve_arch(arch: Arch, cache_dir: str | None = None) -> Arch:
    """All towers resolved. Raises UserError before any work."""
    more = {name: resolve(tower, cache_dir) for name, tower in arch.more.items()}
    return replace(arch, base=resolve(arch.base, cache_dir), new=resolve(arch.new, cache_dir), more=more)


def build(name: str, device: str = "cpu", cache_dir: str | None = None, **changes) -> nn.Module:
    """An open_clip model with random weights; ``force_custom_text`` gives both towers of a pair the same names. On the
    device "meta" it has names and sizes alone. No weights are fetched. ``changes`` are parts of its config that are to
    be others. Raises UserError where transformers, or a config of its, is missing."""
    if name.startswith("micro-"):
        open_clip.add_model_config(MICRO)
    logger, level = logging.getLogger(), logging.getLogger().level
    logger.setLevel(logging.ERROR)  # open_clip warns of the random weights that were asked for
    try:
        with torch.device(device):
            model = open_clip.create_model(
                here(name, cache_dir),
                load_weights=False,
                pretrained_text=False,
                force_custom_text=True,
                device=device,
                **changes,
            )
            if hasattr(model, "text_decoder"):  # CoCa's, which open_clip leaves as it finds the memory
                nn.init.zeros_(model.text_decoder.text_projection)
            return model
    except (RuntimeError, OSError, ValueError) as error:
        if "hf_model_name" not in model_config(name).get("text_cfg", {}):
            raise
        raise UserError(f"{name}: its text tower cannot be built here: {first_line(error)}") from error
    finally:
        logger.setLevel(level)


def read_micro(tower: Tower) -> nn.Module:
    from carryover.datasets.micro import checkpoint

    model = build(tower.model)
    model.load_state_dict(
        checkpoint.read(Path(tower.weights) if tower.weights else MICRO / f"{tower.model}.safetensors")
    )
    return model


def read_published(tower: Tower, cache_dir: str | None) -> nn.Module:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="QuickGELU mismatch")  # `check` asserts it, see below
        return open_clip.create_model(
            tower.model,
            tower.weights or tower.pretrained or None,
            force_custom_text=True,
            force_preprocess_cfg=transform_of_tag(tower),  # the tag's, also where the weights come from a local file
            cache_dir=cache_dir,
            weights_only=True,
            require_pretrained=True,
        )


def transform_of_tag(tower: Tower) -> dict:
    """What open_clip's list says of the pictures that a tag's weights were trained on."""
    published = open_clip.get_pretrained_cfg(tower.model, tower.pretrained) if tower.pretrained else {}
    return {name: published[name] for name in ("mean", "std", "interpolation", "resize_mode") if name in published}


def hub_files(tower: Tower) -> tuple[str, tuple[str, ...]]:
    """The hub repository of a tag's weights and the files that open_clip looks for there, first choice first; no
    repository where the tag's weights lie at an address of their own."""
    if tower.model.startswith("hf-hub:"):
        return tower.model.removeprefix("hf-hub:"), ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
    repository, _, name = open_clip.get_pretrained_cfg(tower.model, tower.pretrained).get("hf_hub", "").rpartition("/")
    return repository, (name,) if name else ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def projection(backbone: Backbone) -> Tensor:
    """The text tower's last matrix (W, D), from its own width into the joint space. Raises UserError for an MLP."""
    found = text_projection(backbone.model.text)
    if found is None:
        raise UserError(f"{backbone.label}: its text tower ends in an MLP, not in a matrix")
    return found


def declared_activation(tower: Tower) -> str:
    """What a local checkpoint's header says of its activation; empty where it says nothing, as most do."""
    from safetensors import safe_open

    if not tower.weights.endswith(".safetensors"):
        return ""
    with safe_open(tower.weights, "pt") as file:
        return (file.metadata() or {}).get("activation", "")


def fingerprint(model: nn.Module, tower: Tower) -> str:
    """sha256 over the architecture (open_clip's config, activation) and every tensor's name, type, shape and bytes."""
    config = open_clip.get_model_config(here(tower.model))
    digest = hashlib.sha256(json.dumps([config, tower.activation], sort_keys=True).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def save(model: nn.Module, path: Path, activation: str) -> None:
    """Write a model's weights as safetensors with its activation in the header (for checkpoints made locally)."""
    from safetensors.torch import save_file

    save_file(
        {name: value.contiguous() for name, value in model.state_dict().items()},
        path,
        metadata={"activation": activation},
    )
