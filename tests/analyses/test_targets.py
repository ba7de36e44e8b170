"""The matrix of methods and targets: numbers by hand, agreement with each target's own main table, gaps as gaps."""

import csv
import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from checkout import ROOT
from drawings import figure_of
from open_clip_tags import LEFT_OUT

from carryover.bench.analyses import forecast_numbers, main_table
from carryover.bench.analyses.targets import COLUMNS, has_targets, targets_sheet, targets_table
from carryover.bench.backbones.archs import ARCHS
from carryover.bench.backbones.drift_names import MEASURES
from carryover.bench.plan.grid import grid
from carryover.bench.plan.settings import Settings
from carryover.bench.records import reading
from carryover.bench.records.selection import Selection
from carryover.bench.render.sheets import sheet_markdown
from carryover.bench.report import outputs, recompute, report
from carryover.methods import Registered

IMAGES = 200
ORDER = {"zs-clip": 0, "coop": 4, "clip-adapter": 2}
NAMES = {"zs-clip": "ZS-CLIP", "coop": "CoOp", "clip-adapter": "CLIP-Adapter"}
DEPTHS = {"zs-clip": "none", "coop": "input", "clip-adapter": "output"}


def record(dataset, method, seed, right, status="done"):
    """``right``: correct answers by role."""
    targets = {
        role: {"correct": n, "count": IMAGES, "accuracy": 100 * n / IMAGES, "backbone": f"{role} model"}
        for role, n in right.items()
    }
    return {
        "key": f"{dataset}-{method}-{seed}", "status": status, "depth": DEPTHS[method], "marks": [], "averaged": True,
        "run": {"arch": "micro-all", "dataset": dataset, "method": method, "seed": seed, "shots": 16, "config": {}},
        "names": {"dataset": dataset.upper(), "method": NAMES[method]},
        "order": {"dataset": ord(dataset[0]), "method": ORDER[method]},
        "targets": targets if status == "done" else {}, "started": "2026-01-01T00:00:00Z",
    }  # fmt: skip


def right(dataset, method, seed):
    """A prompt that keeps its gain on ``second`` and half of it on ``new``, an adapter that is lost everywhere."""
    shot = {"base": 100, "new": 110, "second": 120, "other": 90}
    shift = 4 * (dataset == "zoo")
    if method == "zs-clip":
        return {role: n + shift for role, n in shot.items()}
    gain = {"coop": {"base": 30, "new": 15, "second": 30, "other": 0},
            "clip-adapter": {"base": 40, "new": -20, "second": -30, "other": -60}}[method]  # fmt: skip
    return {role: n + shift + gain[role] + 2 * seed for role, n in shot.items()}


def world(sets=("art", "zoo"), methods=("zs-clip", "clip-adapter", "coop"), seeds=(1, 2, 3)):
    return [record(d, m, s, right(d, m, s)) for d in sets for m in methods for s in seeds]


def row_of(table, **where):
    for name, value in where.items():
        table = table[table[name] == value]
    (row,) = table.to_dict("records")
    return row


# ---- numbers ---------------------------------------------------------------------------------------------------------


def test_accuracy_h_and_gain_of_a_world_computed_by_hand():
    row = row_of(targets_table(world()), dataset="art", method="coop", backbone="new")
    accuracies = [(100 + 30 + 2 * s) / 2 for s in (1, 2, 3)], [(110 + 15 + 2 * s) / 2 for s in (1, 2, 3)]
    assert row["accuracy"] == pytest.approx(np.mean(accuracies[1])) and row["seeds"] == row["gain_seeds"] == 3
    each = [scipy.stats.hmean(pair) for pair in zip(*accuracies, strict=True)]
    assert (row["h"], row["h_std"]) == (pytest.approx(np.mean(each)), pytest.approx(np.std(each, ddof=1)))
    gains = [(15 + 2 * s) / 2 for s in (1, 2, 3)]
    assert (row["gain"], row["gain_std"]) == (pytest.approx(np.mean(gains)), pytest.approx(np.std(gains, ddof=1)))


def test_the_base_column_is_accuracy_and_gain_on_the_base_and_has_no_h():
    row = row_of(targets_table(world()), dataset="zoo", method="clip-adapter", backbone="base")
    assert row["accuracy"] == pytest.approx((104 + 40 + 4) / 2) and math.isnan(row["h"])
    assert row["gain"] == pytest.approx((40 + 4) / 2)


