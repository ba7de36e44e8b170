"""Which backbones an arch pairs: data alone, so that listing them needs no model library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.errors import UserError, unknown

OTHER_ACTIVATION = "other_activation"  # the control that every arch has: the base's weights under the other activation
ALL_SUITES = ("main", "ood", "components", "lambda", "heads", "condition", "context_length", "layers", "drift")


@dataclass(frozen=True)
class Tower:
    """One backbone of an arch.

    model       open_clip model name (the ``-quickgelu`` names for OpenAI's weights: the plain names load them with the
                wrong activation and only warn), ``hf-hub:ORG/NAME`` or ``local-dir:PATH``
    pretrained  open_clip tag; empty for the embedded micro models, hub ids and local files
    activation  of the text tower, asserted after loading; empty = the model's own (an arch of the user's)
    width, dim  W and D, asserted after loading; 0 = the model's own
    layers      blocks of the text tower; 0 = the model's own
    weights     a local checkpoint instead of the tag's download
    clip_transform  whether the picture transform must be CLIP's (mean, deviation, bicubic, shortest side)
    """

    model: str
    pretrained: str = ""
    activation: str = ""
    width: int = 0
    dim: int = 0
    weights: str = ""
    clip_transform: bool = True
    layers: int = 12

    @property
    def label(self) -> str:
        source = "local file" if self.weights else self.pretrained
        return f"{self.model}/{source}" if source else self.model

    @property
    def hosted(self) -> bool:
        """Whether the model's name itself says where config and weights are."""
        return self.model.startswith(("hf-hub:", "local-dir:"))

    @property
    def is_micro(self) -> bool:
        return self.model.startswith("micro-")


@dataclass(frozen=True)
class Arch:
    """A base backbone, the update that plug-ins are moved to, and its default hyper-parameters and datasets.

    more      further updates by name: each has tables of its own beside those of ``new``
    controls  backbones by name that layer drift is compared with, and nothing else: never trained on or evaluated
    datasets  "paper", "micro" or dataset ids
    suites    what is run unless the command line names suites (the paper's Table 8 is the main suite alone)
    source    the TOML file it was read from; empty for those of this suite
    """

    id: str
    base: Tower
    new: Tower
    protocol: str = "published"
    datasets: str | tuple[str, ...] = "paper"
    more: Mapping[str, Tower] = field(default_factory=dict)
    source: str = ""
    controls: Mapping[str, Tower] = field(default_factory=dict)
    suites: tuple[str, ...] = ("main", "drift")

    @property
    def towers(self) -> dict[str, Tower]:
        """By role: "base", "new", then the names of ``more``."""
        return {"base": self.base, "new": self.new, **self.more}

    @property
    def label(self) -> str:
        return " → ".join([self.base.label, ", ".join(t.label for role, t in self.towers.items() if role != "base")])


ARCHS = {
    "micro": Arch(
        "micro",
        Tower("micro-base", "", "quick_gelu", 96, 96, layers=6),
        Tower("micro-update", "", "gelu", 96, 96, layers=6),
        protocol="micro",
        datasets="micro",
        controls={"unrelated": Tower("micro-unrelated", "", "quick_gelu", 96, 96, layers=6)},
        suites=ALL_SUITES,
    ),
    "vit-b16": Arch(
        "vit-b16",
        Tower("ViT-B-16-quickgelu", "openai", "quick_gelu", 512, 512),
        Tower("EVA02-B-16", "merged2b_s8b_b131k", "gelu", 512, 512),
        controls={"unrelated": Tower("ViT-B-16", "laion2b_s34b_b88k", "gelu", 512, 512)},
        suites=ALL_SUITES,
    ),
    "vit-l14": Arch(
        "vit-l14",
        Tower("ViT-L-14-quickgelu", "openai", "quick_gelu", 768, 768),
        Tower("EVA02-L-14", "merged2b_s4b_b131k", "gelu", 768, 768),
        # trained with another mean and deviation than CLIP's
        controls={"unrelated": Tower("ViT-L-14", "laion2b_s32b_b82k", "gelu", 768, 768, clip_transform=False)},
    ),
}


def find_arch(name: str, base_weights: str = "", new_weights: str = "") -> Arch:
    """The arch of that name or TOML file, with local checkpoints put in. Raises UserError for an unknown one or a
    missing file."""
    if name.endswith(".toml"):
        from bench.arch_files import read_arch

        arch = read_arch(Path(name))
    elif name in ARCHS:
        arch = ARCHS[name]
    else:
        raise unknown("arch", name, [*ARCHS, "FILE.toml"])
    for option, path in (("--base-weights", base_weights), ("--new-weights", new_weights)):
        if path and not Path(path).is_file():
            raise UserError(
                f"{option}: no file at '{path}'; give a .safetensors or .pt checkpoint, or leave the option "
                "out to download the published weights"
            )
        tower = arch.base if option == "--base-weights" else arch.new
        if path and tower.hosted:
            raise UserError(
                f"{option}: {tower.model} brings its own weights, so '{path}' would not be read; name the model by its "
                "open_clip name in the arch file to give it a checkpoint"
            )
    base = replace(arch.base, weights=base_weights or arch.base.weights)
    return replace(arch, base=base, new=replace(arch.new, weights=new_weights or arch.new.weights))
