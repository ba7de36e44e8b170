"""Rows of methods with other options, from made-up records: which records each holds, counted independently."""

import csv
import json
from dataclasses import replace

import pytest

from carryover.bench.analyses import sweeps as analyses_sweeps
from carryover.bench.backbones.archs import ARCHS
from carryover.bench.errors import UserError
from carryover.bench.plan import grid, sweeps
from carryover.bench.plan.option_rows import row_id
from carryover.bench.plan.settings import Settings
from carryover.bench.records import plans, reading
from carryover.bench.records.selection import choose
from carryover.bench.render.sheets import sheet_markdown
from carryover.bench.report import outputs, report
from carryover.methods import METHODS, Registered

MICRO = Settings(16, "micro", "fp32", 4, None, methods=Registered())
ARCH = ARCHS["micro"]


def runs(*overrides, settings=MICRO, **asked):
    return grid.grid(ARCH, replace(settings, overrides=overrides), **{"suites_": ["main"], "seeds": [1, 2], **asked})


def record(run, base=50.0, new=40.0, day=1):
    stored = json.loads(json.dumps(run.canonical()))
    targets = {role: {"correct": 1, "count": 2, "accuracy": value} for role, value in (("base", base), ("new", new))}
    return {
        "key": run.key({}), "status": "done", "run": stored, "depth": METHODS[run.method].depth, "averaged": True,
        "names": {"dataset": run.dataset, "method": METHODS[run.method].name},
        "order": {"dataset": 0, "method": list(METHODS).index(run.method)},
        "targets": targets, "started": f"2026-01-{day:02}T00:00:00Z",
        "trained": run.trained.key({}) if run.test else None,
    }  # fmt: skip


def main_of(records, settings=MICRO, **asked):
    """Method -> keys of the main table's records."""
    found = {}
    for one in choose(records, ARCH, settings, **asked).main:
        found.setdefault(one["run"]["method"], set()).add(one["key"])
    return found


def keys(planned):
    return {run.key({}) for run in planned}


def test_each_row_holds_the_runs_of_its_options_and_the_default_keeps_its_name():
    calls = {
        "contcoop": runs(methods=["contcoop"]),
        "contcoop[lam=0.25]": runs("contcoop.lam=0.25", methods=["contcoop"]),
        "contcoop[lam=0.25,lr=0.1]": runs("contcoop.lam=0.25", "contcoop.lr=0.1", methods=["contcoop"]),
        "coop[steps=7]": runs("*.steps=7", methods=["coop"]),
        "zs-clip": runs(methods=["zs-clip"]),
    }
    records = [record(run) for planned in calls.values() for run in planned]
    assert main_of(records) == {id: keys(planned) for id, planned in calls.items()}
    assert all(len(planned) == 11 * 2 for planned in calls.values())
    selection = choose(records, ARCH, MICRO)
    names = {one["run"]["method"]: one["names"]["method"] for one in selection.main}
    assert names["contcoop[lam=0.25]"] == "ContCoOp (lam = 0.25)" and names["contcoop"] == "ContCoOp"
    table = list(csv.DictReader(outputs.made_from(selection)["main"].csv.splitlines()))
    assert {row["method"] for row in table} == set(calls)


def test_an_option_that_equals_the_default_is_the_methods_own_row():
    lam = str(METHODS["contcoop"].Config().lam)
    assert keys(runs(f"contcoop.lam={lam}", methods=["contcoop"])) == keys(runs(methods=["contcoop"]))
    records = [record(run) for run in runs(methods=["contcoop"])]
    assert [*main_of(records, asked=[(f"contcoop.lam={lam}",)])] == ["contcoop"]


def test_an_ablations_run_is_a_row_of_the_main_table_only_where_a_call_asked_for_its_options():
    ablation = runs(suites_=["lambda"], methods=["contcoop"])
    records = [record(run) for run in [*runs(methods=["contcoop"]), *ablation]]
    assert [*main_of(records)] == ["contcoop"]
    asked = main_of(records, asked=[("contcoop.lam=0.3",)])
    mine = [run for run in ablation if run.config.lam == 0.3]
    assert asked["contcoop[lam=0.3]"] == keys(mine) and len(mine) == 2
    rows = choose(records, ARCH, MICRO, asked=[("contcoop.lam=0.3",)]).rows["lambda"]
    assert [len(row.records) for row in rows] == [2] * 5  # and stays a row of the ablation


