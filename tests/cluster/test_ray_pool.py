"""What the Ray engine rests on, without Ray: the pool on a cluster that is played here, and the files of a run that was
done in another folder."""

import json
import shutil
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from toys import execute, toy_run

from carryover.bench.backbones import archs
from carryover.bench.cli import main
from carryover.bench.cluster import engine
from carryover.bench.cluster import node as cluster_node
from carryover.bench.cluster import pool as cluster_pool
from carryover.bench.cluster.node import needs_of
from carryover.bench.cluster.pool import TRIES, Node, Pool
from carryover.bench.cluster.worker import Setup, Worker, absolute
from carryover.bench.engine import one_run
from carryover.bench.errors import StorageError, UserError
from carryover.bench.host.worker_pool import ENDED, RESULT, STOPPED, Lost

FULL = "cannot write 'x': No space left on device"


class Died(Exception):
    pass


class Played:
    """As much of Ray as the pool knows. Items are letters; ``deadly``: letter -> nodes on which it kills its worker;
    ``unfit``: node -> what its workers say of their start, one after another; ``full``: node -> letters that its disk
    has no room for."""

    exceptions = SimpleNamespace(RayError=Died)

    def __init__(self, rooms, deadly=(), unfit=(), full=(), script=None):
        self.cluster = {host: Node(host, host, room) for host, room in rooms.items()}
        self.deadly, self.full, self.script = dict(deadly), dict(full), script or (lambda items: None)
        self.unfit = {host: iter(faults) for host, faults in dict(unfit).items()}
        self.hired, self.done, self.said, self.killed = [], [], [], []

    def hire(self, node):
        self.hired.append(node.id)
        remote = SimpleNamespace(remote=lambda: ("ready", node.id, object()))
        do = SimpleNamespace(
            options=lambda num_returns: SimpleNamespace(remote=lambda items, *more: Stream(self, node.id, list(items)))
        )
        return SimpleNamespace(ready=remote, do=do, node=node.id)

    def nodes(self):
        return list(self.cluster.values())

    def wait(self, waits, num_returns, timeout):
        return [each for each in waits if not (isinstance(each, Stream) and each.hangs)], []

    def get(self, what):
        if isinstance(what, Died):
            raise what
        if what[0] == "ready":
            if isinstance(fault := next(self.unfit.get(what[1], iter(())), ""), Died):
                raise fault
            return fault
        return what

    def kill(self, actor):
        self.killed.append(actor.node)

    def pool(self, most=None, limit=None):
        return Pool(self, self.hire, self.nodes, lambda items: (), most, limit, self.said.append)

    def outcomes(self, units, **given):
        units = [list(unit) for unit in units]
        found = self.pool(**given).outcomes(lambda: units.pop(0) if units else [], lambda: len(units))
        return {item: result for item, result in found}


class Stream:
    def __init__(self, ray, node, items):
        self.ray, self.node, self.items, self.hangs = ray, node, items, "z" in items

    def __next__(self):
        if not self.items:
            return ENDED, None
        item = self.items.pop(0)
        if self.node in self.ray.deadly.get(item, ()):
            return Died(f"killed by {item}")
        if item in self.ray.full.get(self.node, ""):
            return STOPPED, FULL
        self.ray.done.append((item, self.node))
        return self.ray.script(item) or (RESULT, item.upper())


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(cluster_pool, "LOOK", 0.0)


def test_workers_are_hired_to_the_room_of_each_node_and_to_no_more_than_there_is_work():
    ray = Played({"a": 2, "b": 1})
    assert ray.outcomes(["p", "q", "r", "s", "t"]) == dict(zip("pqrst", "PQRST", strict=True))
    assert sorted(ray.hired) == ["a", "a", "b"] and sorted(ray.killed) == ["a", "a", "b"], "all are let go"
    few = Played({"a": 8, "b": 8})
    few.outcomes(["p", "q"])
    assert sorted(few.hired) == ["a", "b"], "spread over the nodes"
    one = Played({"a": 8, "b": 8})
    one.outcomes(["p", "q", "r"], most=1)
    assert len(one.hired) == 1


