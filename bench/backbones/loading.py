"""The one place that knows open_clip: how towers are loaded, checked and identified."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from open_clip.transform import PreprocessCfg, image_transform_v2
from open_clip.transformer import QuickGELU
from torch import Tensor, nn

from carryover.bench.backbones.archs import Arch, Tower
from carryover.bench.backbones.attention import Stack, image_stack, text_stack
from carryover.bench.backbones.text_tower import EOT, SOS, TextTower
from carryover.bench.errors import UserError, unknown
from carryover.bench.host.paths import MICRO_WEIGHTS

MICRO = MICRO_WEIGHTS
CLIP_TRANSFORM = ("shortest", "bicubic", open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
ACTIVATIONS = {"quick_gelu": QuickGELU, "gelu": nn.GELU}


class Backbone:
    """A frozen image and text tower, as methods and the evaluator see it.

    text         the exact fast text path (``TextTower``)
    scale        exp(logit_scale), this backbone's own (a float tensor of no dimension)
    width, dim   W and D
    fingerprint  sha256 over architecture and every weight; part of every key of a file made with this backbone
    """

    def __init__(self, model: Any, tower: Tower, tokenizer, budget: int = 4 << 30, precision: str = "fp32"):
        self.model = model.eval().requires_grad_(False)
        self.tower, self.label = tower, tower.label
        self.text = TextTower(model.text, tokenizer, budget, precision=precision)
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

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Preprocessed pixels (B, 3, H, H) -> features (B, D), fp32, projected, not normalised. Differentiable in
        whatever a method has attached to the image tower."""
        half = self.text.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16) if half else contextlib.nullcontext():
            return self.model.encode_image(pixels.to(self.device)).float()

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
    return Backbone(model.to(device), tower, tokenizer(tower.model), budget, precision)


def resolve(tower: Tower, cache_dir: str | None = None) -> Tower:
    """The tower with activation, W and D taken from its open_clip config where they were not declared, before any
    weights are read. Raises UserError for a model that is not known or has no text tower of CLIP's kind."""
    if tower.activation and tower.width and tower.dim and tower.layers:
        return tower
    config = model_config(tower.model, cache_dir)
    text = config.get("text_cfg", {})
    if "hf_model_name" in text or "width" not in text:
        raise UserError(
            f"{tower.model}: its text tower is not open_clip's own (no text width in its config); learned prompts need "
            "CLIP's text tower: choose another model"
        )
    activation = tower.activation or ("quick_gelu" if config.get("quick_gelu") else "gelu")
    if activation not in ACTIVATIONS:
        raise unknown(f"activation of {tower.model}", activation, ACTIVATIONS)
    check_tag(tower, activation)
    return replace(
        tower, activation=activation, width=text["width"], dim=config["embed_dim"], layers=text.get("layers", 12)
    )


def resolve_arch(arch: Arch, cache_dir: str | None = None) -> Arch:
    """All towers resolved. Raises UserError before any work."""
    more = {name: resolve(tower, cache_dir) for name, tower in arch.more.items()}
    return replace(arch, base=resolve(arch.base, cache_dir), new=resolve(arch.new, cache_dir), more=more)


def model_config(name: str, cache_dir: str | None = None) -> dict:
    """open_clip's config of a model name, hub id or local directory. Raises UserError where there is none."""
    if name.startswith("micro-"):
        open_clip.add_model_config(MICRO)
    try:
        config = open_clip.get_model_config(name)
    except (OSError, ValueError, RuntimeError, AttributeError, TypeError, KeyError) as error:
        raise UserError(
            f"{name}: its open_clip config cannot be had: {first_line(error)}; check name and network"
        ) from error
    if config is not None and not (isinstance(config, dict) and isinstance(config.get("text_cfg", {}), dict)):
        raise UserError(f"{name}: its open_clip config is not as expected; take the model's own open_clip_config.json")
    if config is None:
        raise unknown("open_clip model", name, open_clip.list_models(), "open_clip.list_models() names them")
    return config


