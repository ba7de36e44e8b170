"""What can be known of a backbone without its weights: open_clip's config, and a model without values.

Kinds of text towers: "causal" ones read the class at the end of text, "eos" ones too, by another vocabulary;
"bidirectional" ones read it there and attend to the padding behind it; "last" ones read the last position (SigLIP,
CLIPA); "class token" ones append a token (CoCa); "Hugging Face" ones are no tower of open_clip's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial

from carryover.bench.backbones import loading
from carryover.bench.backbones.archs import Tower
from carryover.bench.backbones.attention import Stack, image_stack
from carryover.bench.backbones.configs import text_sizes
from carryover.bench.host.untouched import OwnDraws

CLIP_POSITIONS, CLIP_VOCABULARY = 77, 49408  # where a config says nothing
TINY_TEXT = {"width": 8, "heads": 1, "layers": 1, "context_length": 4, "vocab_size": 8}


@dataclass(frozen=True)
class Sizes:
    """W, D, blocks of the text tower that plug-ins can stand in (0: it has none) and how many tokens it reads; blocks
    and width of the image tower (0: it is no transformer). From a config alone also what the text tower is (see above),
    and whose tokens it reads: "CLIP", or where its tokenizer comes from."""

    label: str
    width: int
    dim: int
    text_layers: int
    positions: int
    image: Callable[[], tuple[int, int]] = field(repr=False, compare=False)
    text: str = ""
    vocabulary: str = ""

    @property
    def image_layers(self) -> int:
        return self.image()[0]

    @property
    def image_width(self) -> int:
        return self.image()[1]


def sizes_of(tower: Tower, cache_dir: str | None = None) -> Sizes:
    """Raises UserError for a model that is not known."""
    config = loading.model_config(tower.model, cache_dir)
    text = config.get("text_cfg") or {}
    width, layers = text_sizes(tower.model, text, cache_dir)
    own = "hf_model_name" not in text
    return Sizes(
        tower.label,
        width,
        config["embed_dim"],
        layers if own else 0,
        positions_of(text),
        partial(image_sizes, tower.model, cache_dir),
        kind_of(text),
        vocabulary_of(text),
    )


def loaded_sizes(backbone: loading.Backbone) -> Sizes:
    """Of one that is loaded."""
    text = backbone.text_stack
    layers, positions = len(text) if text else 0, backbone.text.layout.length
    widths = backbone.width, backbone.dim
    return Sizes(backbone.label, *widths, layers, positions, lambda: of_stack(backbone.image_stack))


def positions_of(text: dict) -> int:
    """Tokens of a text, an appended class token not counted."""
    return text.get("context_length", CLIP_POSITIONS)


def kind_of(text: dict) -> str:
    if "hf_model_name" in text:
        return "Hugging Face"
    if text.get("embed_cls"):
        return "class token"
    if text.get("pool_type", "argmax") == "last":
        return "last"
    if text.get("no_causal_mask"):
        return "bidirectional"
    return "eos" if text.get("pool_type") == "eos" else "causal"


def vocabulary_of(text: dict) -> str:
    named = text.get("hf_tokenizer_name") or text.get("hf_model_name")
    if named:
        return named
    return "CLIP" if text.get("vocab_size", CLIP_VOCABULARY) == CLIP_VOCABULARY else "own"


@cache
def image_sizes(model: str, cache_dir: str | None = None) -> tuple[int, int]:
    """Blocks and width of an image tower; (0, 0) where it is no transformer that plug-ins can stand in. It is built
    without values, beside a text tower of hardly any size."""
    with OwnDraws():
        return of_stack(image_stack(loading.build(model, "meta", cache_dir, text_cfg=TINY_TEXT).visual))


def of_stack(found: Stack | None) -> tuple[int, int]:
    return (len(found), found.width) if found else (0, 0)
