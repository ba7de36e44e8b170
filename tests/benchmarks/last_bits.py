"""What changes the last bits: the same micro runs under two conditions, and how far apart their results are.

Run from the checkout: ``python -m tests.benchmarks.last_bits`` (a few minutes on two cores). PROTOCOL.md, section 10,
holds what it printed. Not a test: rounding differs from processor to processor. Another processor is compared by way of
a file, or imitated by variables that torch and its libraries read when they are loaded:

    python -m tests.benchmarks.last_bits --save usual.safetensors
    ONEDNN_MAX_CPU_ISA=AVX2 python -m tests.benchmarks.last_bits --against usual.safetensors
"""

from __future__ import annotations

import argparse
import tempfile

from carryover.bench.backbones import probe
from carryover.bench.host import processor
from carryover.bench.plan import grid

# isort: split
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from carryover.bench.backbones.archs import ARCHS
from carryover.bench.engine.carried import make
from carryover.bench.engine.one_run import execute_together
from carryover.bench.engine.options import Options
from carryover.bench.engine.session import Session
from carryover.bench.plan.settings import Settings
from carryover.methods import Registered, discover
from carryover.methods.base import Classes

BESIDE = [101, 102]  # seeds that are trained side by side with those asked for
USUAL = {"threads": 1, "precision": "fp32", "text_budget": 4 << 30, "image_batch": 128, "together": 1, "asked": True}
SEPARATOR = "|"
CONDITIONS = {
    "the same again": {},
    "side by side with two other seeds": {"together": 3},
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
    every = seeds + BESIDE * (given["together"] > 1)
    runs = grid.grid(arch, settings, suites_=["main"], methods=methods, datasets_=[dataset], seeds=every)
    found: dict[str, dict[str, Tensor]] = {"features": {}, "plug-in": {}, "logits": {}, "predictions": {}}
    with tempfile.TemporaryDirectory() as folder:
        session = Session(Options(arch, "cpu", folder, f"{folder}/cache", **given))
        keyed = [(run, session.keys.of(run)) for run in runs]
        for part in [keyed] if given["together"] > 1 else [[one] for one in keyed]:
            for record in execute_together(session, part):
                assert record["status"] == "done", record["error"]
        for run, key in (one for one in keyed if one[0].seed in seeds):
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
    parser.add_argument("--save", metavar="FILE", help="write the usual results and stop")
    parser.add_argument("--against", metavar="FILE", help="compare the usual results with those, and nothing else")
    args = parser.parse_args()
    discover()
    print(f"torch {torch.__version__}, {processor.name()}, {processor.kind()}; {processor.told()}; {probe.answer()}")
    print("largest difference (in brackets: over the root mean square of its tensor)")
    usual = {name: results([name], args.dataset, args.seeds, {}) for name in args.methods}
    if args.save:
        save_file({SEPARATOR.join(names): value.contiguous() for names, value in flat(usual)}, args.save)
    elif args.against:
        theirs: dict = {}
        for key, value in load_file(args.against).items():
            method, what, cell = key.split(SEPARATOR)
            theirs.setdefault(method, {}).setdefault(what, {})[cell] = value
        for name, found in usual.items():
            show(f"beside {args.against}", name, theirs[name], found)
    else:
        for title, condition in CONDITIONS.items():
            for name in args.methods:
                show(title, name, usual[name], results([name], args.dataset, args.seeds, condition))


def flat(usual: dict) -> list[tuple[tuple[str, str, str], Tensor]]:
    return [((m, w, c), v) for m, found in usual.items() for w, cells in found.items() for c, v in cells.items()]


def show(title: str, name: str, usual: dict[str, dict[str, Tensor]], found: dict[str, dict[str, Tensor]]) -> None:
    parts = []
    for what in ("features", "plug-in", "logits"):
        most, share = apart(usual[what], found[what])
        parts.append(f"{what} {most:.1e} ({share:.1e})")
    other = sum(int((usual["predictions"][c] != p).sum()) for c, p in found["predictions"].items())
    count = sum(len(p) for p in found["predictions"].values())
    print(f"{title}: {name}: {', '.join(parts)}, predictions {other} of {count}", flush=True)


if __name__ == "__main__":
    main()
