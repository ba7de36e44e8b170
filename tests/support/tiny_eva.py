"""A tiny image tower of EVA-02's kind, built by timm."""

from __future__ import annotations

import torch
from open_clip.timm_model import TimmModel
from timm.models.eva import Eva
from tiny_towers import DIM, IMAGE_SIZE, tiny_model
from torch import nn


def tiny_eva(fused, seed=3, depth=2):
    """A model whose image tower is EVA-02's kind: rotary positions, norms inside attention and MLP, SwiGLU."""
    model = tiny_model(seed, False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        visual = TimmModel.__new__(TimmModel)
        nn.Module.__init__(visual)
        visual.image_size, visual.head = (IMAGE_SIZE, IMAGE_SIZE), nn.Sequential()
        visual.trunk = Eva(
            **{"img_size": IMAGE_SIZE, "patch_size": 8, "embed_dim": 48, "depth": depth, "num_heads": 3},
            **{"qkv_fused": fused, "mlp_ratio": 8 / 3, "swiglu_mlp": True, "scale_mlp": True, "num_classes": DIM},
            **{"scale_attn_inner": True, "use_rot_pos_emb": True, "ref_feat_shape": (4, 4), "global_pool": "token"},
        )
        for name, value in visual.named_parameters():
            if value.dim() > 1:
                nn.init.normal_(value, std=0.15)
            elif "bias" in name:
                nn.init.normal_(value, std=0.05)
    visual.preprocess_cfg = model.visual.preprocess_cfg
    model.visual = visual
    return model