def test_an_ablation_that_was_run_with_other_options_alone_says_so():
    ablation = runs("contcoop.steps=7", suites_=["main", "lambda"], methods=["contcoop"], datasets_=["micro_actions"])
    records = [record(run) for run in ablation]
    for given in ({}, {"asked": [("contcoop.steps=7",)]}):
        selection = choose(records, ARCH, MICRO, **given)
        assert [*main_of(records, **given)] == ["contcoop[steps=7]"]
        text = sheet_markdown(outputs.made_from(selection)["lambda"].sheet)
        assert [len(row.records) for row in selection.rows["lambda"]] == [2] * 5
        assert "All rows: run with --set contcoop.steps=7." in text.replace("\\", "")


def test_one_call_is_one_row_where_datasets_have_other_defaults():
    """ImageNet's published schedule has 50 epochs, the others' 200."""
    published = replace(MICRO, protocol="published", views=16)
    arch, settings = ARCHS["vit-b16"], replace(published, overrides=("coop.epochs=50", "coop.lr=0.01"))
    planned = grid.grid(arch, settings, suites_=["main"], methods=["coop"], datasets_=["imagenet", "dtd"], seeds=[1])
    found = {}
    for one in choose([record(run) for run in planned], arch, published).main:
        found.setdefault(one["run"]["method"], set()).add(one["run"]["dataset"])
    assert found == {"coop[epochs=50,lr=0.01]": {"imagenet", "dtd"}}


def test_flags_narrow_to_the_rows_that_they_name():
    changed = runs("contcoop.lam=0.25", methods=["contcoop", "coop"])
    records = [record(run) for run in [*runs(methods=["contcoop", "zs-clip"]), *changed]]
    narrowed = main_of(records, replace(MICRO, overrides=("contcoop.lam=0.25",)))
    assert set(narrowed) == {"zs-clip", "coop", "contcoop[lam=0.25]"}
    assert set(main_of(records)) == {"zs-clip", "coop", "contcoop", "contcoop[lam=0.25]"}
    assert "contcoop" not in main_of(records, replace(MICRO, overrides=("contcoop.lam=0.9",)))


def test_other_shots_are_another_table_and_are_named():
    few = [record(run) for run in runs(methods=["coop"], settings=replace(MICRO, shots=4))]
    usual = [record(run) for run in runs(methods=["coop"])]
    selection = choose([*few, *usual], ARCH, MICRO)
    assert {one["key"] for one in selection.main} == {one["key"] for one in usual}
    (note,) = selection.notes
    assert note.startswith(f"{len(few)} stored records of other settings (shots 4) are in no table")
    assert note.endswith("; report --shots 4 --precision fp32 shows them")


def test_of_two_precisions_the_one_in_the_tables_is_said_and_how_to_have_the_other():
    half = [record(run) for run in runs(methods=["coop"], settings=replace(MICRO, precision="bf16"))]
    usual = [record(run) for run in runs(methods=["coop"])]
    selection = choose([*half, *usual], ARCH, MICRO)
    assert {one["key"] for one in selection.main} == {one["key"] for one in usual}
    (note,) = selection.notes
    assert note.endswith("(precision bf16) are in no table of fp32; report --precision bf16 shows them")
    asked = MICRO.of_runs
    assert reading.precision_of(reading.precisions(half, asked), None) == "bf16"
    later = [{**one, "started": "2027"} for one in usual]
    both = reading.precisions([*later, *half], asked)
    assert both == ["bf16", "fp32"] == reading.precisions([*half, *later], {**asked, "precision": "bf16"})
    assert reading.precision_of(both, None) == "fp32" and reading.precision_of(both, {"precision": "bf16"}) == "bf16"
    assert reading.precision_of(["fp32"], {"precision": "bf16"}) == "fp32" == reading.precision_of([], None)
    assert not reading.precisions(half, {**asked, "shots": 4})


