"""A short measurement of this device: seconds a picture of each tower, and each method's seconds by number of classes.

Methods are measured through their own interface (``bind``, ``start``, the shared trainer, ``finish``, ``predict``) on
made-up features at a few class counts, so a method of the user's is measured like any other. Class
names are the plan's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import cycle, islice

import torch

from carryover.bench.engine import units
from carryover.bench.engine.carried import make
from carryover.bench.engine.evaluator import ROWS
from carryover.bench.engine.few_shot import view_count
from carryover.bench.engine.one_run import STEP_TOKENS, alike, tokens_a_step
from carryover.bench.engine.session import Session
from carryover.bench.features.decoding import MOST_THREADS
from carryover.bench.host.processes import cores
from carryover.bench.plan.runs import Run
from carryover.bench.ports.maps import Procrustes
from carryover.bench.preflight.costs import Costs, Growth, cost_key
from carryover.bench.preflight.made_up import Noise, made_up, threads_set
from carryover.bench.training.generators import generator
from carryover.bench.training.resident import WORTH, possible
from carryover.bench.training.trainer import fit_together
from carryover.methods.base import METHODS, Classes, Method, Shape, Support
from carryover.methods.parts.schedule import epoch_steps

COUNTS = (4, 16, 64, 256, 1000)  # classes measured, as far as PATIENCE and the plan go
PATIENCE = 4.0  # seconds for one method; two class counts are always measured
ENOUGH = 0.1  # seconds that a repeated measurement should take
LONGEST = 5.0  # seconds that the steps may take of which a GPU's recorded ones are told from the first
CHEAP = 0.5  # seconds up to which a measurement is made three times, of which the quickest counts
MOST_BESIDE = 6  # runs side by side: more are hardly faster still
MOST_VIEWS = 16  # of made-up features; a step reads one of them, whatever their number
ANCHORS = 512
MAPS_A_PORT = 11  # the map, those without each fifth of the anchors, and as many for its own score


class Calibration:
    """Measures each thing once, when it is first asked for. ``runs`` is the plan, whose datasets can be opened."""

    def __init__(self, session: Session, runs: Sequence[Run]):
        self.session, self.threads = session, torch.get_num_threads()
        self._towers: dict[tuple, float] = {}
        self._decoding: dict[tuple, float] = {}
        self._costs: dict[tuple, Costs | Exception] = {}
        self._map: float | None = None
        self._lengths: dict[str, tuple[float, float]] = {}
        together = Counter(alike(run) for run in runs)
        #: How many runs of a kind the plan trains side by side.
        self.beside = {
            cost_key(run): min(session.options.together, together[alike(run)]) for run in runs if alike(run) is not None
        }
        datasets = dict.fromkeys(run.dataset for run in runs)
        self.largest = max((len(session.data(id).classnames) for id in datasets), default=2)
        names = [name for id in datasets for name in session.data(id).classnames]
        by_length: dict[int, list[str]] = {}
        for name, row in zip(names, session.backbone("base").text.tokens(names), strict=True):
            by_length.setdefault(len(row), []).append(name)
        lengths = sorted(length for length, same in by_length.items() for _ in same)
        #: Names of a usual and of a long length: costs grow with both the number and the length of names.
        self.usual, self.long = (by_length[lengths[int(share * (len(lengths) - 1))]] for share in (0.5, 0.95))

    # -- pictures ------------------------------------------------------------------------------------------------------

    def image_seconds(self, role: str, dataset: str) -> float:
        """Seconds for one picture from file to feature. On the CPU decoding and tower share the cores; beside an
        accelerator the slower of the two decides. Raises UserError for a picture that cannot be read."""
        threads = units.run_threads(self.session.options, self.threads)
        if (role, threads) not in self._towers:
            with threads_set(threads):
                self._towers[role, threads] = self._measure_tower(role)
        if (role, dataset) not in self._decoding:
            self._decoding[role, dataset] = self._measure_decoding(role, dataset)
        both = self._towers[role, threads], self._decoding[role, dataset]
        return sum(both) if self.session.options.device == "cpu" else max(both)

    def _measure_tower(self, role: str) -> float:
        store = self.session.features(role)
        size = store.backbone.preprocess_config.size
        height, width = size if isinstance(size, (tuple, list)) else (size, size)
        pixels = torch.randn(store.batch, 3, height, width, generator=generator("calibration", "pixels"))
        store.forward(pixels[:4])
        batch = min(4, store.batch)  # a lone picture says little: threads wait for one another longer than they work
        while True:  # up to the real batch, as far as it is quick
            forward = partial(self._seconds, partial(store.forward, pixels[:batch]))
            seconds = forward()
            if batch == store.batch or seconds > (1.0 if batch >= 16 else 4.0):
                return min(seconds, forward(), forward()) / batch if seconds < CHEAP else seconds / batch
            batch = min(store.batch, batch * 4)

    def _measure_decoding(self, role: str, dataset: str) -> float:
        split, transform = self.session.data(dataset).test, self.session.backbone(role).preprocess
        chosen = torch.linspace(0, len(split) - 1, min(len(split), 64)).long().tolist()
        split.read(chosen[:1])
        parts = [chosen[i : i + 16] for i in range(0, len(chosen), 16)]
        threads = min(MOST_THREADS, cores())  # worker processes, if any, are as many or more
        with ThreadPoolExecutor(threads) as pool, self._clock(threads) as spent:
            list(pool.map(lambda part: [transform(image) for image in split.read(part)], parts))
        return spent() / len(chosen)

    # -- methods -------------------------------------------------------------------------------------------------------

    def costs(self, run: Run) -> Costs:
        """Of the run's method with its options. Raises what the method raised, again for each of its runs."""
        key = cost_key(run)
        if key not in self._costs:
            try:
                with threads_set(units.run_threads(self.session.options, self.threads)):
                    self._costs[key] = self._measure_method(run)
            except Exception as error:
                self._costs[key] = error
        found = self._costs[key]
        if isinstance(found, Exception):
            raise found
        return found

    def lengths(self, dataset: str) -> tuple[float, float]:
        """Tokens of a dataset's names: the longest, to which a pass pads, and the mean."""
        if dataset not in self._lengths:
            rows = self.session.backbone("base").text.tokens(self.session.data(dataset).classnames)
            self._lengths[dataset] = max(map(len, rows)), sum(map(len, rows)) / len(rows)
        return self._lengths[dataset]

    def run_seconds(self, run: Run, steps: int, tests: int) -> tuple[float, float]:
        """(fit, evaluation on one backbone). Without gradients a CPU takes names in pieces of like length."""
        costs, classes = self.costs(run), len(self.session.tested(run).classnames)
        longest, mean = self.lengths(run.test or run.dataset)
        more = METHODS[run.method].own_tokens(run.config) - costs.tokens
        predicting = (mean if self.session.options.device == "cpu" else longest) + more
        fit = 0.0 if run.test else costs.fit(classes, longest + more, steps)
        if run.port:
            targets = len(self.session.evaluated_on(run))
            fit = targets * (MAPS_A_PORT * self.map_seconds() + (fit if steps else 0.0))
        return fit, costs.evaluation(classes, predicting, tests)

    def map_seconds(self) -> float:
        """Of one map between features of the base's width."""
        if self._map is None:
            x = torch.randn(ANCHORS, self.session.backbone("base").dim, generator=generator("calibration", "map"))
            with threads_set(units.run_threads(self.session.options, self.threads)):
                self._map = repeated(lambda: self._seconds(lambda: Procrustes().fit(x, x.flip(-1))))
        return self._map

    def how(self, stage: str) -> str:
        """How a stage's seconds were come by: "features, base backbone", "fit, coop", "evaluation, coop"."""
        kind, name = stage.split(", ")
        if kind == "features":
            found = [1 / seconds for (role, _), seconds in self._towers.items() if name.startswith(role)]
            return f"measured: {max(found):.3g} pictures a second in the tower, decoding beside"
        largest = [costs.largest for key, costs in self._costs.items() if key[0] == name and isinstance(costs, Costs)]
        more = f", extended to {self.largest}" if min(largest) < self.largest else ""
        return f"measured at up to {min(largest)} classes{more}"

    def _measure_method(self, run: Run) -> Costs:
        counts = [count for count in COUNTS if count < self.largest] + [self.largest]
        counts, spent, points = counts if len(counts) > 1 else [1, *counts], 0.0, {}
        for i, count in enumerate(counts):
            start = time.perf_counter()
            points[count] = self._measure_at(run, count, self.usual)
            took = time.perf_counter() - start
            spent += took
            # Four times the classes take between 4 and 16 times as long.
            if i + 1 < len(counts) and i > 0 and spent + took * (counts[i + 1] / count) > PATIENCE:
                break
        text, by_token = self.session.backbone("base").text, [0.0] * 5
        usual, long = (len(text.tokens(names[:1])[0]) for names in (self.usual, self.long))
        if long > usual:
            middle = list(points)[min(1, len(points) - 1)]
            pairs = zip(self._measure_at(run, middle, self.long), points[middle], strict=True)
            for i, (slow, fast) in enumerate(pairs):
                # Never more than in proportion to the length: a difference of two measurements is mostly noise.
                more = min(max(0.0, slow - fast), fast * (long - usual) / usual)
                by_token[i] = more / (middle * (long - usual))
        powers = (2, 1, 2, 1, 1)  # start and finish go over N = shots x classes images of as many classes
        growths = [
            Growth(tuple((count, part[i]) for count, part in points.items()), powers[i], usual, by_token[i])
            for i in range(5)
        ]
        own = METHODS[run.method].own_tokens(run.config)
        return Costs(growths[0], growths[1], growths[2], growths[3], growths[4], max(points), own)

    def _measure_at(self, run: Run, count: int, pool: list[str]) -> tuple[float, float, float, float, float]:
        """Seconds of start, step, finish, call and image with ``count`` classes."""
        session, base = self.session, self.session.backbone("base")
        names = tuple(islice(cycle(pool), count))
        classes = Classes(run.dataset, names, ("a photo of a {}.",))
        views, pixels = view_count(run, count * run.shots), METHODS[run.method].needs == "pixels"
        support = made_up(base.dim, count, run.shots, min(views, MOST_VIEWS), base.device)
        if pixels:
            support = dataclasses.replace(support, views=Noise(session.features("base")))
        method = make(session, run, Shape.of(base, names, len(support.labels)))
        method.bind(base, classes)  # derives what the backbone then keeps for all
        begin = self._seconds(lambda: method.bind(base, classes))
        with method.attach(base):  # after `bind`, as in a run: what it keeps must be of the backbone as it is
            # Of made-up pictures there is one view: what is encoded of them before training is so of each.
            begin += self._seconds(lambda: method.start(support)) * (views if pixels else 1)
            step = self._measure_step(self._beside(run, method, classes), support) if run.config.epochs else 0.0
            method.train()
            finish = self._seconds(lambda: method.finish(support))
        method.eval()
        x = self._inputs(run, support)
        most = len(x)

        def predict(images: int) -> None:
            method.bind(base, classes)
            with method.attach(base), torch.no_grad():
                method.predict(x[:images])

        predict(1)
        call = repeated(lambda: self._seconds(lambda: predict(1)))
        images, seconds = 1, call
        while images < most and seconds < 2 * call + ENOUGH:  # until the images, not the call, take the time
            images = min(4 * images, most)
            seconds = self._seconds(partial(predict, images))
        image = max(0.0, (seconds - call) / max(images - 1, 1))
        return begin, step, finish, max(0.0, call - image), image

    def _inputs(self, run: Run, support: Support) -> torch.Tensor:
        """What ``predict`` is given, of as many made-up test images as come at a time."""
        kind, store = METHODS[run.method], self.session.features("base")
        if kind.needs == "pixels":
            return Noise(store)[torch.zeros(1), torch.zeros(store.batch)]
        chosen = torch.arange(ROWS, device=support.labels.device) % len(support.labels)
        count, _ = kind.test_views(run.config)
        if kind.needs == "views":
            return support.features[chosen[: max(1, ROWS // count)], None].expand(-1, count, -1).contiguous()
        return support.features[chosen]

    def _beside(self, run: Run, method: Method, classes: Classes) -> list[Method]:
        """The method and as many like it as the plan trains side by side."""
        batch = min(run.config.batch, len(method.shape.classnames) * run.shots)
        size = tokens_a_step(method, self.session.backbone("base"), batch)
        room = int(STEP_TOKENS[self.session.options.device] // size)
        others = min(self.beside.get(cost_key(run), 1), room, MOST_BESIDE) - 1
        made = [make(self.session, run, method.shape) for _ in range(others)]
        for other in made:
            other.bind(self.session.backbone("base"), classes)
        return [method, *made]

    def _measure_step(self, methods: list[Method], support: Support) -> float:
        """Seconds of one run's step, through the shared trainer, with the methods' own start and finish left out; one
        epoch of a few batches. On a GPU those beyond the first, after which steps are recorded."""
        config, count = methods[0].config, len(support.labels)
        batch = min(config.batch, count)
        short = dataclasses.replace(config, batch=batch, epochs=1, steps=0, warmup_epochs=0)
        draws = [generator("calibration", "fit", i) for i in range(len(methods))]

        def seconds(batches: int) -> float:
            chosen = torch.arange(batch * batches, device=support.labels.device) % count
            part = dataclasses.replace(
                support,
                features=support.features[chosen],
                labels=support.labels[chosen],
                views=support.views[:, chosen] if isinstance(support.views, torch.Tensor) else support.views,
            )
            assert epoch_steps(short, len(chosen)) == batches
            parts = [part] * len(methods)
            return self._seconds(lambda: fit_together(methods, parts, draws)) / len(methods)

        with contextlib.ExitStack() as undo:
            for method in methods:
                undo.callback(setattr, method, "config", method.config)
                method.config = short
                for name in ("start", "finish"):
                    setattr(method, name, lambda support: None)
                    undo.callback(delattr, method, name)
            once = seconds(1)  # the first step is slower: memory, kernels
            if once >= 2.0:
                return once
            if possible([support]) and 3 * WORTH * seconds(1) * len(methods) < LONGEST:
                few, many = (min(seconds(count) for _ in range(3)) for count in (WORTH, 2 * WORTH))
                return max(0.0, many - few) / WORTH
            batches = max(1, min(16, int(ENOUGH / once / len(methods))))
            return repeated(lambda: seconds(batches) / batches)

    def _seconds(self, work: Callable[[], object], threads: int = 0) -> float:
        self._wait()
        with self._clock(threads or torch.get_num_threads()) as spent:
            work()
            self._wait()
        return spent()

    @contextlib.contextmanager
    def _clock(self, threads: int):
        """Seconds on the clock; on the CPU not more than what this process worked, by thread: a plan is not longer for
        what else the machine did while it was measured."""
        took: list[float] = []
        start, worked = time.perf_counter(), time.process_time()
        yield lambda: took[0]
        wall, own = time.perf_counter() - start, (time.process_time() - worked) / threads
        took.append(min(wall, own) if self.session.options.device == "cpu" else wall)

    def _wait(self) -> None:
        device = self.session.options.device
        if device in ("cuda", "mps"):
            getattr(torch, device).synchronize()


def repeated(measure: Callable[[], float]) -> float:
    """The smallest of three measurements, where more than one cost little: what else the machine does only adds."""
    first = measure()
    return min(first, measure(), measure()) if first < CHEAP else first
