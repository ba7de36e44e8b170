"""Faults survived: full and read-only disks, damaged files, vanished pictures, losses that are not finite, too little
memory, Ctrl-C, methods that raise, hang, die or answer nonsense. Each ends in a clear line and costs nothing else."""

import errno
import functools
import json
import multiprocessing
import os
import resource
import shutil
import sys
import time

import pytest
import torch
from tiny_caltech import FOLDER, IMAGES, SPLIT, write_caltech

from carryover.bench.backbones import loading
from carryover.bench.cli import main
from carryover.bench.errors import StorageError, UserError
from carryover.bench.host import files, out_of_memory, worker_pool
from carryover.bench.host.tensor_files import read_tensors, write_tensors

pytestmark = pytest.mark.long

METHODS = ("zs-clip", "linear-probe", "coop")
PLAN = ("--datasets", "caltech101", "--seeds", 1, "--shots", 2, "--limit", 3, "--views", 1, "--set", "*.steps=2")
LOCAL = ("--device", "cpu")


@pytest.fixture(autouse=True)
def load_once(monkeypatch):
    monkeypatch.setattr(loading, "load", LOADED)
    # Spawned workers would import torch again, seconds each.
    monkeypatch.setattr(worker_pool, "CONTEXT", multiprocessing.get_context("fork"))


LOADED = functools.cache(loading.load)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    root, out = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("results") / "out"
    write_caltech(root)
    argv = [*PLAN, *LOCAL, "--methods", *METHODS, "--jobs", 1, "--data-root", root, "--out", out]
    assert main.main(list(map(str, argv))) == 0
    return root, out


@pytest.fixture
def again(finished, tmp_path, capsys):
    """``again(*flags)`` -> (status, stdout, stderr) of the plan on a copy of the finished results and pictures."""
    root, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(finished[0], root)  # keeps times of change, which are part of a picture's identity
    shutil.copytree(finished[1], out)

    def call(*flags, methods=METHODS, jobs=1):
        capsys.readouterr()
        argv = [*PLAN, *LOCAL, "--methods", *methods, "--jobs", jobs, "--data-root", root, "--out", out, *flags]
        status = main.main(list(map(str, argv)))
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        assert not [p for p in tmp_path.rglob("*") if p.name.startswith(".") or p.name == "claims"]
        return status, " ".join(said.out.split()), said.err

    call.root, call.out, call.done = root, out, finished[1]
    return call


def tables(out):
    return {path.name: path.read_bytes() for path in (out / "micro" / "tables").iterdir()}


def records(out):
    found = [json.loads(path.read_text()) for path in (out / "micro" / "runs").glob("*.json")]
    return {record["run"]["method"]: record for record in found}


def plug_in(folder, body, name="zz-trouble", head=""):
    """A method file of the user's; ``body`` is its logits."""
    folder.mkdir(exist_ok=True)
    lines = "\n".join("        " + line for line in body.splitlines())
    (folder / "trouble.py").write_text(
        f"""import os, signal, sys, time
import torch
from pathlib import Path
from carryover.methods.base import Method, register
{head}

@register("{name}")
class Trouble(Method):
    name, paper, depth = "Trouble", "nobody", "none"

    def bind(self, backbone, classes):
        self.backbone, self.count = backbone, len(classes)

    def logits(self, x):
{lines}
"""
    )
    return folder


# ---- disks -----------------------------------------------------------------------------------------------------------

KINDS = (
    *("runs", "plugins", "predictions", "splits", "cache", "examples", "tables", "figures"),
    *("report.md", "report.html"),
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS], ids=["full", "read-only"])
def test_a_disk_that_takes_no_file_of_a_kind_ends_in_one_line_and_the_same_command_goes_on(
    again, monkeypatch, kind, code
):
    shutil.rmtree(again.out)
    replace, make = os.replace, files.tempfile.mkstemp

    def refuse(path):
        if kind in (path.name, path.parent.name) or kind in str(path.name) and path.parent.name == "micro":
            raise OSError(code, os.strerror(code))

    def full(source, target):
        refuse(target)
        return replace(source, target)

    def read_only(dir, prefix, suffix):
        refuse(dir / prefix[1:].split(f".{files.here()}")[0])
        return make(dir=dir, prefix=prefix, suffix=suffix)

    with monkeypatch.context() as patched:
        if code == errno.ENOSPC:
            patched.setattr(files.os, "replace", full)
        else:
            patched.setattr(files.tempfile, "mkstemp", read_only)
        status, _, err = again()
    lines = err.strip().splitlines()
    assert status == 2 and len(lines) == 1 and os.strerror(code) in lines[0] and kind in lines[0], err
    stored = records(again.out)
    assert all(record["status"] == "done" for record in stored.values()), "a full disk is no run's failure"
    assert again()[0] == 0
    assert tables(again.out) == tables(again.done)


