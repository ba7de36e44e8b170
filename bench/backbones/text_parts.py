"""The parts of a text tower, open_clip's own or one of Hugging Face's in open_clip's wrapper (``HFTextEncoder``)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from carryover.bench.errors import UserError

OWN = ("token_embedding", "positional_embedding", "transformer", "ln_final", "pool_type")


def hosted(text: Any) -> bool:
    """Whether it is one of Hugging Face's. Raises UserError for a tower of neither kind."""
    if hasattr(text, "pooler") and hasattr(getattr(text, "transformer", None), "get_input_embeddings"):
        return True
    for need in OWN:
        if not hasattr(text, need):
            raise UserError(
                f"text tower {type(text).__name__} has no '{need}': learned prompts need open_clip's TextTransformer "
                "or HFTextEncoder; choose a backbone with one of these"
            )
    return False


def embedding(text: Any) -> Any:
    """The module that looks up token embeddings. Some scale them (NLLB's), so that their weight is not what enters."""
    return text.transformer.get_input_embeddings() if hosted(text) else text.token_embedding


def width(text: Any) -> int:
    """W: of the token embeddings, where a context stands."""
    return embedding(text).weight.shape[1]


def joint_width(text: Any) -> int:
    """D"""
    found = projection(text)
    return text.output_dim if found is None else found.shape[1]


def layers(text: Any) -> int:
    return text.config.num_hidden_layers if hosted(text) else len(text.transformer.resblocks)


def projection(text: Any) -> Tensor | None:
    """The last matrix (W, D), from the tower's own width into the joint space; None where it is no matrix (an MLP)."""
    found = text.proj if hosted(text) else text.text_projection
    if found is None or isinstance(found, nn.Identity):
        return torch.eye(width(text), device=embedding(text).weight.device)
    if isinstance(found, nn.Linear):
        return found.weight.T.detach()
    return found.detach() if isinstance(found, Tensor) else None


def project(text: Any, features: Tensor) -> Tensor:
    """Features of one of open_clip's own towers (..., W) -> (..., D) fp32, multiplied in the type that they have."""
    found, dtype = text.text_projection, features.dtype
    if found is None:
        return features.float()
    if isinstance(found, nn.Linear):
        bias = None if found.bias is None else found.bias.to(dtype)
        return F.linear(features, found.weight.to(dtype), bias).float()
    return (features @ found.to(dtype)).float()
