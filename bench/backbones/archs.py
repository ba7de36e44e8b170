"""Which backbones an arch pairs: data alone, so that listing them needs no model library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

OTHER_ACTIVATION = "other_activation"  # the control that every arch has: the base's weights under the other activation
PAPER_SUITES = (
    "main", "ood", "components", "lambda", "heads", "condition", "context_length", "layers", "maps", "drift",
)  # fmt: skip
FIRST_SUITES = ("main", "maps", "drift")  # what a first look at micro needs: the answer, and why
ALL_SUITES = (*PAPER_SUITES, "targets")
MANY_SUITES = ("main", "targets", "retention", "chains", "ports", "taught", "drift")  # of the archs with many targets


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
    suites    all that is measured on it (the paper's Table 8 is the main suite alone)
    first     what of that is run where the command line names no suite; empty: all
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
    first: tuple[str, ...] = ()

    @property
    def towers(self) -> dict[str, Tower]:
        """By role: "base", "new", then the names of ``more``."""
        return {"base": self.base, "new": self.new, **self.more}

    @property
    def is_micro(self) -> bool:
        """Whether it is one of this suite's archs of micro models, whose steps are tiny."""
        return self.base.is_micro and not self.source

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
        suites=PAPER_SUITES,
        first=FIRST_SUITES,
    ),
    "vit-b16": Arch(
        "vit-b16",
        Tower("ViT-B-16-quickgelu", "openai", "quick_gelu", 512, 512),
        Tower("EVA02-B-16", "merged2b_s8b_b131k", "gelu", 512, 512),
        controls={"unrelated": Tower("ViT-B-16", "laion2b_s34b_b88k", "gelu", 512, 512)},
        suites=PAPER_SUITES,
    ),
    "vit-l14": Arch(
        "vit-l14",
        Tower("ViT-L-14-quickgelu", "openai", "quick_gelu", 768, 768),
        Tower("EVA02-L-14", "merged2b_s4b_b131k", "gelu", 768, 768),
        # trained with another mean and deviation than CLIP's
        controls={"unrelated": Tower("ViT-L-14", "laion2b_s32b_b82k", "gelu", 768, 768, clip_transform=False)},
    ),
}


ARCHS["siglip-b16"] = Arch(
    "siglip-b16",
    Tower("ViT-B-16-SigLIP", "webli", "gelu", 768, 768, clip_transform=False),
    # its GELU is approximated by tanh, as its config says
    Tower("ViT-B-16-SigLIP2", "webli", "gelu", 768, 768, clip_transform=False),
)


def many(pair: str, **more: Tower) -> Arch:
    """The pair's base and update with all further targets; the control that is one of them is no control there."""
    arch = ARCHS[pair]
    return replace(arch, id=f"{pair}-all", more=more, controls={}, suites=MANY_SUITES, first=())


def b16(model: str, tag: str, activation: str = "gelu", clip_transform: bool = True) -> Tower:
    """Of text width 512, as OpenAI's B/16."""
    return Tower(model, tag, activation, 512, 512, clip_transform=clip_transform)


def l14(model: str, tag: str, activation: str = "gelu", clip_transform: bool = True) -> Tower:
    """Of text width 768, as OpenAI's L/14."""
    return Tower(model, tag, activation, 768, 768, clip_transform=clip_transform)


def h14(model: str, tag: str, activation: str = "gelu", clip_transform: bool = True, dim: int = 1024) -> Tower:
    """Of text width 1024 and 24 blocks, as LAION's H/14."""
    return Tower(model, tag, activation, 1024, dim, clip_transform=clip_transform, layers=24)


def g14(model: str, tag: str, activation: str = "gelu", clip_transform: bool = True, layers: int = 32) -> Tower:
    """Of text width 1280, as LAION's bigG/14."""
    return Tower(model, tag, activation, 1280, 1280, clip_transform=clip_transform, layers=layers)


def so400m(model: str, dim: int = 1152) -> Tower:
    """Of text width 1152 and 27 blocks, as SigLIP's largest."""
    return Tower(model, "webli", "gelu", 1152, dim, clip_transform=False, layers=27)


SO400M = so400m("ViT-SO400M-14-SigLIP2")
METACLIP2 = h14("ViT-H-14-worldwide-quickgelu", "metaclip2_worldwide", "quick_gelu")
DFN5B = h14("ViT-H-14-quickgelu", "dfn5b", "quick_gelu", clip_transform=False)  # pictures are squashed

