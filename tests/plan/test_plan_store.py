"""The plan (grid, configs, keys) and the store (whole files, records that fit their key)."""

import hashlib
import json
import math
from dataclasses import fields, replace

import pytest
import torch

from carryover import datasets
from carryover.bench.backbones.arch_files import find_arch
from carryover.bench.backbones.archs import ARCHS
from carryover.bench.engine.run_store import RunStore
from carryover.bench.errors import UserError
from carryover.bench.host.files import whole, write_text
from carryover.bench.host.identity import canonical, sha256_of
from carryover.bench.host.tensor_files import read_tensors, write_tensors
from carryover.bench.plan import grid as plan_grid
from carryover.bench.plan import settings
from carryover.bench.plan.grid import default_methods
from carryover.bench.plan.settings import Settings
from carryover.methods import Registered, ordered
from carryover.methods.base import METHODS

IDENTITY = {"backbones": {"base": "a", "new": "b"}, "splits": {"train_sha256": "c"}, "method": "d", "templates": ["{}"]}


def grid(arch="vit-b16", **changes):
    """The main suite, unless ``suites_`` says otherwise."""
    shared = {"shots": 16, "protocol": "published", "precision": "fp32", "views": 16, "limit": None, "overrides": ()}
    own = {name: changes.pop(name) for name in list(changes) if name in shared}
    return plan_grid.grid(
        ARCHS[arch], Settings(**{**shared, **own}, methods=Registered()), **{"suites_": ["main"], **changes}
    )


# ---- grid ------------------------------------------------------------------------------------------------------------


def test_default_grid_is_every_dataset_seed_and_method_once_grouped_by_dataset_and_seed():
    runs = grid("micro", protocol="micro")
    expected = [(d, s, m) for d in datasets.default("micro") for s in (1, 2, 3) for m in default_methods(Registered())]
    assert [(r.dataset, r.seed, r.method) for r in runs] == expected
    assert len(runs) == 11 * 3 * len(default_methods(Registered()))
    assert {(r.arch, r.test, r.shots) for r in runs} == {("micro", "", 16)}


def test_the_papers_eight_methods_come_first_and_in_its_order():
    assert ordered()[:8] == [
        "zs-clip",
        "linear-probe",
        "clip-adapter",
        "tip-adapter-f",
        "coop",
        "cocoop",
        "kgcoop",
        "contcoop",
    ]


def test_repeated_names_and_seeds_are_planned_once_in_the_order_given():
    runs = grid(methods=["coop", "zs-clip", "coop"], datasets_=["dtd", "caltech101", "dtd"], seeds=[2, 1, 2])
    assert [(r.dataset, r.seed, r.method) for r in runs] == [
        (d, s, m) for d in ("dtd", "caltech101") for s in (2, 1) for m in ("coop", "zs-clip")
    ]


@pytest.mark.parametrize(
    "changes, near",
    [({"methods": ["contcop"]}, "contcoop"), ({"datasets_": ["eurosatt"]}, "eurosat"), ({"suites_": ["mian"]}, "main")],
)
def test_unknown_names_are_refused_with_the_nearest(changes, near):
    with pytest.raises(UserError, match=f"Did you mean '{near}'"):
        grid(**changes)


def test_unknown_arch_and_missing_weights_file_are_refused(tmp_path):
    with pytest.raises(UserError, match="Did you mean 'vit-b16'"):
        find_arch("vit-b-16")
    with pytest.raises(UserError, match="--new-weights.*nothing.pt"):
        find_arch("micro", "", str(tmp_path / "nothing.pt"))


# ---- configs ---------------------------------------------------------------------------------------------------------


def config(method, dataset="caltech101", shots=16, overrides=(), protocol="published", methods=()):
    changes = settings.parse_overrides(list(overrides), Registered(), list(methods) or [method])
    return settings.configure(Registered(), method, dataset, shots, protocol, changes)


@pytest.mark.parametrize("method", ["coop", "contcoop"])
def test_coops_epochs_follow_its_shots_and_imagenets_rule(method):
    published = {1: 50, 2: 100, 4: 100, 8: 200, 16: 200}
    assert {shots: config(method, shots=shots).epochs for shots in published} == published
    assert {config(method, "imagenet", shots).epochs for shots in published} == {50}
    first = config(method)
    assert (
        first.optimizer,
        first.lr,
        first.momentum,
        first.weight_decay,
        first.batch,
        first.warmup_lr,
        first.crop,
    ) == ("sgd", 0.002, 0.9, 5e-4, 32, 1e-5, (0.08, 1.0))
    assert first.context_length == 16


