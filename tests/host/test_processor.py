"""The mode of MKL is chosen before torch is loaded, the user's wins, and the probe can say no."""

import json
import subprocess
import sys

import pytest
import torch
from bits import TOLERANCE, assert_same
from checkout import FROM_HERE

from carryover.bench.backbones import archs, probe
from carryover.bench.cli.doctor_page import show_processor
from carryover.bench.engine import options
from carryover.bench.engine.options import Options
from carryover.bench.host import processor
from carryover.bench.preflight.findings import Page
from carryover.bench.records import environments
from carryover.bench.records.schema import fault

CORE = (
    "processor\t: 0\nvendor_id\t: {}\nmodel name\t: Some CPU: 2 GHz\nflags\t\t: {}\n\nprocessor\t: 1\nflags\t: none\n"
)
ALL = " ".join(["fpu", "avx", "avx2", *sorted(processor.AVX512)])


def said(program, mode=None):
    """What a fresh Python prints; mode: the user's own, None where there is none."""
    kept = {name: value for name, value in FROM_HERE.items() if name != processor.VARIABLE}
    given = {} if mode is None else {processor.VARIABLE: mode}
    done = subprocess.run(
        [sys.executable, "-c", program], env={**kept, **given}, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


# ---- the choice ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "vendor, flags, mode",
    [
        ("GenuineIntel", ALL, "AVX512,STRICT"),
        ("GenuineIntel", ALL.replace("avx512vl", ""), "AVX2,STRICT"),
        ("GenuineIntel", "fpu avx2", "AVX2,STRICT"),
        ("GenuineIntel", "fpu avx", ""),
        ("AuthenticAMD", ALL, "AUTO,STRICT"),
        ("AuthenticAMD", "fpu sse4_2", ""),
    ],
)
def test_the_strictest_mode_is_that_of_the_instructions_that_the_first_core_has(
    vendor, flags, mode, tmp_path, monkeypatch
):
    (tmp_path / "cpuinfo").write_text(CORE.format(vendor, flags))
    found = processor.described.__wrapped__(str(tmp_path / "cpuinfo"))
    monkeypatch.setattr(processor, "described", lambda: found)
    assert processor.offered.__wrapped__() == mode
    assert processor.name() == f"{vendor} Some CPU: 2 GHz"


def test_nothing_is_chosen_where_the_system_does_not_describe_its_processor(tmp_path, monkeypatch):
    found = processor.described.__wrapped__(str(tmp_path / "none"))
    monkeypatch.setattr(processor, "described", lambda: found)
    assert processor.offered.__wrapped__() == "" and processor.name()


STATE = """
import json, os, sys
{first}
import {package}
assert {late} or "torch" not in sys.modules or "{package}" != "carryover", "the suite's own import stays light"
from carryover.bench.host import processor
print(json.dumps([os.environ.get("MKL_CBWR"), processor.mode(), processor.chosen_by(), processor.late]))
"""


@pytest.mark.parametrize(
    "package", ["carryover", "carryover.datasets", "carryover.bench.cluster.worker", "carryover.methods.base"]
)
def test_whatever_of_the_suite_is_imported_first_the_mode_is_chosen_before_torch(package):
    variable, mode, chosen_by, late = said(STATE.format(first="", package=package, late=False))
    assert (variable or "") == processor.offered() and not late
    if processor.library() == "MKL" and processor.offered():
        assert (mode, chosen_by) == (processor.offered(), "suite")


@pytest.mark.parametrize("own", ["COMPATIBLE", ""])
def test_a_users_own_mode_is_left_and_said_and_an_empty_one_is_none(own):
    variable, mode, chosen_by, _ = said(STATE.format(first="", package="carryover", late=False), own)
    assert (variable, chosen_by) == (own, "user")
    assert mode in (own or processor.NONE, processor.NO_MKL, processor.UNKNOWN)


def test_where_torch_was_there_first_nothing_is_set_and_that_is_said():
    variable, mode, chosen_by, late = said(STATE.format(first="import torch", package="carryover", late=True))
    assert (variable, chosen_by, late) == (None, "nobody", True)
    assert mode in (processor.NONE, processor.NO_MKL, processor.UNKNOWN)
    told = said(
        "import torch, carryover, json\nfrom carryover.bench.host import processor\nprint(json.dumps(processor.told()))"
    )
    assert "before this suite" in told or processor.mode() == processor.NO_MKL


@pytest.mark.long
def test_a_worker_process_has_the_mode_of_its_parent():
    program = (
        "import json, multiprocessing\nfrom carryover.bench.host import processor\n"
        "with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "    theirs = pool.apply(processor.mode), pool.apply(processor.chosen_by)\n"
        "print(json.dumps([theirs, [processor.mode(), processor.chosen_by()]]))"
    )
    for own in (None, "COMPATIBLE"):
        theirs, ours = said(program, own)
        assert theirs == ours


