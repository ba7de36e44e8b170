"""Text towers of Hugging Face's in open_clip's wrapper, tiny and made from a config in a folder, against open_clip's
own ``encode_text``. ``transformers`` is no requirement: without it nothing here runs."""

import pytest
import torch
from references import relative
from text_kinds import DIM, VISION, Pieces, as_open_clip, hooked_encode

from carryover.bench.backbones.text_parts import projection
from carryover.bench.backbones.text_tower import TextTower
from carryover.bench.errors import UserError

transformers = pytest.importorskip("transformers")
import open_clip  # noqa: E402  # which looks for transformers as it is imported

TOLERANCE = 2e-5
NAMES = ["cat", "red double decker bus", "sea or lake"]
BERT = {
    "vocab_size": 500, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64,
    "max_position_embeddings": 100, "pad_token_id": 1,
}  # fmt: skip
M2M = {
    "vocab_size": 500, "d_model": 32, "encoder_layers": 3, "decoder_layers": 1, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 100,
    "pad_token_id": 1, "scale_embedding": True, "decoder_start_token_id": 2,
}  # fmt: skip
T5 = {
    "vocab_size": 500, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 3, "num_decoder_layers": 1, "num_heads": 4,
    "pad_token_id": 0, "decoder_start_token_id": 0,
}  # fmt: skip
KINDS = {  # class of the config, its values, pooler, projection, tokenizer
    "RoBERTa": ("RobertaConfig", BERT, "mean_pooler", "mlp", Pieces((0,), 2, 1, 77, by_place=True)),
    "XLM-R": ("XLMRobertaConfig", BERT, "mean_pooler", "linear", Pieces((0,), 2, 1, 77)),
    "pooled at the first": ("XLMRobertaConfig", BERT, "cls_pooler", "linear", Pieces((0,), 2, 1, 77)),
    "NLLB": ("M2M100Config", M2M, "cls_pooler", "linear", Pieces((490,), 2, 1, 77)),
    "mT5": ("MT5Config", T5, "mean_pooler", "linear", Pieces((), 1, 0, 77)),
}


@pytest.fixture(scope="module", params=KINDS)
def tower(request, tmp_path_factory):
    """(model, tokenizer, tokens in front of a text, TextTower)"""
    config, values, pooler, proj, tokenizer = KINDS[request.param]
    folder = tmp_path_factory.mktemp("config")
    getattr(transformers, config)(**values).save_pretrained(folder)
    text = {
        "hf_model_name": str(folder),
        "hf_model_pretrained": False,
        "hf_pooler_type": pooler,
        "hf_proj_type": proj,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = open_clip.CustomTextCLIP(DIM, VISION, text).eval().requires_grad_(False)
        for name, value in model.text.named_parameters():
            if value.dim() > 1 and "embed" not in name and "shared" not in name:
                torch.nn.init.normal_(value, std=0.15)
    return model, tokenizer, len(tokenizer.start), TextTower(model.text, tokenizer)


def test_plain_texts_are_encoded_as_open_clip_does(tower):
    model, tokenizer, _, text = tower
    texts = [f"a photo of a {name}." for name in NAMES] + ["", "dog"]
    with torch.no_grad():
        expected = as_open_clip(model, tokenizer, texts)
    assert not text.fast and not text.causal
    assert relative(text.encode_texts(texts), expected) < TOLERANCE
    assert relative(expected[0], expected[1]) > 0.01


def test_a_context_of_words_gives_what_open_clip_gives_the_words(tower):
    model, tokenizer, _, text = tower
    found = text.encode(text.embed(["a photo of a"]), text.class_tokens(NAMES))
    with torch.no_grad():
        expected = as_open_clip(model, tokenizer, [f"a photo of a {name}." for name in NAMES])
    assert relative(found, expected) < TOLERANCE


@pytest.mark.parametrize("per", ["shared", "class", "image"])
def test_contexts_give_open_clips_features_and_gradients(tower, per):
    model, tokenizer, start, text = tower
    shape = {"shared": (4,), "class": (len(NAMES), 4), "image": (2, 4)}[per]
    context = torch.randn(*shape, text.width, generator=torch.Generator().manual_seed(7)).requires_grad_()
    found = text.encode(context, text.class_tokens(NAMES), per=per)
    alone = context if per == "image" else context[None]
    expected = torch.stack(
        [hooked_encode(model, tokenizer, start, NAMES, one, embedding=text.embedding) for one in alone]
    )
    expected = expected if per == "image" else expected[0]
    assert relative(found, expected) < TOLERANCE
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(3))
    slope, wanted = (torch.autograd.grad((made * weights).sum(), context)[0] for made in (found, expected))
    assert wanted.abs().max() > 0 and relative(slope, wanted) < TOLERANCE


def test_a_context_at_an_inner_block_is_refused_in_one_line(tower):
    *_, text = tower
    context, tokens = torch.zeros(2, text.width), text.class_tokens(NAMES)
    for run in (
        lambda: text.encode(context, tokens, layer=1),
        lambda: text.encode(context, tokens, deep=context[None]),
        lambda: text.placeholder_rows(2, 1),
    ):
        with pytest.raises(UserError, match="Hugging Face") as caught:
            run()
        assert "\n" not in str(caught.value)
    assert torch.equal(text.placeholder_rows(2, 0)[0], text.embed(["X X"])[1])


def test_the_last_matrix_is_none_for_an_mlp(tower):
    model, *_, text = tower
    found = projection(model.text)
    assert (found is None) == isinstance(model.text.proj, torch.nn.Sequential)
    assert found is None or found.shape == (text.width, DIM)


def test_a_tokenizer_with_another_padding_is_refused(tower):
    model, tokenizer, *_ = tower
    with pytest.raises(UserError, match="masks id"):
        TextTower(model.text, Pieces(tokenizer.start, tokenizer.end, 5, 77))
