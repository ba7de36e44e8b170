"""``--engine ray`` gives the tables of the local engine, byte for byte, on a cluster of two nodes that share no folder,
with a worker killed in the middle, then the driver, or the other node's disk gone. The cluster runs on this host: two
raylets of one core."""

import csv
import functools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from checkout import ROOT
from compared import bits, same_results

from carryover.bench.backbones import loading
from carryover.bench.cli import main
from carryover.bench.host import environment

ray = pytest.importorskip("ray", reason='Ray is not installed: pip install ".[ray]"')
pytestmark = [pytest.mark.long, pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")]

PLAN = ("--suite", "main", "ood", "--methods", "zs-clip", "coop", "zz-patient", "--seeds", "1", "2")
PLAN += ("--datasets", "micro_generic", "micro_stars", "--shots", "1", "--limit", "1", "--views", "1")
PLAN += ("--set", "*.steps=2", "--together", "2")
RUNS = 3 * 2 * 2 + 3 * 2 * 4 + 2  # methods, sets, seeds; four shifted sets; CoOp's shorter context of the ood suite
BEYOND = ("--suite", "retention", "chains", "maps", "--methods", "coop", "zz-adapter", "--seeds", "1")
BEYOND += ("--datasets", "micro_stars", "--shots", "2", "--limit", "4", "--views", "1", "--set", "*.steps=4")
SECONDS = ("fit_seconds", "feature_seconds", "seconds")  # a machine's, not a result
PATIENT = """
import os, time
from pathlib import Path
from carryover.methods.base import Method, cosine_logits, register
from carryover.methods.clip_adapter import CLIPAdapter

def wait():  # the first worker that comes here waits for its end; the process that estimates the time left goes on
    if not Path({mark!r}).exists() and Path("/proc/self/cmdline").read_text().startswith("ray::Worker"):
        Path({mark!r} + ".part").write_text(str(os.getpid()))
        os.rename({mark!r} + ".part", {mark!r})
        time.sleep(600)

@register("zz-patient")
class Patient(Method):
    name, paper, depth = "Patient", "nobody", "none"

    def bind(self, backbone, classes):
        self.scale, self.classifier = backbone.scale, backbone.zero_shot(classes)

    def logits(self, x):
        wait()
        return cosine_logits(self.scale, x, self.classifier)

@register("zz-adapter")
class PatientAdapter(CLIPAdapter):
    name = "Patient adapter"

    def logits(self, x):
        wait()
        return super().logits(x)
"""


@pytest.fixture(scope="module", autouse=True)
def load_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "load", functools.cache(loading.load))
        yield


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two nodes, each with a scratch folder that it alone knows."""
    from ray.cluster_utils import Cluster

    folder = tmp_path_factory.mktemp("nodes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        made = Cluster()
        for number in (1, 2):
            scratch = folder / str(number)
            mount(scratch)
            made.add_node(num_cpus=1, object_store_memory=100 << 20, env_vars={"NODE_SCRATCH": str(scratch)})
        made.folder = folder
        yield made
        made.shutdown()


def mount(scratch, target=None):
    """A node's disk; with a target that is no folder: it is gone."""
    disk = scratch.with_suffix(".disk")
    disk.mkdir(exist_ok=True)
    link = scratch.with_suffix(".new")
    link.symlink_to(target or disk)
    os.replace(link, scratch)


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """(folder, flags): the plan done by the local engine; the method's mark is there."""
    folder = tmp_path_factory.mktemp("local")
    (folder / "mine").mkdir()
    (folder / "mine" / "patient.py").write_text(PATIENT.format(mark=str(folder / "mark")))
    (folder / "mark").touch()
    flags = [*PLAN, "--device", "cpu", "--plugin-dir", str(folder / "mine")]
    assert main.main([*flags, "--jobs", "1", "--out", str(folder / "out")]) == 0
    return folder, flags


def through_ray(cluster, flags, out):
    scratch = ["--ray-scratch", "$NODE_SCRATCH/features"]
    return [*flags, "--engine", "ray", "--ray-address", cluster.address, *scratch, "--out", str(out)]


