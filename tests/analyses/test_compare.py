"""Numbers of others beside ours: differences against scipy's Welch and a closed form, what is wrong in a file named in
one line, theirs always marked."""

import math
import re

import answered
import numpy as np
import pytest
from scipy import stats

from carryover.bench.analyses.parts import beside_theirs
from carryover.bench.analyses.parts.comparison import pairs_table
from carryover.bench.cli import compare, main
from carryover.bench.cli import results as cli_results
from carryover.bench.errors import UserError
from carryover.bench.records import theirs
from carryover.bench.stats.intervals import welch

CHANCES = {"zs-clip": {"base": 0.5, "new": 0.55}, "coop": {"base": 0.75, "new": 0.4}}
TRIAL = "trial: at most 8 test images a class"
RECORDS, STORED = answered.world(CHANCES, split={"classes": answered.CLASSES}, marks=[TRIAL])
HEAD = "dataset,method,base,new,seed"
BY_PICTURE = "dataset,method,backbone,image,predicted,label,seed"
SCORES = {("a", 1): (80.5, 61.0), ("a", 2): (79.0, 66.5), ("b", 1): (70.0, 50.0), ("b", 2): (72.5, 58.0)}


@pytest.fixture
def ours(monkeypatch):
    """What ``compare`` finds in the results folder; the numbers of its statistics do not depend on the folder."""
    found = answered.selection_of(RECORDS, STORED)
    monkeypatch.setattr(cli_results, "some_records", lambda args, arch: found)
    return found


def written(tmp_path, *lines):
    path = tmp_path / "theirs.csv"
    path.write_text("\n".join(lines))
    return str(path)


def accuracies(tmp_path, head=HEAD):
    return written(tmp_path, head, *(f"{d},Probe,{base},{new},{s}" for (d, s), (base, new) in SCORES.items()))


def predictions(
    tmp_path, method="coop", name="Probe", seeds=(1, 2, 3), datasets=("a", "b"), change=lambda cells: cells
):
    lines = []
    for dataset in datasets:
        for seed in seeds:
            for role, outcome in STORED[f"{dataset}-{method}-{seed}"].items():
                for image, (answer, label) in enumerate(zip(outcome.predicted, outcome.label, strict=True)):
                    lines.append(change([dataset, name, role, image, answer, label, seed]))
    return written(tmp_path, BY_PICTURE, *(",".join(map(str, cells)) for cells in lines if cells))


def read(path, ours):
    on = compare.on(ours)
    return theirs.read(path, {dataset: compare.labels(ours, dataset) for dataset in on}, on)


def differences(path, ours):
    found = read(path, ours)
    both = compare.beside(ours, found)
    return beside_theirs.difference_table(both, bool(found.outcomes)), beside_theirs.score_table(both)


def harmonic(base, new):
    return 2 * base * new / (base + new)


@pytest.mark.parametrize("seed", range(5))
def test_welchs_interval_and_p_are_scipys_at_the_degrees_of_freedom_rounded_down(seed):
    draw = np.random.default_rng(seed)
    a, b = draw.normal(3, 2, 2 + seed), draw.normal(1, 0.5, 3)
    low, high, p = welch(a.tolist(), b.tolist())
    test = stats.ttest_ind(a, b, equal_var=False)
    df = max(1, math.floor(test.df))
    error = math.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))
    half = stats.t.ppf(0.975, df) * error
    assert (low, high) == pytest.approx((a.mean() - b.mean() - half, a.mean() - b.mean() + half))
    assert p == pytest.approx(2 * stats.t.sf(abs(test.statistic), df))
    wider = test.confidence_interval()
    assert low <= wider.low and high >= wider.high, "rounded down is on the safe side"


def test_one_value_and_values_that_do_not_vary_have_no_interval():
    assert all(map(math.isnan, welch([1.0], [2.0, 3.0]))) and all(map(math.isnan, welch([1.0, 1.0], [2.0, 2.0])))


def test_accuracies_are_compared_by_welch_over_seeds(tmp_path, ours):
    found, _ = differences(accuracies(tmp_path), ours)
    mine = [
        r["targets"]["new"]["accuracy"] for r in RECORDS if r["run"]["dataset"] == "a" and r["run"]["method"] == "coop"
    ]
    row = found[(found.dataset == "a") & (found.measure == "new") & (found.ours == "coop")].iloc[0]
    test = stats.ttest_ind([61.0, 66.5], mine, equal_var=False)
    assert row.theirs == "Probe (theirs)" and row.seeds == 2 and row.compared == "seeds, unpaired"
    assert row.difference == pytest.approx(np.mean([61.0, 66.5]) - np.mean(mine))
    half = stats.t.ppf(0.975, max(1, math.floor(test.df))) * (row.difference / test.statistic)
    assert (row.low, row.high) == pytest.approx((row.difference - half, row.difference + half))


