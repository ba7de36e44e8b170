"""Two results folders compared byte for byte, apart from what is of the machine and the day."""

from __future__ import annotations

import re

import torch

from carryover.bench.host.tensor_files import read_tensors

APART = ("Statistics", "Cost and time", "Environment")
OF_SECONDS = "pareto"  # figures


def report(path):
    sections = re.split(r"^## ", path.read_text(), flags=re.MULTILINE)
    kept = [text for text in sections if not text.startswith(APART)]
    assert len(kept) == len(sections) - len(APART)
    return "\n".join(kept)


def bits(folder):
    """Tensors of each file; of predictions the classes (safetensors writes several entries in no fixed order)."""
    found = {}
    for path in sorted(folder.iterdir()):
        tensors = read_tensors(path)[0]
        found[path.name] = {n: t.numpy().tobytes() for n, t in tensors.items() if t.dtype != torch.float64}
    return found


def same_results(ours, reference):
    names = sorted(path.name for path in (reference / "tables").iterdir())
    assert names and sorted(path.name for path in (ours / "tables").iterdir()) == names
    for name in names:
        assert (ours / "tables" / name).read_bytes() == (reference / "tables" / name).read_bytes(), name
    for path in (p for p in (reference / "figures").iterdir() if p.stem != OF_SECONDS):
        assert (ours / "figures" / path.name).read_bytes() == path.read_bytes(), path.name
    assert report(ours / "report.md") == report(reference / "report.md")
    assert bits(ours / "plugins") == bits(reference / "plugins")
    for name, tensors in bits(reference / "predictions").items():
        mine = bits(ours / "predictions")[name]
        assert all(mine[n] == value for n, value in tensors.items() if "confidence" not in n)
    assert {p.name for p in (ours / "runs").iterdir()} == {p.name for p in (reference / "runs").iterdir()}
