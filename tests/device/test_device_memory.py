"""What text passes may keep on a GPU: of the stand-in, 64 of 80 GiB are free."""

import pytest
import torch
from device_lives import on, towers
from stand_in_cuda import stand_in_cuda

from carryover.bench.backbones.archs import ARCHS
from carryover.bench.engine.local import options_of_workers
from carryover.bench.engine.options import Options, device_budget
from carryover.bench.engine.session import Session
from carryover.bench.host import out_of_memory
from carryover.bench.plan.defaults import TEXT_BESIDE, TEXT_MEMORY, TEXT_SHARE

GIB = 1 << 30


def test_a_gpu_gives_a_share_of_its_free_memory_parted_among_the_processes_on_it():
    with stand_in_cuda():
        one, four = device_budget("cuda"), device_budget("cuda", 4)
    assert one == int(TEXT_SHARE * (64 - TEXT_BESIDE)) * GIB and four == int(TEXT_SHARE * (16 - TEXT_BESIDE)) * GIB
    assert one % GIB == four % GIB == 0 and 4 * four < one < 64 * GIB


def test_a_full_gpu_gives_the_least_that_is_tried(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (GIB, 80 * GIB))
    assert device_budget("cuda") == out_of_memory.FLOOR
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (3 * GIB, 80 * GIB))
    assert device_budget("cuda") == int(TEXT_SHARE * (3 - TEXT_BESIDE) * GIB)


def test_a_cpu_keeps_the_usual_budget():
    assert device_budget("cpu") == device_budget("cpu", 4) == TEXT_MEMORY * GIB == 4 * GIB


def test_a_session_asks_the_card_once_and_takes_what_is_named(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: asked.append(1) or (64 * GIB, 80 * GIB))

    def session(**changes):
        return Session(Options(ARCHS["micro"], "cuda", str(tmp_path), str(tmp_path), **changes))

    found = session(sharing=2)
    assert found.text_budget == found.text_budget == device_budget("cuda", 2) and len(asked) == 2
    found.allow(5 * GIB)
    assert (found.text_budget, found.full_budget) == (5 * GIB, device_budget("cuda", 2))
    assert session(text_budget=7 * GIB).text_budget == 7 * GIB


def test_workers_of_one_call_get_equal_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (64 * GIB, 80 * GIB))
    told = options_of_workers(Options(ARCHS["micro"], "cuda", str(tmp_path), str(tmp_path)), 4)
    assert [one.text_budget for one in told] == [device_budget("cuda", 4)] * 4
    assert 0 < device_budget("cuda", 4) < device_budget("cuda") / 3


@pytest.mark.parametrize("precision, size", [("fp32", 4), ("bf16", 2)])
def test_room_counts_values_of_the_size_that_the_tower_works_in(precision, size):
    with on("cuda"):
        text = towers("cuda", precision)[0].text
        text.budget = 36 * text.width * len(text.blocks) * size * 1000
        assert text.value_size == size and text.room == 1000
        with torch.no_grad():  # one block's values alone
            assert text.most_tokens(1) == text.budget // (26 * text.width * size) > 1000
            text.budget = 1 << 40
            assert text.most_tokens(1) == 1 << 17 and text.most_tokens(1 << 18) == 1 << 18
    text = towers("cpu", precision)[0].text
    text.budget = 36 * text.width * len(text.blocks) * 4 * 1000
    assert text.value_size == 4 and text.room == text.most_tokens(1) == 1000
    with torch.no_grad():
        text.budget = 1 << 40
        assert text.most_tokens(1) == 4096
