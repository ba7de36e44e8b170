"""What few-shot validation chose, and the sentence on losses that still fell, from made-up records."""

import pytest
from table_records import chosen, record

from carryover.bench.analyses.candidates import Candidates, candidates_table
from carryover.bench.analyses.main_table import main_sheet, main_table
from carryover.bench.analyses.parts.rows import views_told
from carryover.bench.stats.learning_curves import MARK

CURVE = [{"epoch": 1, "loss": 1.0, "lr": 0.1}]


def tried(best):
    found = [{"lr": 0.002, "ratio": 0.2, "validation": 70.0, "validation_loss": 1.0}, {"lr": 0.2, "ratio": 0.6}]
    found += [{"lr": 0.02, "ratio": 0.6, "validation": best, "validation_loss": 0.5}]
    return {"tried": found, "chosen": {"lr": 0.02, "ratio": 0.6}, "curve": CURVE}


@pytest.fixture
def records():
    return [
        {**record("dtd", "clip-adapter", 1, 120, 100), **tried(80.0)},
        {**record("dtd", "clip-adapter", 2, 120, 100), **tried(90.0)},
        {**record("dtd", "coop", 1, 120, 100, marks=[MARK], place=(0, 1)), "curve": CURVE},
        {**record("dtd", "coop", 2, 120, 100, place=(0, 1)), "curve": CURVE},
        record("dtd", "zs-clip", 1, 120, 100, place=(0, 2)),
    ]


def test_every_candidate_has_a_row_and_one_of_each_run_is_kept(records):
    table = candidates_table(records)
    assert list(table["seed"]) == [1, 1, 1, 2, 2, 2]
    assert list(table["kept"]) == ["no", "no", "yes"] * 2 and table["validation"].isna().sum() == 2
    assert table.loc[2, "candidate"] == "lr 0.02, ratio 0.6" and table.loc[5, "validation"] == 90


def test_the_sheet_shows_what_each_seed_chose_and_the_mean_of_each_candidate(records):
    (table,) = Candidates().tables(chosen(records))
    text = table.texts["md"]
    assert "lr 0.02, ratio 0.6 (80.00)" in text and "lr 0.02, ratio 0.6 (90.00)" in text
    row = next(line for line in text.splitlines() if line.startswith("| lr 0.02, ratio 0.6 "))
    assert [cell.strip(" *") for cell in row.split("|")[2:4]] == ["85.00", "2"]


def test_one_sentence_names_the_methods_whose_loss_still_fell(records):
    selection = chosen(records)
    (line,) = Candidates().limits(selection, {})
    assert "COOP (1 of 2 runs)" in line and "ADAPTER" not in line and "ZS" not in line
    quiet = chosen([one for one in records if not one["marks"]])
    assert Candidates().limits(quiet, {}) == []


def test_without_open_options_there_is_no_table(records):
    assert not list(Candidates().tables(chosen(records[2:])))


@pytest.mark.parametrize(
    "views, said", [((), None), ((0,), "as published"), ((16,), "bank of 16;"), ((0, 4), "bank of 4, in")]
)
def test_the_main_table_says_which_views_were_used(records, views, said):
    for i, one in enumerate(records if views else ()):
        one["run"]["views"] = views[i % len(views)]
    told = views_told(records)
    assert (not told) if said is None else said in told[0]
    assert told == [] or told[0] in main_sheet(main_table(records), records).remarks
