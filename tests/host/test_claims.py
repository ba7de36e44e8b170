"""Claims: one owner each; a dead one's are taken over at once, those of another machine when they go stale."""

import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import carryover
from carryover.bench.errors import StorageError
from carryover.bench.features.store import FeatureStore
from carryover.bench.host import claims, processes
from carryover.bench.host.claims import Claims
from carryover.bench.host.files import here, sweep, whole, write_text


def dead_pid():
    """Of a process that has ended and was waited for."""
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def write_claim(path, age=0.0, **owner):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(owner))
    os.utime(path, (time.time() - age, time.time() - age))


def test_a_claim_is_one_owners_until_it_is_given_back(tmp_path):
    with Claims(tmp_path / "claims") as mine, Claims(tmp_path / "claims") as other:
        assert mine.take("a") and mine.take("a") and not other.take("a") and other.take("b")
        assert str(os.getpid()) in other.owner("a")
        mine.release("a")
        assert other.owner("a") == "" and other.take("a")
    assert not (tmp_path / "claims").exists(), "nothing stays behind"


def test_an_exception_gives_claims_back(tmp_path):
    with pytest.raises(KeyboardInterrupt), Claims(tmp_path / "claims") as mine:
        mine.take("a")
        raise KeyboardInterrupt
    assert not (tmp_path / "claims").exists()


def test_a_dead_ones_claim_that_nobody_asks_for_is_tidied_away(tmp_path):
    write_claim(tmp_path / "claims" / "a", place=processes.place(), pid=dead_pid())
    with Claims(tmp_path / "claims") as mine:
        mine.take("b")
        claims.tidy(tmp_path / "claims")
        assert [p.name for p in (tmp_path / "claims").glob("[!.]*")] == ["b"]
    write_claim(tmp_path / "claims" / "a", place=processes.place(), pid=dead_pid())
    claims.tidy(tmp_path / "claims")
    assert not list(tmp_path.iterdir())
    claims.tidy(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "owner, age, taken",
    [
        ({"place": "here", "pid": "dead"}, 0, True),
        ({"place": "here", "pid": "dead", "born": "17"}, 0, True),
        ({"place": "here", "pid": "ours", "born": "17"}, 0, True),  # the number was given to another process since
        ({"place": "here", "pid": "ours"}, 1e6, False),  # it lives, however long it has been stopped
        ({"place": "elsewhere", "pid": "dead"}, 10, False),
        ({"place": "elsewhere", "pid": "ours"}, claims.LIMIT + 60, True),
        ({}, 10, False),
        ({}, claims.LIMIT + 60, True),
    ],
    ids=["dead", "dead, known birth", "another with its number", "stopped", "elsewhere", "elsewhere, long silent"]
    + ["says nothing", "says nothing, long silent"],
)
def test_a_claim_is_taken_over_when_its_owner_is_dead_or_long_silent(tmp_path, monkeypatch, owner, age, taken):
    monkeypatch.setattr(claims, "CONFIRM", 0.05)
    if owner.get("born") and not processes.born(os.getpid()):
        pytest.skip("this system does not say when a process was born")
    values = {"here": processes.place(), "dead": dead_pid(), "ours": os.getpid()}
    write_claim(tmp_path / "claims" / "a", age, **{k: values.get(v, v) for k, v in owner.items()})
    with Claims(tmp_path / "claims") as mine:
        assert mine.take("a") == (taken and age == 0), "nobody elsewhere is taken for dead at the first look"
        time.sleep(0.1)
        assert mine.take("a") == taken


@pytest.mark.parametrize("set_by", [3600, -3600, 3 * 86400], ids=["an hour on", "an hour back", "days on"])
def test_a_clock_that_is_set_takes_no_claim_from_a_living_owner_and_leaves_none_to_a_dead_one(
    tmp_path, monkeypatch, set_by
):
    monkeypatch.setattr(claims, "CONFIRM", 0.4)
    monkeypatch.setattr(claims, "LIMIT", 0.8)
    if set_by > claims.DAY:
        monkeypatch.setattr(claims, "DAY", 30 * 86400)
    path = tmp_path / "claims" / "a"
    write_claim(path, set_by, place="elsewhere", pid=1)  # touched by the clock as it was before
    with Claims(tmp_path / "claims") as mine:
        assert not mine.take("a")
        for count in range(3):  # its owner lives
            time.sleep(0.3)
            os.utime(path, (time.time() + count, time.time() - set_by + count))
            assert not mine.take("a")
        time.sleep(0.9)
        assert mine.take("a")


