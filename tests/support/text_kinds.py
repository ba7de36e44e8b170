"""Tiny models with a text tower of each kind that open_clip has, with random weights, and tokenizers of such rows."""

from __future__ import annotations

import zlib
from dataclasses import asdict, dataclass, field
from typing import Any

import open_clip
import torch
from open_clip.transform import PreprocessCfg

CLIP_TOKENS, VOCABULARY, DIM, WIDTH = 49408, 500, 24, 32
BIDIRECTIONAL = {"no_causal_mask": True}
LAST = {**BIDIRECTIONAL, "pool_type": "last", "norm_kwargs": {"eps": 1e-6}}


@dataclass(frozen=True)
class Pieces:
    """Called as open_clip's tokenizers are: a piece is a word or a full stop, its id a checksum. ``by_place``: the
    first word of a text has another id than the same word behind others, as Gemma's and RoBERTa's have."""

    start: tuple[int, ...]
    end: int
    pad: int
    length: int
    by_place: bool = False

    def __call__(self, texts):
        rows = []
        for text in texts:
            words = text.replace(".", " .").split()
            marked = [f"_{word}" if self.by_place and place else word for place, word in enumerate(words)]
            ids = [110 + zlib.crc32(word.encode()) % 380 for word in marked][: self.length - len(self.start) - 1]
            row = [*self.start, *ids, self.end]
            rows.append(row + [self.pad] * (self.length - len(row)))
        return torch.tensor(rows)


@dataclass(frozen=True)
class Kind:
    """``text`` is open_clip's text_cfg, ``named`` the model whose CLIP tokenizer reads for it, else ``tokenizer``."""

    text: dict[str, Any]
    tokenizer: Any = None
    named: str = ""
    start: int = 1
    fast: bool = False
    quick: bool = False
    more: dict[str, Any] = field(default_factory=dict)  # of the model's config


KINDS = {
    "CLIP": Kind({"vocab_size": CLIP_TOKENS}, named="ViT-B-32", fast=True, quick=True),
    "PE": Kind({"vocab_size": CLIP_TOKENS, "context_length": 32}, named="PE-Core-B-16", fast=True),
    "MetaCLIP 2": Kind({"pool_type": "eos", "eos_id": 2}, Pieces((0,), 2, 1, 77), fast=True),
    "MobileCLIP S": Kind({"vocab_size": CLIP_TOKENS, **BIDIRECTIONAL}, named="MobileCLIP2-S0"),
    "CoCa": Kind(
        {"vocab_size": CLIP_TOKENS, "context_length": 76, "embed_cls": True, "output_tokens": True},
        named="coca_ViT-B-32",
        more={
            "multimodal_cfg": {
                "context_length": 76,
                "vocab_size": CLIP_TOKENS,
                "width": WIDTH,
                "heads": 4,
                "layers": 1,
            }
        },
    ),
    "SigLIP": Kind(
        {**LAST, "context_length": 24, "proj_bias": True},
        Pieces((), 1, 1, 24),
        start=0,
        more={"init_logit_bias": -10},
    ),
    "SigLIP 2": Kind(
        {**LAST, "context_length": 24, "proj_bias": True, "act_kwargs": {"approximate": "tanh"}},
        Pieces((), 1, 0, 24, by_place=True),
        start=0,
        more={"init_logit_bias": -10},
    ),
    "CLIPA": Kind({**LAST, "context_length": 32}, Pieces((101,), 0, 0, 32)),
    "first": Kind({**BIDIRECTIONAL, "pool_type": "first"}, Pieces((101,), 102, 0, 77)),
}
VISION = {"image_size": 32, "layers": 2, "width": 48, "head_width": 16, "patch_size": 8}


def config_of(kind: Kind) -> dict[str, Any]:
    """As open_clip's config of a model."""
    text = {"context_length": 77, "vocab_size": VOCABULARY, "width": WIDTH, "heads": 4, "layers": 3, **kind.text}
    attentional = {"attentional_pool": True, "attn_pooler_heads": 4, "output_tokens": True}
    vision = VISION | (attentional if "multimodal_cfg" in kind.more else {})
    return {"embed_dim": DIM, "vision_cfg": vision, "text_cfg": text, "quick_gelu": kind.quick, **kind.more}


def made(name: str) -> tuple[Any, Any, Kind]:
    """(open_clip model, tokenizer, its kind)"""
    kind = KINDS[name]
    model_class = open_clip.CoCa if "multimodal_cfg" in kind.more else open_clip.CustomTextCLIP
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = model_class(**config_of(kind))
        spread(model.text)
    if "multimodal_cfg" in kind.more:  # open_clip leaves it as it finds the memory
        torch.nn.init.zeros_(model.text_decoder.text_projection)
    open_clip.model.set_model_preprocess_cfg(model, asdict(PreprocessCfg(size=32)))
    tokenizer = kind.tokenizer or open_clip.get_tokenizer(kind.named)
    return model.eval().requires_grad_(False), tokenizer, kind


def spread(text: Any) -> None:
    """At open_clip's initial scale a tiny tower gives all texts nearly the same feature, and no bias at all."""
    for name, value in text.named_parameters():
        if name.startswith("transformer.") and value.dim() > 1:
            torch.nn.init.normal_(value, std=0.15)
        elif name.endswith("bias") or "embedding" in name or name == "cls_emb":
            torch.nn.init.normal_(value, std=0.1)


def as_open_clip(model, tokenizer, texts):
    """open_clip's own features of plain texts (CoCa normalises them by default)."""
    return model.encode_text(tokenizer(texts), normalize=False)


def hooked_encode(model, tokenizer, start, names, context, layer=0, deep=None, embedding=None):
    """open_clip's own ``encode_text`` at full length of n times "X" and each name, whose rows a hook puts the context
    into: (n, W), or (C, n, W) -> (C, D). ``deep`` goes in at the blocks behind the first."""
    n, text = context.shape[-2], model.text
    ids = tokenizer([" ".join(["X"] * n + [f"{name}."]) for name in names])
    ids[:, start] = ids[:, start + 1]  # a text's first "X" may be another piece than the next
    handles = []

    def put(rows):
        return lambda x: torch.cat([x[:, :start], rows.expand(len(names), -1, -1), x[:, start + n :]], dim=1)

    def at_block(index, place):
        block = text.transformer.resblocks[index]
        handles.append(block.register_forward_pre_hook(lambda module, args: (place(args[0]), *args[1:])))

    if layer == 0:
        table = embedding or text.token_embedding
        handles.append(table.register_forward_hook(lambda module, args, output: put(context)(output)))
    else:
        at_block(layer, put(context))
    for index, rows in enumerate(deep if deep is not None else (), 1):
        at_block(index, put(rows))
    try:
        return model.encode_text(ids, normalize=False)
    finally:
        for handle in handles:
            handle.remove()