def test_the_users_own_mode_alone_is_passed_on_to_other_machines(monkeypatch):
    monkeypatch.setattr(processor, "offered", lambda: "AVX512,STRICT")
    for value, passed in ((None, {}), ("AVX512,STRICT", {}), ("AVX2", {"MKL_CBWR": "AVX2"}), ("", {"MKL_CBWR": ""})):
        if value is None:
            monkeypatch.delenv("MKL_CBWR", raising=False)
        else:
            monkeypatch.setenv("MKL_CBWR", value)
        assert processor.users_own() == passed


@pytest.mark.parametrize(
    "code, mode",
    [
        (0x1, "none"),
        (0x2, "AUTO"),
        (0x10002, "AUTO,STRICT"),
        (0x1000C, "AVX512,STRICT"),
        (0xA, "AVX2"),
        (0x3, "COMPATIBLE"),
    ],
)
def test_the_code_that_mkl_answers_is_read_as_its_mode(code, mode):
    assert processor.named(code) == mode


def test_a_build_without_mkl_or_without_its_question_is_said_as_that(monkeypatch):
    monkeypatch.setattr(processor, "GETTERS", ("not_there",))
    if processor.library() == "MKL":
        assert processor.mode.__wrapped__() == processor.UNKNOWN
    monkeypatch.setattr(processor, "library", lambda: "OpenBLAS")
    assert processor.mode.__wrapped__() == processor.NO_MKL
    monkeypatch.setattr(processor, "mode", lambda: processor.NO_MKL)
    assert processor.told() == "torch multiplies with OpenBLAS, which has no mode to choose"


# ---- the probe -------------------------------------------------------------------------------------------------------

ANSWER = """
import json
from carryover.bench.backbones import probe
print(json.dumps([probe.answer().fewest, str(probe.answer())]))
"""


@pytest.mark.long
def test_the_probe_leaves_threads_and_random_numbers_as_they_were():
    program = (
        "import json\nfrom carryover.bench.backbones import probe\nimport torch\n"
        "torch.set_num_threads(2)\nbefore = torch.get_rng_state()\n"
        "with torch.no_grad():\n    probe.answer()\n"
        "print(json.dumps([torch.get_num_threads(), torch.equal(torch.get_rng_state(), before)]))"
    )
    assert said(program) == [2, True]


def other_kernels(most):
    """A product that sums in another order for so many rows or fewer, as libraries have several kernels."""
    linear = torch.nn.functional.linear

    def product(x, weight, bias=None):
        if x.numel() // x.shape[-1] > most:
            return linear(x, weight, bias)
        half = x.shape[-1] // 2
        return linear(x[..., :half], weight[:, :half], bias) + linear(x[..., half:], weight[:, half:])

    return product


@pytest.mark.parametrize("most, at_least", [(3, 4), (6, 7), (10**9, 1)])
def test_a_library_with_other_kernels_for_few_rows_is_found_out_with_their_number(most, at_least, monkeypatch):
    monkeypatch.setattr(torch.nn.functional, "linear", other_kernels(most))
    if (found := probe.tried()) is not None:  # this machine's own kernels may be more unlike than those
        assert found >= at_least


def test_a_library_with_other_kernels_for_many_rows_is_answered_no(monkeypatch):
    monkeypatch.setattr(torch.nn.functional, "linear", other_kernels(200))
    assert probe.tried() is None


def test_a_pass_that_mixes_runs_is_answered_no_where_products_alone_are_not(monkeypatch):
    monkeypatch.setattr(probe, "alike", lambda *given: True)
    linear = torch.nn.functional.linear

    def product(x, weight, bias=None):
        return linear(x, weight, bias) + (1e-6 if x.dim() > 2 and len(x) > 1 else 0)

    monkeypatch.setattr(torch.nn.functional, "linear", product)
    assert probe.tried() is None


@pytest.mark.long
def test_modes_of_this_machine_are_told_apart():
    """COMPATIBLE gave other bits wherever it was tried (AMD, Intel); what is offered, the same from few rows on."""
    if processor.library() != "MKL":
        pytest.skip(f"torch multiplies with {processor.library()}, which has no modes")
    assert said(ANSWER, "COMPATIBLE")[0] is None
    fewest, told = said(ANSWER)
    assert fewest is None or (fewest <= 4 and told.startswith("runs side by side have the bits of runs alone"))


@pytest.mark.parametrize("fewest, classes", [(1, 2), (2, 2), (4, 4)])
def test_answers_hold_from_their_number_of_classes_on(fewest, classes):
    found = probe.Answer(fewest)
    assert found.holds(classes) and not found.holds(fewest - 1)
    assert not probe.Answer(None).holds(1000)
    assert ("fewer than" in str(found)) == (fewest > 2)


