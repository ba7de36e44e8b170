"""``real_features`` on made-up backbones, the second a rotated and scaled first: maps must bring everything back."""

import numpy as np
import pytest
import torch

from benchmarks import real_features

pytestmark = pytest.mark.long

CLASSES, WIDTH = 4, 16


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def folder(tmp_path):
    draw = np.random.default_rng(0)
    centres, turn = draw.standard_normal((CLASSES, WIDTH)), np.linalg.qr(draw.standard_normal((WIDTH, WIDTH)))[0]

    def some(each):
        labels = np.repeat(np.arange(CLASSES), each).astype(np.int16)
        return unit(centres[labels] + 0.3 * draw.standard_normal((len(labels), WIDTH))), labels

    for name in (real_features.CALTECH, real_features.DTD):
        (old, label), (train, train_label), (val, val_label) = some(20), some(16), some(5)
        np.savez(
            tmp_path / f"{name}.npz",
            **{"old_test": old, "new_test": 10 * old @ turn, "label": label, "old_val": val, "val_label": val_label},
            **{"old_train_16shot": train, "train_label": train_label},
        )
    names = unit(draw.standard_normal((60, WIDTH)))
    towers = ("clip_b16", "eva02_b16", "clip_l14_336", "eva02_l14_336")
    np.savez(tmp_path / f"{real_features.TEXTS}.npz", **{name: names @ turn for name in towers})
    for size in (32, 16):
        head = torch.nn.Linear(WIDTH, 1).state_dict()
        torch.save(head, tmp_path / f"sa_0_4_vit_b_{size}_linear.pth")
    return tmp_path


def test_a_rotated_backbone_gets_back_what_the_plug_ins_have_at_home(folder, monkeypatch, capsys):
    monkeypatch.setattr(real_features, "CALTECH_COUNTS", (40,))
    monkeypatch.setattr(real_features, "DTD_COUNTS", (40, 80))
    monkeypatch.setattr(real_features, "FEW", (6,))
    out = folder / "tables.md"
    options = ["--features", str(folder), "--heads", str(folder), "--draws", "2", "--out", str(out)]
    assert real_features.main(options) == 0
    rows = {}
    for line in out.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        rows[tuple(cells[:2])] = cells[2:]
    assert out.read_text().splitlines()[0] in capsys.readouterr().out
    home = rows["at home", ""][1:]
    assert all(float(cell) > 90 for cell in home)
    assert rows["Procrustes, DTD", "80"] == ["1.00", *home]
    assert rows["clip_b16 → eva02_b16", "Procrustes"] == ["1.00 ± 0.00", "100.0 ± 0.0", "1.00 ± 0.00", "1.00 ± 0.00"]
    assert rows["old head, Procrustes, half of the set", "1.00 ± 0.00"] == ["1.00 ± 0.00"]
