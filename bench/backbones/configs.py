"""What open_clip knows of a model by its name alone: its config and its tokenizer."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import open_clip
from open_clip.pretrained import download_pretrained_from_hf

from carryover.bench.errors import UserError, unknown
from carryover.bench.host.paths import MICRO_WEIGHTS

MICRO = MICRO_WEIGHTS
HUGGING_FACE = {  # W and blocks of the encoders that open_clip's configs name, which they do not say
    "roberta-base": (768, 12),
    "xlm-roberta-base": (768, 12),
    "xlm-roberta-large": (1024, 24),
    "facebook/nllb-200-distilled-600M": (1024, 12),
    "facebook/nllb-200-distilled-1.3B": (1024, 24),
    "google/mt5-base": (768, 12),
    "google/mt5-xl": (2048, 24),
}
HUB = "hf-hub:"
_fetched: dict[str, str] = {}
INSTALL = "install it with: pip install transformers sentencepiece"


def model_config(name: str, cache_dir: str | None = None) -> dict:
    """open_clip's config of a model name, hub id or local directory. Raises UserError where there is none."""
    if name.startswith("micro-"):
        open_clip.add_model_config(MICRO)
    try:
        config = open_clip.get_model_config(here(name, cache_dir))
    except (OSError, ValueError, RuntimeError, AttributeError, TypeError, KeyError) as error:
        raise UserError(
            f"{name}: its open_clip config cannot be had: {first_line(error)}; check name and network"
        ) from error
    if config is not None and not (
        isinstance(config, dict)
        and isinstance(config.get("text_cfg", {}), dict)
        and isinstance(config.get("embed_dim"), int)
    ):
        raise UserError(f"{name}: its open_clip config is not as expected; take the model's own open_clip_config.json")
    if config is None:
        raise unknown("open_clip model", name, open_clip.list_models(), "open_clip.list_models() names them")
    return config


def here(name: str, cache_dir: str | None = None) -> str:
    """The name by which open_clip finds a model's config on this machine: of a hub id the folder that its config was
    fetched into, without weights, last by whoever named a cache. Raises OSError where it cannot be had."""
    if not name.startswith(HUB):
        return name
    if cache_dir or name not in _fetched:
        path = download_pretrained_from_hf(name.removeprefix(HUB), "open_clip_config.json", cache_dir=cache_dir)
        _fetched[name] = f"local-dir:{Path(path).parent}"
    return _fetched[name]


def text_sizes(name: str, text: dict, cache_dir: str | None = None) -> tuple[int, int]:
    """W and the number of blocks of a model's text tower, from the ``text_cfg`` of its config. Raises UserError for
    a Hugging Face encoder whose own config cannot be had."""
    encoder = text.get("hf_model_name")
    if not encoder:
        return text.get("width", 512), text.get("layers", 12)  # what open_clip takes where a config says nothing
    if encoder in HUGGING_FACE:
        return HUGGING_FACE[encoder]
    try:
        from open_clip.hf_configs import arch_dict
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(encoder, cache_dir=cache_dir)
        return getattr(config, arch_dict[config.model_type]["config_names"]["width"]), config.num_hidden_layers
    except ImportError as error:
        raise UserError(f"{name}: its text tower '{encoder}' needs the package transformers; {INSTALL}") from error
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise UserError(
            f"{name}: the config of its text tower '{encoder}' cannot be had: {first_line(error)}; check name and "
            "network"
        ) from error


@cache
def tokenizer(name: str, cache_dir: str | None = None) -> Any:
    """open_clip's tokenizer of a model. Raises UserError where it needs a package or files that are not to be had;
    CLIP's own comes with open_clip."""
    if name == "micro-siglip":
        from carryover.datasets.micro.words import Words

        return Words()
    if name.startswith("micro-"):
        open_clip.add_model_config(MICRO)
    try:
        return open_clip.get_tokenizer(name, cache_dir=cache_dir)
    except ImportError as error:
        raise UserError(f"{name}: its tokenizer needs a package: {first_line(error)}; {INSTALL}") from error
    except Exception as error:  # transformers raises all kinds where a tokenizer's files are not to be had
        raise UserError(
            f"{name}: its tokenizer cannot be made here: {first_line(error)}; check the network, or put its files into "
            "the folder of --hub-cache"
        ) from error


def first_line(error: BaseException) -> str:
    """At most 200 characters of it, cut between words."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line if len(line) <= 200 else f"{line[:200].rpartition(' ')[0] or line[:199]}…"
