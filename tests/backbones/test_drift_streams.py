"""Drift between towers of other kinds, widths and depths: features against hooks on open_clip's own pass, and what is
told of pairs that have no differences."""

import copy
from contextlib import ExitStack

import pytest
import text_kinds
import torch
import unlike_towers
from references import hooked, relative

from carryover.bench.analyses.drift import drift_sheet, drift_table, findings
from carryover.bench.backbones import drift, drift_streams
from carryover.bench.backbones.archs import Tower
from carryover.bench.backbones.drift_measures import debiased_cka
from carryover.bench.backbones.drift_streams import at_depth, residuals
from carryover.bench.backbones.loading import Backbone
from carryover.bench.errors import UserError
from carryover.bench.render.sheets import sheet_markdown

TEXTS = ("circle.", "a dark forest.", "five pink roses.", "a hexagon.", "red star in the corner.", "a photo of dots.")
PROMPTS = {"one": TEXTS[:4], "two": TEXTS[2:]}


def backbone(name):
    model, tokenizer, kind = text_kinds.made(name)
    tower = Tower(name, "", "quick_gelu" if kind.quick else "gelu", text_kinds.WIDTH, text_kinds.DIM)
    return Backbone(model, tower, tokenizer)


def watched(of, at):
    """Every layer through hooks on open_clip's own ``encode_text`` at full length; ``at``: the row of each text."""
    text, kept = of.model.text, {}
    ids = of.text.tokenizer(list(TEXTS))
    every = torch.arange(len(ids))
    blocks = text.transformer.resblocks
    with ExitStack() as stack:

        def keep(layer, x):
            kept[layer] = x[every, at(ids, x)]

        stack.enter_context(hooked(blocks[0].register_forward_pre_hook(lambda m, given: keep("0", given[0]))))
        for number, block in enumerate(blocks, 1):
            hook = block.register_forward_hook(lambda m, given, x, n=str(number): keep(n, x))
            stack.enter_context(hooked(hook))
        with torch.no_grad():
            kept["projected"] = of.model.encode_text(ids, normalize=False)
    return kept


def row_of(name):
    kind = text_kinds.KINDS[name].text
    if kind.get("embed_cls") or kind.get("pool_type") == "last":
        return lambda ids, x: torch.full((len(ids),), x.shape[1] - 1)
    if kind.get("pool_type") == "first":
        return lambda ids, x: torch.zeros(len(ids), dtype=torch.long)
    if kind.get("pool_type") == "eos":
        return lambda ids, x: (ids == kind["eos_id"]).int().argmax(1)
    return lambda ids, x: ids.argmax(1)


@pytest.mark.parametrize("name", list(text_kinds.KINDS))
def test_features_are_what_hooks_see_at_the_row_that_the_tower_reads(name, monkeypatch):
    monkeypatch.setattr(drift_streams, "TEXTS_AT_ONCE", 4)
    of = backbone(name)
    found, expected = residuals(of, of.text.tokens(TEXTS)), watched(of, row_of(name))
    assert set(found) == {*expected, "ln_final"}
    for layer in expected:
        assert relative(found[layer], expected[layer]) < 2e-5, layer


def widened(of, columns=40):
    """The same tower whose joint space is turned into a wider one."""
    model = copy.deepcopy(of.model)
    draw = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(columns, columns, generator=draw))[0][: of.dim]
    model.text.text_projection = torch.nn.Parameter(model.text.text_projection.detach() @ turn)
    tower = Tower("widened", "", "gelu", of.width, columns)
    return Backbone(model, tower, of.text.tokenizer)


def features_of(measured, **where):
    rows = measured["text"]["features"]
    return {row["layer"]: row for row in rows if all(row[name] == value for name, value in where.items())}


def test_a_joint_space_that_was_turned_into_a_wider_one_is_alike_and_has_no_difference():
    base = unlike_towers.made("clip")
    measured = drift.measure(base, widened(base), PROMPTS)
    last = features_of(measured, dataset="pooled")["projected"]
    assert last["cka"] == pytest.approx(1, abs=1e-5) and last["structure"] == pytest.approx(1, abs=1e-5)
    assert [last[name] for name in ("absolute", "relative", "norm_ratio", "one_minus_cosine")] == [None] * 4
    assert features_of(measured, dataset="pooled")["3"]["absolute"] == 0, "what has one width is measured as ever"
    assert any("projected has widths 32 and 40" in note for note in measured["text"]["notes"])


@pytest.mark.parametrize("name", ["wider", "deeper", "siglip"])
def test_towers_of_other_widths_depths_and_tokens_are_compared_by_similarities(name):
    base, other = unlike_towers.made("clip"), unlike_towers.made(name)
    measured = drift.measure(base, other, PROMPTS)
    found = features_of(measured, dataset="pooled")
    assert list(found) == ["0", "1", "2", "3", "ln_final", "projected"]
    distinct = list(dict.fromkeys(text for texts in PROMPTS.values() for text in texts))
    was, now = (residuals(one, one.text.tokens(distinct)) for one in (base, other))
    there = {"1": "2", "2": "3", "3": "5"} if name == "deeper" else {}  # of 3 blocks and 5
    for layer in ("1", "2", "3", "projected"):
        expected = debiased_cka(was[layer], now[there.get(layer, layer)])
        assert found[layer]["cka"] == pytest.approx(expected, abs=1e-6) and found[layer]["absolute"] is None
    notes = " ".join(measured["text"]["notes"])
    told = {"wider": "widths 32 and 48", "deeper": "3 and 5 blocks", "siglip": "tiny-siglip at its last position"}[name]
    assert told in notes and ("other tokens" in notes) == (name == "siglip")


def test_the_tables_of_such_a_pair_have_dashes_and_no_sentence_without_a_number():
    base, other = unlike_towers.made("clip"), unlike_towers.made("siglip")
    measures = [{**drift.measure(base, other, PROMPTS), "pair": "new", "kind": "update"}]
    table = drift_table(measures)
    text = sheet_markdown(drift_sheet(table, measures))
    assert "nan" not in text.lower() and "tiny-siglip at its last position" in text
    assert not [line for line in findings(table, measures) if "features" in line]


@pytest.mark.parametrize("own, other, expected", [(12, 24, [0, 2, 4, 12, 24]), (24, 12, [0, 1, 1, 3, 6])])
def test_blocks_are_matched_at_equal_parts_of_their_depth(own, other, expected):
    assert [at_depth(block, own, other) for block in (0, 1, 2, 6, 12)] == expected


def test_an_activation_that_is_neither_is_no_control():
    with pytest.raises(UserError, match="neither plain GELU nor QuickGELU"):
        drift.other_activation(backbone("SigLIP 2"))
    assert drift.other_activation(backbone("SigLIP")).label == "SigLIP with quick_gelu"
