"""Every field of all that a number is made from is walked: changed alone it changes the key, or it is named here as one
that must not, with the reason. A field that nobody thought of fails the walk."""

import argparse
import copy
import inspect
import shutil
from dataclasses import fields, replace
from types import SimpleNamespace

import numpy as np
import PIL
import pytest
import torch
from tiny_caltech import write_caltech
from tiny_towers import NAMES, tiny_model, wrap
from toys import execute, open_toy, pictures, toy, toy_run

from carryover import datasets
from carryover.bench.backbones import loading
from carryover.bench.backbones.archs import ARCHS, Arch, Tower
from carryover.bench.cli.parsing import parse, parser
from carryover.bench.cli.settings import plan_of
from carryover.bench.engine import run_keys, session
from carryover.bench.engine.options import Options
from carryover.bench.errors import UserError
from carryover.bench.features import store as features_store
from carryover.bench.features.store import TEST_RECIPE, FeatureStore, view_recipe
from carryover.bench.features.transforms import View
from carryover.bench.plan import grid
from carryover.bench.plan.runs import Run
from carryover.bench.plan.settings import Settings
from carryover.datasets.base import Dataset, Split
from carryover.methods import Registered, discover, source_hash
from carryover.methods.base import METHODS

CPU, LOAD = torch.device("cpu"), datasets.load
CHOICES = {  # another value of a text option that has few
    "": "texts.json#4-0123456789abcdef",  # a file, as Descriptions knows it without reading it
    "sgd": "adam",
    "adam": "sgd",
    "adamw": "adam",
    "epoch": "iteration",
    "iteration": "epoch",
    "all": "mean",
    "uniform": "normal",
    "fixed": "rows",
    "clean": "published",
    "change": "value",
    "{}": "a {}",
}


def other(value):
    """Another value of the same type that an option takes."""
    if isinstance(value, bool) or value is None:
        return 7 if value is None else not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value / 2 or 0.5
    if value == ():
        return ("more",)
    return tuple(map(other, value)) if isinstance(value, tuple) else CHOICES.get(value, f"{value} more")


def altered(config, name):
    """A copy with that field changed, past what the class allows now."""
    changed = copy.copy(config)
    object.__setattr__(changed, name, other(getattr(config, name)))
    return changed


def named(walked, *groups):
    """All fields of the dataclass are in one of the groups, each in one."""
    listed = [name for group in groups for name in group]
    known = [field.name for field in fields(walked)]
    assert sorted(listed) == sorted(known), f"{walked.__name__}: say of each field whether it changes a key"


@pytest.fixture
def opened(monkeypatch, tiny, tmp_path):
    return lambda data=toy, **options: open_toy(monkeypatch, tiny, tmp_path, data, **options)


# ---- run and options of methods --------------------------------------------------------------------------------------


def test_a_key_changes_with_every_field_of_a_run_alone(opened):
    run = toy_run("contcoop")
    identity, key = opened().keys.identity(run), opened().keys.of(run)
    assert run.key(identity) == key
    found = {f.name: replace(run, **{f.name: other(getattr(run, f.name))}) for f in fields(Run) if f.name != "config"}
    assert len({key, *(changed.key(identity) for changed in found.values())}) == len(fields(Run))


def test_a_key_changes_with_every_option_of_every_method_alone(method_name, opened):
    here, run = opened(), toy_run(method_name)
    keys = {here.keys.of(run)}
    for field in fields(METHODS[method_name].Config):
        changed = replace(run.config, **{field.name: other(getattr(run.config, field.name))})
        keys.add(here.keys.of(replace(run, config=changed)))
    assert len(keys) == 1 + len(fields(METHODS[method_name].Config))


def test_every_setting_of_a_call_changes_the_keys_of_its_runs():
    base = Settings(4, "published", "fp32", 2, None, methods=Registered())

    def key(given):
        asked = {"suites_": ["main"], "methods": ["coop"], "datasets_": ["dtd"], "seeds": [1]}
        (run,) = grid.grid(ARCHS["micro"], given, **asked)
        return run.key({})

    changed = {f.name: other(getattr(base, f.name)) for f in fields(Settings) if f.compare}
    changed |= {"protocol": "micro", "precision": "bf16", "overrides": ("coop.lr=0.1",)}
    assert len({key(base), *(key(replace(base, **{k: v})) for k, v in changed.items())}) == 1 + len(changed)


