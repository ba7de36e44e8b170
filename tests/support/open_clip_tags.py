"""Why a tag of open_clip is in none of the suite's lists of backbones: shell patterns of "model/tag" by reason.

A test walks what the installed open_clip lists, and holds that each tag is a backbone of an arch or under exactly one
reason here. What a plug-in can do with a tag is another question, which `run_all.py ls targets` answers: an arch file
may name any of them, but for those under ``WRONG_ACTIVATION``, whose weights have another name.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

WRONG_ACTIVATION = "the weights were trained with QuickGELU and are read right under the '-quickgelu' name alone"
EARLIER = (
    "a checkpoint of the same training as a listed one, or of a sister's, that ended earlier or was averaged into it"
)
POOLS = "an ablation of data filtering (DataComp, CommonPool), weaker than the listed DataComp tag of the same size"
SMALLER = "its vision tower is smaller or coarser than those of the bases: no update of any of them"
OLDER = "a tower or data of 2021 and 2022 (OpenAI's ResNets, YFCC and CC12M, LAION-400M): nobody moves to it now"
LARGER_PICTURES = "as a listed tag of the same family, but for pictures of more pixels, whose encoding costs more"
SISTER = "a listed tag of the same family and about the same size stands for it"
CAPTIONS = "trained to write captions too (CoCa), which costs accuracy and a decoder that nothing here uses"
LANGUAGES = "its text tower reads many languages, or is another library's; MetaCLIP 2 stands for these"
TRAP = "its config in open_clip says 256 pixels, the weights were trained on 384"

LEFT_OUT: dict[str, tuple[str, ...]] = {
    WRONG_ACTIVATION: (
        *("RN50/*", "RN101/*", "RN50x4/*", "RN50x16/*", "RN50x64/*", "ViT-B-32/openai", "ViT-B-32/laion400m_*"),
        *("ViT-B-16/openai", "ViT-L-14/openai", "ViT-L-14-336/openai", "ViT-B-16/dfn2b", "ViT-L-14/dfn2b"),
        *("ViT-*[2-6]/metaclip_400m", "ViT-*[2-6]/metaclip_fullcc", "ViT-H-14/dfn5b", "ViT-H-14-378/dfn5b"),
        "ViT-H-14-worldwide/*",
    ),
    EARLIER: (
        *("ViT-B-16/laion400m_e31", "ViT-L-14/laion400m_e31", "MobileCLIP-B/datacompdr", "ViT-g-14/laion2b_s12b_b42k"),
        *("convnext_xxlarge/laion2b_s34b_b82k_augreg", "convnext_xxlarge/laion2b_s34b_b82k_augreg_rewind"),
    ),
    POOLS: ("ViT-B-16/datacomp_l_*", "ViT-B-16/commonpool_*", "ViT-L-14/commonpool_*"),
    SMALLER: (
        *(
            "ViT-B-32-quickgelu/*",
            "ViT-B-32/laion2b_*",
            "ViT-B-32/datacomp_*",
            "ViT-B-32/commonpool_*",
            "ViT-B-32-*256/*",
        ),
        *("MobileCLIP-S*/*", "MobileCLIP2-S0/*", "ViTamin-S*/*", "PE-Core-[TS]-*/*"),
    ),
    OLDER: ("RN*-quickgelu/*", "ViT-B-16-plus-240/*", "EVA01-g-14/*"),
    LARGER_PICTURES: (
        *("ViT-L-14-336-quickgelu/*", "EVA02-L-14-336/*", "ViT-H-14-378-quickgelu/*", "ViT-H-14-worldwide-378/*"),
        *("ViTamin-L-*/*", "ViTamin-L2-*/*", "ViT-[LH]-14-CLIPA-336/*", "convnext_large_d_320/*"),
        *("ViT-*-SigLIP-384/*", "ViT-*-SigLIP-512/*", "ViT-*-SigLIP-378/*", "ViT-B-16-SigLIP-256/*"),
        *("ViT-*-SigLIP2-384/*", "ViT-*-SigLIP2-512/*", "ViT-*-SigLIP2-378/*", "ViT-B-16-SigLIP2-256/*"),
        "ViT-SO400M-16-SigLIP2-256/*",
    ),
    SISTER: (
        *(
            "convnext_base_w*/*",
            "MobileCLIP2-S[34]/*",
            "EVA02-E-14-plus/*",
            "ViTamin-B-LTT/*",
            "ViTamin-XL-256/*",
            "ViTamin-XL-336/*",
        ),
        *("ViT-SO400M-14-SigLIP/*", "ViT-bigG-14-CLIPA*/*", "ViT-bigG-14-worldwide*/*"),
    ),
    CAPTIONS: ("coca_*/*",),
    LANGUAGES: ("nllb-*/*", "xlm-roberta-*/*", "roberta-*/*", "*-SigLIP-i18n-256/*"),
    TRAP: ("ViTamin-XL-384/*",),
}


def reasons(model: str, tag: str) -> list[str]:
    """Every reason that leaves a tag out; none for a listed one, and for one that nobody has judged."""
    name = f"{model}/{tag}"
    return [why for why, patterns in LEFT_OUT.items() if any(fnmatchcase(name, pattern) for pattern in patterns)]