def test_published_settings_of_the_other_prompt_methods():
    cocoop, kgcoop, contcoop = config("cocoop"), config("kgcoop"), config("contcoop")
    assert (cocoop.batch, cocoop.epochs, cocoop.initial_words) == (1, 10, "a photo of a")
    assert (kgcoop.batch, kgcoop.epochs, kgcoop.weight, kgcoop.initial_words) == (128, 100, 8.0, "a photo of a")
    assert (contcoop.lam, contcoop.heads, contcoop.attention) == (1.0, 1, True)
    assert config("linear-probe").coarse == (1e6, 1e4, 1e2, 1, 1e-2, 1e-4, 1e-6)
    assert (config("clip-adapter").ratio, config("clip-adapter").reduction) == (0.2, 4)


def test_tip_adapters_table_of_search_ranges_and_epochs():
    published = {
        "imagenet": (1.17, 7, 3),
        "caltech101": (3, 12, 5),
        "oxford_pets": (1.17, 7, 3),
        "stanford_cars": (3, 20, 10),
        "flowers102": (10, 50, 50),
        "food101": (1.17, 10, 10),
        "fgvc_aircraft": (5, 30, 30),
        "sun397": (1.17, 12, 10),
        "dtd": (2, 13, 13),
        "eurosat": (2, 12, 10),
        "ucf101": (3, 7, 3),
    }
    for dataset, (alpha, beta_end, alpha_end) in published.items():
        c = config("tip-adapter-f", dataset)
        assert (c.alpha, c.beta, c.max_beta, c.max_alpha) == (alpha, 1.0, beta_end, alpha_end), dataset
        assert c.epochs == (100 if dataset == "eurosat" else 20)
    assert (c.optimizer, c.lr, c.eps, c.weight_decay, c.batch, c.schedule, c.crop, c.drop_last) == (
        "adamw",
        1e-3,
        1e-4,
        0.01,
        256,
        "iteration",
        (0.5, 1.0),
        False,
    )
    assert c.selection == "clean"


def test_overrides_change_one_method_or_all_that_have_the_option():
    overrides = ["coop.context_length=4", "*.lr=1", "*.heads=2", "coop.crop=(0.5,1)", "contcoop.attention=false"]
    coop = config("coop", overrides=overrides, methods=["coop", "contcoop"])
    contcoop = config("contcoop", overrides=overrides, methods=["coop", "contcoop"])
    assert (coop.context_length, coop.lr, coop.crop) == (4, 1.0, (0.5, 1.0)) and isinstance(coop.lr, float)
    assert (contcoop.context_length, contcoop.lr, contcoop.heads, contcoop.attention) == (16, 1.0, 2, False)


def test_a_methods_own_override_wins_over_the_star():
    assert config("coop", overrides=["coop.lr=0.5", "*.lr=1"]).lr == 0.5


def test_epochs_set_by_the_user_replace_micros_steps_and_train_nothing_that_does_not_train():
    assert config("coop", protocol="micro").steps > 0
    mine = config("coop", overrides=["*.epochs=2"], protocol="micro")
    assert (mine.epochs, mine.steps) == (2, 0)
    assert config("zs-clip", overrides=["*.epochs=2"], methods=["coop"]).epochs == 0


@pytest.mark.parametrize(
    "item, expected",
    [
        ("coop", "METHOD.OPTION=VALUE"),
        ("coop.lr", "METHOD.OPTION=VALUE"),
        ("lr=3", "METHOD.OPTION=VALUE"),
        ("=3", "METHOD"),
        ("cop.lr=3", "Did you mean 'coop'"),
        ("coop.context_lenght=3", "Did you mean 'context_length'"),
        ("*.nonsense=3", "nonsense"),
        ("coop.epochs=two", "int"),
        ("coop.epochs=2.5", "int"),
        ("coop.lr=fast", "float"),
        ("coop.drop_last=1", "bool"),
        ("coop.crop=3", "tuple"),
        ("coop.lr=", "float"),
        ("coop.epochs=__import__('os')", "int"),
        ("coop.optimizer=lion", "lion"),
        ("coop.crop=('a','b')", "crop"),
        ("coop.crop=(0.5,)", "crop"),
        ("coop.batch=0", "batch"),
    ],
)
def test_overrides_that_cannot_be_are_refused_in_one_line(item, expected):
    with pytest.raises(UserError, match=expected) as caught:
        config("coop", overrides=[item])
    assert "\n" not in str(caught.value)


