"""What is checked of weights: of a file before a model is built, of a tag by its name, and of a loaded model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from open_clip.transformer import QuickGELU
from torch import Tensor, nn

from carryover.bench.backbones.archs import Tower
from carryover.bench.backbones.configs import first_line, model_config
from carryover.bench.backbones.text_parts import hosted, joint_width, width
from carryover.bench.errors import UserError, unknown

CLIP_TRANSFORM = ("shortest", "bicubic", open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
ACTIVATIONS = {"quick_gelu": QuickGELU, "gelu": nn.GELU}


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
    if "hf_model_name" in model_config(tower.model).get("text_cfg", {}):
        if not any(".transformer." in name and ".visual." not in f".{name}" for name in shapes):
            raise UserError(
                f"'{path}' holds no text tower (none of {len(shapes)} tensors is of 'text.transformer'): "
                f"give a checkpoint for {tower.model}"
            )
        return
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
        plain = tower.model.removesuffix("-quickgelu")
        other = {"quick_gelu": plain, "gelu": f"{plain}-quickgelu"}[activation]
        own = "quick_gelu" if model_config(tower.model).get("quick_gelu") else "gelu"
        if activation == own and other not in {*open_clip.list_models()} - {tower.model}:
            return  # one name alone has these weights, and its config knows their activation (RoBERTa's)
        raise UserError(
            f"{tower.model}: the weights '{tower.pretrained}' were trained with another activation than {activation}: "
            f"use the model name '{other}'" + (" and declare no other activation" if other == tower.model else "")
        )


def check(model: Any, tower: Tower) -> None:
    """What must hold after loading: activation, width, joint width, transform, finite weights. Raises UserError naming
    both sides. (Tokens are checked where the text tower meets its tokenizer, ``bench.backbones.layout``.)"""
    if not hosted(model.text):
        check_activation(model, tower)
    check_tag(tower, tower.activation)
    found = width(model.text)
    if found != tower.width:
        raise UserError(f"{tower.model}: text width {found}, expected {tower.width}")
    dim = joint_width(model.text)
    if dim != tower.dim:
        raise UserError(f"{tower.model}: joint width {dim}, expected {tower.dim}")
    check_transform(model, tower)
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise UserError(
                f"{tower.model}: tensor '{name}' holds NaN or infinity; the checkpoint is damaged, get it again"
            )


def check_activation(model: Any, tower: Tower) -> None:
    """Of the text tower. GELU's form, exact or by tanh, is what the model's config says (SigLIP 2's says tanh)."""
    wanted = ACTIVATIONS[tower.activation].__name__
    if tower.activation == "gelu":
        extra = model_config(tower.model).get("text_cfg", {}).get("act_kwargs") or {}
        wanted += tanh(extra.get("approximate", "none"))
    modules = [module for block in model.text.transformer.resblocks for module in block.mlp]
    found = {
        type(module).__name__ + tanh(getattr(module, "approximate", "none"))
        for module in modules
        if not isinstance(module, (nn.Linear, nn.LayerNorm, nn.Identity))
    }
    if found != {wanted}:
        raise UserError(
            f"{tower.model}: the text tower's activation is {', '.join(sorted(found))}, expected {wanted}: OpenAI's "
            "weights need the '-quickgelu' model names of open_clip"
        )


def tanh(form: str) -> str:
    return "" if form == "none" else f" ({form})"


def check_transform(model: Any, tower: Tower) -> None:
    """The picture transform is the one that the weights' tag was published with, and CLIP's where the arch says so."""
    own = PreprocessCfg(**model.visual.preprocess_cfg)
    transform = described(own)
    if tower.clip_transform and transform != CLIP_TRANSFORM:
        raise UserError(f"{tower.model}: the transform is {transform}, expected CLIP's {CLIP_TRANSFORM}")
    if not tower.pretrained or tower.hosted:  # nothing else than the model's own is published
        return
    known = open_clip.get_pretrained_cfg(tower.model, tower.pretrained)
    published = described(PreprocessCfg(**merge_preprocess_dict(PreprocessCfg(), known)))
    if transform != published:
        raise UserError(
            f"{tower.model}: the transform is {transform}, expected that of '{tower.pretrained}', {published}"
        )


def described(transform: PreprocessCfg) -> tuple:
    return transform.resize_mode, transform.interpolation, tuple(transform.mean), tuple(transform.std)
