"""A tiny pair of towers with random weights, like CLIP and its update."""

from __future__ import annotations

from dataclasses import asdict

import open_clip
import torch
from open_clip.transform import PreprocessCfg

from carryover.bench.backbones import archs, loading

WIDTH = DIM = 32
IMAGE_SIZE = 32
NAMES = ("cat", "red double decker bus", "aeroplane", "boeing 737-800")
TEMPLATES = ("a photo of a {}.",)


def text_config(**more):
    return {"context_length": 77, "vocab_size": 49408, "width": WIDTH, "heads": 4, "layers": 3, **more}


def tiny_model(seed, quick_gelu, dim=DIM, **text):
    """A two-layer ViT and a three-layer text tower with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vision = {"image_size": IMAGE_SIZE, "layers": 2, "width": 48, "head_width": 16, "patch_size": 8}
        model = open_clip.CustomTextCLIP(dim, vision, text_config(**text), quick_gelu=quick_gelu)
        # At open_clip's initial scale a tiny tower gives all names nearly the same feature; spread them.
        for block in model.text.transformer.resblocks:
            for weight in (
                block.attn.in_proj_weight,
                block.attn.out_proj.weight,
                block.mlp.c_fc.weight,
                block.mlp.c_proj.weight,
            ):
                torch.nn.init.normal_(weight, std=0.15)
        torch.nn.init.normal_(model.text.token_embedding.weight, std=0.1)
    open_clip.model.set_model_preprocess_cfg(model, asdict(PreprocessCfg(size=IMAGE_SIZE)))  # create_model does so
    return model


def tiny_pair():
    """Two models like CLIP and its update: QuickGELU to GELU, text weights perturbed, joint space made anew."""
    base, new = tiny_model(0, True), tiny_model(1, False)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        for name, value in base.text.named_parameters():
            if name != "text_projection":
                noise = torch.randn_like(value) * 0.05 * (value.std() if value.numel() > 1 else 1)
                new.text.get_parameter(name).copy_(value + noise)
        new.logit_scale.fill_(3.0)
    return base, new


def wrap(model, name, activation, dim=DIM):
    tower = archs.Tower(name, "", activation, WIDTH, dim)
    return loading.Backbone(model, tower, open_clip.get_tokenizer("ViT-B-32"))