# ---- keys ------------------------------------------------------------------------------------------------------------


def one_run():
    return grid(methods=["contcoop"], datasets_=["dtd"], seeds=[1])[0]


def test_a_key_is_stable_and_has_sixteen_hex_digits():
    keys = {one_run().key(json.loads(json.dumps(IDENTITY))) for _ in range(3)}
    assert len(keys) == 1 and len(key := keys.pop()) == 16 and int(key, 16) >= 0
    backwards = dict(reversed(IDENTITY.items()))
    assert one_run().key(backwards) == key, "the order of a dictionary is no difference"


def other(value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value / 2 if isinstance(value, float) and value else value + 1
    if isinstance(value, tuple):
        return (0.3, 0.9)
    return (
        7
        if value is None
        else {"sgd": "adam", "epoch": "iteration", "all": "mean", "uniform": "normal"}.get(value, f"{value}x")
    )


def test_a_key_changes_with_every_field_of_run_config_and_identity():
    run, keys = one_run(), [one_run().key(IDENTITY)]
    for field in fields(run):
        if field.name != "config":
            keys.append(replace(run, **{field.name: other(getattr(run, field.name))}).key(IDENTITY))
    for field in fields(run.config):
        changed = replace(run.config, **{field.name: other(getattr(run.config, field.name))})
        assert changed != run.config
        keys.append(replace(run, config=changed).key(IDENTITY))
    for name in IDENTITY:
        keys.append(run.key({**IDENTITY, name: "something else"}))
    keys.append(run.key({**IDENTITY, "backbones": {"base": "a", "new": "B"}}))
    assert len(set(keys)) == len(keys) == 1 + len(fields(run)) - 1 + len(fields(run.config)) + len(IDENTITY) + 1


def test_a_run_as_a_record_holds_it_survives_json():
    for method in METHODS:
        stored = replace(one_run(), config=config(method)).canonical()
        assert json.loads(canonical(stored)) == stored


# ---- the store -------------------------------------------------------------------------------------------------------


def test_an_exception_while_writing_keeps_the_old_file_and_leaves_no_other(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    write_text(path, "old")
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error), whole(path) as temporary:
            temporary.write_text("half")
            raise error
    with pytest.raises(UserError), whole(path):
        raise OSError("disk full")
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_a_file_appears_under_its_name_only_when_it_is_whole(tmp_path):
    path = tmp_path / "file.txt"
    with whole(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new" and path.stat().st_mode & 0o777 == 0o644


def test_a_folder_that_cannot_be_made_is_one_line_naming_it(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write.*--out") as caught:
        write_text(tmp_path / "file" / "below" / "x.txt", "x")
    assert "\n" not in str(caught.value)


FILES = {"plugin": "plugins", "predictions": "predictions"}


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def record(key="k" * 16, **changes):
    return {"key": key, "status": "done", "run": {"dataset": "dtd", "method": "coop", "seed": 1}, **changes}


def test_a_record_is_read_only_when_whole_done_and_under_its_own_key(tmp_path):
    store = RunStore(tmp_path, "toy")
    assert store.read_record("k" * 16) is None
    store.write_record(record())
    assert store.read_record("k" * 16) is None, "its plug-in and predictions are not there"
    store.write_plugin("k" * 16, {"a": torch.zeros(1)}, {})
    store.write_predictions("k" * 16, {"base.predicted": torch.zeros(1)})
    assert store.read_record("k" * 16) is None, "it does not say which plug-in and predictions are its own"
    kept = record(files={kind: sha256(store.path(folder, "k" * 16)) for kind, folder in FILES.items()})
    store.write_record(kept)
    assert store.read_record("k" * 16) == kept
    path = store.path("runs", "k" * 16)
    for text in (
        "",
        "{",
        '{"key"',
        "[]",
        "null",
        "3",
        '"done"',
        json.dumps(record("other")),
        json.dumps(record(status="failed")),
        json.dumps({"status": "done"}),
    ):
        path.write_text(text)
        assert store.read_record("k" * 16) is None, text


@pytest.mark.parametrize("status", ["failed", "planned", None])
def test_a_run_that_is_not_done_is_done_again_though_all_its_files_are_whole(tmp_path, status):
    store, key = RunStore(tmp_path, "toy"), "k" * 16
    store.write_plugin(key, {"a": torch.zeros(1)}, {})
    store.write_predictions(key, {"base.predicted": torch.zeros(1)})
    files = {name: sha256_of(path) for name, path in store.files_of(record()).items()}
    store.write_record(record(files=files))
    assert store.read_record(key) is not None
    store.write_record(record(files=files, status=status))
    assert store.read_record(key) is None and store.refused() == []


def test_records_that_are_not_json_objects_are_passed_over(tmp_path):
    store = RunStore(tmp_path, "toy")
    store.write_record(record("b"))
    store.write_record(record("a"))
    for name, text in (("c", "{"), ("d", "[]"), ("e", "null")):
        (tmp_path / "toy" / "runs" / f"{name}.json").write_text(text)
    assert [found["key"] for found in store.records()] == ["a", "b"]


def test_a_record_with_nan_is_never_written(tmp_path):
    store = RunStore(tmp_path, "toy")
    with pytest.raises(ValueError):
        store.write_record(record(loss=math.nan))
    assert not list((tmp_path / "toy").rglob("*.json"))


def test_plugin_comes_back_bit_for_bit_with_its_metadata(tmp_path):
    store = RunStore(tmp_path, "toy")
    tensors = {"a": torch.randn(3, 4), "labels": torch.arange(5), "alpha": torch.tensor(1.17)}
    size = store.write_plugin("key", tensors, {"method": "x", "config": {"crop": (1, 2)}})
    assert size == store.path("plugins", "key").stat().st_size
    found, metadata = store.read_plugin("key")
    assert metadata == {"method": "x", "config": {"crop": [1, 2]}}
    assert found.keys() == tensors.keys() and all(
        torch.equal(found[n], t) and found[n].dtype == t.dtype for n, t in tensors.items()
    )
    assert store.write_plugin("empty", {}, {}) > 0 and store.read_plugin("empty") == ({}, {})


def test_a_plugin_under_another_key_or_of_another_format_is_refused(tmp_path):
    store = RunStore(tmp_path, "toy")
    store.write_plugin("key", {"a": torch.zeros(1)}, {})
    store.path("plugins", "key").rename(store.path("plugins", "moved"))
    with pytest.raises(UserError, match="moved"):
        store.read_plugin("moved")
    write_tensors(
        store.path("plugins", "old"), {"a": torch.zeros(1)}, {"plugin": canonical({"format": "0", "key": "old"})}
    )
    with pytest.raises(UserError, match="format 0"):
        store.read_plugin("old")


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-5], lambda b: b[:20], lambda b: b"", lambda b: b"x" * 100, lambda b: b"\xff" * 8 + b[8:]]
)
def test_damaged_tensors_are_refused_in_one_line(tmp_path, damage):
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"a": torch.randn(10)}, {"x": "y"})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match="damaged") as caught:
        read_tensors(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_missing_tensors_are_refused_by_name(tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        read_tensors(tmp_path / "nowhere.safetensors")


def test_predictions_come_back_by_target(tmp_path):
    store = RunStore(tmp_path, "toy")
    one, two = torch.tensor([1, 2], dtype=torch.int32), torch.tensor([2, 2], dtype=torch.int32)
    store.write_predictions(
        "key",
        {
            "base.predicted": one,
            "base.label": two.clone(),
            "base.confidence": torch.rand(2),
            "new.predicted": two.clone(),
            "new.label": two,
            "new.confidence": torch.rand(2),
        },
    )
    found = store.read_predictions("key")
    assert set(found) == {"base", "new"}
    assert found["base"][0].tolist() == [1, 2] and found["base"][1].tolist() == [2, 2] == found["new"][0].tolist()