def test_a_full_disk_met_by_a_worker_process_ends_the_call_in_the_same_line(again, monkeypatch):
    shutil.rmtree(again.out / "micro")
    replace = os.replace

    def full(source, target):
        if target.parent.name == "plugins":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(source, target)

    monkeypatch.setattr(files.os, "replace", full)
    status, _, err = again(jobs=2)
    assert status == 2 and "No space left" in err and "plugins" in err and not records(again.out)


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file size")
def test_a_write_that_the_kernel_cuts_short_leaves_nothing(tmp_path):
    """Not simulated: the kernel refuses bytes beyond the limit, in the middle of the file."""
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"a": torch.zeros(4)}, {})
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(StorageError) as caught:
            write_tensors(path, {"a": torch.zeros(4096)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == [path.name] and path.read_bytes() == before


# ---- damaged files ---------------------------------------------------------------------------------------------------

DAMAGE = {
    "zero bytes": lambda content: b"",
    "cut": lambda content: content[: len(content) * 2 // 3],
    "rubbish": lambda content: b"\xff\xfe rubbish " * (len(content) // 11),
}


@pytest.mark.parametrize("kind", ["runs", "plugins", "predictions", "splits", "cache", "examples"])
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_noticed_and_made_again(again, kind, damage):
    folder = again.out / kind if kind == "cache" else again.out / "micro" / kind
    before = {path: path.read_bytes() for path in folder.iterdir()}
    for path, content in before.items():
        path.write_bytes(damage(content))
    if kind == "cache":  # features are read only where a run is to be done
        shutil.rmtree(again.out / "micro" / "runs")
    status, said, _ = again()
    assert status == 0
    assert ("3 runs done, 0 were" if kind not in ("splits", "examples") else "0 runs done, 3 were") in said
    for path, content in before.items():
        if kind == "runs":
            assert json.loads(path.read_bytes())["targets"] == json.loads(content)["targets"]
        elif kind in ("splits", "examples"):
            assert path.read_bytes() == content
        else:
            ours, (theirs, _) = read_tensors(path)[0], read_tensors(again.done / path.relative_to(again.out))
            assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert tables(again.out) == tables(again.done)


@pytest.mark.parametrize("command", ["report", "check"])
def test_report_names_a_record_that_cannot_be_read(again, command):
    first, *_ = sorted((again.out / "micro" / "runs").iterdir())
    first.write_bytes(first.read_bytes()[:100])
    assert first.name in again("report")[1]
    assert first.name in (again.out / "micro" / "report.md").read_text()
    status, said, *_ = again("check")
    assert status == 1 and first.name in said


def picture(root):
    """A test picture within --limit."""
    return root / FOLDER / IMAGES / json.loads((root / FOLDER / SPLIT).read_text())["test"][0][0]


def test_a_picture_that_vanishes_between_two_runs_is_named_and_nothing_is_lost_when_it_is_back(again):
    path = picture(again.root)
    path.rename(path.with_suffix(".away"))
    status, _, err = again()
    assert status == 2 and path.name in err and len(err.strip().splitlines()) == 1, err
    path.with_suffix(".away").rename(path)
    status, said, _ = again()
    assert status == 0 and "0 runs done, 3 were done before, 0 failed" in said


def test_a_picture_that_turns_to_rubbish_between_two_runs_is_named(again):
    path = picture(again.root)
    path.write_bytes(b"rubbish" * 50)
    status, said, _ = again()
    assert status == 1 and path.name in said and "replace the file" in said and "3 failed" in said


# ---- runs ------------------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_fails_its_run_with_the_curve_kept(again):
    flags = ("--set", "coop.lr=1e38", "coop.steps=40", "coop.warmup_epochs=3", "coop.batch=4")
    status, said, _ = again(*flags, methods=("coop", "zs-clip"))
    assert status == 1 and "loss is" in said and "1 failed" in said
    (failed,) = [
        r for p in (again.out / "micro" / "runs").iterdir() if (r := json.loads(p.read_text()))["status"] == "failed"
    ]
    assert failed["run"]["method"] == "coop" and "loss is" in failed["error"] and not failed["targets"]
    assert len(failed["curve"]) >= 3 and all(abs(row["loss"]) < 1e9 for row in failed["curve"])


NONSENSE = {
    "wrong shape": ("return torch.zeros(len(x), self.count + 1)", "expected"),
    "no batch": ("return torch.zeros(self.count)", "expected"),
    "NaN": ("return torch.full((len(x), self.count), float('nan'))", "not finite"),
    "nothing": ("return None", "NoneType"),
    "raises": ("raise ZeroDivisionError('of its own')", "of its own"),
    "exits": ("sys.exit(0)", "SystemExit"),
}


@pytest.mark.parametrize("body, expected", NONSENSE.values(), ids=NONSENSE)
def test_a_method_that_answers_nonsense_fails_alone(again, clean_registry, tmp_path, body, expected):
    mine = plug_in(tmp_path / "mine", body)
    status, said, _ = again("--plugin-dir", mine, methods=("zz-trouble", "zs-clip"))
    assert status == 1 and expected in said and "1 were done before, 1 failed" in said
    assert expected in records(again.out)["zz-trouble"]["error"]


def test_a_method_that_hangs_is_ended_at_the_limit_and_the_rest_goes_on(again, clean_registry, tmp_path):
    shutil.rmtree(again.out / "micro" / "runs")
    mine = plug_in(tmp_path / "mine", "while True: time.sleep(60)")
    begun = time.monotonic()
    status, said, _ = again("--plugin-dir", mine, "--run-limit", 5, methods=("zz-trouble", *METHODS))
    assert status == 1 and "--run-limit 5 s" in said and "3 runs done, 0 were done before, 1 failed" in said
    assert records(again.out)["zz-trouble"]["status"] == "failed" and time.monotonic() - begun < 300


def test_a_worker_process_that_dies_costs_its_run_alone(again, clean_registry, tmp_path):
    shutil.rmtree(again.out / "micro" / "runs")
    mine = plug_in(tmp_path / "mine", "os.kill(os.getpid(), signal.SIGKILL)")
    flags = ("--plugin-dir", mine, "--seeds", 1, 2)
    status, said, _ = again(*flags, methods=("zz-trouble", *METHODS), jobs=2)
    assert status == 1 and "6 runs done, 0 were done before, 2 failed" in said and "died twice (signal 9" in said
    assert tables(again.out)["main.csv"].count(b"\n") == 1 + 2 * 4


def test_a_run_whose_worker_died_is_tried_once_more_alone(again, clean_registry, tmp_path):
    shutil.rmtree(again.out / "micro" / "runs")
    mark = tmp_path / "mark"
    body = f"if not Path({str(mark)!r}).exists():\n    Path({str(mark)!r}).touch()\n    os._exit(7)\n"
    mine = plug_in(tmp_path / "mine", body + "return torch.zeros(len(x), self.count)")
    status, said, _ = again("--plugin-dir", mine, "--seeds", 1, 2, methods=("zz-trouble", *METHODS), jobs=2)
    assert status == 0 and "8 runs done, 0 were done before, 0 failed" in said and mark.exists()


def test_ctrl_c_says_how_far_it_came_and_loses_nothing(again, clean_registry, tmp_path):
    shutil.rmtree(again.out / "micro" / "runs")
    mark = tmp_path / "mark"
    body = f"if not Path({str(mark)!r}).exists():\n    Path({str(mark)!r}).touch()\n"
    body += "    os.kill(os.getpid(), signal.SIGINT)\n"
    mine = plug_in(tmp_path / "mine", body + "time.sleep(0.1)\nreturn torch.zeros(len(x), self.count)")
    methods = ("zs-clip", "zz-trouble", "coop")
    status, _, err = again("--plugin-dir", mine, methods=methods)
    assert status == 130 and "stopped after 1 of 3 runs" in err and "goes on from here" in err
    status, said, _ = again("--plugin-dir", mine, methods=methods)
    assert status == 0 and "2 runs done, 1 were done before, 0 failed" in said


def test_bad_limits_are_refused(again):
    assert again("--run-limit", 0)[0] == 2 and "--run-limit" in again("--run-limit", -1)[2]


# ---- memory ----------------------------------------------------------------------------------------------------------

OUT_OF_MEMORY = {
    "cuda": "torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB')",
    "cpu": "RuntimeError('[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes.')",
    "cpu on linux": 'RuntimeError("DefaultCPUAllocator: can\'t allocate memory: you tried to allocate 8 bytes.")',
    "host": "MemoryError()",
    "cublas": "RuntimeError('CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`')",
}


@pytest.mark.parametrize("error", OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY)
def test_a_run_out_of_memory_is_tried_again_with_smaller_text_passes(again, clean_registry, tmp_path, error):
    body = f"if self.backbone.text.budget > 600 << 20:\n    raise {error}\nreturn torch.zeros(len(x), self.count)"
    mine = plug_in(tmp_path / "mine", body)
    status, said, _ = again("--plugin-dir", mine, methods=("zz-trouble", "coop"))
    assert status == 0 and "1 run done, 2 were done before, 0 failed" in said  # zero-shot too
    assert records(again.out)["zz-trouble"]["text_budget_bytes"] == 512 << 20  # 4 GB, halved thrice
    shutil.rmtree(again.out / "micro" / "runs")
    assert again("--plugin-dir", mine, methods=("zz-trouble", "coop"))[0] == 0
    assert records(again.out)["coop"]["text_budget_bytes"] == 4 << 30, "one run's trouble changes no other's numbers"


def test_a_run_that_does_not_fit_at_all_fails_in_one_line(again, clean_registry, tmp_path):
    mine = plug_in(tmp_path / "mine", f"raise {OUT_OF_MEMORY['cuda']}")
    status, said, _ = again("--plugin-dir", mine, methods=("zz-trouble", "zs-clip"))
    assert status == 1 and "1 were done before, 1 failed" in said
    failed = records(again.out)["zz-trouble"]
    assert failed["error"].startswith("out of memory, even with") and "Tried to allocate 2.00 GiB" in failed["error"]
    assert failed["text_budget_bytes"] == out_of_memory.FLOOR


def test_budgets_halve_down_to_the_floor():
    assert [b >> 20 for b in out_of_memory.budgets(300 << 20)] == [300, 150, 75, 64]
    assert list(out_of_memory.budgets(out_of_memory.FLOOR)) == [out_of_memory.FLOOR] and list(
        out_of_memory.budgets(1)
    ) == [1]


# ---- the pool itself -------------------------------------------------------------------------------------------------


def arithmetic():
    def work(items):
        for item in items:
            if item == "die":
                os._exit(3)
            if item == "hang":
                time.sleep(60)
            if item == "wrong":
                raise UserError("no such number")
            yield item * 2

    return work


def outcomes(units, jobs=2, limit=None, start=arithmetic):
    rest = list(units)
    found = worker_pool.outcomes(lambda: rest.pop(0) if rest else [], start, [()] * jobs, limit)
    return {item: result.reason if isinstance(result, worker_pool.Lost) else result for item, result in found}


def test_every_item_of_every_unit_has_an_outcome_whatever_its_neighbours_do():
    units = [[1, "wrong", 2], [3], ["die", 4, 5], [6, 7, "hang", 8], [9]]
    found = outcomes(units, limit=2.0)
    assert {k: v for k, v in found.items() if isinstance(k, int)} == {n: 2 * n for n in range(1, 10)}
    assert found["wrong"] == "no such number" and "--run-limit 2 s" in found["hang"]
    assert "twice (exit status 3)" in found["die"]


def broken():
    raise UserError("no backbone")


def vanishing():
    os._exit(5)


def test_a_worker_that_cannot_start_ends_the_call():
    for start, expected in ((broken, "no backbone"), (vanishing, "could not start.*exit status 5")):
        with pytest.raises(UserError, match=expected):
            outcomes([[1], [2]], start=start)


def test_no_worker_outlives_a_call_that_is_given_up():
    rest = [[1], ["hang"]]
    found = worker_pool.outcomes(lambda: rest.pop(0) if rest else [], arithmetic, [(), ()])
    next(found)
    found.close()
    assert not multiprocessing.active_children()
