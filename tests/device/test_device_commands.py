"""Command lines with ``--device cuda`` on a stand-in for one: the same tables as on the CPU."""

import json
import os
import re

import pytest
from checkout import ROOT
from device_lives import on
from stand_in_cuda import stand_in_cuda
from worlds import begun, quietly

from carryover.bench.cli.options import options_of
from carryover.bench.cli.parsing import parse
from carryover.bench.cli.settings import plan_of
from carryover.bench.cluster import engine
from carryover.bench.engine.session import Session
from carryover.bench.host.worker_pool import RESULT
from carryover.bench.report import outputs, report

METHODS = ("zs-clip", "taskres", "coop", "fine-tuning", "tpt")
BRIEF = ("--shots", "2", "--seeds", "1", "--views", "1", "--set", "*.steps=3", "--precision", "fp32")


@pytest.fixture(scope="module")
def homes(tmp_path_factory):
    """The same towers and pictures for each device."""
    return begun(tmp_path_factory.mktemp("world"))


def flags(world, device, *methods, out=""):
    where = ["--out", world.home / (out or f"out-{device}"), "--device", device]
    return ["--arch", world.arch, "--datasets", world.data(), "--methods", *(methods or METHODS), *BRIEF, *where]


@pytest.fixture(scope="module")
def runs(homes):
    """device -> the records of a whole run by method, and its ledger. Figures and report are left out for time."""
    found = {}
    for device in ("cpu", "cuda"):
        with on(device) as ledger, pytest.MonkeyPatch.context() as patch:
            patch.setattr(outputs, "write_figures", lambda *given: [])
            patch.setattr(report, "write_report", lambda *given: ())
            quietly("--suite", "main", "--jobs", "1", *flags(homes, device))
        stored = (homes.home / f"out-{device}" / "pair" / "runs").glob("*.json")
        records = [json.loads(path.read_text()) for path in stored]
        found[device] = {record["run"]["method"]: record for record in records}, ledger
    return found


def accuracies(record):
    return {role: target["accuracy"] for role, target in record["targets"].items()}


def test_a_whole_run_has_the_accuracies_of_the_cpu(runs, homes):
    (expected, _), (found, ledger) = runs["cpu"], runs["cuda"]
    assert expected.keys() == found.keys() == set(METHODS)
    for method, record in found.items():
        assert record["status"] == "done" and accuracies(record) == accuracies(expected[method])
        assert record["device"].startswith("cuda (stand-in)") and record["peak_memory_bytes"] > 0
    assert ledger.kernels > 1000
    tables = [homes.home / f"out-{device}" / "pair" / "tables" / "main.csv" for device in ("cpu", "cuda")]
    assert tables[0].read_text() == tables[1].read_text()


def test_plug_ins_trained_there_are_exported_evaluated_ported_and_classify(runs, homes, tmp_path):
    with stand_in_cuda() as ledger:
        quietly("export", *flags(homes, "cuda"), "--to", tmp_path / "plugins")
        (plugin,) = (tmp_path / "plugins").glob("*coop*.safetensors")
        there = ["--out", tmp_path / "out", "--cache", homes.home / "out-cuda" / "cache", "--device", "cuda"]
        new, data = ["--backbone", homes.backbone("b")], ["--dataset", homes.data()]
        told = quietly("evaluate", "--json", "--plugin", plugin, *new, *data, *there)
        told = json.loads(told[told.index("{") :])
        assert told["accuracy"] == accuracies(runs["cuda"][0]["coop"])["new"]
        ported = tmp_path / "ported.safetensors"
        old, pictures = ["--old", homes.backbone("a")], ["--images", homes.home / "animals"]
        quietly("port", "--plugin", plugin, *old, *new, *pictures, "--to", ported, *there)
        said = quietly("classify", "--plugin", ported, *new, homes.home / "animals", "--device", "cuda")
    assert len(re.findall(r"\.png", said)) >= 48
    assert sum(ledger.waits("bench/plugins/answers.py").values()) == 1, "a batch of answers is fetched once"