def test_one_that_wakes_after_its_claim_was_taken_over_leaves_it_to_the_other(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "HEARTBEAT", 0.02)
    path = tmp_path / "claims" / "a"
    with Claims(tmp_path / "claims") as woken:
        assert woken.take("a") and woken.holds("a")
        path.unlink()
        write_claim(path, 1000, place="elsewhere", pid=1)  # as the other makes it
        before = path.stat().st_mtime
        time.sleep(0.2)
        assert path.stat().st_mtime == before, "it keeps nobody else's alive"
        assert not woken.holds("a") and not woken.take("a")
        woken.release("a")
        assert path.exists()
    assert path.exists()


def test_a_claim_that_was_taken_over_and_given_back_can_be_had_again(tmp_path):
    with Claims(tmp_path / "claims") as woken:
        woken.take("a")
        (tmp_path / "claims" / "a").unlink()
        assert not woken.holds("a") and woken.take("a") and woken.holds("a")


@pytest.mark.parametrize(
    "make", [os.mkfifo, os.mkdir, lambda path: os.symlink(path, path)], ids=["pipe", "folder", "loop"]
)
def test_what_is_no_file_in_the_place_of_a_claim_is_named_and_not_waited_for(tmp_path, make):
    path = tmp_path / "claims" / "a"
    path.parent.mkdir()
    make(path)
    claims.tidy(tmp_path / "claims")
    with Claims(tmp_path / "claims") as mine, pytest.raises(StorageError, match="no file; take it away"):
        mine.wait(["a"])


def test_a_folder_that_another_takes_away_while_it_is_made_is_made_again(tmp_path, monkeypatch):
    """mkdir meets the folder, and then finds it gone."""
    real, met = os.mkdir, []

    def mkdir(path, *given, **more):
        if Path(path).name == "claims" and not met:
            met.append(path)
            raise FileExistsError(17, "File exists", str(path))
        return real(path, *given, **more)

    monkeypatch.setattr(os, "mkdir", mkdir)
    with Claims(tmp_path / "claims") as mine:
        assert mine.take("a") and met


def test_a_file_in_the_place_of_the_folder_is_told_at_once(tmp_path):
    (tmp_path / "claims").write_text("")
    with pytest.raises(StorageError, match="File exists"), Claims(tmp_path / "claims") as mine:
        mine.take("a")


def test_a_killed_process_that_nobody_waited_for_is_dead_too(tmp_path):
    if not processes.born(os.getpid()):
        pytest.skip("this system does not say so")
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    since = processes.born(process.pid)
    assert processes.alive(process.pid, since)
    process.kill()
    while processes.born(process.pid) != "gone":
        time.sleep(0.01)
    assert not processes.alive(process.pid, since)
    process.wait()


def test_a_held_claim_is_touched_while_its_owner_lives(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "HEARTBEAT", 0.02)
    with Claims(tmp_path / "claims") as mine:
        mine.take("a")
        path = tmp_path / "claims" / "a"
        os.utime(path, (0, 0))
        end = time.monotonic() + 20
        while path.stat().st_mtime < 1e9 and time.monotonic() < end:
            time.sleep(0.01)
        assert path.stat().st_mtime > 1e9


