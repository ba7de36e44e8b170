"""The paper's suites: what is planned, which stored records a table takes, what stands in its rows; made-up numbers."""

import csv
import warnings
from collections import Counter
from dataclasses import replace

import pytest
import torch
from checkout import ROOT
from drawings import figure_names, figure_of
from references import hooked
from tiny_fits import make

from carryover.bench.analyses.base import ANALYSES
from carryover.bench.backbones.archs import ARCHS
from carryover.bench.cli.registries import discover
from carryover.bench.errors import UserError
from carryover.bench.plan import grid, suites
from carryover.bench.plan.settings import Settings
from carryover.bench.records.selection import choose
from carryover.bench.render.sheets import sheet_markdown
from carryover.bench.report import outputs
from carryover.methods import Registered, ordered

discover()  # what is planned depends on the registered ports, whichever tests ran before
PAPER = ROOT / "results" / "paper"
MICRO = Settings(shots=16, protocol="micro", precision="fp32", views=4, limit=None, methods=Registered())
PUBLISHED = replace(MICRO, protocol="published", views=16)


def micro(*overrides, **asked):
    """All suites, unless ``suites_`` says otherwise."""
    return grid.grid(ARCHS["micro"], replace(MICRO, overrides=overrides), **{"suites_": ["all"], **asked})


ABLATIONS = ("components", "lambda", "heads", "condition", "context_length", "layers")
PORTED = 8 * 7  # methods that a map carries: three maps on two kinds of pictures, one on texts
METHODS_IN_ALL = 8 + 2  # the paper's, RAda and TaskRes


def of(runs, **fixed):
    """The runs with these settings; a name that is no setting of a run is one of its options."""
    return [r for r in runs if all(getattr(r, k, getattr(r.config, k, None)) == v for k, v in fixed.items())]


# ---- the plan --------------------------------------------------------------------------------------------------------


