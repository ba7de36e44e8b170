"""What changes the last bits: the same micro runs under two conditions, and how far apart their results are.

Run from the checkout: ``python -m tests.benchmarks.last_bits`` (a few minutes on two cores). PROTOCOL.md, section 10,
holds what it printed. Not a test: rounding differs from processor to processor.
"""

from __future__ import annotations

import argparse
import tempfile

import torch
from torch import Tensor

from carryover.bench.backbones.archs import ARCHS
from carryover.bench.engine.one_run import execute, make
from carryover.bench.engine.options import Options
from carryover.bench.engine.session import Session
from carryover.bench.plan import grid
from carryover.bench.plan.settings import Settings
from carryover.methods import Registered, discover
from carryover.methods.base import Classes

USUAL = {"threads": 1, "precision": "fp32", "text_budget": 4 << 30, "image_batch": 128}
CONDITIONS = {
    "the same again": {},
    "2 CPU threads": {"threads": 2},
    "text pass in chunks (256 KiB; --text-memory)": {"text_budget": 1 << 18},
    "batches of 32 images (no option)": {"image_batch": 32},
    "bf16 towers": {"precision": "bf16"},
}


def results(methods: list[str], dataset: str, seeds: list[int], condition: dict) -> dict[str, dict[str, Tensor]]:
    """{what: {cell: values}}: test features, plug-in tensors, logits and predictions, all made under the condition."""
    given = {**USUAL, **condition}
    torch.set_num_threads(given.pop("threads"))
    settings = Settings(16, "micro", given["precision"], 4, None, methods=Registered())
    arch = ARCHS["micro"]
    runs = grid.grid(arch, settings, suites_=["main"], methods=methods, datasets_=[dataset], seeds=seeds)
    found: dict[str, dict[str, Tensor]] = {"features": {}, "plug-in": {}, "logits": {}, "predictions": {}}
    with tempfile.TemporaryDirectory() as folder:
        session = Session(Options(arch, "cpu", folder, f"{folder}/cache", **given))
        for run in runs:
            key = session.keys.of(run)
            record = execute(session, run, key)
            assert record["status"] == "done", record["error"]
            learned, _ = session.store.read_plugin(key)
            found["plug-in"].update({f"{run} {name}": value for name, value in learned.items()})
            method, data = make(session, run, session.shape_of(run)), session.data(dataset)
            method.load_learned(learned)
            method.eval()
            for role in arch.towers:
                features = session.inputs.test_features(run, role)
                method.bind(session.backbone(role), Classes(dataset, data.classnames, data.templates))
                logits = method.predict(features)
                found["features"][role] = features.clone()
                found["logits"][f"{run} {role}"] = logits
                found["predictions"][f"{run} {role}"] = logits.argmax(-1)
    return found


def apart(one: dict[str, Tensor], two: dict[str, Tensor]) -> tuple[float, float]:
    """Largest absolute difference, and the largest over the root mean square of the tensor that it is in."""
    pairs = [(one[name].float(), two[name].float()) for name in one]
    most = [float((a - b).abs().max()) for a, b in pairs]
    return max(most), max(m / float(a.square().mean().sqrt()) for m, (a, _) in zip(most, pairs, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="micro_stars")
    parser.add_argument("--methods", nargs="+", default=["coop", "contcoop"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    args = parser.parse_args()
    discover()
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}")
    print("largest difference (in brackets: over the root mean square of its tensor)")
    usual = {name: results([name], args.dataset, args.seeds, {}) for name in args.methods}
    for title, condition in CONDITIONS.items():
        for name in args.methods:
            found = results([name], args.dataset, args.seeds, condition)
            parts = []
            for what in ("features", "plug-in", "logits"):
                most, share = apart(usual[name][what], found[what])
                parts.append(f"{what} {most:.1e} ({share:.1e})")
            other = sum(int((usual[name]["predictions"][c] != p).sum()) for c, p in found["predictions"].items())
            count = sum(len(p) for p in found["predictions"].values())
            print(f"{title}: {name}: {', '.join(parts)}, predictions {other} of {count}", flush=True)


if __name__ == "__main__":
    main()
