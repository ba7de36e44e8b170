"""The audit: every printed number of the paper once, compared as stated, with a command that runs just its runs."""

import csv
import io
import math
import shlex

import numpy as np
import pandas as pd
import pytest
from report_pages import HOSTILE, Page
from scipy import stats as scipy_stats

from carryover.bench.analyses import audit, audit_page
from carryover.bench.backbones.archs import ARCHS
from carryover.bench.cli import main as cli_main
from carryover.bench.cli.parsing import parse
from carryover.bench.cli.settings import plan_of, settings_of
from carryover.bench.plan.runs import as_stored
from carryover.bench.records import reading
from carryover.bench.records.printed import PAPER_FOLDER
from carryover.bench.records.selection import Selection, choose
from carryover.bench.report import outputs, recompute, report
from carryover.bench.stats import intervals
from carryover.datasets import PAPER_OOD, PAPER_ORDER
from carryover.methods.base import METHODS

BASE = ("base", "new", "h")
METHOD_IDS = ("zs-clip", "linear-probe", "clip-adapter", "tip-adapter-f", "coop", "cocoop", "kgcoop", "contcoop")
FILES = {  # table: file, of vit-b16
    "Table 2": "table2_vit_b16", "Table 3": "table3_ood", "Table 4": "table4_components_dtd",
    "Table 5": "table5_lambda_ucf101", "Table 6": "table6_heads_dtd", "Table 7": "table7_condition_dtd",
    "Figure 4": "figure4_context_length_ucf101",
}  # fmt: skip


