"""What a training step asks of a GPU, counted without one: kernels, waits, operations, bytes; Table 2's hours on paper.

    python -m tests.benchmarks.step_counts                                # both tables
    python -m tests.benchmarks.step_counts --classes 100 --methods coop --kernels 12    # and the dearest kernels

Steps are the suite's own, by its trainer, on towers of the published sizes whose tensors have no values (the stand-in
for a CUDA device of ``tests/support``, its values on torch's "meta" device). Counted exactly: operations that reach the
device, copies, waits of the host, multiplications and additions of matrix products, values read and written. Modelled,
not measured: time. A kernel takes the longest of

    its matrix product   tiles of 128 x 128 over 132 multiprocessors, each at EFFICIENCY of its share of the peak
    its bytes            at BANDWIDTH_SHARE of the bandwidth
    SHORTEST             below which no kernel ends, the gap to the next included

A step takes the sum of its kernels, or, where that is more, the host's time: --launch for each kernel, or REPLAY for
all of them in a CUDA graph. Unless told, a launch takes LAUNCH, as on the one host that was measured. One
aten operation counts as one kernel, attention without a dense mask as one forward and one backward.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from unittest import mock

import torch
from tabulate import tabulate
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import stand_in_tensors
from stand_in_cuda import stand_in_cuda

from benchmarks import pace, table2, workload
from carryover.bench.backbones import archs, loading
from carryover.bench.engine.one_run import STEP_TOKENS
from carryover.bench.plan.defaults import TEXT_SHARE
from carryover.bench.training.generators import generator
from carryover.bench.training.trainer import fit_together
from carryover.methods import linear_probe
from carryover.methods.base import METHODS, Classes, Method, Support

GB = 1 << 30
PEAK = {torch.bfloat16: 989e12, torch.float32: 67e12, torch.float64: 67e12}  # H200, dense; fp32 without tf32
BANDWIDTH, MULTIPROCESSORS, TILE = 4.8e12, 132, 128
EFFICIENCY, BANDWIDTH_SHARE = 0.75, 0.8
SHORTEST, REPLAY = 2e-6, 15e-6  # seconds
LAUNCH = 28e-6  # seconds; measured on the virtual host of one H200 (docs/performance.md)
FREE = 135 * GB  # of an H200's 141 GB, the towers loaded
META = torch.device("meta")
MODELS = {"ViT-B/16": workload.VIT_B16, "ViT-L/14": "ViT-L-14-quickgelu"}
SETS = {47: "dtd", 100: "caltech101", 1000: "imagenet"}  # whose schedule and batch a step has
ROWS, FEW_TOKENS = 4096, 1 << 17  # images of a prediction; tokens of one that has prompts of its own for each
PROBE_ITERATIONS = 1000  # of all fits of one linear probe (150 to 170 on made-up features, each)
PAPER = ("zs-clip", "linear-probe", "clip-adapter", "tip-adapter-f", "coop", "cocoop", "kgcoop", "contcoop")
METHODS_COUNTED = ("coop", "kgcoop", "contcoop", "cocoop", "clip-adapter", "tip-adapter-f", "taskres", "rada")


@dataclass(frozen=True)
class Kernel:
    name: str
    operations: float
    bytes: float
    seconds: float


@dataclass
class Counts:
    """Of some stretch of work."""

    kernels: list[Kernel] = field(default_factory=list)
    copies: int = 0
    waits: int = 0

    @property
    def launches(self) -> int:
        return len(self.kernels) + self.copies

    @property
    def operations(self) -> float:
        return sum(kernel.operations for kernel in self.kernels)

    @property
    def bytes(self) -> float:
        return sum(kernel.bytes for kernel in self.kernels)

    @property
    def device(self) -> float:
        """Seconds that the device is at work."""
        return sum(kernel.seconds for kernel in self.kernels)

    def seconds(self, graph: bool = False, launch: float = LAUNCH) -> float:
        return max(self.device, REPLAY if graph else self.launches * launch)

    def __add__(self, other: Counts) -> Counts:
        return Counts([*self.kernels, *other.kernels], self.copies + other.copies, self.waits + other.waits)

    def less(self, other: Counts, parts: int) -> Counts:
        """The last of so many equal parts that this has more than the other."""
        more = self.kernels[len(other.kernels) :]
        count = len(more) // parts
        each = [(mine - theirs) // parts for mine, theirs in ((self.copies, other.copies), (self.waits, other.waits))]
        return Counts(more[len(more) - count :], *each)


def kernel_of(func, args, kwargs, made) -> Kernel:
    name = func.overloadpacket.__name__
    if name == "embedding":
        args = args[1:]
    read = {id(x): x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
    written = {id(x): x for x in tree_leaves(made) if isinstance(x, torch.Tensor)}
    moved = sum(min(x.numel() * x.element_size(), x.untyped_storage().nbytes()) for x in {**read, **written}.values())
    moved += sum(x.numel() * x.element_size() for key, x in written.items() if key in read)  # changed in place
    operations, busy = 0.0, 0.0
    if func.overloadpacket in flop_registry:
        operations = float(flop_registry[func.overloadpacket](*args, **kwargs, out_val=made))
        out = next(iter(written.values()))
        peak = PEAK[out.dtype]
        busy = operations / (peak * EFFICIENCY)
        if "attention" not in name:
            *batch, rows, columns = out.shape
            tiles = -(-rows // TILE) * -(-columns // TILE) * int(torch.Size(batch).numel())
            inner = operations / (2 * out.numel())
            waves = -(-tiles // MULTIPROCESSORS)
            busy = max(busy, waves * 2 * TILE**2 * inner * MULTIPROCESSORS / (peak * EFFICIENCY) if tiles > 132 else 0)
    return Kernel(name, operations, moved, max(busy, moved / (BANDWIDTH * BANDWIDTH_SHARE), SHORTEST))


# ---- a device without values -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def without_values() -> Iterator[Counts]:
    """Inside, a CUDA device whose tensors have shapes alone; yields what it is asked for."""
    found = Counts()
    run, copied = stand_in_tensors.run, stand_in_tensors.copied

    def counted(device, func, args, kwargs):
        held = torch.utils._pytree.tree_map(stand_in_tensors.held, (args, kwargs))
        before = device.ledger.kernels
        made = skipped(func, args) if "_fused_" in str(func) else run(device, func, args, kwargs)
        if (device.ledger.kernels > before or "_fused_" in str(func)) and "_unsafe_view" not in str(func):
            found.kernels.append(kernel_of(func, *held, torch.utils._pytree.tree_map(stand_in_tensors.held, made)))
        return made

    def crossing(device, func, args, kwargs, there):
        source = args[1] if func is torch.ops.aten.copy_.default else args[0]
        to_host = there and not isinstance(args[0], stand_in_tensors.DeviceTensor)
        where = kwargs.get("device")
        to_host = to_host or (func is not torch.ops.aten.copy_.default and where is not None and where.type == "cpu")
        if not to_host:
            found.copies += not isinstance(source, stand_in_tensors.DeviceTensor)
            return copied(device, func, args, kwargs, there)
        device.sync("d2h")
        if func is torch.ops.aten.copy_.default:
            return args[0].zero_()
        return torch.zeros(source.shape, dtype=kwargs.get("dtype") or source.dtype)

    def scalar(device, func, args, kwargs):
        if func is torch.ops.aten._local_scalar_dense.default and isinstance(args[0], stand_in_tensors.DeviceTensor):
            device.sync("item")
            return 0
        return perform(device, func, args, kwargs)

    perform = stand_in_tensors.perform
    with stand_in_cuda() as ledger, contextlib.ExitStack() as stack:
        for name, value in {"CPU": META, "run": counted, "copied": crossing, "perform": scalar}.items():
            stack.enter_context(mock.patch.object(stand_in_tensors, name, value))
        stack.enter_context(mock.patch.object(torch.nn.functional, "scaled_dot_product_attention", attention))
        stack.enter_context(mock.patch.object(torch.cuda, "mem_get_info", lambda *_: (FREE, 141 * 10**9)))
        stack.enter_context(mock.patch.object(loading, "fingerprint", lambda *_: "none"))
        stack.enter_context(mock.patch.object(loading.Backbone, "zero_shot", classifier))
        found.ledger = ledger
        yield found


def classifier(backbone: loading.Backbone, classes: Classes) -> torch.Tensor:
    """In place of the zero-shot one, whose texts are no part of what is counted."""
    return torch.zeros(len(classes), backbone.dim, device=backbone.device)


def skipped(func, args):
    """A fused update, which torch cannot do without values."""
    return None


def attention(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, **_):
    """As the device would choose: one kernel; with a dense mask the memory-efficient one."""
    if attn_mask is None and q.dtype == torch.bfloat16:
        return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, dropout_p, is_causal, scale=scale)[0]
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            attn_mask = torch.zeros_like(attn_mask, dtype=q.dtype).masked_fill(~attn_mask, float("-inf"))
        attn_mask = attn_mask.expand(*q.shape[:-1], k.shape[-2])
    return torch.ops.aten._scaled_dot_product_efficient_attention(
        q, k, v, attn_mask, True, dropout_p, is_causal, scale=scale
    )[0]


def backbone(model: str, precision: str) -> loading.Backbone:
    tower = loading.resolve(archs.Tower(model))
    network = loading.build(model, "meta")
    for module in network.modules():
        for own in (module._parameters, module._buffers):
            for name, value in own.items():
                if value is not None:
                    there = stand_in_tensors.DeviceTensor(value.detach())
                    own[name] = torch.nn.Parameter(there, False) if own is module._parameters else there
    return loading.Backbone(network, tower, loading.tokenizer(model), int(TEXT_SHARE * FREE), precision)


# ---- steps and predictions -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fit:
    """Of one method on one dataset: runs side by side, one step of all of them, what comes before and after the steps
    of one run, and a prediction of ``images`` on one backbone."""

    together: int
    step: Counts
    around: Counts
    prediction: Counts
    images: int


class Device:
    """The device without values, and one tower on it."""

    def __init__(self, found: Counts, model: str, precision: str):
        self.found, self.tower = found, backbone(model, precision)

    def spent(self, work: Callable[[], object]) -> Counts:
        self.found.kernels.clear()
        copies, waits = self.found.copies, self.found.ledger.syncs
        work()
        return Counts(list(self.found.kernels), self.found.copies - copies, self.found.ledger.syncs - waits)

    def fit(self, id: str, one: table2.StandIn, together: int = 0) -> Fit:
        """``together`` 0: as many seeds as an engine trains side by side."""
        config = table2.config_of(id, one.id)
        methods = [workload.make(id, self.tower, one.classes, seed, **asdict(config)) for seed in range(table2.SEEDS)]
        together = together or beside(methods[0], min(config.batch, one.support))
        methods, support = methods[:together], one.examples(self.tower.dim, self.tower.device)
        around = self.probe(one, support) if id == "linear-probe" else self.spent(lambda: methods[0].start(support))
        around += self.spent(lambda: methods[0].finish(support))
        for method in methods:
            method.start = method.finish = lambda support: None
        step = self.step(methods, support) if table2.steps_of(config, one.support) else Counts()
        images = min(one.tests, max(1, FEW_TOKENS // methods[0].tokens_a_step(1)) if id == "cocoop" else ROWS)
        x = torch.zeros(images, self.tower.dim, device=self.tower.device)
        return Fit(together, step, around, self.spent(lambda: methods[0].predict(x)), images)

    def probe(self, one: table2.StandIn, support: Support) -> Counts:
        """Of a linear probe's solver, which ends by values: ``PROBE_ITERATIONS``, each with a whole history."""
        x, y, count = support.features, support.labels, len(one.classes)
        fits = [
            self.spent(lambda last=last: linear_probe.without_waiting(x, y, count, 1.0, last))
            for last in (linear_probe.HISTORY + 1, linear_probe.HISTORY + 3)
        ]
        one_iteration = fits[1].less(fits[0], 2)
        return Counts(one_iteration.kernels * PROBE_ITERATIONS, one_iteration.copies, one_iteration.waits)

    def step(self, methods: list[Method], support: Support) -> Counts:
        """What a fit of five steps has more than one of three, halved."""
        draws = [generator("counted", i) for i in range(len(methods))]
        fits = []
        for steps in (3, 3, 5):  # the first makes what is kept
            part = pace.part(methods, support, steps)
            fits.append(self.spent(lambda part=part: fit_together(methods, [part] * len(methods), draws)))
        return fits[2].less(fits[1], 2)