def test_what_a_node_kills_is_done_on_another_and_its_unit_loses_nothing_else():
    ray = Played({"a": 2, "b": 1}, deadly={"q": ("a",)})  # the first unit goes to the roomier node
    assert ray.outcomes(["pqr", "s", "t", "u", "v"]) == {letter: letter.upper() for letter in "pqrstuv"}
    assert ("p", "a") in ray.done and ("q", "b") in ray.done
    assert len(ray.said) == 1 and "a was lost (killed by q)" in ray.said[0], "one try on that node is enough"
    assert sorted(item for item, _ in ray.done) == list("pqrstuv"), "each is done once"


def test_an_item_that_kills_every_worker_is_lost_after_its_tries_and_costs_no_other():
    ray = Played({"a": 1, "b": 1}, deadly={"q": ("a", "b")})
    found = ray.outcomes(["pqr", "s"])
    assert {item: found[item] for item in "prs"} == {"p": "P", "r": "R", "s": "S"}
    assert isinstance(found["q"], Lost) and f"died {TRIES} times" in found["q"].reason
    assert "killed by q" in found["q"].reason and len(ray.said) == TRIES - 1


def test_a_node_that_leaves_is_not_waited_for_and_one_that_joins_is_used():
    ray = Played({"a": 1})

    def script(item):
        if item == "p":
            ray.cluster["b"] = Node("b", "b", 1)

    ray.script = script
    ray.outcomes(["p", "q", "r", "s"])
    assert set(ray.hired) == {"a", "b"} and {node for _, node in ray.done} == {"a", "b"}
    gone = Played({"a": 1, "b": 1}, deadly={letter: ("b",) for letter in "pqrs"})
    gone.nodes = lambda: [node for node in gone.cluster.values() if node.id == "a" or "b" not in gone.killed]
    assert len(gone.outcomes(["p", "q", "r", "s"])) == 4 and gone.hired.count("b") == 1


def test_without_any_fit_node_the_call_ends_in_one_line(monkeypatch):
    monkeypatch.setattr(cluster_pool, "PATIENCE", 0.05)
    with pytest.raises(UserError, match="no fit node left.*the same command goes on"):
        Played({}).outcomes(["p"])


@pytest.mark.parametrize("fault", ["no CUDA device", Died("no CUDA device")], ids=["it says so", "it dies"])
def test_a_node_on_which_no_worker_starts_is_left_out_or_ends_the_call_where_it_is_the_only_one(fault):
    ray = Played({"a": 1, "b": 1}, unfit={"a": [fault] * 9})
    assert ray.outcomes(["p", "q", "r", "s"]) == {"p": "P", "q": "Q", "r": "R", "s": "S"}
    with pytest.raises(UserError, match="no fit node left; the last, a: .*no CUDA device.*the same command goes on"):
        Played({"a": 2}, unfit={"a": [fault] * 9}).outcomes(["p"])


def test_a_node_that_holds_fewer_workers_than_its_cores_goes_on_with_those_that_started():
    ray = Played({"a": 4}, unfit={"a": ["", *[Died("no memory")] * 9]})
    assert ray.outcomes(["p", "q", "r", "s", "t"]) == dict(zip("pqrst", "PQRST", strict=True))
    assert len(ray.hired) == 4 and ray.said == ["a gets fewer Ray workers, for one could not start there: no memory"]


def test_an_item_that_hangs_is_ended_at_its_limit_alone_and_the_others_of_its_unit_are_done():
    ray = Played({"a": 1})
    found = ray.outcomes(["pzq", "r"], limit=0.02)
    assert {item: found[item] for item in "pqr"} == {"p": "P", "q": "Q", "r": "R"}
    assert "longer than --run-limit 0.02 s" in found["z"].reason


def test_a_failed_item_goes_and_the_rest_of_its_unit_goes_on():
    ray = Played({"a": 1}, script=lambda item: (RESULT, Lost("no such picture")) if item == "q" else None)
    found = ray.outcomes(["pqr"])
    assert (found["p"], found["r"], found["q"]) == ("P", "R", Lost("no such picture"))