def test_a_file_system_without_links_has_claims_too(tmp_path, monkeypatch):
    def refused(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    with Claims(tmp_path / "claims") as mine, Claims(tmp_path / "claims") as other:
        assert mine.take("a") and not other.take("a")


def grab(folder, names, found, all_have_tried):
    with Claims(folder) as mine:
        found.put([name for name in names if mine.take(name)])
        all_have_tried.wait(60)


def test_of_many_processes_each_claim_is_taken_by_one_even_where_all_find_it_abandoned(tmp_path):
    names, pid = [f"n{i}" for i in range(60)], dead_pid()
    for name in names[::2]:
        write_claim(tmp_path / "claims" / name, place=processes.place(), pid=pid)
    context = multiprocessing.get_context("fork")
    found, all_have_tried = context.Queue(), context.Barrier(6)
    given = (tmp_path / "claims", names, found, all_have_tried)
    several = [context.Process(target=grab, args=given) for _ in range(6)]
    for process in several:
        process.start()
    taken = [name for _ in several for name in found.get(timeout=60)]
    for process in several:
        process.join()
    assert sorted(taken) == sorted(names)


def test_two_that_need_the_same_features_encode_them_once(tmp_path, tiny, caltech_readonly, monkeypatch):
    from carryover import datasets

    data = datasets.load("caltech101", str(caltech_readonly[0]))
    encode, begun = FeatureStore._encode, []

    def slow(self, split, recipes, what):
        begun.append(len(recipes))
        time.sleep(0.3)
        return encode(self, split, recipes, what)

    monkeypatch.setattr(FeatureStore, "_encode", slow)
    monkeypatch.setattr(claims, "POLL", 0.01)
    found = []

    def ask():
        found.append(FeatureStore(tmp_path, tiny.base).views(data.test, data.classnames, 2, (0.5, 1.0), 1))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert begun == [2] and all(one.equal(found[0]) for one in found)
    assert not (tmp_path / "claims").exists()


def test_two_that_start_at_once_do_not_trip_over_the_trial_of_the_folder(tmp_path):
    from carryover.bench.records.store import Store

    wrong = []

    def look():
        try:
            for _ in range(60):
                Store(tmp_path, "toy").check_writable()
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# ---- unfinished files ------------------------------------------------------------------------------------------------


WRITER = """
import os, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from carryover.bench.host.files import whole
with whole(Path(sys.argv[1])) as unfinished:
    unfinished.write_text("half")
    os._exit(9)
"""


def leave(path):
    """An unfinished file as a killed writer leaves it."""
    root = Path(carryover.__file__).parent.parent
    subprocess.run([sys.executable, "-c", WRITER, str(path), str(root)])


def test_what_a_killed_writer_left_is_swept_and_what_a_living_one_writes_is_not(tmp_path):
    write_text(tmp_path / "runs" / "a.json", "{}")
    (tmp_path / ".hidden").write_text("the user's own")
    leave(tmp_path / "runs" / "b.json")
    (left,) = (tmp_path / "runs").glob(".b.json.*")
    with whole(tmp_path / "runs" / "c.json") as unfinished:
        assert sweep(tmp_path) == 1
        assert not left.exists() and unfinished.exists()
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == [".hidden", "a.json", "c.json"]


def test_the_first_that_writes_in_a_folder_sweeps_it(tmp_path):
    """So that each command does, whatever it writes: report, export, merge, leaderboard, map, port."""
    leave(tmp_path / "report.md")
    with whole(tmp_path / "leaderboard.html") as unfinished:
        unfinished.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["leaderboard.html"]


def test_an_unfinished_file_is_a_dead_ones_where_its_process_number_was_given_again(tmp_path):
    if not processes.born(os.getpid()):
        pytest.skip("this system does not say when a process was born")
    for born, swept in (("-17", 1), (f"-{processes.born(os.getpid())}", 0), ("", 0)):
        (tmp_path / f".a.json.{here()}.{os.getpid()}{born}.x1y2z3.part").write_text("half")
        assert sweep(tmp_path) == swept
    assert len(list(tmp_path.iterdir())) == 2


def test_an_unfinished_file_of_another_machine_is_swept_after_a_day(tmp_path):
    for name, age in (("new", 100), ("old", 2 * 86400)):
        path = tmp_path / f".{name}.json.0123abcd.{dead_pid()}.x1y2z3.part"
        path.write_text("half")
        os.utime(path, (time.time() - age, time.time() - age))
    assert sweep(tmp_path) == 1 and [p.name.split(".")[1] for p in tmp_path.iterdir()] == ["new"]