def test_what_goes_beyond_the_main_suite_follows_the_row():
    asked = {"suites_": ["main", "retention", "ports", "ood"], "methods": ["coop", "zs-clip"], "seeds": [1]}
    records = [record(run) for run in grid.grid(ARCH, MICRO, **asked)]
    changed = grid.grid(ARCH, replace(MICRO, overrides=("coop.lr=0.5",)), **asked)
    records += [record(run) for run in changed if run.method == "coop"]
    selection = choose(records, ARCH, MICRO)
    for suite in ("retention", "ports", "ood"):
        counts = {}
        for row in selection.rows[suite]:
            counts[row.variant.method] = counts.get(row.variant.method, 0) + len(row.records)
        assert counts["coop"] == counts["coop[lr=0.5]"] > 0, suite
    made = outputs.made_from(selection)
    for name in ("retention", "ports", "ood", "targets"):
        if name in made:
            assert "coop[lr=0.5]" in made[name].csv, name


def test_a_method_that_was_tested_on_shifted_sets_with_other_options_alone_has_no_row_as_it_is():
    planned = runs("coop.lr=0.5", suites_=["main", "ood"], methods=["coop"], datasets_=["micro_generic"])
    rows = choose([record(run) for run in planned], ARCH, MICRO).rows["ood"]
    assert {row.variant.method for row in rows} == {"coop[lr=0.5]"} and all(len(row.records) == 2 for row in rows)


def test_records_taken_from_a_row_and_from_its_method_are_checked_once():
    records = [record(run) for run in runs("coop.lr=0.5", methods=["coop"])]
    selection = choose(records, ARCH, MICRO)
    again = selection.replaced([{**one, "names": {"method": "?"}, "targets": {}} for one in records])
    assert len(again.records) == len(records)
    assert {one["run"]["method"] for one in again.main} == {"coop[lr=0.5]"}
    assert {one["names"]["method"] for one in again.main} == {"CoOp (lr = 0.5)"}


# ---- sweeps ----------------------------------------------------------------------------------------------------------


def test_a_sweep_plans_one_row_a_value_in_place_of_the_methods_own():
    found = sweeps.swept(["contcoop.lam=0,0.30,1,0.3"], Registered(), ["contcoop"])
    planned = grid.grid(ARCH, MICRO, suites_=["main"], methods=["coop", "contcoop"], seeds=[1], sweeps=found)
    lams = sorted(run.config.lam for run in planned if run.method == "contcoop")
    assert lams == [0.0] * 11 + [0.3] * 11 + [1.0] * 11
    assert sum(run.method == "coop" for run in planned) == 11
    both = sweeps.swept(["contcoop.lam=0,1", "contcoop.crop=(0.5,1),(1,1)"], Registered(), ["contcoop"])
    assert len(both["contcoop"]) == 4