def build(name: str, device: str = "cpu", **changes) -> nn.Module:
    """An open_clip model with random weights; ``force_custom_text`` gives both towers of a pair the same names. On the
    device "meta" it has names and sizes alone. ``changes`` are parts of its config that are to be others."""
    if name.startswith("micro-"):
        open_clip.add_model_config(MICRO)
    logger, level = logging.getLogger(), logging.getLogger().level
    logger.setLevel(logging.ERROR)  # open_clip warns of the random weights that were asked for
    try:
        with torch.device(device):
            return open_clip.create_model(name, load_weights=False, force_custom_text=True, device=device, **changes)
    finally:
        logger.setLevel(level)


@cache
def tokenizer(name: str):
    """open_clip's tokenizer of a model. Raises UserError where the model needs another package's that is not to be
    had; CLIP's own comes with open_clip."""
    if name.startswith("micro-"):
        open_clip.add_model_config(MICRO)
    try:
        return open_clip.get_tokenizer(name)
    except (ImportError, OSError, ValueError) as error:  # one of transformers', which need not be there, or its files
        raise UserError(
            f"{name}: its tokenizer is not CLIP's and cannot be made here ({first_line(error)}): prompts of another "
            "vocabulary cannot be carried over; choose a model with CLIP's tokenizer"
        ) from error


def read_micro(tower: Tower) -> nn.Module:
    from carryover.datasets.micro import checkpoint

    model = build(tower.model)
    model.load_state_dict(
        checkpoint.read(Path(tower.weights) if tower.weights else MICRO / f"{tower.model}.safetensors")
    )
    return model


def read_published(tower: Tower, cache_dir: str | None) -> nn.Module:
    published = open_clip.get_pretrained_cfg(tower.model, tower.pretrained) if tower.pretrained else {}
    transform = {name: published[name] for name in ("mean", "std", "interpolation", "resize_mode") if name in published}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="QuickGELU mismatch")  # `check` asserts it, see below
        return open_clip.create_model(
            tower.model,
            tower.weights or tower.pretrained or None,
            force_custom_text=True,
            force_preprocess_cfg=transform,  # the tag's, also where the weights come from a local file
            cache_dir=cache_dir,
            weights_only=True,
            require_pretrained=True,
        )


def hub_files(tower: Tower) -> tuple[str, tuple[str, ...]]:
    """The hub repository of a tag's weights and the files that open_clip looks for there, first choice first; no
    repository where the tag's weights lie at an address of their own."""
    if tower.model.startswith("hf-hub:"):
        return tower.model.removeprefix("hf-hub:"), ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
    repository, _, name = open_clip.get_pretrained_cfg(tower.model, tower.pretrained).get("hf_hub", "").rpartition("/")
    return repository, (name,) if name else ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def projection(backbone: Backbone) -> Tensor:
    """The text tower's last matrix (W, D), from its own width into the joint space."""
    found = backbone.model.text.text_projection
    return (found.weight.T if isinstance(found, nn.Linear) else found).detach()


def check_checkpoint(tower: Tower) -> None:
    """Width and declared activation of a local checkpoint, before any model is built around it.

    A checkpoint says its activation nowhere; one written by this suite (``save``) does so in its header.
    """
    path = Path(tower.weights)
    shapes, declared = {}, None
    try:
        if path.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, "pt") as file:
                declared = (file.metadata() or {}).get("activation")
                shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
        else:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            state = state.get("state_dict", state)
            shapes = {name: tuple(value.shape) for name, value in state.items() if isinstance(value, Tensor)}
    except Exception as error:
        if "TorchScript" in str(error):
            raise UserError(
                f"'{path}' is a TorchScript archive, which is a program and is not run; expected weights alone: the "
                "tag 'openai' downloads the same ones, or save its state_dict() by torch.save and give that file"
            ) from error
        raise UserError(
            f"'{path}' cannot be read as weights ({first_line(error)}); expected safetensors, or a .pt file "
            "that torch.load(weights_only=True) takes"
        ) from error
    for name, shape in shapes.items():
        if name.split("module.")[-1].split("text.")[-1] == "positional_embedding" and len(shape) == 2:
            if shape[1] != tower.width:
                raise UserError(
                    f"'{path}' has text width {shape[1]}, {tower.model} needs {tower.width}: "
                    "give this architecture's checkpoint, or choose the --arch that fits the file"
                )
            break
    else:
        raise UserError(
            f"'{path}' holds no text tower (no 'positional_embedding' among {len(shapes)} tensors): "
            f"give a CLIP checkpoint for {tower.model}"
        )
    if declared and declared != tower.activation:
        raise UserError(
            f"'{path}' says its activation is {declared}, {tower.model} was declared with "
            f"{tower.activation}: accuracy would drop without an error; use the matching model"
        )


