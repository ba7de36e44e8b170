"""Tiny backbones that share neither widths, depth nor tokens: what a plug-in of one meets on another."""

from __future__ import annotations

from dataclasses import asdict

import open_clip
import torch
from open_clip.transform import PreprocessCfg
from tiny_towers import IMAGE_SIZE

from carryover.bench.backbones.archs import Tower
from carryover.bench.backbones.loading import Backbone
from carryover.datasets.micro import words

VIT = {"image_size": IMAGE_SIZE, "layers": 2, "width": 48, "head_width": 16, "patch_size": 8}
RESNET = {"image_size": IMAGE_SIZE, "layers": [1, 1, 1, 1], "width": 8, "head_width": 8}
CLIP = {"context_length": 77, "vocab_size": 49408, "heads": 4}
SIGLIP = {"context_length": words.LENGTH, "vocab_size": words.size(), "heads": 4, "no_causal_mask": True,
          "pool_type": "last", "proj_bias": True}  # fmt: skip
MADE = {  # D, image tower, text tower: of the kind of `micro-base`, `micro-wider` and `micro-siglip`, and a deeper one
    "clip": (32, VIT, {**CLIP, "width": 32, "layers": 3}),
    "alike": (32, VIT, {**CLIP, "width": 32, "layers": 3}),
    "wider": (40, {**VIT, "width": 64}, {**CLIP, "width": 48, "layers": 3}),
    "deeper": (24, RESNET, {**CLIP, "width": 32, "layers": 5}),
    "siglip": (24, RESNET, {**SIGLIP, "width": 24, "layers": 3}),
}


def made(name: str) -> Backbone:
    dim, vision, text = MADE[name]
    more = {"init_logit_bias": -10} if "pool_type" in text else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(sorted(MADE).index(name))
        model = open_clip.CustomTextCLIP(dim, vision, text, **more)
        for block in model.text.transformer.resblocks:  # at its first scale a tiny tower gives all texts one feature
            for weight in (value for value in block.parameters() if value.dim() > 1):
                torch.nn.init.normal_(weight, std=0.15)
        torch.nn.init.normal_(model.text.token_embedding.weight, std=0.1)
    open_clip.model.set_model_preprocess_cfg(model, asdict(PreprocessCfg(size=IMAGE_SIZE)))
    tower = Tower(f"tiny-{name}", "", "gelu", text["width"], dim)
    return Backbone(model, tower, words.Words() if more else open_clip.get_tokenizer("ViT-B-32"))
