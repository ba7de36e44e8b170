"""Several cards of one machine: a worker process each, in whose records its card stands. No card is needed."""

import contextlib
import json
import multiprocessing
import os
import time

import pytest
import torch
from stand_in_cuda import stand_in_cuda
from worlds import begun, quietly

from carryover.bench.cli import main
from carryover.bench.cli.device import device_of
from carryover.bench.cli.options import options_of
from carryover.bench.cli.parsing import parse
from carryover.bench.engine import local, schedule
from carryover.bench.engine.options import device_budget
from carryover.bench.errors import UserError
from carryover.bench.features import decoding
from carryover.bench.host import worker_pool
from carryover.bench.preflight import budget


@pytest.fixture
def cards(monkeypatch):
    """``cards(n)``: so many there are."""

    def there(count):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
        monkeypatch.setattr(torch.cuda, "device", lambda card: contextlib.nullcontext())

    return there


def given(*argv):
    return parse(list(map(str, argv)))


# ---- the flag --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("cuda", ("cuda", ())),
        ("auto", ("cpu", ())),  # of the micro world
        ("auto --arch vit-b16", ("cuda", ())),
        ("cpu", ("cpu", ())),
        ("CUDA:2", ("cuda", (2,))),
        ("cuda:3,0", ("cuda", (3, 0))),
        ("cuda:all", ("cuda", (0, 1, 2, 3))),
    ],
)
def test_the_flag_names_a_kind_of_device_and_cards_by_number(cards, text, found):
    cards(4)
    options = options_of(given("--device", *text.split()))
    assert (options.device, options.cards) == found


@pytest.mark.parametrize(
    ("argv", "count", "line"),
    [
        (["--device", "cuda:0,2"], 2, r"--device cuda:0,2: no card 2; found 2 cards, cuda:0 to cuda:1$"),
        (["--device", "cuda:1"], 1, r"--device cuda:1: no card 1; found 1 card, cuda:0$"),
        (["--device", "cuda:all"], 0, "--device cuda:all: this machine .* has no CUDA device; use --device cpu$"),
        (["--device", "cuda:0,1,0"], 2, "'cuda:0,1,0': card 0 is named twice; name each once "),
        (["--device", "cuda:1,01"], 2, "card 1 is named twice"),
        (["--device", "gpu"], 2, "'gpu': expected auto, cpu, cuda, mps, cuda:all, or numbers of cards as in cuda:0,1 "),
        (["--device", "cpu:0"], 2, "'cpu:0': expected auto, cpu"),
        (["--device", "cuda:"], 2, "'cuda:': expected"),
        (["--device", "cuda:0-3"], 2, "'cuda:0-3': expected"),
        (
            ["--device", "cuda:0,1", "--engine", "ray"],
            2,
            "cuda:0,1 with --engine ray: Ray gives each run its card; use",
        ),
        (["evaluate", "--device", "cuda:1,0"], 2, "cuda:1,0: evaluate works on one card; name one, e.g. cuda:1$"),
    ],
)
def test_what_is_no_device_ends_in_one_line(cards, argv, count, line):
    cards(count)
    with pytest.raises(UserError, match=line):
        device_of(given(*argv))


def test_a_call_has_a_worker_for_each_card_times_jobs(cards):
    cards(4)
    for argv, count in (
        ((), 1),
        (("--device", "cuda:1"), 1),
        (("--device", "cuda:all"), 4),
        (("--device", "cuda:2,0"), 2),
    ):
        args = given("--arch", "vit-b16", *argv)
        assert schedule.workers_of(options_of(args), args.jobs) == count
        assert schedule.workers_of(options_of(args), 3) == 3 * count


def test_each_worker_is_told_one_card_and_its_share_of_the_decoding(cards, monkeypatch):
    cards(3)
    monkeypatch.setattr(decoding, "cores", lambda: 61)
    free = {0: 64 << 30, 1: 16 << 30, 2: 64 << 30, None: 64 << 30}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda card=None: (free[card], 80 << 30))
    options = options_of(given("--device", "cuda:2,0,1"))
    told = local.options_of_workers(options, 6)
    assert [one.text_budget for one in told] == [device_budget("cuda", 2, card) for card in (2, 0, 1)] * 2
    assert told[0].text_budget == told[1].text_budget > told[2].text_budget
    assert [one.cards for one in told] == [(2,), (0,), (1,)] * 2
    assert {one.workers for one in told} == {10} and {one.device for one in told} == {"cuda"}
    alone = local.options_of_workers(options_of(given("--device", "cuda", "--workers", "8")), 2)
    assert [(one.cards, one.workers) for one in alone] == [((), 4)] * 2