def test_the_average_gain_is_over_datasets_seed_by_seed():
    row = row_of(targets_table(world()), dataset="average", method="clip-adapter", backbone="other")
    gains = [np.mean([(-60 + 2 * s) / 2] * 2) for s in (1, 2, 3)]
    assert row["gain"] == pytest.approx(np.mean(gains)) and row["gain_std"] == pytest.approx(np.std(gains, ddof=1))


@pytest.mark.parametrize("role", ["new", "other", "second"])
def test_each_targets_numbers_are_those_of_its_own_main_table(role):
    records = world()
    own = main_table.main_table(reading.seen_from(records, role))
    part = targets_table(records)
    part = part[part["backbone"] == role]
    both = own.merge(part, on=["dataset", "method"], suffixes=("", "_of_matrix"))
    assert len(both) == len(own) == 9
    assert np.allclose(both["new"], both["accuracy"]) and np.allclose(both["h"], both["h_of_matrix"])
    assert np.allclose(both["h_std"], both["h_std_of_matrix"], equal_nan=True)


def test_rows_stand_by_dataset_method_and_backbone_with_the_average_last():
    table = targets_table(world())
    assert list(dict.fromkeys(table["dataset"])) == ["art", "zoo", "average"]
    assert list(dict.fromkeys(table["method"])) == ["zs-clip", "clip-adapter", "coop"]
    assert table["backbone"].tolist()[:4] == ["base", "new", "other", "second"] and len(table) == 3 * 3 * 4


def test_without_its_zero_shot_a_seed_has_an_accuracy_and_no_gain():
    records = [r for r in world() if not (r["run"]["method"] == "zs-clip" and r["run"]["seed"] == 2)]
    row = row_of(targets_table(records), dataset="art", method="coop", backbone="new")
    assert (row["seeds"], row["gain_seeds"]) == (3, 2)
    assert row["gain"] == pytest.approx(np.mean([(15 + 2 * s) / 2 for s in (1, 3)]))
    none = row_of(
        targets_table([r for r in records if r["run"]["method"] != "zs-clip"]),
        dataset="average",
        method="coop",
        backbone="new",
    )
    assert none["gain_seeds"] == 0 and math.isnan(none["gain"]) and not math.isnan(none["h"])


def test_a_target_that_one_record_lacks_takes_that_seed_alone():
    records = world()
    del records[-1]["targets"]["second"]  # zoo, coop, seed 3
    table = targets_table(records)
    assert row_of(table, dataset="zoo", method="coop", backbone="second")["seeds"] == 2
    assert row_of(table, dataset="zoo", method="coop", backbone="new")["seeds"] == 3
    assert row_of(table, dataset="average", method="coop", backbone="second")["seeds"] == 2


def test_a_failed_method_is_a_dash_on_every_backbone():
    records = [r if r["run"]["method"] != "coop" else {**r, "status": "failed", "targets": {}} for r in world()]
    table = targets_table(records)
    assert table[table["method"] == "coop"]["accuracy"].isna().all()
    assert "was not run, or failed" in sheet_markdown(targets_sheet(targets_table(records), records))


# ---- what readers see ------------------------------------------------------------------------------------------------


def test_the_sheet_shows_h_gain_best_and_where_methods_end():
    text = sheet_markdown(targets_sheet(targets_table(world()), world())).replace("\\", "")
    assert "Average over 2 datasets: H with each target" in text
    assert "second: CoOp has the highest average H" in text and "1 of 2 methods is above its zero-shot" in text
    lines = [line for line in text.splitlines() if line.startswith("| CoOp")]
    assert "+17.00 ± 1.00" in lines[1] and "+9.50 ± 1.00" in lines[1] and "+2.00 ± 1.00" in lines[1]
    shot = [line for line in text.splitlines() if line.startswith("| ZS-CLIP")]
    assert "51.00 ± 0.00" in shot[1] and "+" not in shot[1]  # its own accuracy, not a gain of nothing
    assert "other: other model" in text


def test_one_update_has_no_matrix_of_its_own():
    records = world()
    for one in records:
        one["targets"] = {role: one["targets"][role] for role in ("base", "new")}
    assert not has_targets(records) and "targets" not in outputs.made_from(Selection(ARCHS["micro"], tuple(records)))
    assert figure_of("targets", Selection(ARCHS["micro"], tuple(records))) is None