def test_several_threads_are_promised_nothing_and_a_gpu_is_not_asked(monkeypatch):
    monkeypatch.setattr(probe, "answer", lambda: probe.Answer(1))
    cpu, threads = torch.device("cpu"), torch.get_num_threads()
    assert not probe.apart(cpu, 2)
    try:
        torch.set_num_threads(2)
        assert probe.apart(cpu, 2)
    finally:
        torch.set_num_threads(threads)
    monkeypatch.setattr(probe, "answer", lambda: probe.Answer(None))
    assert probe.apart(cpu, 2) and not probe.apart(torch.device("cuda"), 2)


def test_the_tolerance_is_held_where_bits_are_not(monkeypatch):
    value = torch.randn(50, generator=torch.Generator().manual_seed(0))
    near, far = value * (1 + TOLERANCE / 10), value + 2 * TOLERANCE * value.std()
    monkeypatch.setattr(probe, "answer", lambda: probe.Answer(None))
    assert_same({"a": near}, {"a": value}, 5)
    with pytest.raises(AssertionError):
        assert_same({"a": far}, {"a": value}, 5)
    monkeypatch.setattr(probe, "answer", lambda: probe.Answer(1))
    with pytest.raises(AssertionError):
        assert_same({"a": near}, {"a": value}, 5)


# ---- what follows from the answer ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fewest, arch, device, together",
    [
        (1, "micro", "cpu", 12),
        (4, "micro", "cpu", 12),
        (None, "micro", "cpu", 1),
        (None, "micro", "cuda", 12),
        (None, "vit-b16", "cuda", 3),
        (1, "vit-b16", "cpu", 1),
    ],
)
def test_runs_go_alone_by_default_on_a_cpu_where_the_probe_says_no(fewest, arch, device, together, monkeypatch):
    monkeypatch.setattr(probe, "answer", lambda: probe.Answer(fewest))
    assert options.default_together(archs.ARCHS[arch], device) == together


@pytest.mark.parametrize("fewest, mark", [(1, "ok"), (4, "ok"), (None, "note")])
def test_doctor_says_processor_mode_and_answer(fewest, mark, monkeypatch, capsys):
    monkeypatch.setattr(probe, "answer", lambda: probe.Answer(fewest))
    page = Page()
    show_processor(page, Options(archs.ARCHS["micro"], "cpu", "", ""))
    first, second, third = capsys.readouterr().out.splitlines()
    assert processor.name() in first and processor.told() in second
    assert third.split(maxsplit=1) == [mark, f"side by side: {probe.Answer(fewest)}"] and page.problems == 0


# ---- tables ----------------------------------------------------------------------------------------------------------


def record(key, kind="", mode="AVX512,STRICT", device="cpu (1 threads)"):
    made = {
        "key": key,
        "run": {},
        "device": device,
        "git_commit": "a" * 40,
        "versions": {"torch": "2.9"},
        "started": f"2026-0{key}",
    }
    return {**made, "processor": {"kind": kind, "mode": mode}} if kind else made


INTEL, AMD = "GenuineIntel AVX512", "AuthenticAMD AVX512"


@pytest.mark.parametrize(
    "records, marked",
    [
        ([record("1", INTEL), record("2", INTEL), record("3", AMD, "AUTO,STRICT")], {"3"}),
        ([record("1", INTEL), record("2", INTEL), record("3", INTEL, "none")], {"3"}),
        ([record("1"), record("2"), record("3", AMD)], set()),
        ([record("1", AMD), record("2", AMD), record("3")], set()),
        ([record("1"), record("2"), record("3"), record("4", INTEL), record("5", INTEL), record("6", AMD)], {"6"}),
        ([record(key, "", device="cuda (Some GPU)") for key in "12"], set()),
        ([record("1", INTEL, device="cuda (A)"), record("2", AMD, device="cuda (A)")], set()),
    ],
    ids=["processors", "modes", "old and one new", "new and one old", "old and a mixture", "old on GPUs", "GPUs"],
)
def test_a_table_marks_cells_of_another_processor_or_mode_but_not_records_that_do_not_say(records, marked):
    found = {one["key"]: one.get("marks") or [] for one in environments.marked(records)}
    assert {key for key, marks in found.items() if marks} == marked
    assert all("MKL's mode" in mark for marks in found.values() for mark in marks)


def test_a_record_whose_processor_is_no_table_of_words_is_at_fault():
    good = {"key": "a", "run": {"dataset": "d", "method": "m", "seed": 1}}
    assert not fault(good) and not fault({**good, "processor": {"kind": "x", "mode": "y"}})
    assert "processor" in fault({**good, "processor": "x"}) and "processor.kind" in fault(
        {**good, "processor": {"kind": ["x"]}}
    )