def test_a_key_changes_with_each_part_of_the_identity_alone_for_tip_adapters_published_search_too(opened):
    config = replace(METHODS["tip-adapter-f"].Config(), selection="published")
    for run in (toy_run("coop"), toy_run("coop", test="shifted"), toy_run("tip-adapter-f", config=config)):
        identity = opened().keys.identity(run)
        assert ("selection" in identity) == (run.config == config) and ("trained" in identity) == bool(run.test)
        keys = {run.key({**identity, name: "another"}) for name in identity}
        assert len(keys | {run.key(identity)}) == 1 + len(identity)


@pytest.mark.parametrize("home, name", [(run_keys, "NUMBERS_VERSION"), (run_keys, "FEATURES_VERSION")])
def test_a_raised_version_of_the_program_changes_the_key(opened, monkeypatch, home, name):
    before = opened().keys.of(toy_run("coop"))
    monkeypatch.setattr(home, name, getattr(home, name) + 1)
    assert opened().keys.of(toy_run("coop")) != before


# ---- options of a process --------------------------------------------------------------------------------------------

NOT_IN_KEYS = {
    "device": ("mps", "features hold it in their own identity; records name it"),
    "cards": ((1,), "which of several of one device; records name it"),
    "out": ("elsewhere", "where results lie"),
    "cache": ("elsewhere", "where features lie"),
    "hub_cache": ("elsewhere", "weights are known by their bytes"),
    "data_root": ("elsewhere", "pictures are known by names, sizes and times"),
    "text_budget": (1 << 20, "size of the chunks of a text pass: rounding alone"),
    "image_batch": (7, "size of the batches of a tower: rounding alone"),
    "debug": (True, "what is printed"),
    "make_split": (True, "known by the pictures of the split that it makes"),
    "folders": ((("folder:mine", "elsewhere"),), "known by the pictures in them"),
    "together": (3, "how many are trained side by side; test_same_in_same_out.py holds that the bits are the same"),
    "asked": (True, "a user's number of them is kept where it changes last bits, and marked"),
    "max_pixels": (178956970, "a picture above it stops the run"),  # Pillow's own: it is set for the process
    "graphs": (False, "how a GPU is given its steps; test_device_graphs.py holds that the numbers are the same"),
    "sharing": (4, "parts the memory of a GPU among processes: the size of the chunks of a text pass"),
    "workers": (3, "who decodes; test_loading.py holds that the bits are the same"),
}


def test_every_option_of_a_process_changes_a_key_or_is_named_as_one_that_must_not(opened, monkeypatch):
    monkeypatch.setattr(torch.cuda, "set_device", lambda card: None)
    named(Options, NOT_IN_KEYS, ("arch", "precision", "plugin_dirs", "manifests"))
    run = toy_run("coop")
    key = opened().keys.of(run)
    for name, (value, _) in NOT_IN_KEYS.items():
        assert getattr(opened().options, name) != value
        assert opened(**{name: value}).keys.of(run) == key, name


def test_a_process_of_another_precision_than_the_runs_is_refused_naming_both(opened):
    with pytest.raises(UserError, match="fp32.*bf16"):
        opened(precision="bf16").keys.of(toy_run("coop"))
    in_bf16 = opened(precision="bf16").keys.of(toy_run("coop", precision="bf16"))
    assert in_bf16 != opened().keys.of(toy_run("coop"))


def test_given_few_shot_images_change_the_key_unless_they_are_the_drawn_ones(opened, tmp_path):
    run, here = toy_run("coop"), opened()
    assert execute(here, run, here.keys.of(run))["status"] == "done"
    splits = here.store.folder / "splits"
    assert opened(manifests=str(splits)).keys.of(run) == here.keys.of(run), "the very images that are drawn"
    (file,) = splits.glob("*-train.jsonl")
    file.write_text("".join(reversed(file.read_text().splitlines(keepends=True))))
    assert opened(manifests=str(splits)).keys.of(run) != here.keys.of(run), "another order is another training"