def printed(file):
    with (PAPER_FOLDER / f"{file}.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))


def defaults(arch="vit-b16", *flags):
    return settings_of(parse(["--arch", arch, *flags]), ARCHS[arch])


def record(dataset, method, seed, base, new=None, options=(), test="", status="done", marks=(), arch="vit-b16", **run):
    """As a finished run would store it, by the suite's own options."""
    config = as_stored(defaults(arch).configure(method, dataset, tuple(options)))
    scores = {"base": base, "new": base if new is None else new}
    targets = {role: {"backbone": role, "correct": 1, "count": 2, "accuracy": value} for role, value in scores.items()}
    run = {"arch": arch, "dataset": dataset, "method": method, "seed": seed, "shots": 16, "precision": "fp32",
           "protocol": "published", "views": 16, "limit": None, "test": test, "config": config, **run}  # fmt: skip
    return {
        "key": f"{dataset} {method} {seed} {test} {options}", "status": status, "marks": list(marks), "run": run,
        "names": {"dataset": dataset, "method": method}, "order": {"dataset": 0, "method": METHOD_IDS.index(method)},
        "averaged": True, "depth": "shallow", "targets": targets if status == "done" else {},
        "started": "2026-01-01T00:00:00Z", "trained": f"{dataset} {method} {seed}  {options}" if test else None,
    }  # fmt: skip


def spread(value, width=0.1):
    return [(1, value - width), (2, value), (3, value + width)]


def main_records(off=0.0, datasets=PAPER_ORDER, methods=METHOD_IDS):
    """Three seeds around each printed Base and New; a seed is as far above in both."""
    rows = [row for row in printed("table2_vit_b16") if row["dataset"] in datasets and row["method"] in methods]
    return [
        record(
            row["dataset"],
            row["method"],
            seed,
            value + off,
            max(0, float(row["new"]) + value - float(row["base"]) + off),
        )
        for row in rows
        for seed, value in spread(float(row["base"]))
    ]


def ablation_records(off=0.0):
    found = []
    labels = {
        "Table 4": {("no", "no"): ("contcoop.attention=False", "contcoop.lam=0.0"),
                    ("yes", "no"): ("contcoop.lam=0.0",), ("no", "yes"): ("contcoop.attention=False",)},
        "Table 5": {(v,): (f"contcoop.lam={v}",) for v in ("0.0", "0.3", "0.5", "0.7")},
        "Table 6": {(v,): (f"contcoop.heads={v}",) for v in ("2", "4", "8", "16")},
        "Table 7": {("a photo of a [class]",): ("contcoop.condition=a photo of a {}",)},
    }  # fmt: skip
    for table, options in labels.items():
        dataset = "ucf101" if table == "Table 5" else "dtd"
        for row in printed(FILES[table]):
            label = tuple(list(row.values())[:-3])
            if label in options:
                base, new = float(row["base"]) + off, float(row["new"]) + off
                found += [record(dataset, "contcoop", s, v, new + v - base, options[label]) for s, v in spread(base)]
    return found


def shifted_records(off=0.0):
    found = []
    for row in printed("table3_ood"):
        method = row["method"]
        options = ("zs-clip.single_template=True",) if method == "zs-clip" else ()
        for set_ in (*PAPER_OOD, *(("imagenet",) if options else ())):
            test = "" if set_ == "imagenet" else set_
            for seed, value in spread(float(row[set_]) + off):
                found.append(record("imagenet", method, seed, value, options=options, test=test))
    return found


def chosen(records, *flags):
    return choose(records, ARCHS["vit-b16"], defaults("vit-b16", *flags))


def audited(records, *flags):
    return audit.audit_table(chosen(records, *flags))


def cell(table, *key):
    (found,) = table[(table[list(audit.KEYS)] == list(key)).all(axis=1)].to_dict("records")
    return found


@pytest.fixture(scope="module")
def whole():
    """Every run of the paper, three seeds around what it prints."""
    return [*main_records(), *ablation_records(), *shifted_records()]


@pytest.fixture(scope="module")
def table(whole):
    return audited(whole)


# ---- the interval ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.999])
def test_t_quantiles_are_scipys(level):
    for df in [*range(1, 31), 99, 200]:
        assert intervals.t_quantile(df, level) == pytest.approx(scipy_stats.t.ppf((1 + level) / 2, df), rel=1e-10)


def test_t_quantiles_of_one_and_two_degrees_of_freedom_are_their_closed_forms():
    assert intervals.t_quantile(1) == pytest.approx(math.tan(math.pi * 0.475), rel=1e-12)
    assert intervals.t_quantile(2) == pytest.approx(0.95 * math.sqrt(2 / (1 - 0.95**2)), rel=1e-12)


@pytest.mark.parametrize("df, level", [(0, 0.95), (2, 0.0), (2, 1.0)])
def test_a_quantile_that_does_not_exist_is_refused(df, level):
    with pytest.raises(ValueError, match="no t quantile"):
        intervals.t_quantile(df, level)


def test_a_cells_interval_is_scipys_of_its_seeds():
    rng = np.random.default_rng(0)
    base, new = rng.uniform(40, 80, 5), rng.uniform(40, 80, 5)
    found = audited([record("dtd", "coop", s, b, n) for s, (b, n) in enumerate(zip(base, new, strict=True), 1)])
    for column, values in (("base", base), ("new", new), ("h", 2 * base * new / (base + new))):
        row = cell(found, "Table 2", "dtd", "coop", column)
        low, high = scipy_stats.t.interval(0.95, 4, values.mean(), values.std(ddof=1) / math.sqrt(5))
        assert (row["low"], row["high"]) == pytest.approx((low, high)) and row["seeds"] == 5


def test_the_averages_interval_is_over_the_seeds_averages():
    rng, score = np.random.default_rng(1), {}
    for dataset in PAPER_ORDER:
        for seed in (1, 2, 3):
            score[dataset, seed] = rng.uniform(40, 80, 2)
    found = audited([record(d, "coop", s, *value) for (d, s), value in score.items()])
    base, new = np.array([np.mean([score[d, s] for d in PAPER_ORDER], axis=0) for s in (1, 2, 3)]).T
    for column, values, mean in (
        ("new", new, new.mean()),
        ("h", 2 * base * new / (base + new), 2 * base.mean() * new.mean() / (base.mean() + new.mean())),
    ):
        row = cell(found, "Table 2", "average", "coop", column)
        half = scipy_stats.t.ppf(0.975, 2) * values.std(ddof=1) / math.sqrt(3)
        assert (row["ours"], row["low"], row["high"]) == pytest.approx((mean, mean - half, mean + half))


# ---- cells -----------------------------------------------------------------------------------------------------------


def test_every_printed_number_is_a_cell_once(table):
    expected = {
        ("Table 3", name, row["method"], "base"): float(row[name])
        for row in printed("table3_ood")
        for name in list(row)[1:]
    }
    for name, file in FILES.items():
        for row in printed(file) if name != "Table 3" else []:
            first = list(row.values())[:-3]
            place = first if name == "Table 2" else ["ucf101" if "ucf101" in file else "dtd", " / ".join(first)]
            expected |= {(name, *place, column): float(row[column]) for column in BASE}
    assert len(expected) == 96 * 3 + 5 * 6 + (4 + 5 + 5 + 2 + 1) * 3
    found = {tuple(row[key] for key in audit.KEYS): row["paper"] for row in table.to_dict("records")}
    assert found == expected and len(table) == len(expected)


def test_vit_l14_has_table_8_alone_and_an_arch_that_is_not_printed_no_audit(tmp_path):
    large = audit.audit_table(Selection(ARCHS["vit-l14"], settings=defaults("vit-l14")))
    assert set(large["table"]) == {"Table 8"} and len(large) == 3 * len(printed("table8_vit_l14"))
    micro = Selection(ARCHS["micro"])
    assert audit.audit_table(micro) is None and "audit" not in outputs.made_from(micro)
    assert audit_page.write_page(micro, tmp_path) is None and not list(tmp_path.iterdir())


def test_what_lies_on_the_papers_numbers_is_within_but_for_where_the_paper_contradicts_itself(table):
    apart = table[table["verdict"] != "within"]
    assert [tuple(row) for row in apart[[*audit.KEYS, "verdict"]].to_numpy()] == [
        ("Table 3", "imagenet", "coop", "base", "below"),  # 71.92 there, 71.62 in Table 2
        ("Table 3", "imagenet", "cocoop", "base", "above"),
        ("Table 5", "ucf101", "0.3", "h", "above"),  # the misprint
        ("Table 5", "ucf101", "1.0", "base", "below"),  # the default by the text, not the row of Table 2
    ]
    assert all(apart["note"])
    main = table[(table["table"] == "Table 2") & (table["column"] == "base") & (table["dataset"] != "average")]
    assert main["difference"].abs().max() == 0 and (main["seeds"] == 3).all()


@pytest.mark.parametrize("off, verdict", [(1.0, "above"), (-1.0, "below")])
def test_what_lies_off_the_papers_numbers_is_above_or_below(off, verdict):
    found = audited([*main_records(off), *ablation_records(off), *shifted_records(off)])
    # Rows that the main suite brings may be printed otherwise elsewhere, and the probe's New cannot fall below 0.
    same = found[
        found["table"].isin(["Table 2", "Table 3"]) & (found["column"] != "h") & (found["row"] != "linear-probe")
    ]
    same = same[~((same["table"] == "Table 3") & (same["dataset"] == "imagenet") & (same["row"] != "zs-clip"))]
    assert set(same["verdict"]) == {verdict} and same["difference"].between(off - 0.02, off + 0.02).all()


@pytest.mark.parametrize(
    "values, verdict",
    [
        ((44.39, 44.39, 44.39), "within"),
        ((44.44, 44.44, 44.44), "within"),
        ((44.45, 44.45, 44.45), "above"),
        ((44.33, 44.33, 44.33), "below"),
        ((47.0, 44.0, 45.0), "within"),
        ((47.0,), "one seed"),
        ((46.0, 45.9), "above"),
        ((44.39,), "one seed"),
    ],
)
def test_the_verdict_is_by_the_interval_and_a_stated_slack(values, verdict):
    (row,) = [r for r in printed("table2_vit_b16") if (r["dataset"], r["method"]) == ("dtd", "zs-clip")]
    shift = float(row["base"]) - 44.39
    found = audited([record("dtd", "zs-clip", seed, value + shift) for seed, value in enumerate(values, 1)])
    assert cell(found, "Table 2", "dtd", "zs-clip", "base")["verdict"] == verdict


def test_what_was_not_run_is_empty_listed_and_has_its_command():
    found = audited(main_records(datasets=("dtd", "ucf101"), methods=("coop", "contcoop")))
    assert set(found.loc[found["dataset"] == "average", "verdict"]) == {"not run"}, "an average over two is another"
    row = cell(found, "Table 2", "eurosat", "kgcoop", "new")
    assert row["verdict"] == "not run" and row["seeds"] == 0 and row["paper"] > 0
    assert all(math.isnan(row[name]) for name in ("ours", "difference", "low", "high"))
    assert row["command"].endswith("--suite main --datasets eurosat --methods kgcoop --precision fp32")
    lines = audit.missing(found)
    assert "Table 3: coop" not in lines and "Table 3, coop: imagenet" not in "".join(lines)
    assert "Table 2, dtd: zs-clip, linear-probe, clip-adapter, tip-adapter-f, cocoop, kgcoop" in lines
    assert "Table 5, ucf101: 0.0, 0.3, 0.5, 0.7" in lines, "lambda 1.0 is the main suite's run"
    page = audit_page.audit_html("vit-b16", found)
    assert "<li>Table 5, ucf101: 0.0, 0.3, 0.5, 0.7</li>" in page and ">–</td>" in page


def test_a_failed_run_is_told_from_one_that_was_never_started():
    found = audited([record("dtd", "coop", 1, 0, status="failed"), *main_records(datasets=("ucf101",))])
    row = cell(found, "Table 2", "dtd", "coop", "base")
    assert row["verdict"] == "not run" and row["note"] == "1 run failed"


@pytest.mark.parametrize(
    "flags, run, said",
    [
        (["--limit", "2"], {"limit": 2}, "--limit 2"),
        (["--shots", "4"], {"shots": 4}, "--shots 4"),
        (["--protocol", "micro"], {"protocol": "micro", "views": 4}, "--protocol micro"),
    ],
)
def test_trials_are_not_compared(flags, run, said):
    config = as_stored(defaults("vit-b16", *flags).configure("coop", "dtd"))
    trial = [record("dtd", "coop", s, 70.0, **run) | {} for s in (1, 2, 3)]
    for one in trial:
        one["run"]["config"] = config
    selection = chosen(trial, *flags)
    assert len(selection.main) == 3
    found = audit.audit_table(selection)
    assert set(found["verdict"]) == {"not run"} and found["ours"].isna().all()
    assert all(said in note for note in found["note"])
    assert said in audit.summary(found, audit.not_comparable(selection))
    assert not any("--limit" in command or "--shots" in command for command in found["command"])


def test_a_command_names_the_precision_of_the_cells_beside_it_and_none_where_none_are():
    assert "--precision fp32" in cell(audited([]), "Table 2", "dtd", "coop", "h")["command"]
    trial = audited([], "--limit", "2")
    assert not any("--precision" in command for command in trial["command"])


def test_records_of_other_settings_keep_them_in_the_command():
    words = shlex.split(cell(audited([], "--precision", "bf16"), "Table 2", "dtd", "coop", "h")["command"])
    assert words[-2:] == ["--precision", "bf16"]
    words = shlex.split(cell(audited([], "--views", "epoch"), "Table 2", "dtd", "coop", "h")["command"])
    assert words[words.index("--views") + 1] == "epoch"


def test_records_of_other_options_are_not_set_beside_the_papers_numbers():
    config = as_stored(defaults("vit-b16", "--set", "coop.epochs=60").configure("coop", "dtd"))
    records = [record("dtd", "coop", seed, 50.0) for seed in (1, 2, 3)]
    other = [{**record("dtd", "coop", s, 90.0), "key": f"other {s}"} for s in (1, 2, 3)]
    for one in other:
        one["run"]["config"] = config
    assert cell(audited([*records, *other]), "Table 2", "dtd", "coop", "h")["ours"] == 50.0
    for found in (audited(other), audited(other, "--set", "coop.epochs=60")):
        assert cell(found, "Table 2", "dtd", "coop", "h")["verdict"] == "not run"


# ---- notes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key, said",
    [
        (("Table 5", "ucf101", "0.3", "h"), "84.80 and New 79.77 beside it give 82.21; against 82.21 ours is"),
        (("Table 5", "ucf101", "0.5", "base"), "lambda 1.0 as the default"),
        (("Table 2", "ucf101", "contcoop", "new"), "for lambda 0.5 in Table 5"),
        (("Figure 4", "ucf101", "16", "h"), "length 16"),
        (("Table 4", "dtd", "no / yes", "base"), "KgCoOp on DTD"),
        (("Table 2", "imagenet", "zs-clip", "base"), "7 templates"),
        (("Table 3", "imagenet", "zs-clip", "base"), "single template"),
        (("Table 2", "average", "contcoop", "new"), "+3.57"),
        (("Table 3", "average_of_targets", "contcoop", "base"), "0.27"),
        (("Table 3", "imagenet_sketch", "coop", "base"), "50,889"),
        (("Table 2", "eurosat", "contcoop", "h"), "0.10 below the harmonic mean of Base and New (81.74)"),
    ],
)
def test_what_is_known_of_a_printed_number_stands_at_its_cell(table, key, said):
    assert said in cell(table, *key)["note"]


