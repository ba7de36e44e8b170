"""What every registered method must do, the user's own (``--plugin-dir``) included; tiny towers, clustered features."""

from dataclasses import fields, replace

import pytest
import torch
import torch.nn.functional as F
from tiny_fits import make, pixels_of, short, support_for, views_of
from tiny_towers import NAMES, TEMPLATES
from toys import execute, toy_run

from carryover import datasets
from carryover.bench import places
from carryover.bench.backbones import loading
from carryover.bench.engine.run_store import RunStore
from carryover.bench.errors import UserError
from carryover.bench.training.trainer import fit
from carryover.methods.base import METHODS, Classes, TrainConfig

ORDER = [2, 0, 3, 1]


@pytest.fixture
def support(method_name):
    return support_for(METHODS[method_name].needs)


@pytest.fixture
def seen(method_name, support):
    """The support images as ``logits`` takes them."""
    return pixels_of(support.labels) if METHODS[method_name].needs == "pixels" else support.features


@pytest.fixture
def x(method_name, seen, support):
    """The same as ``predict`` takes them."""
    kind = METHODS[method_name]
    return views_of(support, kind.test_views(make(method_name).config)[0]) if kind.needs == "views" else seen


def train(method, backbone, classes, support, seed=0):
    method.bind(backbone, classes)
    method.train()
    with method.attach(backbone):
        return fit(method, support, torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def trained(tiny, classes):
    """Each method fitted once on the base: name -> (method, learning curve)."""
    made = {}

    def get(name):
        if name not in made:
            method = make(name)
            made[name] = method, train(method, tiny.base, classes, support_for(method.needs))
        method, curve = made[name]
        method.bind(tiny.base, classes)
        return method, curve

    return get


def logits(method, backbone, classes, x):
    method.eval()
    method.bind(backbone, classes)
    with method.attach(backbone):
        return method.predict(x)


def bits(tensors):
    return {name: value.numpy().tobytes() for name, value in tensors.items()}


def test_describes_itself(method_name):
    kind = METHODS[method_name]
    assert kind.name and kind.paper
    assert places.place(kind.depth) in places.PLACES
    assert kind.needs in ("features", "pixels", "views")
    assert isinstance(kind.Config(), TrainConfig)
    replace(kind.Config(), **kind.micro)
    for dataset in datasets.PAPER_ORDER:
        replace(kind.Config(), **kind.published(dataset, 16))


@pytest.mark.parametrize("role", ["base", "new"])
def test_logits_are_finite_of_images_by_classes_on_both_backbones(method_name, trained, tiny, classes, x, role):
    found = logits(trained(method_name)[0], getattr(tiny, role), classes, x[:5])
    assert found.shape == (5, len(classes))
    assert torch.isfinite(found).all()
    assert not found.requires_grad


def test_training_lowers_the_loss_it_minimises(method_name, tiny, classes, support, seen):
    method = make(method_name, epochs=min(short(method_name).epochs, 30), batch=64, lr=min(short(method_name).lr, 2e-3))
    method.bind(tiny.base, classes)
    method.eval()

    def loss():
        with method.attach(tiny.base), torch.no_grad():
            return F.cross_entropy(method.logits(seen), support.labels)

    before = loss()
    curve = train(method, tiny.base, classes, support)
    after = loss()
    if method.config.epochs:
        assert [row["epoch"] for row in curve] == list(range(1, method.config.epochs + 1))
        assert curve[-1]["loss"] < curve[0]["loss"]
    elif any(one.is_floating_point() for one in method.learned().values()) and method.needs != "views":
        assert curve == [] and after < before
    else:
        assert curve == [] and after == before


def test_saves_its_learned_tensors_and_none_of_the_backbone(method_name, trained, tiny):
    method, _ = trained(method_name)
    learned = method.learned()
    expected = {name for name, value in method.named_parameters() if value.requires_grad}
    assert set(learned) == expected | set(method.learned_buffers)
    if method.whole and method.needs != "views":  # else all may stay at home, or be learned at test time
        assert (method.depth == "none") == (not learned)
    frozen = {value.data_ptr() for value in tiny.base.model.state_dict().values()}
    assert not frozen & {value.data_ptr() for value in method.state_dict().values()}
    own = [value for value in tiny.base.model.state_dict().values() if value.numel() > 1]
    for name, value in learned.items():
        assert not any(value.shape == other.shape and torch.equal(value, other) for other in own), name
        assert value.device.type == "cpu" and not value.requires_grad


def test_saved_and_loaded_into_a_fresh_instance_gives_the_same_logits_bit_for_bit(
    method_name, trained, tiny, classes, x, tmp_path
):
    method, _ = trained(method_name)
    store = RunStore(tmp_path, "toy")
    store.write_plugin("0123456789abcdef", method.learned(), {"method": method_name})
    tensors, metadata = store.read_plugin("0123456789abcdef")
    assert metadata == {"method": method_name}
    fresh = make(method_name, seed=99, config=method.config)
    fresh.load_learned(tensors)
    fresh.home = method.home
    for backbone in (tiny.new, tiny.base):
        assert torch.equal(logits(fresh, backbone, classes, x), logits(method, backbone, classes, x))


def test_a_plugin_of_another_shape_is_refused(method_name, trained):
    method, _ = trained(method_name)
    learned = method.learned()
    if not learned:
        learned = {"stray": torch.zeros(1)}
    else:
        learned.pop(next(iter(learned)))
    with pytest.raises(UserError, match="does not fit"):
        make(method_name, config=method.config).load_learned(learned)


def test_permuting_classes_permutes_logits(method_name, trained, tiny, classes, x):
    method, _ = trained(method_name)
    permuted = replace(classes, names=tuple(NAMES[i] for i in ORDER))
    for backbone in (tiny.base, tiny.new):
        expected = logits(method, backbone, classes, x)[:, ORDER]
        torch.testing.assert_close(logits(method, backbone, permuted, x), expected, rtol=1e-4, atol=1e-4)


def test_binding_again_changes_nothing_and_binding_back_restores(method_name, trained, tiny, classes, x):
    method, _ = trained(method_name)
    saved = bits(method.learned())
    once = logits(method, tiny.base, classes, x)
    method.bind(tiny.base, classes)
    assert torch.equal(logits(method, tiny.base, classes, x), once)
    logits(method, tiny.new, classes, x)
    assert torch.equal(logits(method, tiny.base, classes, x), once)
    assert bits(method.learned()) == saved


def test_training_leaves_the_backbone_bit_identical(method_name, tiny, classes, support):
    model = tiny.base.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train(make(method_name, epochs=min(2, short(method_name).epochs)), tiny.base, classes, support)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert loading.fingerprint(model, tiny.base.tower) == tiny.base.fingerprint
    assert not model.training and not any(p.requires_grad or p.grad is not None for p in model.parameters())


def test_prediction_leaves_method_and_backbone_bit_identical(method_name, trained, tiny, classes, x):
    method, _ = trained(method_name)
    held = bits({**method.state_dict(), **method.learned()})
    for backbone in (tiny.base, tiny.new):
        before = bits(backbone.model.state_dict())
        first = logits(method, backbone, classes, x[:7])
        assert torch.equal(logits(method, backbone, classes, x[:7]), first), "nothing of the first call is left"
        assert bits(backbone.model.state_dict()) == before
        assert not backbone.model.training
        assert not any(p.requires_grad or p.grad is not None for p in backbone.model.parameters())
    assert bits({**method.state_dict(), **method.learned()}) == held
    assert all(p.grad is None or not p.grad.isnan().any() for p in method.parameters())


def test_one_image_is_predicted_as_among_others(method_name, trained, tiny, classes, x):
    method, _ = trained(method_name)
    if method.transductive:
        pytest.skip("others help, as it declares")
    together = logits(method, tiny.new, classes, x[:6])
    alone = torch.cat([logits(method, tiny.new, classes, x[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(alone, together, rtol=1e-3, atol=1e-3)


def test_the_seed_alone_decides_the_plugin(method_name, tiny, classes, support):
    def plugin(seed):
        method = make(method_name, seed=seed, epochs=min(3, short(method_name).epochs))
        train(method, tiny.base, classes, support, seed)
        return bits(method.learned()), [bits(kept) for kept in method.home.values()]

    first = plugin(1)
    torch.rand(3)  # the global stream must not matter
    assert plugin(1) == first
    if METHODS[method_name].Config().epochs:
        assert plugin(2) != first


def test_support_set_is_not_changed_by_training(method_name, tiny, classes):
    mine, untouched = (support_for(METHODS[method_name].needs) for _ in range(2))
    train(make(method_name, epochs=min(2, short(method_name).epochs)), tiny.base, classes, mine)
    for field in ("features", "labels", "views", "val_features", "val_labels"):
        assert torch.equal(getattr(mine, field), getattr(untouched, field))


# ---- a method never sees the test set --------------------------------------------------------------------------------


def test_poisoned_test_labels_and_pixels_leave_the_plugin_bit_identical(method_name, session_on):
    found = []
    for name, poisoned in (("honest", False), ("poisoned", True)):
        session, run = session_on(name, poisoned), toy_run(method_name)
        record = execute(session, run, session.keys.of(run))
        assert record["status"] == "done", record["error"]
        tensors, metadata = session.store.read_plugin(record["key"])
        assert metadata["trained_on"][-1]["fingerprint"] == session.backbone("base").fingerprint
        predictions = session.store.read_predictions(record["key"])
        found.append((bits(tensors), predictions["base"][1].tolist(), session.keys.of(run)))
        support = session.inputs.support(run)
        assert support.leak is None
        assert len(support.labels) == 16 and len(support.val_labels) == 16
    assert found[0][0] == found[1][0]
    assert found[0][1] != found[1][1], "the poison must have reached the evaluator"


def test_record_of_a_run_says_what_was_done(method_name, session_on):
    session, run = session_on("one"), toy_run(method_name)
    record = execute(session, run, session.keys.of(run))
    learned, _ = session.store.read_plugin(record["key"])
    assert record["status"] == "done" and record["error"] is None
    kind = METHODS[method_name]
    values = sum(v.numel() for n, v in learned.items() if n not in kind.learned_buffers)
    towers = sum(v.numel() for n, v in session.backbone("base").model.named_parameters() if n != "logit_scale")
    assert record["trainable_parameters"] == (0 if kind.needs == "views" else values + towers * (not kind.whole))
    assert record["plugin_bytes"] == session.store.path("plugins", record["key"]).stat().st_size
    assert len(record["curve"]) == run.config.epochs
    predictions = session.store.read_predictions(record["key"])
    for role in ("base", "new"):
        predicted, label = predictions[role]
        target = record["targets"][role]
        assert label.tolist() == [i % len(NAMES) for i in range(16)]
        assert target["count"] == 16 and target["correct"] == int((predicted == label).sum())
        assert target["accuracy"] == pytest.approx(100 * target["correct"] / 16)
        assert target["fingerprint"] == session.backbone(role).fingerprint
    for what in (
        "key",
        "run",
        "split",
        "seconds",
        "versions",
        "device",
        "git_commit",
        "peak_memory_bytes",
        "depth",
        "marks",
    ):
        assert what in record


def test_a_run_does_not_depend_on_the_runs_before_it(method_name, session_on):
    run = toy_run(method_name)
    alone, after = session_on("alone"), session_on("after")
    execute(alone, run, key := alone.keys.of(run))
    execute(after, other := toy_run("coop", seed=2), after.keys.of(other))
    execute(after, run, key)
    assert bits(alone.store.read_plugin(key)[0]) == bits(after.store.read_plugin(key)[0])


def test_unseen_classes_are_scored_or_refused_by_name(method_name, trained, tiny, x):
    """A method with weights per class has none for a class it never saw; any other takes new class names."""
    method, _ = trained(method_name)
    unseen = Classes("other", ("cat", "submarine"), TEMPLATES)
    try:
        found = logits(method, tiny.new, unseen, x)
    except UserError as error:
        assert "submarine" in str(error)
    else:
        assert found.shape == (24, 2) and torch.isfinite(found).all()


def test_options_said_to_cost_nothing_are_the_methods_own(method_name):
    kind = METHODS[method_name]
    assert set(kind.cost_free) <= {field.name for field in fields(kind.Config)}
    assert kind.own_tokens(kind.Config()) >= 0 and kind.least_views >= 1