# Of open_clip's tags; what is left out, and why: `tests/support/open_clip_tags.py`.
MANY = (
    many(
        "micro",
        second=Tower("micro-second", "", "gelu", 96, 96, layers=6),
        larger=Tower("micro-larger", "", "gelu", 96, 96, layers=6),
        unrelated=ARCHS["micro"].controls["unrelated"],
        wider=Tower("micro-wider", "", "gelu", 128, 112, layers=6),
        siglip=Tower("micro-siglip", "", "gelu", 96, 96, layers=6),
    ),
    many(
        "vit-b16",
        laion400m=b16("ViT-B-16", "laion400m_e32"),
        laion2b=b16("ViT-B-16", "laion2b_s34b_b88k"),
        datacomp_xl=b16("ViT-B-16", "datacomp_xl_s13b_b90k"),
        dfn2b=b16("ViT-B-16-quickgelu", "dfn2b", "quick_gelu"),
        metaclip_400m=b16("ViT-B-16-quickgelu", "metaclip_400m", "quick_gelu"),
        metaclip_fullcc=b16("ViT-B-16-quickgelu", "metaclip_fullcc", "quick_gelu"),
        convnext=b16("convnext_base", "laion400m_s13b_b51k"),
        vitamin=b16("ViTamin-B", "datacomp1b"),
        # theirs take pixels as they are, without a mean and a deviation
        mobileclip=b16("MobileCLIP-B", "datacompdr_lt", clip_transform=False),
        mobileclip2=b16("MobileCLIP2-B", "dfndr2b", clip_transform=False),
        mobileclip2_s2=b16("MobileCLIP2-S2", "dfndr2b", clip_transform=False),
        siglip=ARCHS["siglip-b16"].base,
        siglip2=ARCHS["siglip-b16"].new,
        pe=h14("PE-Core-B-16", "meta", clip_transform=False),  # its text tower is as large as an H/14's
        openai_l14=ARCHS["vit-l14"].base,
    ),
    many(
        "vit-l14",
        laion400m=l14("ViT-L-14", "laion400m_e32"),
        laion2b=l14("ViT-L-14", "laion2b_s32b_b82k", clip_transform=False),
        datacomp_xl=l14("ViT-L-14", "datacomp_xl_s13b_b90k"),
        dfn2b=l14("ViT-L-14-quickgelu", "dfn2b", "quick_gelu"),
        dfn2b_39b=l14("ViT-L-14", "dfn2b_s39b"),
        metaclip_400m=l14("ViT-L-14-quickgelu", "metaclip_400m", "quick_gelu"),
        metaclip_fullcc=l14("ViT-L-14-quickgelu", "metaclip_fullcc", "quick_gelu"),
        vitamin=l14("ViTamin-L", "datacomp1b"),
        convnext=replace(l14("convnext_large_d", "laion2b_s26b_b102k_augreg"), layers=16),
        clipa=l14("ViT-L-14-CLIPA", "datacomp1b", clip_transform=False),
        mobileclip2=l14("MobileCLIP2-L-14", "dfndr2b"),
        siglip=h14("ViT-L-16-SigLIP-256", "webli", clip_transform=False),
        siglip2=h14("ViT-L-16-SigLIP2-256", "webli", clip_transform=False),
        siglip2_so400m=SO400M,
        pe=h14("PE-Core-L-14-336", "meta", clip_transform=False),
        laion2b_h14=h14("ViT-H-14", "laion2b_s32b_b79k"),
        dfn5b_h14=DFN5B,
        metaclip2_h14=METACLIP2,
    ),
)
ARCHS |= {arch.id: arch for arch in MANY}
# OpenAI published no H/14: the base is LAION's, the update the next one of the same size and text tower.
ARCHS["vit-h14-all"] = Arch(
    "vit-h14-all",
    h14("ViT-H-14", "laion2b_s32b_b79k"),
    DFN5B,
    more=dict(
        metaclip_fullcc=h14("ViT-H-14-quickgelu", "metaclip_fullcc", "quick_gelu"),
        metaclip_altogether=h14("ViT-H-14", "metaclip_altogether"),
        metaclip2=METACLIP2,
        clipa=h14("ViT-H-14-CLIPA", "datacomp1b", clip_transform=False),
        vitamin=h14("ViTamin-L2", "datacomp1b"),
        convnext=h14("convnext_xxlarge", "laion2b_s34b_b82k_augreg_soup"),
        eva01_g14=h14("EVA01-g-14-plus", "merged2b_s11b_b114k"),
        eva02_e14=h14("EVA02-E-14", "laion2b_s4b_b115k"),
        laion2b_g14=h14("ViT-g-14", "laion2b_s34b_b88k"),
        laion2b_bigg14=g14("ViT-bigG-14", "laion2b_s39b_b160k"),
        metaclip_bigg14=g14("ViT-bigG-14-quickgelu", "metaclip_fullcc", "quick_gelu"),
        siglip2_so400m=SO400M,
        siglip2_gopt=so400m("ViT-gopt-16-SigLIP2-256", dim=1536),
        pe_bigg14=g14("PE-Core-bigG-14-448", "meta", clip_transform=False, layers=24),
    ),
    suites=MANY_SUITES,
)
