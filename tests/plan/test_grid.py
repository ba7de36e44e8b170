"""The plan: which runs a command line means, the options that each has, and its key."""

import json
from dataclasses import replace

import pytest

from carryover import datasets
from carryover.bench.backbones.arch_files import find_arch
from carryover.bench.backbones.archs import ARCHS
from carryover.bench.errors import UserError
from carryover.bench.host.identity import canonical
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
    adapter = config("clip-adapter")
    assert (adapter.rates, adapter.ratios) == ((0.002, 0.02, 0.2), (0.2, 0.4, 0.6, 0.8))
    assert (adapter.lr, adapter.ratio, adapter.reduction) == (0, 0, 4), "both are chosen"


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


def test_a_run_as_a_record_holds_it_survives_json():
    for method in METHODS:
        stored = replace(one_run(), config=config(method)).canonical()
        assert json.loads(canonical(stored)) == stored