def workers_of(cluster):
    """Process ids of the cluster's workers that hold an actor."""
    raylets = {node.all_processes["raylet"][0].process.pid for node in cluster.list_all_nodes()}
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            title = (path.parent / "cmdline").read_text()
        except OSError:
            continue
        if parent in raylets and title.startswith("ray::Worker"):
            found.append(int(path.parent.name))
    return found


def until(condition, seconds=900):  # busy machines are slow to start workers
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


@pytest.fixture
def start():
    """``start(argv, log)``: the command in a process of its own, which ends with the test."""
    started = []

    def begin(argv, log):
        with open(log, "w") as file:
            command = [sys.executable, str(ROOT / "run_all.py"), *argv]
            started.append(subprocess.Popen(command, stdout=file, stderr=file))
        return started[-1]

    yield begin
    for driver in started:
        driver.kill()
        driver.wait()


def test_on_two_nodes_without_a_common_folder_a_worker_and_then_the_driver_killed_leave_the_local_engines_tables(
    cluster, local, start, tmp_path
):
    folder, flags = local
    mark, log, out = folder / "mark", tmp_path / "log", tmp_path / "out"
    runs, reference = out / "micro" / "runs", folder / "out" / "micro"
    mark.unlink()
    command = through_ray(cluster, flags, out)
    driver = start(command, log)

    until(lambda: mark.exists() or driver.poll() is not None)
    pid = int(mark.read_text())
    assert pid in workers_of(cluster)
    os.kill(pid, signal.SIGKILL)
    until(lambda: driver.poll() is not None or (len(list(runs.glob("*.json"))) >= 5 and "was lost" in log.read_text()))
    assert driver.poll() is None, log.read_text()[-2000:]
    driver.kill()
    driver.wait()
    told = [line for line in log.read_text().splitlines() if not re.match(r"\d+/\d+ runs; ", line)]
    device, lost = told  # nothing else is said, by Ray neither
    assert device == "device: cpu, of Ray's workers; precision of the frozen towers: fp32"
    assert "was lost (The actor died" in lost

    before = {path.name: path.read_bytes() for path in runs.glob("*.json")}
    assert 5 <= len(before) < RUNS
    for name, text in before.items():
        ours, theirs = json.loads(text), json.loads((reference / "runs" / name).read_text())
        assert (ours["status"], ours["targets"]) == ("done", theirs["targets"])
        assert ours["files"]["plugin"] == theirs["files"]["plugin"]
    until(lambda: not workers_of(cluster))

    assert main.main(command) == 0
    assert {name: (runs / name).read_bytes() for name in before} == before, "what was done is not done again"
    assert len(list(runs.iterdir())) == RUNS
    same_results(out / "micro", reference)
    assert not [p for p in out.rglob("*") if p.name.startswith(".") or p.name == "claims"]
    for number in "12":
        node = cluster.folder / number / "features"
        assert list((node / "cache").glob("*.safetensors")), "each node made the features that it needed"
        until(lambda node=node: not list(node.glob("work.*")))
    assert not list((out / "cache").glob("*.safetensors")), "the driver's folder was not used"


def rows(folder):
    found = {}
    for path in (folder / "tables").glob("*.csv"):
        with path.open(newline="") as file:
            found[path.name] = [{k: v for k, v in row.items() if k not in SECONDS} for row in csv.DictReader(file)]
    return found


