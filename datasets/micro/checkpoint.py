"""The micro models' files: fp16 safetensors that leave out every token embedding no caption ever trained.

A vocabulary of 49,408 tokens would be nine tenths of a small model. An untrained row is instead a pure integer hash of
(token, dimension), the same on every machine, and training starts from these rows, so leaving them out loses nothing.
A salt in the header gives a model initial rows of its own, for one that shall share nothing with the others.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .hashing import mix

WEIGHTS = Path(__file__).parent / "weights"
EMBEDDING = "text.token_embedding.weight"
EMBEDDING_STD = 0.02  # CLIP's initialisation of token embeddings (Radford et al. 2021, reference code)
VOCABULARY = 49408


def initial_rows(tokens: Sequence[int], width: int, salt: int = 0) -> Tensor:
    """(len(tokens), width) fp32 rows of a token embedding before training; exact in fp16 too. Another salt gives
    other rows."""
    counter = np.asarray(tokens, np.uint64)[:, None] * np.uint64(1 << 20) + np.arange(width, dtype=np.uint64)
    counter = counter ^ mix(np.array([salt], np.uint64))  # mix(0) = 0
    steps = (mix(mix(counter) + np.uint64(1)) >> np.uint64(53)).astype(np.float64)  # 11 bits: fp16 holds them exactly
    unit = (2 * steps + 1 - 2048) / 2048  # uniform, odd multiples of 2^-11
    scale = 2.0 ** round(np.log2(EMBEDDING_STD * 3**0.5))  # uniform of about that deviation
    return torch.from_numpy((unit * scale).astype(np.float32))


def save(
    model: nn.Module,
    path: str | Path,
    token_ids: Sequence[int],
    metadata: dict[str, str] | None = None,
    salt: int = 0,
) -> None:
    """Write the model's state as fp16, with embedding rows only for ``token_ids``; the others are initial rows of
    ``salt``."""
    kept = sorted(set(int(t) for t in token_ids))
    state, own = {}, VOCABULARY
    for name, tensor in model.state_dict().items():
        tensor = tensor.detach().cpu()
        if name == EMBEDDING:
            state["token_ids"], own = torch.tensor(kept, dtype=torch.int32), len(tensor)
            tensor = tensor[kept]
        state[name] = (tensor.half() if tensor.is_floating_point() else tensor).contiguous().clone()
    part = Path(f"{path}.part")
    header = {"format": "pt", **(metadata or {}), **({"salt": str(salt)} if salt else {})}
    header |= {"vocabulary": str(own)} if own != VOCABULARY else {}
    save_file(state, str(part), header)
    part.chmod(0o644)
    part.replace(path)  # a reader never sees half a file


def read(path: str | Path) -> dict[str, Tensor]:
    """The full fp32 state dict (all embedding rows) of a file that ``save`` wrote."""
    with safe_open(str(path), framework="pt") as file:
        state, header = {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
        salt, vocabulary = int(header.get("salt", 0)), int(header.get("vocabulary", VOCABULARY))
    kept = state.pop("token_ids").long()
    state = {name: t.float() if t.is_floating_point() else t for name, t in state.items()}
    rows = state[EMBEDDING]
    state[EMBEDDING] = initial_rows(range(vocabulary), rows.shape[1], salt).index_copy(0, kept, rows)
    return state


def metadata(path: str | Path) -> dict[str, str]:
    """The header: world version, architecture, how it was trained."""
    with safe_open(str(path), framework="pt") as file:
        return dict(file.metadata() or {})


def config(name: str) -> dict:
    """open_clip's model config of ``micro-base`` or another model shipped here."""
    return json.loads((WEIGHTS / f"{name}.json").read_text())
