"""What the tests of ports that carry weights share: plug-ins, anchors, towers that are looked at before and after."""

from __future__ import annotations

from dataclasses import asdict

import torch
from formula_towers import formula_factors, formula_model
from open_clip.model import set_model_preprocess_cfg
from open_clip.transform import PreprocessCfg
from tiny_fits import bound
from tiny_towers import NAMES, TEMPLATES, wrap

from carryover.bench.ports.anchors import Anchors
from carryover.methods.base import Classes

CLASSES = Classes("toy", NAMES, TEMPLATES)


def formula_backbone(number, **sizes):
    model = formula_model(number, **sizes)
    set_model_preprocess_cfg(model, asdict(PreprocessCfg(size=model.visual.image_size[0])))
    return wrap(model, f"formula-{number}", "quick_gelu" if sizes.get("quick_gelu") else "gelu")


def plugin_of(name, backbone, classes=CLASSES, spread=0.2, **changes):
    """A plug-in of this backbone with every parameter drawn, bound to it in eval mode."""
    return bound(name, backbone, classes, spread, **changes).eval()


def formula_plugin(backbone, classes=CLASSES):
    """CLIP-LoRA whose image half is ``formula_factors``."""
    method = plugin_of("clip-lora", backbone, classes)
    with torch.no_grad():
        for value, given in zip((method.image.down, method.image.up), formula_factors(2, 48), strict=True):
            value.copy_(given)
    return method


def anchors_of(port, old, new=None, labels=None, kind="support", nouns=("thing",)):
    """Anchors of pixels (N, 3, H, H) for each tower, and nouns, without features."""
    read = (lambda: old), (lambda: old if new is None else new)
    return Anchors(kind, frozenset(port.needs), _labels=labels, _nouns=nouns, _pixels=read)


def logits_of(carried, backbone, pixels, classes=CLASSES):
    carried.eval()
    carried.bind(backbone, classes)
    with carried.attach(backbone), torch.no_grad():
        return carried.predict(pixels)


def bits(backbone):
    """The tower's tensors by name: which they are and all their bytes."""
    values = [*backbone.model.named_parameters(), *backbone.model.named_buffers()]
    return {n: (id(v), v.detach().numpy().tobytes(), v.requires_grad, getattr(v, "grad", None)) for n, v in values}
