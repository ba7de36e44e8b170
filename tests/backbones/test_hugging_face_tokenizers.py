"""Tokenizers of transformers' kinds, trained here on a few words, through open_clip's wrapper: their rows are laid out
as the published ones' are. ``transformers`` is no requirement: without it nothing here runs."""

import pytest
import torch
from references import relative
from text_kinds import as_open_clip, made

from carryover.bench.backbones.text_tower import TextTower

transformers = pytest.importorskip("transformers")
from open_clip.tokenizer import HFTokenizer  # noqa: E402
from tokenizers import (  # noqa: E402
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

CORPUS = ["a photo of a red double decker bus", "cat and dog by the sea or lake in 2012", "X x a photo of the dogs"] * 5
NAMES = ["cat", "Red-bus", "a lake"]
SPECIAL = {  # in the order of their ids, as the published vocabularies have them
    "SigLIP": ["<unk>", "</s>"],
    "SigLIP 2": ["<pad>", "<eos>", "<unk>"],
    "CLIPA": ["[PAD]", "[UNK]", "[CLS]", "[SEP]"],
    "XLM-R": ["<s>", "<pad>", "</s>", "<unk>"],
    "RoBERTa": ["<s>", "<pad>", "</s>", "<unk>"],
}
TEMPLATE = {  # of a row, and the token that fills it up
    "SigLIP": ("$A </s>", "</s>"),
    "SigLIP 2": ("$A <eos>", "<pad>"),
    "CLIPA": ("[CLS] $A [SEP]", "[PAD]"),
    "XLM-R": ("<s> $A </s>", "<pad>"),
    "RoBERTa": ("<s> $A </s>", "<pad>"),
}
EXPECTED = {  # start, end, padding, whether a word's pieces depend on its place
    "SigLIP": ((), 1, 1, False),
    "SigLIP 2": ((), 1, 0, True),
    "CLIPA": ((2,), 0, 0, False),
    "XLM-R": ((0,), 2, 1, False),
    "RoBERTa": ((0,), 2, 1, True),
}
CLEAN = {"SigLIP": "canonicalize", "SigLIP 2": "canonicalize"}
TOWERS = {"XLM-R": "MetaCLIP 2", "RoBERTa": "MetaCLIP 2"}  # whose rows they are read by, else the tower of the name


def trained(kind):
    special = SPECIAL[kind]
    if kind in ("SigLIP", "XLM-R"):  # SentencePiece's unigram model, a blank put in front of every text
        made = Tokenizer(models.Unigram())
        made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token="<unk>")
    elif kind == "SigLIP 2":  # Gemma's: blanks become a letter, none is put in front
        made = Tokenizer(models.BPE(unk_token="<unk>"))
        made.normalizer = normalizers.Replace(" ", "▁")
        made.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
        trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=special)
    elif kind == "CLIPA":
        made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=special)
    else:
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(
            vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        )
    made.train_from_iterator(CORPUS, trainer)
    row, _ = TEMPLATE[kind]
    made.post_processor = processors.TemplateProcessing(
        single=row, special_tokens=[(token, made.token_to_id(token)) for token in special]
    )
    return made


@pytest.fixture(scope="module", params=EXPECTED)
def read(request, tmp_path_factory):
    """(kind, open_clip model, open_clip's wrapper of the tokenizer, TextTower)"""
    kind, folder = request.param, tmp_path_factory.mktemp("tokenizer")
    _, pad = TEMPLATE[kind]
    sep = {"sep_token": "[SEP]"} if kind == "CLIPA" else {}
    transformers.PreTrainedTokenizerFast(tokenizer_object=trained(kind), pad_token=pad, **sep).save_pretrained(folder)
    model, _, _ = made(TOWERS.get(kind, kind))
    tokenizer = HFTokenizer(
        str(folder),
        context_length=model.text.context_length,
        clean=CLEAN.get(kind, "whitespace"),
        strip_sep_token=kind == "CLIPA",
    )
    return kind, model, tokenizer, TextTower(model.text, tokenizer)


def test_the_layout_is_that_of_the_published_rows(read):
    kind, _, _, text = read
    found = text.layout
    assert (found.start, found.end, found.pad, found.by_place) == EXPECTED[kind]


def test_plain_texts_and_contexts_of_words_are_encoded_as_open_clip_does(read):
    _, model, tokenizer, text = read
    prompts = [f"a photo of a {name}." for name in NAMES]
    with torch.no_grad():
        expected = as_open_clip(model, tokenizer, prompts)
    assert relative(text.encode_texts(prompts), expected) < 2e-5
    assert relative(text.encode(text.embed(["a photo of a"]), text.class_tokens(NAMES)), expected) < 2e-5