def test_doctor_and_the_estimate_speak_of_the_device(homes):
    with stand_in_cuda():
        page = quietly("doctor", *flags(homes, "cuda", "coop", out="asked"))
        assert "device: cuda (stand-in), 85.9 GB" in page and "no problem found" in page
        told = quietly("--dry-run", "--suite", "main", *flags(homes, "cuda", "coop", out="asked"))
        assert re.search(r"about [\d.]+ (s|min) for 2 runs", told)


# ---- through Ray -----------------------------------------------------------------------------------------------------


class Played:
    """As much of Ray as ``Cluster`` asks: one node of a GPU and many cores, whose workers are made here."""

    def nodes(self):
        has = {"CPU": 16.0, "GPU": 1.0}
        return [{"Alive": True, "NodeID": "a", "NodeManagerHostname": "a", "Resources": has}]

    def remote(self, **asked):
        self.asked = asked
        return lambda what: what if isinstance(what, type) else Asked(what)

    def get(self, answers, timeout):
        return answers


class Asked:
    """A function as a task, done here."""

    def __init__(self, function):
        self.remote = function

    def options(self, scheduling_strategy):
        return self


def test_a_worker_of_the_ray_engine_takes_its_part_of_the_device(runs, homes, tmp_path):
    argv = [*flags(homes, "cuda", "coop"), "--engine", "ray", "--ray-gpus", "0.5", "--ray-scratch", tmp_path]
    args = parse([str(word) for word in ("--suite", "main", *argv)])
    with stand_in_cuda():
        options = options_of(args)
        assert options.device == "cpu", "the driver plans"
        ray = Played()
        cluster = engine.Cluster(ray, args, options, str(tmp_path / "probe"), print)
        assert ray.asked["num_gpus"] == 0.5 and cluster.room == 2
        worker = cluster.worker(cluster.setup, cluster.room)
        assert worker.ready() == "" and worker.session.options.device == "cuda"
        driver = Session(cluster.options)
        (run,) = [run for run in plan_of(args, options.arch) if run.method == "coop"]
        parcel = dict(worker.do([(run, driver.keys.of(run))], {}))[RESULT]
    assert parcel.record["status"] == "done", parcel.record["error"]
    assert parcel.record["device"].startswith("cuda") and set(parcel.files) == {"plugins", "predictions"}
    assert accuracies(parcel.record) == accuracies(runs["cpu"][0]["coop"])


OPENED = """
import contextlib
if "default_worker" in " ".join(__import__("sys").orig_argv):  # a worker of Ray's: it has the device from its start
    import stand_in_cuda
    held = contextlib.ExitStack()
    held.enter_context(stand_in_cuda.stand_in_cuda())
"""


@pytest.mark.long
def test_the_ray_engine_runs_on_parts_of_a_device(runs, homes, tmp_path, monkeypatch):
    pytest.importorskip("ray", reason='Ray is not installed: pip install ".[ray]"')
    from ray.cluster_utils import Cluster

    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(OPENED)
    paths = [tmp_path / "hook", ROOT / "src", ROOT / "tests" / "support", *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, paths)))
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    here = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 1, "include_dashboard": False})
    try:
        shared = ["--engine", "ray", "--ray-address", here.address, "--ray-gpus", "0.5"]
        quietly("--suite", "main", *flags(homes, "cuda", "taskres", "coop", out="out-ray"), *shared)
    finally:
        here.shutdown()
    stored = (homes.home / "out-ray" / "pair" / "runs").glob("*.json")
    records = {record["run"]["method"]: record for record in map(json.loads, (path.read_text() for path in stored))}
    assert {"taskres", "coop"} <= records.keys()
    for method, record in records.items():
        assert record["device"].startswith("cuda (stand-in)")
        assert accuracies(record) == accuracies(runs["cpu"][0][method])
