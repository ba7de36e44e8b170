"""Pictures on their way to a stand-in CUDA device: the CPU's numbers, and no step that fetches or waits."""

from dataclasses import replace

import pytest
import torch
from device_lives import CLASSES, EPOCHS, between, marked, on, syncs, towers
from splits_in_memory import split
from tiny_fits import make, support_for
from tiny_towers import NAMES

from carryover.bench.engine import evaluator
from carryover.bench.features import pixels
from carryover.bench.features.pixels import Pictures, views_of
from carryover.bench.features.store import FeatureStore
from carryover.bench.training.trainer import fit
from carryover.methods.base import METHODS

CROP = (0.5, 1.0)


def store_on(device, folder, batch=5):
    return FeatureStore(folder / device, towers(device)[0], batch=batch)


@pytest.mark.parametrize("kept", [True, False])
def test_steps_on_pictures_fetch_nothing_and_do_not_wait(kept, monkeypatch, tmp_path):
    monkeypatch.setattr(pixels, "KEEP", 1 << 28 if kept else 0)
    monkeypatch.setattr(evaluator, "ROWS", 5)
    learned, answers = [], []
    for device in ("cpu", "cuda"):
        with on(device) as ledger:
            store = store_on(device, tmp_path)
            shown = split(24, labels=[i // 6 for i in range(24)])
            views = Pictures(store, shown, views_of(store, 3, CROP, 1))
            given = support_for("features")
            there = {
                name: getattr(given, name).to(device) for name in ("features", "labels", "val_features", "val_labels")
            }
            method = make("maple", epochs=EPOCHS).to(device)
            method.bind(store.backbone, CLASSES)
            with method.attach(store.backbone), marked(METHODS["maple"], "end_epoch", ledger) as marks:
                begun = syncs(ledger)
                fit(method, replace(given, views=views, **there), torch.Generator().manual_seed(0))
            learned.append(method.learned())
            tested = Pictures(store, shown, views_of(store, 1, (1.0, 1.0), 0))
            with marked(METHODS["maple"], "predict", ledger) as batches:
                answers.append(evaluator.predict(method, store.backbone, CLASSES, tested)[0])
    torch.testing.assert_close(learned[1], learned[0], rtol=1e-4, atol=1e-4)
    assert torch.equal(answers[1]["predicted"], answers[0]["predicted"])
    assert all(waits <= 1 for waits in between([begun, *marks], EPOCHS)[1:]), ledger.waits()
    assert len(batches) == 5 and all(waits <= 1 for waits in between(batches, 4)[1:]), ledger.waits()
    copied = {kind: ledger.count(kind) for kind in ("h2d", "h2d unpinned")}
    assert copied["h2d"] >= 9 + 5 and not copied["h2d unpinned"], "batches come from pinned memory"


def test_features_are_those_of_the_cpu_and_are_fetched_once_a_split(tmp_path):
    found, waits = [], []
    for device, batch in (("cpu", 5), ("cuda", 5), ("cuda", 24)):
        with on(device) as ledger:
            store = store_on(device, tmp_path / f"{batch}", batch)
            before = syncs(ledger)
            plain, views = store.features(split(24), NAMES), store.views(split(24), NAMES, 2, CROP, 1)
            waits.append(syncs(ledger) - before)
            found.append((plain.cpu(), views.cpu()))
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-5)
    assert waits[1] == waits[2] and not ledger.count("h2d unpinned"), "a batch more is no wait more"