def test_a_node_with_a_full_disk_is_left_out_with_one_line_and_what_it_was_at_is_done_elsewhere():
    ray = Played({"a": 2, "b": 1}, full={"a": "qrtuvw"})  # the first unit goes to the roomier node
    assert ray.outcomes(["pqr", "s", "tu", "v", "w"]) == {letter: letter.upper() for letter in "pqrstuvw"}
    assert ("p", "a") in ray.done and ("q", "b") in ray.done
    assert sorted(item for item, _ in ray.done) == list("pqrstuvw"), "each is done once"
    (line,) = ray.said
    assert line.startswith(f"a is left out from now on: {FULL}")
    assert ray.hired.count("a") == 2 and sorted(ray.killed) == sorted(ray.hired)


def test_full_disks_are_no_tries_of_an_item_and_the_last_one_ends_the_call_in_one_line():
    hosts = "abcd"[: TRIES + 1]
    full = dict.fromkeys(hosts, "p")
    ray = Played({host: 1 for host in hosts} | {"e": 1}, full=full)
    assert ray.outcomes(["p"], most=1) == {"p": "P"} and ray.done == [("p", "e")]
    assert sorted(line[0] for line in ray.said) == sorted(hosts)
    ray, found = Played({"a": 1, "b": 1}, full={"a": "pqr", "b": "r"}), []
    units = [["p"], ["q"], ["r"]]
    with pytest.raises(UserError, match=f"no fit node left; the last, b: {FULL}") as told:
        for outcome in ray.pool().outcomes(lambda: units.pop(0) if units else [], lambda: len(units)):
            found.append(outcome)
    assert dict(found)["q"] == "Q", "what came before is not lost"
    assert len(ray.said) == 1 and ray.said[0].startswith("a is left out") and "\n" not in str(told.value)
    assert sorted(ray.killed) == sorted(ray.hired)


def test_workers_beside_one_that_found_the_disk_full_end_what_they_are_at_and_are_let_go():
    ray = Played({"a": 2, "b": 1}, full={"a": "p"})  # it has room for smaller files
    assert set(ray.outcomes(["p", "qr", "s", "t", "u"])) == set("pqrstu")
    on_a = [item for item, node in ray.done if node == "a"]
    assert on_a in (["q", "r"], ["s"]) and ray.hired.count("a") == 2


# ---- files of a run done elsewhere -----------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(session_on, tmp_path):
    """(the driver's session, a worker that has a folder of its own)"""
    driver = session_on("driver")
    setup = Setup(driver.options, needs_of(driver.options), str(tmp_path / "node"), "")
    worker = Worker(setup, 1)
    assert worker.ready() == ""
    return driver, worker


def sent(worker, session, run, plugins=None):
    answers = list(worker.do([(run, session.keys.of(run))], plugins or {}))
    assert [kind for kind, _ in answers] == [RESULT, ENDED]
    return answers[0][1]


def as_stored(record):
    return json.loads(json.dumps(record))


def test_a_run_done_in_another_folder_leaves_the_files_of_one_done_here(elsewhere, session_on):
    driver, worker = elsewhere
    run, here = toy_run("coop"), session_on("here")
    key = driver.keys.of(run)
    theirs = engine.received(driver, run, sent(worker, driver, run))
    ours = execute(here, run, here.keys.of(run))
    assert theirs["status"] == ours["status"] == "done" and theirs["targets"] == ours["targets"]
    assert not worker.folder.exists(), "handed over, not kept"
    assert driver.store.path("plugins", key).read_bytes() == here.store.path("plugins", key).read_bytes()
    mine, other = driver.store.read_predictions(key), here.store.read_predictions(key)
    assert all((a == b).all() for role in mine for a, b in zip(mine[role], other[role], strict=True))
    driver.store.write_record(theirs)
    assert driver.store.read_record(key) == as_stored(theirs)
    lists = {path.name: path.read_bytes() for path in (driver.store.folder / "splits").iterdir()}
    assert lists == {path.name: path.read_bytes() for path in (here.store.folder / "splits").iterdir()}


NEEDY = {"shifted set": {"test": "shifted"}, "refreshed": {"path": ("base", "new"), "refresh": 2}}