def test_flags_that_say_how_or_where_leave_the_plan_and_its_keys_as_they_are(opened, tmp_path):
    argv = ["--datasets", "micro_stars", "--seeds", "1"]
    how = {
        "jobs": "2",
        "workers": "1",
        "max_pixels": "9",
        "out": "x",
        "cache": "x",
        "data_root": "x",
        "hub_cache": "x",
        "device": "cpu",
    }
    how |= {"mirror": "", "debug": None, "fresh": None, "fail_fast": None, "dry_run": None, "text_memory": "1"}
    how |= {"ray_address": "auto", "ray_gpus": "0.5", "ray_scratch": "x"}
    how |= {"engine": "ray", "make_split": None, "together": "2", "cuda_graphs": "off", "run_limit": "60", "to": ""}
    how |= {"no_examples": None, "log_dir": "x", "wandb": "x"}
    what = {"arch", "suite", "methods", "datasets", "seeds", "shots", "protocol", "views", "overrides", "limit"}
    what |= {"sweep", "precision", "base_weights", "new_weights", "plugin_dir", "manifests"}
    elsewhere = {"plugin", "backbone", "dataset", "json", "markdown", "to"}  # of commands that train nothing
    elsewhere |= {"base", "new", "old", "map", "port", "head", "images", "count", "encode"}
    elsewhere |= {"kind", "classes", "template", "fact", "facts", "top", "push"}
    about = {
        "command",
        "what",
        "help",
        "check",
        "config",
        "version",
        "print_completion",
    }  # the command itself, and where its flags are read from
    flags = {action.dest: action for action in parser()._actions}
    assert set(flags) == what | set(how) | elsewhere | about, "say of each flag whether it changes a key"
    usual = plan_of(parse(argv), ARCHS["micro"])
    for name, value in how.items():
        if name not in ("mirror", "to"):  # go with prepare and leaderboard alone
            given = [flags[name].option_strings[-1], *([value] if value else [])]
            given += ["--engine", "ray"] if name.startswith("ray") else []
            assert plan_of(parse([*argv, *given]), ARCHS["micro"]) == usual, name
    assert isinstance(flags["help"], argparse.Action)


# ---- backbones -------------------------------------------------------------------------------------------------------


