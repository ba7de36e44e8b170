"""Where a backbone's weights come from, told without downloading them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
import open_clip

from carryover.bench.backbones.archs import Tower
from carryover.bench.backbones.loading import MICRO, first_line, hub_files

DOWNLOAD = "to be downloaded"
OPENAI_ON_HUB = {  # the same weights for transformers and for open_clip
    "openai/clip-vit-base-patch32": "timm/vit_base_patch32_clip_224.openai",
    "openai/clip-vit-base-patch16": "timm/vit_base_patch16_clip_224.openai",
    "openai/clip-vit-large-patch14": "timm/vit_large_patch14_clip_224.openai",
    "openai/clip-vit-large-patch14-336": "timm/vit_large_patch14_clip_336.openai",
}
HUB_PATIENCE = 10.0  # seconds to wait for the hub's answer


@dataclass(frozen=True)
class Source:
    """``text``: where from; ``size`` in bytes, None where not known; ``problem``: why they cannot be had, or empty."""

    text: str
    size: int | None = None
    problem: str = ""


def find(tower: Tower, cache_dir: str | None = None) -> Source:
    """A local file, the repository's own, a file in the hub cache, or one that the hub has."""
    if tower.model.startswith("local-dir:"):
        folder = Path(tower.model.removeprefix("local-dir:"))
        files = [path for ending in ("safetensors", "bin", "pt", "pth") for path in folder.glob(f"*.{ending}")]
        if not files:
            return Source("local folder", None, f"no weights in '{folder}'; expected open_clip_model.safetensors")
        return Source(f"local folder '{folder}'", max(path.stat().st_size for path in files))
    if tower.weights or tower.is_micro:
        path = Path(tower.weights) if tower.weights else MICRO / f"{tower.model}.safetensors"
        kind = "local file" if tower.weights else "embedded"
        if not path.is_file():
            return Source(kind, None, f"no file at '{path}'; get the checkout whole or give another checkpoint")
        return Source(f"{kind} '{path}'" if tower.weights else kind, path.stat().st_size)
    repository, names = hub_files(tower)
    if not repository:
        return Source("its own address", None)
    for name in names:
        found = huggingface_hub.try_to_load_from_cache(repository, name, cache_dir=cache_dir)
        if isinstance(found, str):
            return Source("hub cache", Path(found).stat().st_size)
    return ask_hub(repository, names)


def ask_hub(repository: str, names: tuple[str, ...]) -> Source:
    """What the hub says of the first of these files that it has."""
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return Source("hub", None, f"'{repository}' is not in the hub cache and HF_HUB_OFFLINE forbids the download")
    problem: Exception | str = "no such file there"
    for name in names:
        try:
            url = huggingface_hub.hf_hub_url(repository, name)
            return Source(DOWNLOAD, huggingface_hub.get_hf_file_metadata(url, timeout=HUB_PATIENCE).size)
        except Exception as error:  # many kinds, by network library
            problem = error
    reason = first_line(problem) if isinstance(problem, Exception) else problem
    advice = "check the network, or give a checkpoint by --base-weights / --new-weights"
    return Source(
        "hub", None, f"'{repository}' is not in the hub cache and the hub does not answer ({reason}); {advice}"
    )


def tags_of_hub(repository: str) -> list[str]:
    """MODEL/TAG of open_clip for weights that lie in that repository of the hub, or that OpenAI has there for
    transformers; the model of the right activation first. Empty for what open_clip does not have."""
    found = []
    for model, tag in open_clip.list_pretrained():
        published = open_clip.get_pretrained_cfg(model, tag)
        if published.get("hf_hub", "").strip("/") == OPENAI_ON_HUB.get(repository, repository):
            quick = bool(published.get("quick_gelu")) == model.endswith("-quickgelu")
            found.append((not quick, f"{model}/{tag}"))
    return [name for _, name in sorted(found)] if repository else []
