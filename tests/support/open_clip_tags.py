"""Why a tag of open_clip with fitting widths is no target of ``vit-b16-all`` or ``vit-l14-all``.

Data alone: shell patterns of "model/tag" by reason. A test walks what the installed open_clip lists and holds that each
tag of these widths is either a target or under exactly one reason here. An arch file of the user's own may name any of
them, where it is compatible.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

WRONG_ACTIVATION = "the weights were trained with QuickGELU and are read right under the '-quickgelu' name alone"
EARLIER = "a checkpoint of the same training that ended earlier than the target"
POOLS = "an ablation of data filtering (DataComp, CommonPool), weaker than the DataComp-XL target at the same size"
SMALLER = "its vision tower is smaller or coarser than the base's, or trained on less: no update of it"
LARGER_PICTURES = "as another tag of the same family, but for pictures of more pixels, whose encoding costs more"
OTHER_TEXT = "a text tower of another kind: reads 76 tokens and a class token, or is tuned for captions (CoCa)"
NOT_CAUSAL = "its text tower is not causal, so a prompt also attends to the padding after it"
OTHER_TOKENS = "another vocabulary than CLIP's, so a learned prompt would meet other tokens"
SHORT = "its text tower reads 32 tokens, too few for 16 of context and a long name"
DEEPER_TEXT = "its text tower has 16 blocks, the base's 12: a plug-in inside the blocks has no counterpart"
BASES = "the base itself, or the update that the pair has already"

LEFT_OUT: dict[str, dict[str, tuple[str, ...]]] = {
    "vit-b16-all": {
        WRONG_ACTIVATION: ("ViT-B-16/openai", "ViT-B-16/dfn2b", "ViT-B-16/metaclip_*"),
        EARLIER: ("ViT-B-16/laion400m_e31", "MobileCLIP-B/datacompdr"),
        POOLS: ("ViT-B-16/datacomp_l_*", "ViT-B-16/commonpool_*"),
        SMALLER: ("ViT-B-32*/*", "RN101*/*"),
        OTHER_TEXT: ("coca_ViT-B-32/*",),
        NOT_CAUSAL: ("MobileCLIP-S*/*", "MobileCLIP2-S*/*"),
        SHORT: ("PE-Core-*/*",),
        BASES: ("ViT-B-16-quickgelu/openai", "EVA02-B-16/merged2b_s8b_b131k"),
    },
    "vit-l14-all": {
        WRONG_ACTIVATION: ("ViT-L-14/openai", "ViT-L-14/dfn2b", "ViT-L-14/metaclip_*", "ViT-L-14-336/openai"),
        EARLIER: ("ViT-L-14/laion400m_e31",),
        POOLS: ("ViT-L-14/commonpool_*",),
        SMALLER: ("RN50x16*/*", "ViTamin-S-LTT/*", "ViTamin-B-LTT/*"),
        LARGER_PICTURES: (
            "ViT-L-14-336-quickgelu/*",
            "EVA02-L-14-336/*",
            "ViTamin-L-256/*",
            "ViTamin-L-336/*",
            "ViTamin-L-384/*",
        ),
        OTHER_TEXT: ("coca_ViT-L-14/*",),
        NOT_CAUSAL: ("MobileCLIP2-S*/*", "MobileCLIP2-L-14/*"),
        OTHER_TOKENS: ("ViT-B-*-SigLIP*/*", "ViT-L-14-CLIPA*/*"),
        DEEPER_TEXT: ("convnext_large_d*/*",),
        BASES: ("ViT-L-14-quickgelu/openai", "EVA02-L-14/merged2b_s4b_b131k"),
    },
}


def reasons(arch: str, model: str, tag: str) -> list[str]:
    """Every reason that leaves the tag out of the arch; none for a target, and for a tag nobody has judged."""
    return [
        reason
        for reason, patterns in LEFT_OUT.get(arch, {}).items()
        if any(fnmatchcase(f"{model}/{tag}", pattern) for pattern in patterns)
    ]