def test_a_backbones_fingerprint_changes_with_every_tensor_and_with_what_the_tower_is(tiny, monkeypatch):
    model, tower = tiny_model(3, True), tiny.base.tower
    found = {loading.fingerprint(model, tower)}
    state = model.state_dict()
    for value in state.values():
        kept = value.clone()
        flat = value.view(-1)
        flat[len(flat) // 2] = torch.nextafter(flat[len(flat) // 2], torch.tensor(9.0))
        found.add(loading.fingerprint(model, tower))
        value.copy_(kept)
    assert len(found) == 1 + len(state), "one unit of the last place of one number of each tensor"
    assert loading.fingerprint(model, tower) in found
    unlike = {"model": "ViT-B-32", "activation": "gelu"}
    exempt = {
        "pretrained": "weights are known by their bytes",
        "weights": "likewise",
        "width": "asserted after loading",
        "dim": "asserted after loading",
        "layers": "asserted by the tensors' names",
        "clip_transform": "a check; the transform itself is in the identity",
    }
    named(Tower, unlike, exempt)
    changed = [loading.fingerprint(model, replace(tower, **{name: value})) for name, value in unlike.items()]
    assert len(found | set(changed)) == 1 + len(state) + len(unlike)
    for name in exempt:
        assert loading.fingerprint(model, replace(tower, **{name: other(getattr(tower, name))})) in found
    assert loading.fingerprint(model.half(), tower) not in found


def test_a_key_changes_with_the_base_the_update_and_each_further_one(opened, monkeypatch, tiny):
    named(
        Arch,
        ("base", "new", "more"),
        ("id", "protocol", "datasets", "suites", "first"),  # parts of a run, or what the plan is made of
        ("source", "controls"),  # the file's name; what drift alone looks at
    )
    run, here = toy_run("coop"), opened()
    key, arch = here.keys.of(run), here.options.arch
    third = wrap(tiny_model(9, True), "tiny-third", "quick_gelu")
    monkeypatch.setattr(
        loading, "load", lambda tower, *_: {"base": tiny.base, "new": tiny.new, "third": third}[tower.model[5:]]
    )
    changed = [replace(arch, base=third.tower), replace(arch, new=third.tower), replace(arch, more={"x": third.tower})]
    keys = {session.Session(Options(each, "cpu", "x", "x")).keys.of(run) for each in changed}
    assert len(keys | {key}) == 4


def test_a_key_changes_with_every_field_of_either_backbones_picture_transform(opened, tiny, monkeypatch):
    run = toy_run("coop")
    key, keys = opened().keys.of(run), set()
    for backbone in (tiny.base, tiny.new):
        config = backbone.preprocess_config
        for field in fields(config):
            with monkeypatch.context() as patch:
                patch.setattr(backbone, "preprocess_config", altered(config, field.name))
                keys.add(opened().keys.of(run))
    assert len(keys | {key}) == 1 + 2 * len(fields(tiny.base.preprocess_config))


# ---- pictures --------------------------------------------------------------------------------------------------------


def test_a_splits_hashes_change_with_every_field_but_who_reads_it():
    split, names = pictures("test"), NAMES
    named(Split, ("keys", "labels", "stamper"), ("reader",))  # what is read is known by its names and stamps
    renamed = replace(split, keys=("x", *split.keys[1:]))
    labelled = replace(split, labels=np.roll(split.labels, 1))
    stamped = replace(split, stamper=lambda indices: [f"later{i}" for i in indices])
    ordered = split.take([1, 0, *range(2, len(split))])
    each = [renamed, labelled, ordered, split.take(range(len(split) - 1))]
    assert len({s.sha256(names) for s in (split, *each)}) == 1 + len(each)
    assert len({s.content_sha256(names) for s in (split, stamped, *each)}) == 2 + len(each)
    assert split.sha256(("x", *names[1:])) != split.sha256(names)
    assert replace(split, reader=lambda indices: []).content_sha256(names) == split.content_sha256(names)


def test_a_key_changes_with_every_field_of_a_dataset_that_numbers_are_made_of(opened):
    data, run = toy(), toy_run("coop")
    shown = {"name": "Another", "about": "another", "notes": ("marked",), "class_ids": ("n01",) * len(NAMES)}
    made_of = {
        "classnames": (*NAMES, "a class without a picture"),
        "templates": ("a {}.",),
        "train": pictures("train", stamp="later"),
        "val": pictures("val", stamp="later"),
        "test": pictures("test", stamp="later"),
    }
    named(Dataset, shown, made_of, ("id",))
    key = opened().keys.of(run)
    for name, value in shown.items():
        assert opened(lambda id, n=name, v=value: replace(data, **{n: v})).keys.of(run) == key, name
    keys = {opened(lambda id, n=name, v=value: replace(data, **{n: v})).keys.of(run) for name, value in made_of.items()}
    assert len(keys | {key}) == 1 + len(made_of)


def test_on_a_shifted_set_the_key_changes_with_the_sets_pictures_and_names_and_with_the_training_runs_key(opened):
    run = toy_run("coop", test="shifted")

    def key(shifted=None, trained=None):
        return opened(lambda id: (shifted if id == "shifted" else trained) or toy(id)).keys.of(run)

    changed = [
        key(toy("shifted", test=pictures("test", stamp="later"))),
        key(replace(toy("shifted"), classnames=(*NAMES, "one more"))),
        key(replace(toy("shifted"), templates=("a {}.",))),
        key(trained=toy(train=pictures("train", stamp="later"))),
        key(trained=replace(toy(), templates=("a {}.",))),
    ]
    assert len({key(), *changed}) == 6
    assert key(toy("shifted", train=pictures("train", stamp="later"))) == key(), "nothing is trained on it"


def test_of_a_validation_list_the_drawn_pictures_count_and_all_where_a_protocol_searches_on_all(opened):
    tip = METHODS["tip-adapter-f"].Config
    runs = {kind: toy_run("tip-adapter-f", config=replace(tip(), selection=kind)) for kind in ("clean", "published")}
    drawn = {*opened().fewshot(runs["clean"]).val.keys}
    (left, *_) = [i for i, key in enumerate(toy().val.keys) if key not in drawn]

    def later(id):
        return toy(id, val=replace(toy().val, stamper=lambda indices: [f"{'later' * (i == left)}{i}" for i in indices]))

    assert opened(later).keys.of(runs["clean"]) == opened().keys.of(runs["clean"])
    assert opened(later).keys.of(runs["published"]) != opened().keys.of(runs["published"])


def test_a_data_root_that_moved_keeps_every_key_and_a_replaced_picture_changes_it(opened, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    write_caltech(one)
    shutil.copytree(one, two)
    run = toy_run("coop", dataset="caltech101", shots=2)

    def key(root):
        return opened(lambda id: LOAD(id, str(root))).keys.of(run)

    before = key(one)
    assert key(two) == before
    for path in two.rglob("*_0000.*"):
        path.write_bytes(path.read_bytes() + b"\0")
    assert key(two) != before


# ---- features --------------------------------------------------------------------------------------------------------


def test_a_feature_file_changes_with_everything_it_is_made_of(tiny, tmp_path, monkeypatch):
    exempt = {"self", "cache", "batch", "progress", "loader"}  # where, how many at once, what is said, who decodes
    assert set(inspect.signature(FeatureStore.__init__).parameters) - exempt == {"backbone", "precision"}

    def name(backbone=tiny.base, precision="fp32", recipe=TEST_RECIPE, split=None, names=NAMES, **more):
        store = FeatureStore(tmp_path, backbone, precision, **more)
        return store.path(store.identity(recipe, split or pictures("test"), names)).name

    usual, found = name(), [name(precision="bf16"), name(tiny.new)]
    assert name(batch=3) == usual
    for field in fields(tiny.base.preprocess_config):
        changed = altered(tiny.base.preprocess_config, field.name)
        found.append(name(SimpleNamespace(**{**vars(tiny.base), "preprocess_config": changed, "device": CPU})))
    found.append(name(SimpleNamespace(**{**vars(tiny.base), "device": torch.device("meta")})))
    found += [name(split=pictures("val")), name(split=pictures("test", stamp="later")), name(names=("x", *NAMES[1:]))]
    recipe = {"crop": (0.5, 1.0), "seed": 1, "view": 0}
    assert set(recipe) == set(inspect.signature(view_recipe).parameters)
    named(View, ("crop", "seed", "number"), ("size",))  # the transform's, walked above
    found.append(name(recipe=view_recipe(**recipe)))
    found += [name(recipe=view_recipe(**{**recipe, k: other(v)})) for k, v in recipe.items()]
    for home, constant in ((features_store, "RATIO"), (features_store, "FLIP"), (features_store, "FEATURES_VERSION")):
        with monkeypatch.context() as patch:
            patch.setattr(home, constant, other(getattr(home, constant)))
            found.append(name(recipe=view_recipe(**recipe)))
    with monkeypatch.context() as patch:
        patch.setattr(PIL, "__version__", "0.0")
        found.append(name())
    assert len({usual, *found}) == 1 + len(found)


# ---- a method's source -----------------------------------------------------------------------------------------------

MINE = """
from carryover.methods.base import register
from carryover.methods.coop import CoOp


@register("zz-mine")
class Mine(CoOp):
    scale = 1
"""


def test_a_users_method_is_known_by_its_code_wherever_its_file_lies(tmp_path, monkeypatch, clean_registry):
    found = []
    for place, text in (("a/b", MINE), ("z", MINE), ("c", MINE.replace("= 1", "= 2")), ("d", MINE + "# said\n")):
        folder = tmp_path / place
        folder.mkdir(parents=True)
        (folder / "mine.py").write_text(text)
        discover((str(folder),))
        found.append(source_hash(METHODS.entries.pop("zz-mine")))
    assert found[0] == found[1] == found[3] != found[2]
