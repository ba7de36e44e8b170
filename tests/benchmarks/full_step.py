"""What a method costs on towers of the published size: one training step on the base and one prediction on the update,
both with random weights (nothing is downloaded; work and memory are as with trained ones).

    python -m tests.benchmarks.full_step METHOD [--classes 100] [--batch N] [--device cpu] [--precision fp32]

For every registered method, whatever it needs (features, views or pixels). Prints one JSON object a stage: seconds on
the clock, of the processor (all threads: what tells on a busy machine), and the largest memory of the process until
then (CUDA: of the stage). One process for each method.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from dataclasses import replace

import torch

from benchmarks.workload import pictures, random_backbone
from carryover.bench.backbones.loading import Backbone
from carryover.bench.engine.evaluator import predict
from carryover.bench.host.device import device_name
from carryover.bench.training.trainer import fit
from carryover.methods import discover
from carryover.methods.base import METHODS, Classes, Shape, Support

BASE, UPDATE = "ViT-B-16-quickgelu", "EVA02-B-16"
GIB = 1 << 30


class Prepared:
    """Test pictures as ``predict`` reads them."""

    def __init__(self, pictures: torch.Tensor):
        self.pictures = pictures

    def split(self, rows: int):
        return iter(self.pictures.split(rows))


def peak(device: torch.device) -> float:
    """GiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / GIB
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB


def clock() -> tuple[float, float]:
    """Now on the wall, and seconds of all cores that the process has taken."""
    return time.perf_counter(), time.process_time()


def tell(stage: str, clocks: tuple[float, float], device: torch.device, **more) -> None:
    start, since = clocks
    if device.type == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    cpu = time.process_time() - since
    line = {"stage": stage, "seconds": round(seconds, 2), "cpu_seconds": round(cpu, 2)}
    print(json.dumps({**line, "peak_gib": round(peak(device), 2), **more}), flush=True)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()


@torch.no_grad()
def features(backbone: Backbone, pixels: torch.Tensor) -> torch.Tensor:
    return torch.cat([backbone.encode_images(part) for part in pixels.split(16)])


def step_support(needs: str, base: Backbone, batch: int, classes: int) -> Support:
    """As many support images as one batch has, so that an epoch is one step."""
    pixels, labels = pictures(base, batch, classes)
    found = features(base, pixels)
    views = pixels if needs == "pixels" else found
    return Support(found, labels, views[None], found, labels)


def inputs_of(kind, config, backbone: Backbone, count: int, classes: int):
    pixels, _ = pictures(backbone, count, classes)
    if kind.needs == "pixels":
        return Prepared(pixels)
    found = features(backbone, pixels)
    views, _ = kind.test_views(config)
    if kind.needs == "views":
        found = found[:, None] + 0.1 * torch.randn(count, views, found.shape[-1], device=found.device)
        found = found.contiguous()
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method")
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--batch", type=int, help="default: the method's published one")
    parser.add_argument("--images", type=int, default=8, help="images of the prediction")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--base", default=BASE, help="an open_clip model")
    parser.add_argument("--update", default=UPDATE, help="another; empty: the base alone")
    given = parser.parse_args(arguments)
    discover()
    kind, device = METHODS[given.method], torch.device(given.device)
    config = replace(kind.Config(), steps=0, warmup_epochs=0)
    config = replace(config, batch=given.batch or config.batch, epochs=min(config.epochs, 1))
    names = tuple(f"thing of kind {i}" for i in range(given.classes))
    classes = Classes("made-up", names, ("a photo of a {}.",))

    start = clock()
    base = random_backbone(given.base, given.device, given.precision)
    tell("load base", start, device, on=device_name(base.device), threads=torch.get_num_threads())
    support = step_support(kind.needs, base, config.batch, given.classes)
    torch.manual_seed(0)
    method = kind(config, Shape.of(base, names, len(support.labels))).to(device)
    start = clock()
    method.bind(base, classes)
    tell("bind", start, device, trained=sum(p.numel() for p in method.parameters() if p.requires_grad))
    start = clock()
    with method.attach(base):
        curve = fit(method, support, torch.Generator().manual_seed(0))
    tell("step", start, device, batch=config.batch, classes=given.classes, loss=curve[0]["loss"] if curve else None)

    target = base
    if given.update:
        del base, support
        start = clock()
        target = random_backbone(given.update, given.device, given.precision, seed=1)
        tell("load update", start, device)
    inputs = inputs_of(kind, config, target, given.images, given.classes)
    start = clock()
    outcome, _ = predict(method, target, classes, inputs)
    tell("predict", start, device, images=len(outcome["predicted"]))


if __name__ == "__main__":
    main()