def test_scores_are_those_of_the_main_table_with_averages_over_the_files_datasets(tmp_path, ours):
    _, scores = differences(accuracies(tmp_path), ours)
    average = scores[(scores.dataset == "average") & (scores.source == "theirs")].iloc[0]
    base, new = (np.mean([pair[i] for pair in SCORES.values()]) for i in (0, 1))
    assert (average.base, average.new, average.h) == pytest.approx((base, new, harmonic(base, new)))
    own = scores[(scores.dataset == "a") & (scores.source == "theirs")].iloc[0]
    assert own.h == pytest.approx(np.mean([harmonic(80.5, 61.0), harmonic(79.0, 66.5)]))
    assert set(scores[scores.source == "ours"].method) == {"zs-clip", "coop"}


def test_predictions_are_paired_as_ours_are_with_one_another(tmp_path, ours):
    """Their predictions are CoOp's own: beside zero-shot they have the row of ``pairs.csv``, beside CoOp nothing."""
    found, _ = differences(predictions(tmp_path), ours)
    own = pairs_table(ours)
    for dataset in ("a", "b", "average"):
        for measure in ("base", "new", "h"):
            rows = found[(found.dataset == dataset) & (found.measure == measure)].set_index("ours")
            known = own[(own.dataset == dataset) & (own.measure == measure)].iloc[0]  # zs-clip less coop
            row = rows.loc["zs-clip"]
            assert row.difference == pytest.approx(-known.difference)
            assert (row.low, row.high) == pytest.approx((-known.high, -known.low), abs=0.6), "draws, mirrored"
            assert rows.loc["coop"].difference == 0 and rows.loc["coop"].verdict == "cannot tell"


def test_one_seed_is_compared_over_pictures_by_the_closed_form_and_has_no_verdict(tmp_path, ours):
    found, _ = differences(predictions(tmp_path, seeds=(1,)), ours)
    row = found[(found.dataset == "a") & (found.measure == "base") & (found.ours == "zs-clip")].iloc[0]
    a, b = (STORED[f"a-{method}-1"]["base"].right.astype(float) for method in ("coop", "zs-clip"))
    error = 100 * math.sqrt((a - b).var() / len(a) + 2 / len(a) ** 2)  # with the two images of Bonett and Price
    assert row.difference == pytest.approx(100 * (a - b).mean()) and row.seeds == 1
    assert (row.high - row.low) / 2 == pytest.approx(1.96 * error, rel=0.05)
    assert math.isnan(row.p) and row.verdict == "cannot tell"


def put(place, value):
    return lambda cells: [*cells[:place], value, *cells[place + 1 :]] if cells[3] == 7 and cells[2] == "new" else cells