@pytest.mark.parametrize(
    "given, said",
    [
        ("contcoop.lam", "expected METHOD.OPTION=VALUE,VALUE"),
        ("contcoop.lam=0,x", "value 'x': expected one like"),
        ("contcoop.lam=0,,1", "value '': expected one like"),
        ("contcoop.lamb=1", "Did you mean 'lam'"),
        ("contcop.lam=1", "Did you mean 'contcoop'"),
        ("contcoop.batch=0", "expected batch >= 1"),
        ("coop.shots=1,2", "--sweep coop.shots=1,2: this holds for the whole call"),
        ("*.heads=1,2", "none of the chosen methods has an option"),
        ("contcoop.lam=" + ",".join(map(str, range(25))), "25 rows of contcoop, expected 24 at most"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused_in_one_line(given, said):
    with pytest.raises(UserError) as refused:
        sweeps.swept([given], Registered(), ["coop"])
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_the_curve_of_a_sweep_is_over_the_datasets_that_all_values_have():
    default = METHODS["contcoop"].Config().lam
    records = []
    for lam, sets in ((0.2, ["micro_stars", "micro_flowers"]), (0.4, ["micro_stars"])):
        planned = runs(f"contcoop.lam={lam}", methods=["contcoop"], datasets_=sets, seeds=[1, 2, 3])
        for run in planned:
            of_set = 100 * lam + (0 if run.dataset == "micro_stars" else 30)
            records.append(record(run, base=of_set + run.seed, new=of_set))
    records += [record(run, 90.0 + run.seed, 80.0) for run in runs(methods=["contcoop"], seeds=[1, 2, 3])]
    table = outputs.made_from(choose(records, ARCH, MICRO))["sweep"].frame
    assert table["value"].tolist() == [0.2, 0.4, default] and set(table["datasets"]) == {1}
    assert table["base"].tolist() == pytest.approx([22.0, 42.0, 92.0])  # of micro_stars alone
    # 95 % interval of 1, 2, 3: 4.302653 / sqrt(3)
    assert (table["base_high"] - table["base"]).tolist() == pytest.approx([2.484138] * 3)
    assert table["new_low"].tolist() == pytest.approx([20.0, 40.0, 80.0])


def test_a_sweep_without_a_dataset_in_common_says_so_and_draws_nothing():
    records = [record(run) for run in runs("contcoop.lam=0.2", methods=["contcoop"], datasets_=["micro_stars"])]
    records += [record(run) for run in runs("contcoop.lam=0.4", methods=["contcoop"], datasets_=["micro_flowers"])]
    selection = choose(records, ARCH, MICRO)
    made = outputs.made_from(selection)
    assert made["sweep"].frame.empty and not made["sweep"].sheet.blocks
    said = "ContCoOp, lam: no dataset is done with every value (0.2, 0.4), so there is no curve."
    assert said in sheet_markdown(made["sweep"].sheet).replace("\\", "")
    assert analyses_sweeps.draw({"sweep": made["sweep"]}, selection) is None
    assert report.texts(selection)[1].count(said) == 1


# ---- plans -----------------------------------------------------------------------------------------------------------


def test_a_plan_keeps_what_was_asked_and_one_without_changes_keeps_its_name(tmp_path):
    planned = {"0" * 16: "a", "1" * 16: "b"}
    plain = plans.write(tmp_path, planned)
    before = (tmp_path / "plans" / f"{plain}.json").read_bytes()
    changed = plans.write(tmp_path, planned, changes=[("contcoop.lam=0.3",), ("contcoop.lam=1",)])
    assert changed != plain and b"changes" not in before
    assert plans.changes(tmp_path) == [("contcoop.lam=0.3",), ("contcoop.lam=1",)]
    assert plans.write(tmp_path, planned, True, [("contcoop.lam=0.3",), ("contcoop.lam=1",)]) == changed
    path = tmp_path / "plans" / f"{changed}.json"
    path.write_text(path.read_text().replace("0.3", "0.4"))
    assert plans.changes(tmp_path) == [] and list(plans.differences(tmp_path, [], {*planned}))


def test_ids_of_rows_are_what_set_takes():
    (row,) = choose([record(run) for run in runs("coop.crop=(0.5,1)", methods=["coop"])], ARCH, MICRO).settings.rows
    assert row_id(row) == "coop[crop=(0.5, 1.0)]"
    assert keys(runs(*row.options, methods=["coop"])) == keys(runs("coop.crop=(0.5,1)", methods=["coop"]))


def test_a_users_method_with_several_options_is_in_no_table_where_its_file_is_not_given():
    """Only its own file tells which of its options are the default ones."""
    mine = [record(run) for run in runs(methods=["contcoop"], datasets_=["micro_stars"])]
    mine = [{**one, "run": {**one["run"], "method": "mine"}} for one in mine]
    other = [{**one, "key": one["key"][::-1], "run": {**one["run"], "config": {"lr": 5}}} for one in mine]
    usual = [record(run) for run in runs(methods=["coop"])]
    assert set(main_of([*usual, *mine])) == {"coop", "mine"}
    for records, asked in (([*usual, *mine, *other], []), ([*usual, *mine], [("mine.lr=5",)])):
        selection = choose(records, ARCH, MICRO, asked=asked)
        assert {one["run"]["method"] for one in selection.main} == {"coop"}
        (note,) = selection.notes
        assert note.startswith("'mine' was run with several options, and its file") and "--plugin-dir" in note
    assert set(main_of([*usual, *mine], asked=[("*.lr=5",)])) == {"coop", "mine"}