def test_all_suites_of_micro_are_what_the_papers_tables_need_and_nothing_twice():
    runs = micro()
    assert len(set(runs)) == len(runs)
    # Each suite's rows without those that an earlier suite has, a seed:
    main = 11 * METHODS_IN_ALL
    ood = (
        METHODS_IN_ALL * 4 + 1
    )  # each method on four shifted sets; zero-shot with the single template on the generic set
    components, heads, condition = 3, 4, 1  # without ContCoOp itself on the textures
    weights, lengths = 4, 2  # without ContCoOp itself on the actions
    layers = 3 * (6 * 2 - 1)  # without CoOp itself on the three sets
    maps = 11 * PORTED
    assert len(runs) == 3 * (main + ood + components + heads + condition + weights + lengths + layers + maps)
    assert Counter(run.seed for run in runs) == dict.fromkeys((1, 2, 3), len(runs) // 3)
    assert runs == micro(suites_=ARCHS["micro"].suites)
    assert {*micro(suites_=["all", "retention"], seeds=[1])} == {
        *of(runs, seed=1),
        *micro(suites_=["retention"], seeds=[1]),
    }


def test_a_first_look_at_micro_runs_what_the_answer_needs_and_the_papers_archs_run_all():
    first = micro(suites_=[])
    assert len(first) == 3 * 11 * (METHODS_IN_ALL + PORTED)
    assert {*first} == {*micro(suites_=["main", "maps"])} < {*micro()}
    default, every = (
        grid.grid(ARCHS["vit-b16"], PUBLISHED, suites_=asked, methods=["zs-clip", "coop", "contcoop"])
        for asked in ((), ("all",))
    )
    assert default == every and len(default) > len(
        grid.grid(ARCHS["vit-b16"], PUBLISHED, suites_=["main"], methods=["zs-clip", "coop", "contcoop"])
    )
    assert ARCHS["micro"].first and not any(arch.first for id, arch in ARCHS.items() if id != "micro")


def test_a_row_of_two_suites_is_one_run():
    default = of(micro(suites_=["main"], methods=["contcoop"], datasets_=["micro_textures"]), seed=1)
    for others in (["components"], ["heads"], ["condition"], ["components", "heads", "condition"]):
        together = of(micro(suites_=["main", *others], methods=["contcoop"], datasets_=["micro_textures"]), seed=1)
        assert set(default) <= set(of(micro(suites_=others, datasets_=["micro_textures"]), seed=1))
        assert Counter(together)[default[0]] == 1
    (coop,) = of(micro(), dataset="micro_stars", method="coop", seed=2, layer=0, start="fixed", port="")
    assert coop in micro(suites_=["main"]) and coop in micro(suites_=["layers"])


@pytest.mark.parametrize("order", [["main", "ood"], ["ood", "main"], ["ood"], []])
def test_a_shifted_set_comes_after_the_run_that_makes_its_plugin(order):
    runs = micro(suites_=order, seeds=[2, 1])
    done = set()
    for run in runs:
        assert run.trained in done or not run.test
        done.add(run)
    assert all(run.trained in runs and run.dataset == "micro_generic" for run in runs if run.test)


@pytest.mark.parametrize(
    "asked, count",
    [
        ({"datasets_": ["micro_textures"]}, METHODS_IN_ALL + 3 + 4 + 1 + 11 + PORTED),
        ({"datasets_": ["micro_generic"]}, METHODS_IN_ALL + PORTED),  # the shifted sets only where ood is named
        ({"datasets_": ["micro_generic"], "suites_": ["ood"]}, METHODS_IN_ALL * 5),
        ({"methods": ["coop"]}, 11 + 4 + 3 * 11 + 11 * 7 + 11),  # and zero-shot, which ports are measured by
        ({"methods": ["zs-clip"]}, 11 + 5),
        ({"suites_": ["heads"], "datasets_": ["micro_stars"]}, 5),
        ({"suites_": ["heads", "main"], "datasets_": ["micro_stars"]}, METHODS_IN_ALL + 4),
        ({"suites_": ["layers"], "datasets_": ["micro_land"]}, 12 + 1),  # and zero-shot, whose lines stand beside
        ({"suites_": ["layers"], "methods": ["coop"]}, 3 * 12),
        ({"suites_": ["layers"]}, 3 * (12 + 1)),
        ({"suites_": ["components", "lambda"]}, 4 + 5),
        ({"suites_": ["drift"]}, 0),
    ],
)
def test_suites_methods_and_datasets_together(asked, count):
    assert len(micro(seeds=[1], **asked)) == count


@pytest.mark.parametrize(
    "asked, said",
    [
        ({"suites_": ["heads"], "methods": ["coop"]}, "no run is left"),
        ({"suites_": ["drift", "layers"], "methods": ["zs-clip"]}, "no run is left"),
        ({"suites_": ["ood"], "datasets_": ["micro_stars"]}, "micro_generic"),
        ({"datasets_": ["micro_generic_v2"]}, "test images only"),
        ({"suites_": ["ood"], "datasets_": ["imagenet_a"]}, "test images only"),
        ({"suites_": ["layer"]}, "'layers'"),
    ],
)
def test_what_leaves_nothing_to_do_is_refused_in_one_line(asked, said):
    with pytest.raises(UserError, match=said) as caught:
        micro(**asked)
    assert "\n" not in str(caught.value)


def test_the_papers_archs_take_the_papers_sets_and_every_block():
    runs = grid.grid(ARCHS["vit-b16"], PUBLISHED, seeds=[1])
    shifted = {run.test for run in runs if run.test}
    assert shifted == {"imagenet_v2", "imagenet_sketch", "imagenet_a", "imagenet_r"}
    assert sorted({run.config.layer for run in runs if run.method == "coop"}) == list(range(12))
    assert {run.dataset for run in runs if run.method == "contcoop" and run.config.heads > 1} == {"dtd"}
    assert {run.dataset for run in runs if run.method == "contcoop" and 0 < run.config.lam < 1} == {"ucf101"}
    assert {run.test for run in grid.grid(ARCHS["vit-l14"], replace(PUBLISHED), seeds=[1])} == {""}


def test_a_row_keeps_the_value_that_it_is_labelled_with_whatever_the_user_sets():
    changed = ("contcoop.lam=0.3", "contcoop.heads=4", "contcoop.context_length=8", "contcoop.attention=False")
    changed += ("coop.layer=2", "coop.start=rows", "contcoop.condition=some {}", "zs-clip.single_template=False")
    labels = {
        "components": lambda c: ("yes" if c.attention else "no", "yes" if c.lam else "no"),
        "lambda": lambda c: (str(c.lam),),
        "heads": lambda c: (str(c.heads),),
        "condition": lambda c: (c.condition.replace("{}", "[class]"),),
        "context_length": lambda c: (str(c.context_length),),
        "layers": lambda c: (str(c.layer), c.start),
    }
    assert set(labels) == set(ABLATIONS)
    for overrides in ((), changed, ("*.lam=0",), ("contcoop.lam=0",)):
        settings = replace(MICRO, overrides=overrides)
        for id, label in labels.items():
            for row in suites.SUITES[id].variants(ARCHS["micro"]):
                assert label(settings.configure(row.method, "micro_stars", row.options)) == row.label, (id, overrides)
    # and what is not in the label is the user's
    assert all(run.config.context_length == 8 for run in micro(*changed, suites_=["heads"]))
    (main,) = micro(*changed[:1], suites_=["main"], datasets_=["micro_actions"], methods=["contcoop"], seeds=[1])
    assert main.config.lam == 0.3 and main in micro(*changed[:1], suites_=["lambda"], seeds=[1])


# ---- which records a table takes -------------------------------------------------------------------------------------

IDENTITY = {"backbones": {"base": "a", "new": "b"}, "method": "m", "templates": ["{}."], "numbers": 1}


def record(run, base, new=None, *, started=0, status="done", pictures="t", support="s", **identity):
    """A stored record with made-up accuracies. ``pictures`` of the test set, ``support`` of the training set."""

    def whole(run):
        found = {**IDENTITY, **identity, "pictures": [support, "v", pictures]}
        return {**found, "trained": run.trained.key(whole(run.trained))} if run.test else found

    targets = {"base": {"accuracy": base}, "new": {"accuracy": base if new is None else new}}
    return {
        "key": run.key(whole(run)),
        "status": status,
        "run": run.canonical(),
        "names": {
            "dataset": run.dataset.upper(),
            "method": run.method.upper(),
            "test": (run.test or run.dataset).upper(),
        },
        "depth": "shallow",
        "order": {"dataset": 0, "method": ordered().index(run.method)},
        "identity": whole(run),
        "trained": run.trained.key(whole(run.trained)),
        "targets": targets if status == "done" else {},
        "started": f"2026-01-{1 + started:02}T00:00:00Z",
    }


def tables(records, arch="micro", settings=MICRO):
    return outputs.made_from(choose(records, ARCHS[arch], settings))


def cells(output, *keys):
    """The output's row of these keys as {column: text}."""
    (row,) = [r for r in csv.DictReader(output.csv.splitlines()) if tuple(r.values())[: len(keys)] == keys]
    return row


@pytest.fixture(scope="module")
def stored():
    """Every run of one seed, accuracies all different."""
    runs = micro(seeds=[1], methods=["zs-clip", "coop", "contcoop"])
    return [record(run, 10 + i / 100, 20 + i / 100) for i, run in enumerate(runs)]


def where(records, **fixed):
    return [r for r in records if all(r["run"].get(k, r["run"]["config"].get(k)) == v for k, v in fixed.items())]


def test_every_row_of_every_table_shows_the_record_of_its_settings(stored):
    made = tables(stored)
    assert list(made) == ["answer", "main", "ood", *ABLATIONS, "ports", "port_decision", "records"]

    def accuracy(**fixed):
        (one,) = (r for r in where(stored, **fixed) if not r["run"].get("port"))
        return f"{one['targets']['base']['accuracy']:.4f}".rstrip("0")

    plain = {"method": "contcoop", "lam": 1.0, "heads": 1, "attention": True, "context_length": 16, "condition": "{}"}
    textures, actions = {**plain, "dataset": "micro_textures"}, {**plain, "dataset": "micro_actions"}
    for heads in (1, 2, 4, 8, 16):
        expected = accuracy(**{**textures, "heads": heads})
        assert cells(made["heads"], "micro_textures", str(heads))["base"].ljust(5, "0") == expected.ljust(5, "0")
    for found, expected in (
        (cells(made["components"], "micro_textures", "no", "yes"), {**textures, "attention": False, "lam": 1.0}),
        (cells(made["components"], "micro_textures", "yes", "no"), {**textures, "lam": 0.0}),
        (cells(made["lambda"], "micro_actions", "0.7"), {**actions, "lam": 0.7}),
        (cells(made["context_length"], "micro_actions", "8"), {**actions, "context_length": 8}),
        (
            cells(made["condition"], "micro_textures", "a photo of a [class]"),
            {**textures, "condition": "a photo of a {}"},
        ),
        (cells(made["layers"], "micro_stars", "3", "rows"), {"dataset": "micro_stars", "layer": 3, "start": "rows"}),
        (cells(made["main"], "micro_textures", "contcoop"), textures),
    ):
        assert float(found["base"]) == float(accuracy(**expected)), found
    for test in ("", "micro_generic_hard"):
        row = cells(made["ood"], "zs-clip", "base", test or "micro_generic")
        expected = accuracy(dataset="micro_generic", test=test, method="zs-clip", single_template=True)
        assert float(row["accuracy"]) == float(expected)
    main = cells(made["main"], "micro_generic", "zs-clip")
    assert float(main["base"]) == float(
        accuracy(dataset="micro_generic", test="", method="zs-clip", single_template=False)
    )


def test_depth_0_is_the_main_suites_coop_and_zero_shot_stands_beside(stored):
    made = tables(stored)
    for dataset in ("micro_textures", "micro_actions", "micro_stars"):
        for row, method in ((("0", "fixed"), "coop"), (("zero-shot", ""), "zs-clip")):
            own, main = cells(made["layers"], dataset, *row), cells(made["main"], dataset, method)
            assert {k: own[k] for k in ("base", "new", "h")} == {k: main[k] for k in ("base", "new", "h")}


def test_the_depth_suite_alone_has_its_zero_shot_rows():
    made = tables([record(run, 50) for run in micro(seeds=[1], suites_=["layers"])])
    for dataset in ("micro_textures", "micro_actions", "micro_stars"):
        assert cells(made["layers"], dataset, "zero-shot", "")["base"] == "50.0"
    assert "Not run" not in sheet_markdown(made["layers"].sheet)


def test_a_call_for_the_main_suite_alone_makes_no_other_table(stored):
    main = micro(seeds=[1], suites_=["main"])
    assert list(tables([record(run, 50) for run in main])) == ["answer", "main", "records"]


def test_a_missing_row_is_a_dash_and_is_listed(stored):
    left = [r for r in stored if r not in where(stored, dataset="micro_textures", heads=8)]
    failed = [
        {**r, "status": "failed", "targets": {}} if r in where(left, test="micro_generic_v2") else r for r in left
    ]
    made = tables(failed)
    assert cells(made["heads"], "micro_textures", "8")["base"] == ""
    assert "Not run or failed: micro\\_textures: 8." in sheet_markdown(made["heads"].sheet)
    text = sheet_markdown(made["ood"].sheet)
    assert "coop on micro\\_generic\\_v2" in text and "–" in text
    assert cells(made["ood"], "coop", "new", "average_of_targets")["accuracy"] == ""


def counted_out(records, *more):
    selection = choose([*records, *more], ARCHS["micro"], MICRO)
    return selection, int(selection.notes[0].split()[0]) if selection.notes else 0


def changed(run, kind, number):
    return record(
        run, 1.0, started=number, **{kind: {"backbones": {"base": "z"}, "templates": ["x {}"]}.get(kind, "z")}
    )


@pytest.mark.parametrize(
    "kind, left", [("method", "row"), ("backbones", "all"), ("numbers", "all"), ("pictures", "set")]
)
def test_records_of_another_program_or_picture_are_left_out_and_counted(stored, kind, left):
    (run,) = of(micro(seeds=[1]), dataset="micro_textures", method="contcoop", heads=4, port="")
    newest = changed(run, kind, 5)
    selection, count = counted_out(stored, newest)
    gone = {
        "row": where(stored, dataset="micro_textures", method="contcoop"),
        "set": where(stored, dataset="micro_textures"),
        "all": stored,
    }[left]
    plain = [r for r in gone if not r["run"].get("port")]  # what goes beyond them is left out with them
    assert count == len(plain) and newest["key"] in {r["key"] for r in selection.records}
    assert not {r["key"] for r in gone} & {r["key"] for r in selection.records}
    older, count = counted_out(stored, changed(run, kind, -1 + 1) | {"started": "2025-01-01T00:00:00Z"})
    assert count == 1 and {r["key"] for r in older.records} == {r["key"] for r in stored}


def test_a_shifted_set_of_a_replaced_plugin_is_left_out(stored):
    (run,) = of(micro(seeds=[1]), dataset="micro_generic", method="coop", test="", port="")
    again = record(run, 99.0, started=3, support="another training picture")
    old = [r for r in where(stored, dataset="micro_generic", method="coop") if not r["run"].get("port")]
    assert len(old) == 5
    selection, count = counted_out(stored, again)
    assert count == 5 and again["key"] in {r["key"] for r in selection.records}
    made = outputs.made_from(selection)
    assert cells(made["ood"], "contcoop", "base", "micro_generic_v2")["seeds"] == "1"
    assert not [r for r in csv.reader(made["ood"].csv.splitlines()) if r[0] == "coop"]
    tests = [
        record(one, 30.0, started=4, support="another training picture")
        for one in of(micro(seeds=[1]), method="coop")
        if one.test
    ]
    both, count = counted_out(stored, again, *tests)
    assert count == 5
    assert cells(outputs.made_from(both)["ood"], "coop", "base", "micro_generic_v2")["accuracy"] == "30.0"


def test_trials_and_other_settings_in_the_folder_change_no_table(stored):
    trials = [record(replace(run, limit=2), 1.0, started=9) for run in micro(seeds=[1, 2])]
    trials += [record(replace(run, shots=1), 2.0, started=9) for run in micro(seeds=[1, 2])]
    mine = tables(stored)
    assert {name: o.csv for name, o in tables([*trials, *stored]).items()} == {name: o.csv for name, o in mine.items()}
    limited = tables([*trials, *stored], settings=replace(MICRO, limit=2))
    assert cells(limited["heads"], "micro_textures", "4")["base"] == "1.0"


# ---- the paper's columns ---------------------------------------------------------------------------------------------


def printed(name):
    with (PAPER / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def published(**asked):
    return [
        record(run, 50 + i / 7, 40 + i / 9)
        for i, run in enumerate(grid.grid(ARCHS["vit-b16"], PUBLISHED, seeds=[1], **asked))
    ]


@pytest.mark.parametrize("id", ["components", "lambda", "heads", "condition", "context_length"])
def test_the_papers_numbers_stand_beside_the_rows_that_they_are_of(id):
    kind, suite, records = ANALYSES[id], suites.SUITES[id], published(suites_=["main", id], methods=["contcoop"])
    rows = printed(kind.printed)
    (dataset,) = suite.on["paper"]
    kept = [r for r in records if r["run"]["config"] not in [records[-1]["run"]["config"]]]
    for held in (records, kept):
        output = tables(held, "vit-b16", PUBLISHED)[id]
        assert len(output.csv.splitlines()) == 1 + len(suite.variants(ARCHS["vit-b16"]))
        for row in rows:
            found = cells(output, dataset, *(row[name] for name in kind.columns))
            assert [float(found[f"paper_{k}"]) for k in ("base", "new", "h")] == [
                float(row[k]) for k in ("base", "new", "h")
            ]
    missing = [r for r in csv.DictReader(output.csv.splitlines()) if r["seeds"] == "0"]
    assert missing and all(r["base"] == r["new"] == r["h"] == "" for r in missing)
    assert "Not run or failed" in sheet_markdown(output.sheet) and "–" in sheet_markdown(output.sheet)


def test_the_misprint_is_shown_as_printed_and_said_to_be_one():
    output = tables(published(suites_=["lambda"]), "vit-b16", PUBLISHED)["lambda"]
    assert cells(output, "ucf101", "0.3")["paper_h"] == "72.21"
    assert "72.21" in sheet_markdown(output.sheet) and "misprint" in sheet_markdown(output.sheet)
    assert "misprint" not in sheet_markdown(tables([record(r, 5) for r in micro(seeds=[1])])["lambda"].sheet)


def test_the_papers_shifted_sets_stand_in_the_base_rows_alone():
    records = published(suites_=["ood"])
    records = [r for r in records if not (r["run"]["method"] == "cocoop" and r["run"]["test"] == "imagenet_r")]
    output = tables(records, "vit-b16", PUBLISHED)["ood"]
    compared = 0
    for row in printed("table3_ood"):
        method = row.pop("method")
        for dataset, number in row.items():
            assert float(cells(output, method, "base", dataset)["paper"]) == float(number)
            assert cells(output, method, "new", dataset)["paper"] == ""
            compared += 1
    assert compared == 5 * 6
    gap = cells(output, "cocoop", "base", "imagenet_r")
    assert gap["accuracy"] == "" and gap["paper"] == "76.18"
    assert cells(output, "cocoop", "base", "average_of_targets")["accuracy"] == ""
    assert cells(output, "linear-probe", "base", "imagenet_v2")["paper"] == ""
    assert cells(output, "linear-probe", "base", "imagenet_v2")["accuracy"]
    four = [
        float(cells(output, "coop", "new", d)["accuracy"])
        for d in ("imagenet_v2", "imagenet_sketch", "imagenet_a", "imagenet_r")
    ]
    assert float(cells(output, "coop", "new", "average_of_targets")["accuracy"]) == pytest.approx(
        sum(four) / 4, abs=1e-4
    )


# ---- figures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["all", "some layers", "one layer", "no zero-shot", "failed"])
def test_figures_are_drawn_without_a_warning_whatever_is_missing(stored, tmp_path, part):
    layers = where(stored, method="coop")
    records = {
        "all": stored,
        "some layers": [r for r in stored if r["run"]["config"].get("layer", 0) in (0, 2, 5)],
        "one layer": [r for r in layers if r["run"]["config"]["layer"] == 4 and r["run"]["config"]["start"] == "rows"],
        "no zero-shot": [r for r in stored if r["run"]["method"] != "zs-clip"],
        "failed": [{**r, "status": "failed", "targets": {}} for r in stored],
    }[part]
    selection = choose(records, ARCHS["micro"], MICRO)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = {name: figure_of(name, selection) for name in figure_names()}
        for figure in filter(None, drawn.values()):
            figure.savefig(tmp_path / "figure.png")
        outputs.write_tables(selection, tmp_path)
    shown = {name for name in ("figure2d", "figure4", "lambda") if drawn[name] is not None}
    assert shown == {"one layer": {"figure2d"}, "failed": set()}.get(part, {"figure2d", "figure4", "lambda"})
    if part == "some layers":
        axes = drawn["figure2d"].axes[0]
        assert [round(x) for x in axes.get_xticks()] == [0, 2, 5] and len(drawn["figure2d"].axes) == 3


def test_a_line_that_only_a_later_panel_has_is_in_the_legend(stored):
    from matplotlib.legend import Legend

    records = [r for r in stored if r not in where(stored, dataset="micro_textures", method="zs-clip")]
    figure = figure_of("figure2d", choose(records, ARCHS["micro"], MICRO))
    texts = [text.get_text() for legend in figure.findobj(Legend) for text in legend.get_texts()]
    assert len(texts) == len(set(texts)) == 6 and sum("zero-shot" in text for text in texts) == 2


def test_tables_and_figures_of_an_earlier_selection_do_not_stay(stored, tmp_path):
    """All tables beside each other are of one selection; a user's own file is left alone."""
    outputs.write_tables(choose(stored, ARCHS["micro"], MICRO), tmp_path)
    (tmp_path / "tables" / "mine.csv").write_text("x")
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "figure4.svg").write_text("<svg/>")
    main = choose([record(run, 50) for run in micro(seeds=[1], suites_=["main"])], ARCHS["micro"], MICRO)
    outputs.write_tables(main, tmp_path)
    outputs.write_figures(main, tmp_path)
    of_main = {f"{name}.{ending}" for name in ("answer", "main") for ending in ("csv", "md", "tex")} | {"records.csv"}
    assert {p.name for p in (tmp_path / "tables").iterdir()} == {*of_main, "mine.csv"}
    assert {p.name for p in (tmp_path / "figures").iterdir()} == {
        f"{name}.{ending}" for name in ("answer", "figure2a") for ending in ("svg", "png")
    }


# ---- the start of a deeper context -----------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["base", "new"])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_the_rows_that_a_context_replaces_are_open_clips(tiny, role, layer):
    backbone, n, seen = getattr(tiny, role), 5, {}
    text = backbone.model.text
    ids = backbone.text.tokenizer([" ".join(["X"] * n) + " cat."])
    if layer:
        handle = text.transformer.resblocks[layer].register_forward_pre_hook(lambda m, args: seen.update(x=args[0]))
    else:
        handle = text.token_embedding.register_forward_hook(lambda m, args, out: seen.update(x=out))
    with hooked(handle), torch.no_grad():
        backbone.model.encode_text(ids)
    torch.testing.assert_close(backbone.text.placeholder_rows(n, layer), seen["x"][0, 1 : 1 + n], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_context_started_as_rows_is_as_large_as_those(tiny, classes, support, layer):
    method = make("coop", layer=layer, start="rows", context_length=64)
    first = method.context.detach().clone()
    method.bind(tiny.base, classes)
    method.start(support)
    rows = tiny.base.text.placeholder_rows(64, layer)
    size = method.context.detach().square().mean().sqrt() / rows.square().mean().sqrt()
    assert float(size) == pytest.approx(1, abs=4 / (2 * first.numel()) ** 0.5)  # four deviations of a sample's size
    assert torch.nn.functional.cosine_similarity(first.flatten(), method.context.detach().flatten(), dim=0) > 0.9999
    fixed = make("coop", layer=layer, context_length=64)
    fixed.bind(tiny.base, classes)
    fixed.start(support)
    assert torch.equal(fixed.context, first)
