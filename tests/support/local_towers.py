"""Tiny towers in a directory as open_clip saves one for the hub."""

from __future__ import annotations

import json

from safetensors.torch import save_file
from tiny_towers import DIM, text_config, tiny_model

MICRO = '[base]\nmodel = "micro-base"\n[new]\nmodel = "micro-update"\n'


def saved_locally(folder, seed, quick_gelu, mean=(0.5, 0.5, 0.5), dim=DIM, **text):
    """A tiny model in a directory as open_clip saves one for the hub."""
    folder.mkdir()
    model = tiny_model(seed, quick_gelu, dim, **text)
    save_file(
        {name: value.contiguous() for name, value in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    vision = {"image_size": 32, "layers": 2, "width": 48, "head_width": 16, "patch_size": 8}
    config = {"embed_dim": dim, "quick_gelu": quick_gelu, "vision_cfg": vision, "text_cfg": text_config(**text)}
    preprocess = {"mean": list(mean), "std": [0.5, 0.5, 0.5]}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    return model