@pytest.mark.parametrize(
    "lines, said",
    [
        (
            ["dataset,method,base", "a,P,1"],
            "no column 'new'; expected dataset,method,base,new[,seed] with accuracies in",
        ),
        (["dataset,method,image,predicted", "a,P,0,1"], "no column 'backbone'; expected"),
        ([HEAD], "a header and no rows"),
        (["dataset,method,base,base,new", "a,P,1,1,1"], "column 'base' stands there twice"),
        ([HEAD, "a,P,50,60,1", "a,P,50"], "line 3: 3 cells, expected the header's 5"),
        ([HEAD, "c,P,50,60,1"], "line 2: unknown dataset 'c'"),
        ([HEAD, "a,,50,60,1"], "line 2: no method"),
        (
            [HEAD, "a,P,0.5,0.61,1", "a,P,0.4,0.6,2"],
            "no accuracy of P above 0.61; expected percent, these look",
        ),
        ([HEAD, "a,P,0.5,0.61,1", "a,Q,50,60,1"], "no accuracy of P above 0.61; expected percent"),
        ([HEAD, "a,P,50,160,1"], "line 2: new '160', expected an accuracy in percent, 0 to 100"),
        ([HEAD, "a,P,nan,60,1"], "line 2: base 'nan', expected"),
        ([HEAD, "a,P,50%,60,1"], "line 2: base '50%', expected"),
        ([HEAD, "a,P,50,60,one"], "line 2: seed 'one', expected a whole number"),
        ([HEAD, "a,P,50,60,1", "", "a,P,51,60,1"], "line 4: a, P, seed 1 stands in line 2 too"),
        ([BY_PICTURE, "a,P,old,0,1,,1"], "line 2: backbone 'old', expected base or new"),
        ([BY_PICTURE, "a,P,new,200,1,,1"], "line 2: image 200, expected a test picture's place, 0 to 199"),
        ([BY_PICTURE, "a,P,new,0,5,,1"], "line 2: predicted 5, expected a class of a by number, 0 to 4"),
        ([BY_PICTURE, "a,P,new,0,cat,,1"], "line 2: predicted 'cat', expected a whole number"),
        ([BY_PICTURE, "a,P,new,0,1,,1", "a,P,new,0,2,,1"], "line 3: a, P, seed 1, new, image 0 stands in line 2 too"),
    ],
)
def test_what_is_wrong_in_a_file_is_one_line(tmp_path, ours, capsys, lines, said):
    path = written(tmp_path, *lines)
    assert main.main(["compare", path]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1 and path in err


def test_seeds_that_happen_to_agree_tell_no_error_and_marks_of_our_runs_are_told(tmp_path, ours, capsys):
    same = {(dataset, seed): (75.0, 60.0) for dataset in "ab" for seed in (1, 2)}
    lines = [f"{dataset},P,{base},{new},{seed}" for (dataset, seed), (base, new) in same.items()]
    found, _ = differences(written(tmp_path, HEAD, *lines), ours)
    assert set(found["verdict"]) == {"cannot tell"} and found[["low", "high", "p"]].isna().all(axis=None)
    assert main.main(["compare", accuracies(tmp_path)]) == 0
    assert f"Of our runs: {TRIAL}." in capsys.readouterr().out


@pytest.mark.parametrize(
    "change, said",
    [
        (put(5, 99), "label 99, but test picture 7 of a is of class"),
        (
            lambda cells: None if cells[3] == 7 and cells[2] == "new" else cells,
            "has 199 of 200 pictures on new, image 7",
        ),
        (lambda cells: None if cells[2] == "base" else cells, "has 0 of 200 pictures on base"),
    ],
)
def test_predictions_of_other_or_of_fewer_pictures_are_refused(tmp_path, ours, change, said):
    with pytest.raises(UserError, match=re.escape(said)):
        read(predictions(tmp_path, change=change), ours)


def test_without_our_predictions_nothing_can_be_paired(tmp_path, ours):
    on = compare.on(ours)
    with pytest.raises(UserError, match="our runs on a keep no predictions"):
        theirs.read(predictions(tmp_path), dict.fromkeys(on), on)


def test_the_page_marks_theirs_and_escapes_their_names(tmp_path, ours, capsys):
    path = written(tmp_path, HEAD + ",note", "a,<b>|coop|,80,60,1,x")
    assert main.main(["compare", path, "--methods", "coop"]) == 0
    out = capsys.readouterr().out
    assert r"&lt;b&gt;\|coop\| (theirs)" in out and "ZS-CLIP" not in out and "columns of" in out and ": note" in out
    assert "by one" not in out and "cannot tell" in out, "one seed of theirs"


def test_files_are_written_by_their_ending(tmp_path, ours, capsys):
    path = accuracies(tmp_path)
    assert main.main(["compare", path, "--to", str(tmp_path / "x.csv")]) == 0
    first = (tmp_path / "x.csv").read_text().splitlines()[0]
    assert first == ",".join(beside_theirs.COLUMNS)
    assert (tmp_path / "x-scores.csv").read_text().splitlines()[0] == ",".join(beside_theirs.SCORE_COLUMNS)
    assert main.main(["compare", path, "--to", str(tmp_path / "x.md")]) == 0
    assert (tmp_path / "x.md").read_text().startswith("## Numbers of others beside ours")
    assert main.main(["compare", path, "--to", str(tmp_path / "x.txt")]) == 2
    assert main.main(["compare"]) == 2 and main.main(["compare", path, "--methods", "nope"]) == 2
    assert "expected a file that ends in" in capsys.readouterr().err


def test_a_file_that_is_no_csv_is_one_line(tmp_path, ours, capsys):
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00")
    assert (
        main.main(["compare", str(tmp_path / "x.csv")]) == 2 and main.main(["compare", str(tmp_path / "none.csv")]) == 2
    )
    assert capsys.readouterr().err.count("cannot read") == 2