def test_retention_and_chains_outlive_a_killed_worker_and_the_disk_of_a_node_and_give_the_local_engines_tables(
    cluster, local, tmp_path, capsys
):
    """A worker is killed while it trains; at that moment the other node's disk goes, so that the killed one's node has
    to do all the rest. Plug-ins that runs start from go from worker to worker through the driver."""
    folder, flags = local
    mark, out, reference = folder / "mark", tmp_path / "out", tmp_path / "local"
    plan = [*BEYOND, *flags[flags.index("--device") :]]
    mark.touch()
    assert main.main([*plan, "--jobs", "1", "--out", str(reference)]) == 0
    capsys.readouterr()
    mark.unlink()
    nodes = [cluster.folder / "1", cluster.folder / "2"]
    ended = threading.Event()

    def harm():
        until(lambda: ended.is_set() or mark.exists())
        if not mark.exists():
            return
        pid = int(mark.read_text())
        nodes.sort(key=lambda node: not list(node.glob(f"features/work.*.{pid}")))
        mount(nodes[1], "/dev/null")
        os.kill(pid, signal.SIGKILL)

    harming = threading.Thread(target=harm)
    harming.start()
    try:
        status = main.main(through_ray(cluster, plan, out))
    finally:
        ended.set()
        harming.join()
        for node in nodes:
            mount(node)
    told = capsys.readouterr().out
    assert status == 0, told
    lost, left_out = (re.findall(f"^.* {words} .*$", told, re.MULTILINE) for words in ("was lost", "is left out"))
    assert len(lost) == len(left_out) == 1 and f"cannot write '{nodes[1]}" in left_out[0], told
    done, planned = ({path.name for path in (place / "micro" / "runs").iterdir()} for place in (out, reference))
    assert done == planned, "a disk's fault is no run's failure"
    ours, theirs = rows(out / "micro"), rows(reference / "micro")
    assert {"retention.csv", "decision.csv", "chains.csv", "refresh.csv", "ports.csv"} <= ours.keys() and ours == theirs
    plain = [name for name in theirs if name not in ("retention.csv", "decision.csv", "ports.csv")]  # with seconds
    for name in plain:
        one, other = (place / "micro" / "tables" / name for place in (out, reference))
        assert one.read_bytes() == other.read_bytes(), name
    assert bits(out / "micro" / "plugins") == bits(reference / "micro" / "plugins")


def test_nodes_with_other_packages_are_left_out_with_a_line_each_and_the_call_ends_with_the_last(
    cluster, local, tmp_path, monkeypatch, capsys
):
    versions = {**environment.versions(), "torch": "0.1"}
    monkeypatch.setattr(environment, "versions", lambda: versions)
    assert main.main(through_ray(cluster, local[1], tmp_path / "out")) == 2
    said = capsys.readouterr()
    (line,) = said.err.strip().splitlines()
    assert "no fit node left; the last, " in line and "has other packages: torch" in line and "(driver 0.1)" in line
    assert said.out.count("is left out from now on: has other packages: torch") == 1
    assert not list((tmp_path / "out" / "micro").glob("runs/*"))


def test_a_run_that_hangs_is_ended_at_its_limit_and_costs_no_other(cluster, local, tmp_path, capsys):
    folder, flags = local
    (folder / "mark").unlink()
    few = [*flags[flags.index("--shots") :], "--suite", "main", "--methods", "zs-clip", "zz-patient", "--seeds", "1"]
    few += ["--datasets", "micro_stars", "--together", "1", "--run-limit", "20"]
    status = main.main(through_ray(cluster, few, tmp_path / "out"))
    told = " ".join(capsys.readouterr().out.split())
    assert "longer than --run-limit 20 s" in told and (folder / "mark").exists()
    assert status == 1 and "1 run done, 0 were done before, 1 failed" in told, told


def test_without_an_address_ray_runs_on_this_machine_and_leaves_no_process(local, tmp_path, capsys, monkeypatch):
    folder, flags = local
    (folder / "mark").touch()
    started = []
    init = ray.init
    monkeypatch.setattr(ray, "init", lambda **given: started.append(init(**given)))
    few = ["--methods", "zs-clip", "--suite", "main", "--datasets", "micro_stars", "--seeds", "1", "--shots", "1"]
    few += ["--limit", "1", "--views", "1", "--device", "cpu", "--engine", "ray", "--jobs", "1"]
    assert main.main([*few, "--out", str(tmp_path / "out")]) == 0
    assert len(started) == 1 and not ray.is_initialized()
    assert list((tmp_path / "out" / "cache").glob("*.safetensors")), "a cache that a node sees is the node's too"
    session = started[0].address_info["session_dir"]
    until(lambda: not [p for p in Path("/proc").glob("[0-9]*/cmdline") if session in read(p)])
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


def read(path):
    try:
        return path.read_text()
    except OSError:
        return ""