def beside(method: Method, images: int) -> int:
    """Seeds of a run that are trained as one computation."""
    if type(method).alike(method.config) is None:
        return 1
    return max(1, min(table2.SEEDS, 3, STEP_TOKENS["cuda"] // method.tokens_a_step(images)))


# ---- tables ----------------------------------------------------------------------------------------------------------


def step_rows(found: Counts, chosen: argparse.Namespace) -> Iterator[list]:
    for label in chosen.models:
        device = Device(found, MODELS[label], "bf16")
        for id in chosen.methods:
            for count in chosen.classes:
                (one,) = table2.stand_ins([SETS[count]])
                fit = device.fit(id, one)
                step = fit.step
                times = [1e3 * step.seconds(graph, chosen.launch) for graph in (False, True)]
                row = [label, id, count, fit.together, len(step.kernels), step.copies + step.waits]
                yield [*row, step.operations / 1e9, step.bytes / 1e9, 1e3 * step.device, *times]
                if chosen.kernels:
                    say_kernels(step, chosen.kernels)


def say_kernels(step: Counts, most: int) -> None:
    spent = Counter()
    for kernel in step.kernels:
        spent[kernel.name] += kernel.seconds
    for name, seconds in spent.most_common(most):
        own = [kernel for kernel in step.kernels if kernel.name == name]
        moved = sum(kernel.bytes for kernel in own) / 1e9
        print(f"    {name}: {len(own)} times, {1e3 * seconds:.3f} ms, {moved:.3f} GB", file=sys.stderr)


def table2_rows(found: Counts, graph: bool, ids: Sequence[str] = (), launch: float = LAUNCH) -> Iterator[list]:
    """A row a dataset: hours of each method, 3 seeds, ViT-B/16 for both backbones."""
    device = Device(found, workload.VIT_B16, "bf16")
    for one in table2.stand_ins(ids):
        row = [one.id]
        for id in PAPER:
            fit, config = device.fit(id, one), table2.config_of(id, one.id)
            steps = table2.steps_of(config, one.support) * -(-table2.SEEDS // fit.together)
            spent = steps * fit.step.seconds(graph, launch) + table2.SEEDS * fit.around.seconds(launch=launch)
            spent += table2.SEEDS * table2.BACKBONES * one.tests / fit.images * fit.prediction.seconds(launch=launch)
            row.append(spent)
        yield [*row, sum(row[1:])]
        print(*(f"{value:.4g}" if isinstance(value, float) else value for value in row), file=sys.stderr, flush=True)


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.step_counts", description=__doc__.split("\n")[0])
    parser.add_argument("--tables", nargs="+", choices=("steps", "table2"), default=["steps", "table2"])
    parser.add_argument("--methods", nargs="+", choices=METHODS_COUNTED, default=list(METHODS_COUNTED))
    parser.add_argument("--classes", nargs="+", type=int, choices=list(SETS), default=list(SETS))
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--datasets", nargs="+", default=[], help="of table2; default: the paper's eleven")
    parser.add_argument("--graph", action="store_true", help="steps of table2 in CUDA graphs")
    parser.add_argument("--launch", type=float, default=1e6 * LAUNCH, help="microseconds of the host for each kernel")
    parser.add_argument("--kernels", type=int, default=0, metavar="N", help="also the N dearest kernels of each step")
    chosen = parser.parse_args(argv)
    chosen.launch /= 1e6
    return chosen


def main(argv: Sequence[str] | None = None) -> int:
    chosen = arguments(argv)
    host = "measured on one host" if chosen.launch == LAUNCH else "as given"
    print(f"On paper, one H200: {1e6 * chosen.launch:g} microseconds a launch ({host}), {1e6 * REPLAY:g} a graph\n")
    table2.discover()
    with without_values() as found:
        if "steps" in chosen.tables:
            headers = ["towers", "method", "classes", "runs", "kernels", "waits", "Gop", "GB"]
            headers += ["device (ms)", "eager (ms)", "graph (ms)"]
            formats = ("", "", ".0f", ".0f", ",.0f", ".0f", ",.1f", ",.2f", ".2f", ".2f", ".2f")
            print(tabulate(list(step_rows(found, chosen)), headers, tablefmt="pipe", floatfmt=formats))
        if "table2" in chosen.tables:
            rows = list(table2_rows(found, chosen.graph, chosen.datasets, chosen.launch))
            rows.append(["sum", *map(sum, zip(*(row[1:] for row in rows), strict=True))])
            names = [METHODS[id].name for id in PAPER]
            print(tabulate(rows, ["seconds", *names, "all"], tablefmt="pipe", floatfmt=",.0f"))
            print(f"\n{rows[-1][-1] / 3600:.2f} hours of an H200 on paper")
    return 0


if __name__ == "__main__":
    sys.exit(main())