def declared_activation(tower: Tower) -> str:
    """What a local checkpoint's header says of its activation; empty where it says nothing, as most do."""
    from safetensors import safe_open

    if not tower.weights.endswith(".safetensors"):
        return ""
    with safe_open(tower.weights, "pt") as file:
        return (file.metadata() or {}).get("activation", "")


def check_tag(tower: Tower, activation: str) -> None:
    """A tag's weights were trained with one activation. Raises UserError where the model's is the other."""
    published = open_clip.get_pretrained_cfg(tower.model, tower.pretrained) if tower.pretrained else {}
    if tower.pretrained and not published and not tower.weights:
        tags = open_clip.list_pretrained_tags_by_model(tower.model)
        if not tags:
            own = "its weights are embedded" if tower.is_micro else "open_clip has no weights of it"
            raise UserError(
                f"unknown pretrained tag of {tower.model} '{tower.pretrained}': {own}; leave the tag out"
                + ("" if tower.is_micro else " and give a checkpoint")
            )
        raise unknown(f"pretrained tag of {tower.model}", tower.pretrained, tags)
    if published and bool(published.get("quick_gelu", False)) != (activation == "quick_gelu"):
        other = {"quick_gelu": "the plain model name", "gelu": "the '-quickgelu' model name"}[activation]
        raise UserError(
            f"{tower.model}: the weights '{tower.pretrained}' were trained with another activation than {activation}: "
            f"use {other}"
        )


def check(model: Any, tower: Tower) -> None:
    """What must hold after loading: activation, width, joint width, transform, tokens. Raises UserError naming both
    sides."""
    blocks = model.text.transformer.resblocks
    found = {type(module) for block in blocks for module in block.mlp if not isinstance(module, nn.Linear)}
    if found != {ACTIVATIONS[tower.activation]}:
        names = ", ".join(sorted(kind.__name__ for kind in found))
        raise UserError(
            f"{tower.model}: the text tower's activation is {names}, expected {tower.activation}: OpenAI's "
            "weights need the '-quickgelu' model names of open_clip"
        )
    check_tag(tower, tower.activation)
    width = model.text.positional_embedding.shape[1]
    if width != tower.width:
        raise UserError(f"{tower.model}: text width {width}, expected {tower.width}")
    projection = model.text.text_projection
    dim = projection.out_features if isinstance(projection, nn.Linear) else projection.shape[1]
    if dim != tower.dim:
        raise UserError(f"{tower.model}: joint width {dim}, expected {tower.dim}")
    own = PreprocessCfg(**model.visual.preprocess_cfg)
    transform = (own.resize_mode, own.interpolation, tuple(own.mean), tuple(own.std))
    if tower.clip_transform and transform != CLIP_TRANSFORM:
        raise UserError(f"{tower.model}: the transform is {transform}, expected CLIP's {CLIP_TRANSFORM}")
    tokens = tokenizer(tower.model)(["a"])[0].tolist()
    if tokens[0] != SOS or EOT not in tokens:
        raise UserError(
            f"{tower.model}: its tokenizer starts a text with {tokens[0]}, CLIP's with {SOS}: prompts of another "
            "vocabulary cannot be carried over; choose a model with CLIP's tokenizer"
        )
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise UserError(
                f"{tower.model}: tensor '{name}' holds NaN or infinity; the checkpoint is damaged, get it again"
            )


def fingerprint(model: nn.Module, tower: Tower) -> str:
    """sha256 over the architecture (open_clip's config, activation) and every tensor's name, type, shape and bytes."""
    config = open_clip.get_model_config(tower.model)
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


def first_line(error: BaseException) -> str:
    """At most 200 characters of it, cut between words."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line if len(line) <= 200 else f"{line[:200].rpartition(' ')[0] or line[:199]}…"