# ---- the pool --------------------------------------------------------------------------------------------------------


def at(place, folder):
    """A worker that tells its place. Items of one word wait for one another, so that each has a worker of its own."""

    def work(items):
        for word, number, together in items:
            (folder / f"{word}-{number}").touch()
            if word == "die":
                os._exit(3)
            until = time.monotonic() + 60
            while len(list(folder.glob(f"{word}-*"))) < together:
                assert time.monotonic() < until
                time.sleep(0.01)
            yield place

    return work


def test_each_worker_has_a_place_of_its_own_and_one_that_dies_is_followed_in_it(monkeypatch, tmp_path):
    monkeypatch.setattr(worker_pool, "CONTEXT", multiprocessing.get_context("fork"))
    units = [[("first", n, 3)] for n in range(3)] + [[("die", 0, 1)]] + [[("then", n, 3)] for n in range(3)]
    found: dict[str, list] = {}
    places = [(place, tmp_path) for place in ("cuda:2", "cuda:0", "cuda:1")]
    for (word, *_), place in worker_pool.outcomes(lambda: units.pop(0) if units else [], at, places):
        found.setdefault(word, []).append(place)
    assert sorted(found["first"]) == sorted(found["then"]) == ["cuda:0", "cuda:1", "cuda:2"]
    assert isinstance(found["die"][0], worker_pool.Lost)


# ---- whole commands --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return begun(tmp_path_factory.mktemp("world"))


def flags(world, out, *more):
    brief = ("--shots", "2", "--seeds", "1", "2", "--views", "1", "--set", "*.steps=3", "--suite", "main")
    return ["--arch", world.arch, "--datasets", world.data(), *brief, "--out", world.home / out, *more]


@pytest.fixture
def two_cards(monkeypatch, tmp_path):
    """A stand-in that says it is two; ``two_cards()`` gives the cards that each process made its own."""
    chosen = tmp_path / "chosen"
    chosen.mkdir()
    monkeypatch.setattr(worker_pool, "CONTEXT", multiprocessing.get_context("fork"))
    with stand_in_cuda():
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(torch.cuda, "set_device", lambda card: (chosen / f"{os.getpid()}-{card}").touch())
        yield lambda: {int(pid): int(card) for pid, card in (path.name.split("-") for path in chosen.iterdir())}


def test_a_whole_run_is_shared_by_the_cards_and_has_the_tables_of_one(world, two_cards):
    quietly(*flags(world, "one", "--methods", "taskres", "coop", "--device", "cuda"))
    quietly(*flags(world, "two", "--methods", "taskres", "coop", "--device", "cuda:1,0"))
    one, two = (
        [json.loads(path.read_text()) for path in (world.home / out / "pair" / "runs").glob("*.json")]
        for out in ("one", "two")
    )
    assert len(one) == len(two) == 6 and {record["status"] for record in two} == {"done"}
    assert {record["card"] for record in two} == {0, 1} and not any("card" in record for record in one)
    own = two_cards()
    assert own.pop(os.getpid()) == 1, "this process takes the first that is named"
    assert sorted(own.values()) == [0, 1], "and each worker one"
    tables = [world.home / out / "pair" / "tables" / "main.csv" for out in ("one", "two")]
    assert tables[0].read_text() == tables[1].read_text()


def test_doctor_names_each_card_and_the_estimate_is_of_all_workers(world, two_cards, monkeypatch, capsys):
    monkeypatch.setattr(budget, "estimate", lambda session, runs, jobs, fresh: budget.Estimate(4, 0, jobs, (), 1, 1, 1))
    page = quietly("doctor", *flags(world, "asked", "--methods", "coop", "--device", "cuda:all"))
    assert "card 0: cuda (stand-in), 85.9 GB" in page and "card 1: cuda (stand-in), 85.9 GB" in page
    assert "with 2 workers" in page
    one = quietly("doctor", *flags(world, "asked", "--methods", "coop", "--device", "cuda"))
    assert "one of 2 cards: --device cuda:all takes all" in one and "with 2 workers" not in one
    told = quietly("--dry-run", *flags(world, "asked", "--methods", "coop", "--device", "cuda:0,1", "--jobs", "3"))
    assert "cuda, cards 0, 1" in told and "with 6 workers" in told
    assert main.main(list(map(str, ["doctor", *flags(world, "asked", "--device", "cuda:7")]))) == 1
    assert "--device cuda:7: no card 7; found 2 cards" in capsys.readouterr().out
