"""The published towers at their true size with random weights: the paper's loaded from local files in both formats,
those of other kinds as they are built, their image and text features held to open_clip's own calls. The ViT-L/14 pair
(6 GB of memory, 4 GB of disk) needs ``--full-size``."""

from __future__ import annotations

import gc
from dataclasses import replace

import open_clip
import pytest
import torch
from PIL import Image
from references import relative
from text_kinds import Pieces, as_open_clip, hooked_encode

from carryover.bench.backbones import loading
from carryover.bench.backbones.archs import ARCHS, Tower
from carryover.bench.errors import UserError

pytestmark = pytest.mark.long

TOWERS = {f"{arch}-{role}": tower for arch in ("vit-b16", "vit-l14") for role, tower in ARCHS[arch].towers.items()}
NAMES = ["a photo of a cat.", "a photo of a 2012 Ferrari 458 Italia Convertible."]
TOLERANCE = 2e-5  # of features of length about 1 to 20, fp32


@pytest.fixture(scope="module", params=TOWERS)
def checkpoint(request, tmp_path_factory):
    """(tower, folder with weights.safetensors and weights.pt, open_clip's model)."""
    tower = TOWERS[request.param]
    if request.param.startswith("vit-l14") and not request.config.getoption("--full-size"):
        pytest.skip("needs --full-size")
    folder = tmp_path_factory.mktemp(request.param)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = loading.build(tower.model)
        if tower.pretrained == "openai":  # biases that open_clip starts at zero would hide a swap
            for name, value in model.named_parameters():
                if name.endswith("bias"):
                    torch.nn.init.normal_(value, std=0.02)
    loading.save(model, folder / "weights.safetensors", tower.activation)
    torch.save(model.state_dict(), folder / "weights.pt")
    del model
    yield tower, folder
    for path in folder.iterdir():
        path.unlink()


@pytest.fixture(scope="module")
def reference(checkpoint):
    """Image and text features, and pixels, by open_clip's own loading, transform and encoding at 77 tokens."""
    tower, folder = checkpoint
    model, _, transform = open_clip.create_model_and_transforms(
        tower.model, pretrained=str(folder / "weights.safetensors"), force_custom_text=True
    )
    pixels = torch.stack([transform(picture) for picture in pictures()])
    with torch.no_grad():
        return model.eval().encode_image(pixels), model.encode_text(open_clip.get_tokenizer(tower.model)(NAMES)), pixels


def pictures():
    return [
        Image.linear_gradient("L").resize((300, 200)).convert("RGB"),
        Image.radial_gradient("L").convert("CMYK").convert("RGB"),
    ]


@pytest.mark.parametrize("ending", ["safetensors", "pt"])
def test_features_are_those_of_open_clips_own_calls(checkpoint, reference, ending):
    tower, folder = checkpoint
    images, texts, pixels = reference
    loaded = loading.load(replace(tower, weights=str(folder / f"weights.{ending}")))
    assert torch.equal(torch.stack([loaded.preprocess(picture) for picture in pictures()]), pixels)
    for found, expected in ((loaded.encode_images(pixels), images), (loaded.text.encode_texts(NAMES), texts)):
        assert found.shape == (2, tower.dim)
        torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE * expected.norm(dim=-1).max().item())
        assert not torch.allclose(found[0], found[1], atol=1e-3 * found[0].norm().item())  # the two are told apart


def test_a_checkpoint_under_the_other_activation_is_refused(checkpoint):
    tower, folder = checkpoint
    other = {"gelu": "quick_gelu", "quick_gelu": "gelu"}[tower.activation]
    with pytest.raises(UserError, match="activation"):
        loading.load(replace(tower, activation=other, weights=str(folder / "weights.safetensors")))


def test_plain_model_name_with_openai_weights_is_refused(checkpoint):
    tower, folder = checkpoint
    if tower.pretrained != "openai":
        pytest.skip("only OpenAI's weights are QuickGELU")
    plain = tower.model.removesuffix("-quickgelu")
    with pytest.raises(UserError, match="GELU"):
        loading.load(replace(tower, model=plain, weights=str(folder / "weights.pt")))


# ---- towers of other kinds -------------------------------------------------------------------------------------------

OTHERS = {  # rows as the published tokenizers', which need transformers, lay them out; None: CLIP's own tokenizer
    "ViT-B-16-SigLIP": Pieces((), 1, 1, 64),
    "ViT-B-16-SigLIP2": Pieces((), 1, 0, 64, by_place=True),
    "PE-Core-B-16": None,
    "MobileCLIP2-S0": None,
    "coca_ViT-B-32": None,
    "ViT-L-14-CLIPA": Pieces((101,), 0, 0, 32),
    "ViT-H-14": None,
    "ViT-H-14-quickgelu": None,  # MetaCLIP's, of the shape of MetaCLIP 2's H/14 but for its vocabulary
}


@pytest.fixture(scope="module", params=OTHERS)
def other(request):
    """(open_clip's model, the same one as a backbone)"""
    name = request.param
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = loading.build(name)
        for key, value in model.named_parameters():  # biases that open_clip starts at zero would hide a swap
            if key.endswith("bias") and value.dim():
                torch.nn.init.normal_(value, std=0.02)
    tower = loading.resolve(Tower(name, clip_transform=False, layers=0))
    loading.check(model, tower)
    yield model, loading.Backbone(model, tower, OTHERS[name] or loading.tokenizer(name))
    model.to("meta")  # up to 4 GB, which cycles of references would hold on to while the next is built
    gc.collect()


def test_features_of_other_kinds_are_those_of_open_clips_own_calls(other):
    model, found = other
    pixels = torch.stack([found.preprocess(picture) for picture in pictures()])
    with torch.no_grad():
        assert relative(found.encode_images(pixels), model.encode_image(pixels, normalize=False)) < TOLERANCE
        expected = as_open_clip(model, found.text.tokenizer, NAMES)
        assert relative(found.text.encode_texts(NAMES), expected) < TOLERANCE
    assert relative(expected[0], expected[1]) > 1e-3  # the two are told apart


def test_a_context_of_other_kinds_has_open_clips_features_and_gradients(other):
    model, found = other
    text, names = found.text, ["cat", "red double decker bus"]
    context = (torch.randn(4, text.width, generator=torch.Generator().manual_seed(1)) * 0.02).requires_grad_()
    mine = text.encode(context, text.class_tokens(names))
    expected = hooked_encode(model, text.tokenizer, len(text.layout.start), names, context)
    weights = torch.randn(mine.shape, generator=torch.Generator().manual_seed(3))
    slopes = [torch.autograd.grad((features * weights).sum(), context)[0] for features in (mine, expected)]
    assert relative(mine, expected) < TOLERANCE
    assert relative(*slopes) < TOLERANCE
