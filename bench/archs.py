"""Which backbones an arch pairs: data alone, so that listing them needs no model library."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from bench.errors import UserError, unknown


@dataclass(frozen=True)
class Tower:
    """One backbone of an arch.

    model       open_clip model name (the ``-quickgelu`` names for OpenAI's weights: the plain names load them with the
                wrong activation and only warn)
    pretrained  open_clip tag; empty for the embedded micro models
    activation  of the text tower, asserted after loading
    width, dim  W and D, asserted after loading
    weights     a local checkpoint instead of the tag's download
    """

    model: str
    pretrained: str
    activation: str
    width: int
    dim: int
    weights: str = ""

    @property
    def label(self) -> str:
        source = "local file" if self.weights else self.pretrained
        return f"{self.model}/{source}" if source else self.model


@dataclass(frozen=True)
class Arch:
    """A base backbone, the update that plug-ins are moved to, and its default hyper-parameters and datasets."""

    id: str
    base: Tower
    new: Tower
    protocol: str = "published"
    datasets: str = "paper"

    @property
    def towers(self) -> dict[str, Tower]:
        return {"base": self.base, "new": self.new}


ARCHS = {
    "micro": Arch(
        "micro",
        Tower("micro-base", "", "quick_gelu", 96, 96),
        Tower("micro-update", "", "gelu", 96, 96),
        protocol="micro",
        datasets="micro",
    ),
    "vit-b16": Arch(
        "vit-b16",
        Tower("ViT-B-16-quickgelu", "openai", "quick_gelu", 512, 512),
        Tower("EVA02-B-16", "merged2b_s8b_b131k", "gelu", 512, 512),
    ),
    "vit-l14": Arch(
        "vit-l14",
        Tower("ViT-L-14-quickgelu", "openai", "quick_gelu", 768, 768),
        Tower("EVA02-L-14", "merged2b_s4b_b131k", "gelu", 768, 768),
    ),
}


def find_arch(name: str, base_weights: str = "", new_weights: str = "") -> Arch:
    """The arch of that name, with local checkpoints put in. Raises UserError for an unknown one or a missing file."""
    if name not in ARCHS:
        raise unknown("arch", name, ARCHS)
    arch = ARCHS[name]
    for option, path in (("--base-weights", base_weights), ("--new-weights", new_weights)):
        if path and not Path(path).is_file():
            raise UserError(
                f"{option}: no file at '{path}'; give a .safetensors or .pt checkpoint, or leave the option "
                "out to download the published weights"
            )
    return replace(arch, base=replace(arch.base, weights=base_weights), new=replace(arch.new, weights=new_weights))