def test_the_misprint_is_kept_and_ours_is_also_judged_by_what_should_stand_there(table):
    row = cell(table, "Table 5", "ucf101", "0.3", "h")
    assert row["paper"] == 72.21 and row["verdict"] == "above" and row["note"].endswith("(within)")


def test_sixteen_of_the_main_tables_h_lie_below_what_rounding_explains():
    tables = [audit.audit_table(Selection(ARCHS[arch], settings=defaults(arch))) for arch in ("vit-b16", "vit-l14")]
    found = pd.concat(tables)
    noted = found[found["note"].str.contains("harmonic mean") & found["table"].isin(["Table 2", "Table 8"])]
    assert len(noted) == 16 and set(noted["column"]) == {"h"} and "average" not in set(noted["dataset"])


def test_what_a_datasets_records_are_marked_with_stands_in_the_note():
    found = audited([record("dtd", "coop", s, 70.0, marks=["own split"]) for s in (1, 2, 3)])
    assert cell(found, "Table 2", "dtd", "coop", "base")["note"] == "own split"


# ---- commands --------------------------------------------------------------------------------------------------------


def planned(command):
    """What the command line would run, by its own parser and plan."""
    words = shlex.split(command)
    assert words[:2] == ["python", "run_all.py"] and words[words.index("--data-root") + 1] == "DATA"
    args = parse(words[2:])
    return plan_of(args, ARCHS[args.arch], zero_shot=False)  # which runs beside any method


