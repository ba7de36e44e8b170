"""The field's zero-shot prompts for each dataset (KaiyangZhou/CoOp, trainers/zsclip.py; Tip-Adapter for ImageNet)."""

PHOTO = ("a photo of a {}.",)

# OpenAI's subset of its 80 templates, found by forward selection (CLIP: Prompt_Engineering_for_ImageNet.ipynb;
# Tip-Adapter: datasets/imagenet.py). The zero-shot ImageNet number of the paper's Table 2 fits these, that of its
# Table 3 the single template.
IMAGENET_SEVEN = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)

TEMPLATES: dict[str, tuple[str, ...]] = {
    "imagenet": IMAGENET_SEVEN,
    "caltech101": PHOTO,
    "oxford_pets": ("a photo of a {}, a type of pet.",),
    "stanford_cars": PHOTO,
    "flowers102": ("a photo of a {}, a type of flower.",),
    "food101": ("a photo of {}, a type of food.",),
    "fgvc_aircraft": ("a photo of a {}, a type of aircraft.",),
    "sun397": PHOTO,
    "dtd": ("{} texture.",),
    "eurosat": ("a centered satellite photo of {}.",),
    "ucf101": ("a photo of a person doing {}.",),
    "imagenet_v2": PHOTO,
    "imagenet_sketch": PHOTO,
    "imagenet_a": PHOTO,
    "imagenet_r": PHOTO,
}
