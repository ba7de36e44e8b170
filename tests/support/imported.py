"""Files of other people's plug-ins made in memory, imported, written, read again, and asked."""

from __future__ import annotations

from pathlib import Path

import torch
from local_towers import saved_locally
from tiny_towers import NAMES

from carryover.bench import imports
from carryover.bench.backbones import loading
from carryover.bench.backbones.names import tower_of
from carryover.bench.imports import writing
from carryover.bench.imports.base import FORMATS, Facts, Foreign
from carryover.bench.plugins.contract import config_of
from carryover.bench.plugins.format import read
from carryover.methods.base import METHODS, Classes

PROMPT = "a photo of a {}."


def facts(backbone, **more):
    given = {"backbone": str(backbone), "classes": list(NAMES), "templates": [PROMPT], **more}
    return Facts(given, tower_of, lambda name: loading.load(tower_of(name)))


def foreign(tensors, **plain):
    return Foreign(Path("given.pt"), tensors, plain)


def imported(kind, file, to, told):
    """The plug-in as it is read from the file that it was written to."""
    imports.discover()
    writing.write(writing.imported(file, FORMATS[kind], told), to)
    return read(to)


def answered(plugin, backbone, inputs):
    """Logits of a plug-in on a backbone, of its own prompts; the backbone is then as it was, to the last bit."""
    before = {name: value.clone() for name, value in backbone.model.state_dict().items()}
    parameters = dict(backbone.model.named_parameters())
    kind = METHODS[plugin.method]
    config, wrong = config_of(kind, plugin.header["config"])
    assert config is not None and not wrong
    method = kind(config, plugin.shape).eval()
    method.load_learned(plugin.tensors)
    method.bind(backbone, Classes("any", plugin.shape.classnames, plugin.templates))
    with torch.no_grad(), method.attach(backbone):
        logits = method.predict(inputs)
    assert all(torch.equal(value, before[name]) for name, value in backbone.model.state_dict().items())
    assert all(value is parameters[name] for name, value in backbone.model.named_parameters())
    return logits


def at_full_length(model, pixels, names=NAMES, templates=(PROMPT,), tokenizer=None):
    """open_clip's own encoders at 77 tokens, templates averaged as CLIP's authors do."""
    tokens = tokenizer or loading.tokenizer("ViT-B-32")
    with torch.no_grad():
        images = model.encode_image(pixels, normalize=True)
        texts = torch.stack(
            [model.encode_text(tokens([t.format(n) for n in names]), normalize=True) for t in templates]
        )
        texts = torch.nn.functional.normalize(texts.mean(0), dim=-1)
        return model.logit_scale.exp() * images @ texts.T


def towers_in(folder):
    """Two tiny backbones of the same sizes in folders, ``a`` of QuickGELU and ``b`` of GELU; their names."""
    names = []
    for seed, (name, quick) in enumerate((("a", True), ("b", False))):
        saved_locally(folder / name, 3 + seed, quick)
        names.append(f"local-dir:{folder / name}")
    return names