@pytest.mark.parametrize("arch", ["vit-b16", "vit-l14"])
def test_a_main_tables_command_plans_the_three_runs_of_its_cells(arch):
    found = audit.audit_table(Selection(ARCHS[arch], settings=defaults(arch)))
    main = found[found["table"].isin(["Table 2", "Table 8"])].drop_duplicates("command")
    assert len(main) == 12 * 8
    for row in main.itertuples():
        runs = planned(row.command)
        expected = PAPER_ORDER if row.dataset == "average" else [row.dataset]
        assert {(r.dataset, r.method, r.seed, r.test) for r in runs} == {
            (d, row.row, s, "") for d in expected for s in (1, 2, 3)
        }
        assert len(runs) == 3 * len(expected)
        assert all(run.config == METHODS[row.row].Config(**METHODS[row.row].published(run.dataset, 16)) for run in runs)


def test_an_ablations_command_plans_the_three_runs_of_its_row():
    found = audited([])
    changed = {"Table 4": ("attention", "lam"), "Table 5": "lam", "Table 6": "heads", "Table 7": "condition"}
    seen = set()
    for row in found[~found["table"].isin(["Table 2", "Table 3"])].drop_duplicates(["table", "row"]).itertuples():
        runs = planned(row.command)
        assert [(r.dataset, r.method, r.seed) for r in runs] == [(row.dataset, "contcoop", s) for s in (1, 2, 3)]
        config = runs[0].config
        expected = {
            "Table 4": lambda c: f"{'yes' if c.attention else 'no'} / {'yes' if c.lam else 'no'}",
            "Table 5": lambda c: str(c.lam),
            "Table 6": lambda c: str(c.heads),
            "Table 7": lambda c: c.condition.replace("{}", "[class]"),
            "Figure 4": lambda c: str(c.context_length),
        }[row.table](config)
        assert expected == row.row
        seen.add(row.table)
    assert seen == {*changed, "Figure 4"}