def test_the_figure_writes_every_number_of_the_average_once():
    figure = figure_of("targets", Selection(ARCHS["micro-all"], tuple(world())))
    above, below = figure.axes
    table = targets_table(world())
    table = table[table["dataset"] == "average"]
    shown = sorted(text.get_text() for text in above.texts)
    assert shown == sorted(f"{a if b == 'base' else h:.1f}" for a, b, h in table[["accuracy", "backbone", "h"]].values)
    gains = table[table["method"] != "zs-clip"]["gain"]
    assert sorted(text.get_text() for text in below.texts) == sorted(f"{value:+.1f}" for value in gains)
    assert [label.get_text() for label in above.get_xticklabels()] == ["Base", "New", "other", "second"]


def test_the_figure_leaves_what_is_missing_grey_and_draws_equal_numbers():
    records = [r for r in world() if r["run"]["method"] != "zs-clip"]
    figure = figure_of("targets", Selection(ARCHS["micro-all"], tuple(records)))
    assert {text.get_text() for text in figure.axes[1].texts} == {"–"}
    for one in (alike := world()):
        one["targets"] = {role: {**target, "accuracy": 50.0} for role, target in one["targets"].items()}
    figure = figure_of("targets", Selection(ARCHS["micro-all"], tuple(alike)))
    assert {text.get_text() for text in figure.axes[0].texts} == {"50.0"}
    figure.canvas.draw()


# ---- files -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path):
    """Tables of the world on disk, with predictions that give its counts."""
    records = world()
    for one in records:
        one["run"].update(protocol="micro", precision="fp32", views=4, limit=None)
    selection = Selection(
        ARCHS["micro-all"], tuple(records), settings=Settings(16, "micro", "fp32", 4, None, methods=Registered())
    )
    outputs.write_tables(selection, tmp_path)

    def predictions(key):
        (one,) = [r for r in records if r["key"] == key]
        truth = np.zeros(IMAGES, int)
        return {
            role: (np.r_[np.zeros(t["correct"], int), np.ones(IMAGES - t["correct"], int)], truth)
            for role, t in one["targets"].items()
        }

    return selection, predictions, tmp_path


def test_check_recounts_every_cell_and_names_a_forged_one(written):
    selection, predictions, folder = written
    assert recompute.recompute(selection, predictions, folder) == []
    path = folder / "tables" / "targets.csv"
    rows = list(csv.reader(path.open(newline="")))
    place = next(i for i, row in enumerate(rows) if row[:3] == ["average", "coop", "second"])
    rows[place][rows[0].index("gain")] = "99.0"
    path.write_text("\n".join(",".join(row) for row in rows) + "\n")
    (line,) = recompute.recompute(selection, predictions, folder)
    assert "gain of ('average', 'coop', 'second') is '99.0', recomputed '17.0'" in line


def test_a_matrix_of_an_earlier_selection_does_not_stay(written):
    selection, _, folder = written
    assert (folder / "tables" / "targets.md").is_file()
    for one in selection.main:
        one["targets"] = {role: one["targets"][role] for role in ("base", "new")}
    outputs.write_tables(replace(selection), folder)
    assert not list((folder / "tables").glob("targets.*")) and (folder / "tables" / "main.csv").is_file()


def test_the_report_has_a_section_with_the_figure(written):
    selection, _, _ = written
    markdown, page = report.texts(selection)
    assert "### Every plug-in on every target" in markdown and "figures/targets.svg" in markdown
    assert "Every plug-in on every target" in page


# ---- the plan --------------------------------------------------------------------------------------------------------


def test_the_targets_suite_adds_no_run_of_its_own():
    arch, settings = ARCHS["micro-all"], Settings(16, "micro", "fp32", 4, None, methods=Registered())
    main = grid(arch, settings, suites_=["main"], seeds=[1])
    assert grid(arch, settings, suites_=["targets"], seeds=[1]) == main
    assert grid(arch, settings, suites_=["main", "targets"], seeds=[1]) == main
    assert grid(arch, settings, suites_=["main", "targets", "drift"], seeds=[1]) == main
    assert len(main) == 11 * len({run.method for run in main})


def test_the_reference_for_readers_explains_every_column_and_docs_name_every_target():
    text = (ROOT / "results" / "README.md").read_text()
    for columns in (COLUMNS, forecast_numbers.COLUMNS, forecast_numbers.CHOICE_COLUMNS, MEASURES):
        assert [name for name in columns if f"`{name}`" not in text] == []
    told = (ROOT / "docs" / "targets.md").read_text()
    for arch in (ARCHS[name] for name in ("vit-b16-all", "vit-l14-all", "vit-h14-all", "siglip-b16")):
        assert [t.label for t in arch.towers.values() if f"`{t.label}`" not in told] == []
    assert [reason for reason in LEFT_OUT if reason not in " ".join(told.split())] == []