@pytest.mark.parametrize("more", NEEDY.values(), ids=NEEDY)
def test_a_run_is_sent_the_plug_in_that_it_evaluates_or_starts_from(elsewhere, more):
    driver, worker = elsewhere
    run, needy = toy_run("coop"), toy_run("coop", **more)
    key, unit = driver.keys.of(run), [(needy, driver.keys.of(needy))]
    (nothing,) = engine.Cluster.plugins(driver, unit)
    assert nothing == {key: None}
    early = sent(worker, driver, needy, nothing)
    assert early.record["status"] == "failed" and "left no plug-in" in early.record["error"] and not early.files
    driver.store.write_record(engine.received(driver, run, sent(worker, driver, run)))
    (needed,) = engine.Cluster.plugins(driver, unit)
    assert needed == {key: driver.store.path("plugins", key).read_bytes()}
    late = sent(worker, driver, needy, needed)
    assert late.record["status"] == "done", late.record["error"]
    assert ("plugins" in late.files) == (not needy.test) and "predictions" in late.files
    assert not worker.folder.exists(), "what was sent is not kept"
    record = engine.received(driver, needy, late)
    driver.store.write_record(record)
    assert driver.store.read_record(driver.keys.of(needy)) == as_stored(record)


def test_a_run_on_other_pictures_is_refused_and_a_file_that_arrived_damaged_ends_the_call(elsewhere):
    driver, worker = elsewhere
    run = toy_run("coop")
    parcel = sent(worker, driver, run)
    identity = {**parcel.record["identity"], "pictures": ["another"] * 3}
    refused = engine.received(driver, run, replace(parcel, record={**parcel.record, "identity": identity}))
    assert isinstance(refused, Lost) and "sees other pictures than the driver" in refused.reason
    assert not driver.store.path("plugins", driver.keys.of(run)).exists()
    cut = replace(parcel, files={**parcel.files, "predictions": parcel.files["predictions"][:-1]})
    with pytest.raises(StorageError, match="did not arrive"):
        engine.received(driver, run, cut)


def test_a_training_run_that_fails_elsewhere_leaves_no_earlier_plug_in_to_be_evaluated(elsewhere, monkeypatch):
    driver, worker = elsewhere
    run = toy_run("coop")
    engine.received(driver, run, sent(worker, driver, run))
    assert driver.store.path("plugins", driver.keys.of(run)).exists()

    def fail(*_):
        raise UserError("no luck")

    monkeypatch.setattr(one_run, "fit_together", fail)
    assert engine.received(driver, run, sent(worker, driver, run))["status"] == "failed"
    assert not driver.store.path("plugins", driver.keys.of(run)).exists()