def test_table_3s_command_plans_the_methods_row_or_the_training_alone():
    found = audited([])
    for row in found[found["table"] == "Table 3"].itertuples():
        runs = planned(row.command)
        assert {r.dataset for r in runs} == {"imagenet"} and {r.method for r in runs} == {row.row}
        tests = {run.test for run in runs}
        if row.dataset == "imagenet" and row.row != "zs-clip":
            assert tests == {""} and len(runs) == 3
        else:
            assert tests == {"", *PAPER_OOD} and len(runs) == 15
        if row.row in ("zs-clip", "clip-adapter"):
            assert all(run.config.single_template for run in runs)


def test_seeds_beyond_the_default_are_in_the_command():
    found = audited([record("dtd", "coop", s, 70.0) for s in (1, 2, 7)])
    assert {r.seed for r in planned(cell(found, "Table 2", "dtd", "coop", "h")["command"])} == {1, 2, 7}
    found = audited([record("dtd", "coop", 2, 70.0)])
    assert {r.seed for r in planned(cell(found, "Table 2", "dtd", "coop", "h")["command"])} == {1, 2, 3}


def test_what_a_command_stores_is_found_again_by_a_plain_report(tmp_path, capsys):
    """The row of an ablation run alone with --set, at small scale: a report without it shows the row in its suite."""
    out = ["--out", str(tmp_path), "--device", "cpu", "--jobs", "1", "--limit", "1", "--seeds", "1"]
    row = ["--suite", "main", "--datasets", "micro_actions", "--methods", "contcoop", "--set", "contcoop.lam=0.3"]
    steps = ["contcoop.steps=1"]
    assert cli_main.main([*row, *steps, *out]) == 0
    assert cli_main.main(["report", "--set", *steps, *out]) == 0
    with (tmp_path / "micro" / "tables" / "lambda.csv").open(newline="") as file:
        found = {r["lambda"]: r for r in csv.DictReader(file) if r["dataset"] == "micro_actions"}
    assert {label for label, r in found.items() if r["seeds"] == "1"} == {"0.3"} and len(found) == 5