def unusable(folder):
    """A disk that has gone: a file where the folder was."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.touch()


@pytest.mark.parametrize("when", ["before", "while the run is done", "before its files are read"])
def test_a_worker_that_cannot_write_on_its_node_says_so_and_fails_no_run(elsewhere, tmp_path, monkeypatch, when):
    driver, worker = elsewhere
    run, node = toy_run("coop"), tmp_path / "node"
    key, work = driver.keys.of(run), worker.work

    def lose(*_, **__):
        unusable(node)
        return {}

    def lost_at_the_end(items):
        for record in work(items):
            lose()
            yield record

    if when == "before":
        lose()
    elif when == "while the run is done":
        monkeypatch.setattr(one_run, "score", lose)
    else:
        worker.work = lost_at_the_end
    ((kind, reason),) = worker.do([(run, key)], {"0" * 24: b"another's"})
    assert kind == STOPPED and str(node) in reason and "--" not in reason and ";" not in reason
    assert not list(driver.store.folder.rglob(f"{key}*"))


def test_a_full_disk_of_the_drivers_own_ends_the_call(elsewhere):
    driver, worker = elsewhere
    run = toy_run("coop")
    parcel = sent(worker, driver, run)
    unusable(driver.store.folder / "predictions")
    with pytest.raises(StorageError, match=f"cannot write '{driver.store.folder}/predictions.*; choose .* --out"):
        engine.received(driver, run, parcel)


# ---- nodes -----------------------------------------------------------------------------------------------------------


def test_a_worker_whose_node_is_unfit_says_so_and_makes_nothing(session_on, tmp_path):
    options = session_on("driver").options
    needs = replace(needs_of(options), versions={"torch": "0.1"}, paths=("/nowhere",))
    worker = Worker(Setup(options, needs, str(tmp_path / "node"), ""), 1)
    assert worker.ready().endswith("(driver 0.1); does not see /nowhere") and not (tmp_path / "node").exists()


def test_a_node_names_all_that_it_lacks(session_on, tmp_path):
    options = session_on("driver").options
    fit = needs_of(options)
    assert cluster_node.faults(fit) == []
    away = [str(tmp_path / name) for name in ("pictures", "mine", "lists", "photos", "base.pt")]
    arch = replace(options.arch, base=replace(options.arch.base, weights=away[4]))
    named = {"data_root": away[0], "plugin_dirs": (away[1],), "manifests": away[2]}
    lacking = needs_of(replace(options, arch=arch, folders=(("folder:photos", away[3]),), **named))
    versions = {**fit.versions, "open_clip": "2.0", "torch": "1.0"}
    code, packages, files = cluster_node.faults(replace(lacking, source="another", versions=versions))
    assert "another version of this suite" in code
    assert "torch" in packages and "(driver 1.0)" in packages and "open_clip" in packages and "(driver 2.0)" in packages
    assert all(path in files for path in away)


def test_the_programs_digest_changes_with_any_of_its_files(tmp_path):
    for folder in cluster_node.CODE:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "one.py").write_text("1")
    found = {cluster_node.source_digest(tmp_path)}
    for folder in cluster_node.CODE:
        (tmp_path / folder / "one.py").write_text("2")
        found.add(cluster_node.source_digest(tmp_path))
    (tmp_path / "bench" / "two.py").touch()
    found.add(cluster_node.source_digest(tmp_path))
    assert len(found) == 2 + len(cluster_node.CODE)


def test_paths_of_the_command_line_are_absolute_for_workers(session_on, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = session_on("driver").options
    arch = replace(options.arch, new=replace(options.arch.new, weights="new.pt"))
    given = {"out": "out", "cache": "c", "data_root": "d", "manifests": "m", "plugin_dirs": ("p",), "hub_cache": None}
    made = absolute(replace(options, arch=arch, folders=(("folder:f", "f"),), **given))
    assert (made.out, made.cache, made.data_root) == tuple(str(tmp_path / name) for name in ("out", "c", "d"))
    assert made.plugin_dirs == (str(tmp_path / "p"),) and made.folders == (("folder:f", str(tmp_path / "f")),)
    assert (made.manifests, made.arch.new.weights) == (str(tmp_path / "m"), str(tmp_path / "new.pt"))
    assert made.hub_cache is None and made.arch.base.weights == ""


@pytest.fixture
def cluster(session_on, monkeypatch):
    """``cluster(nodes, cards, arch, **flags)``: nodes by what they have; cards: what each says of its own, in turn; a
    fault in their place is what the wait for them ends in."""
    monkeypatch.setattr(engine, "only_on", lambda node: node)

    def made(nodes, cards=(), arch=None, **given):
        says = (
            dict(zip(map(str, range(len(nodes))), cards, strict=False)) if isinstance(cards, (list, tuple)) else cards
        )

        def get(asked, timeout):
            if isinstance(says, Exception):
                raise says
            return asked

        def remote(**share):
            def of(what):
                if isinstance(what, type):
                    return what
                assert share["num_gpus"] > 0, "a task without a share of a card sees none"
                on = lambda scheduling_strategy: SimpleNamespace(  # noqa: E731
                    remote=lambda device: says if isinstance(says, Exception) else says[scheduling_strategy.id]
                )
                return SimpleNamespace(options=on)

            return of

        there = [
            {"Alive": True, "NodeID": str(i), "NodeManagerHostname": f"h{i}", "Resources": has}
            for i, has in enumerate(nodes)
        ]
        ray = SimpleNamespace(nodes=lambda: there, remote=remote, get=get, exceptions=Played.exceptions)
        flags = {"jobs": 0, "device": "auto", "ray_gpus": None, "together": 0, "ray_scratch": "", "precision": None}
        options = session_on("driver").options
        options = replace(options, arch=arch or options.arch)
        return engine.Cluster(ray, SimpleNamespace(**{**flags, **given}), options, "", print)

    return made


def test_a_cluster_offers_a_worker_for_each_core_and_share_of_a_gpu(cluster):
    def cluster_of(nodes, **given):
        return cluster(nodes, ["bf16"] * len(nodes), **given)

    mixed = [{"CPU": 16.0, "GPU": 4.0}, {"CPU": 3.0, "GPU": 2.0}, {"CPU": 8.0}, {}]
    whole = cluster_of(mixed)
    assert (whole.gpus, whole.room, whole.setup.options.device, whole.options.device) == (1.0, 6, "cuda", "cpu")
    assert (whole.options.together, cluster_of(mixed, device="cpu").options.together) == (3, 1)
    assert [node.room for node in cluster_of(mixed, ray_gpus=0.3).nodes()] == [12, 3]
    plain = cluster_of(mixed, device="cpu")
    assert (plain.gpus, plain.room, plain.setup.options.device) == (0.0, 27, "cpu")
    assert cluster_of(mixed, device="cpu", jobs=5).room == 5
    assert cluster_of([{"CPU": 2.0}]).setup.options.device == "cpu"
    for device in ("cuda", "mps"):
        with pytest.raises(UserError, match=f"--device {device}"):
            cluster_of([{"CPU": 2.0}], device=device)


def test_nodes_share_one_precision_which_all_of_their_cards_have(cluster):
    two = [{"CPU": 4.0, "GPU": 1.0}, {"CPU": 4.0, "GPU": 1.0}]
    for cards, flags, found in (
        (["bf16", "bf16"], {}, "bf16"),
        (["bf16", "fp32"], {}, "fp32"),
        (["bf16", "bf16"], {"precision": "fp32"}, "fp32"),
        (["bf16", "bf16"], {"device": "cpu"}, "fp32"),
    ):
        made = cluster(two, cards, **flags)
        assert made.options.precision == made.setup.options.precision == found, (cards, flags)
    with pytest.raises(UserError, match="--precision auto: the nodes do not say .* name --precision bf16 or fp32"):
        cluster(two, Died())
    assert cluster(two, Died(), precision="bf16").options.precision == "bf16", "nobody is asked"


def test_runs_of_micro_go_to_cores_of_the_cluster_unless_its_cards_are_asked_for(cluster):
    two = [{"CPU": 4.0, "GPU": 1.0}] * 2
    micro = cluster(two, ["bf16"] * 2, archs.ARCHS["micro"])
    assert (micro.gpus, micro.setup.options.device, micro.options.precision) == (0.0, "cpu", "fp32")
    for flags in ({"device": "cuda"}, {"ray_gpus": 0.5}):
        asked = cluster(two, ["bf16"] * 2, archs.ARCHS["micro"], **flags)
        assert (asked.setup.options.device, asked.options.precision) == ("cuda", "bf16")


def test_without_ray_the_engine_is_refused_in_one_line_that_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r'not installed; pip install "\.\[ray\]"'):
        engine.connect("")


@pytest.mark.parametrize(
    "address, said",
    [
        ("ray://localhost:10001", "client is not supported"),
        ("head", "expected 'auto', or HOST:PORT"),
        ("head:six", "expected 'auto', or HOST:PORT"),
        ("127.0.0.1:1", "nothing answers there"),
    ],
)
def test_an_address_where_no_cluster_can_be_is_refused_before_ray_tries(address, said, monkeypatch):
    def never(**_):
        raise AssertionError("not asked")

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=never))
    with pytest.raises(UserError, match=f"^--ray-address {address}: .*{said}"):
        engine.connect(address)


def test_flags_of_ray_without_it_and_shares_of_a_gpu_that_are_none_are_refused(capsys):
    for argv, said in (
        (["--ray-address", "auto"], "--ray-address goes with --engine ray"),
        (["--ray-gpus", "0"], "--ray-gpus goes with --engine ray"),
        (["--engine", "ray", "--ray-gpus", "1.5"], "--ray-gpus 1.5: expected a share of one GPU, 0 to 1"),
        (["--engine", "ray", "--ray-gpus", "nan"], "--ray-gpus nan: expected a share of one GPU, 0 to 1"),
    ):
        assert main.main(argv) == 2
        assert said in capsys.readouterr().err