# ---- files -----------------------------------------------------------------------------------------------------------


def predictions_of(records):
    """Two pictures, one right: every accuracy becomes 50."""
    answers = {role: (np.array([0, 1]), np.array([0, 0])) for role in ("base", "new")}
    return {record["key"]: answers for record in records}


def test_the_csv_is_written_and_checked_against_predictions(tmp_path):
    records = [record("dtd", "coop", seed, 50.0) for seed in (1, 2, 3)]
    paths = outputs.write_tables(chosen(records), tmp_path)
    assert [p.name for p in paths if p.stem == "audit"] == ["audit.csv"]
    path = tmp_path / "tables" / "audit.csv"
    rows = list(csv.DictReader(io.StringIO(path.read_text())))
    assert tuple(rows[0]) == audit.COLUMNS and len(rows) == 369
    stored = predictions_of(records).__getitem__
    assert recompute.recompute(chosen(records), stored, tmp_path) == []
    path.write_text(path.read_text().replace(",below,", ",within,", 1))
    (line,) = recompute.recompute(chosen(records), stored, tmp_path)
    assert "verdict of ('Table 2', 'dtd', 'coop', 'base') is 'within', recomputed 'below'" in line


def test_the_report_counts_the_verdicts_and_links_the_page(whole, tmp_path):
    for one in whole:
        one.setdefault("split", {})
    markdown, page = report.write_report(chosen(whole[: 8 * 9]), tmp_path)
    for text, link in ((markdown.read_text(), "[audit.html](audit.html)"), (page.read_text(), 'href="audit.html"')):
        assert link in text and "Of 369 numbers that the paper prints" in text
    assert audit_page.write_page(chosen(whole), tmp_path) == tmp_path / "audit.html"
    micro, _ = report.write_report(Selection(ARCHS["micro"]), tmp_path / "micro")
    assert "udit" not in micro.read_text()


def test_the_page_shows_every_cell_without_its_script_and_tells_verdicts_in_words(table):
    text = audit_page.audit_html("vit-b16", table)
    page = Page(text)
    assert not {"img", "link", "iframe"} & set(page.tags) and page.tags.count("script") == 1
    assert not any("http" in (value or "") for _, value in page.attributes)
    assert "default-src 'none'" in text
    shown = "".join(page.text)
    for command in set(table["command"]):
        assert command in shown
    for note in set(table["note"]):
        assert note in shown
    assert text.count('<td class="verdict">') == len(table)
    ids = [value for name, value in page.attributes if name == "id"]
    links = [value for name, value in page.attributes if name == "href"]
    assert len(ids) == len(set(ids)) and {link.removeprefix("#") for link in links} <= set(ids)
    for verdict, count in table["verdict"].value_counts().items():
        assert text.count(f"{audit_page.SIGNS[verdict]} {verdict}</span></td>") == count


def test_hostile_names_notes_and_options_stay_text():
    records = [record("dtd", "coop", s, 70.0, marks=[HOSTILE]) for s in (1, 2, 3)]
    for one in records:
        one["names"] = {"dataset": HOSTILE, "method": HOSTILE}
    selection = chosen(records)
    found = audit.audit_table(selection)
    page = Page(audit_page.audit_html("vit-b16", found))
    assert page.tags.count("script") == 1 and "img" not in page.tags and HOSTILE in "".join(page.text)


def test_two_pages_of_the_same_records_have_the_same_bytes(whole):
    again = audited(list(reversed(whole)))
    assert audit_page.audit_html("vit-b16", again) == audit_page.audit_html("vit-b16", audited(whole))
    assert reading.counted(1, "cell") == "1 cell"
