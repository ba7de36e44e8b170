"""Which device and precision a command has where nobody names one, and how results made so are found again."""

import contextlib
import json
import re

import pytest
import torch
from command_line import call, mistake
from local_towers import saved_locally
from stand_in_cuda import stand_in_cuda
from test_device_commands import Played
from test_device_sessions import prompts
from worlds import begun, quietly

from carryover.bench.backbones import archs, loading
from carryover.bench.cli import running
from carryover.bench.cli.backbones import Alone
from carryover.bench.cli.device import placed
from carryover.bench.cli.options import options_of
from carryover.bench.cli.parsing import parse
from carryover.bench.cli.registries import discover
from carryover.bench.cli.results import choice_of
from carryover.bench.cli.settings import arch_of, plan_of
from carryover.bench.cluster import engine
from carryover.bench.engine import schedule
from carryover.bench.errors import UserError

BRIEF = ("--shots", "2", "--seeds", "1", "--views", "1", "--set", "*.steps=3", "--suite", "main", "--jobs", "1")
LARGE = ("ViT-B-16-quickgelu/openai", "ViT-B-16/laion2b_s34b_b88k")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return begun(tmp_path_factory.mktemp("world"))


@pytest.fixture
def card(monkeypatch):
    """``card(bf16)``: there is one, with or without; torch answers, as for a card of an older kind, that it may emulate
    it where that is not asked to be left out."""

    def there(bf16):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or bf16
        )

    return there


def flags(world, out, *more):
    where = ["--arch", world.arch, "--datasets", world.data(), "--out", world.home / out]
    return [*where, "--methods", "taskres", "zs-clip", *BRIEF, *more]


def given(*argv):
    return parse(list(map(str, argv)))


# ---- what each command has -------------------------------------------------------------------------------------------

CASES = {  # flags, whether the card has bf16 -> device and precision of an arch that is not micro, and of micro
    (): (True, ("cuda", "bf16"), ("cpu", "fp32")),
    ("--precision", "auto"): (True, ("cuda", "bf16"), ("cpu", "fp32")),
    ("--device", "auto"): (False, ("cuda", "fp32"), ("cpu", "fp32")),
    ("--device", "cuda"): (True, ("cuda", "bf16"), ("cuda", "bf16")),
    ("--device", "cuda", "--seeds", "1"): (False, ("cuda", "fp32"), ("cuda", "fp32")),
    ("--device", "cpu"): (True, ("cpu", "fp32"), ("cpu", "fp32")),
    ("--precision", "fp32"): (True, ("cuda", "fp32"), ("cpu", "fp32")),
    ("--precision", "bf16"): (False, ("cuda", "bf16"), ("cpu", "bf16")),
}


@pytest.mark.parametrize("argv", CASES, ids=" ".join)
@pytest.mark.parametrize("micro", [False, True], ids=["vit-b16", "micro"])
def test_every_command_that_computes_comes_to_the_same_device_and_precision(argv, micro, card, monkeypatch):
    monkeypatch.setattr(torch.cuda, "set_device", lambda card: None)
    bf16, *found = CASES[argv]
    card(bf16)
    device, precision = found[micro]
    discover([])
    for command in ((), ("doctor",), ("--dry-run",)):
        args = given(*command, *argv, "--arch", "micro" if micro else "vit-b16", "--suite", "main")
        options = options_of(args)
        assert (options.device, options.precision) == (device, precision), command
        assert {run.precision for run in plan_of(args, options.arch)} == {precision}, "and so do the keys of its runs"
    for command in ("evaluate", "port", "map", "classify"):
        args = given(command, *argv)
        names = ("micro-base", "micro-update") if micro else LARGE
        alone = Alone(args, *names)
        assert (alone.device, alone.precision) == (device, precision), command
        if command == "evaluate":
            options = options_of(args, micro)
            assert (options.device, options.precision) == (device, precision)


def test_an_embedded_model_beside_a_large_one_is_no_micro_world(card):
    card(True)
    for names, device in ((("micro-base", LARGE[0]), "cuda"), (("micro-base",), "cpu"), ((), "cuda")):
        assert Alone(given("port"), *names).device == device
    assert not archs.ARCHS["vit-b16"].is_micro and archs.ARCHS["micro-all"].is_micro


def test_of_several_cards_one_without_bf16_makes_it_fp32(card, monkeypatch):
    card(True)
    here = []

    class On:
        def __init__(self, number):
            self.number = number

        def __enter__(self):
            here.append(self.number)

        def __exit__(self, *_):
            here.pop()

    monkeypatch.setattr(torch.cuda, "device", On)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: here != [1])
    for cards, precision in (("0,2", "bf16"), ("2,1", "fp32"), ("all", "fp32")):
        assert placed(given("--device", f"cuda:{cards}"), False)[2] == precision


def test_no_other_word_is_a_precision(capsys):
    assert "fp16" in mistake(capsys, "--precision", "fp16")


def test_what_a_file_proves_is_proven_in_fp32(card, world, monkeypatch, tmp_path, capsys):
    card(True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda card: (64 << 30, 80 << 30))
    seen = []

    def load(tower, device, hub_cache, budget, precision):
        seen.append((device, precision))
        raise UserError("far enough")

    monkeypatch.setattr(loading, "load", load)
    torch.save({"state_dict": prompts(saved_locally(tmp_path / "a", 3, True))}, tmp_path / "model.pth.tar")
    to = ["--to", tmp_path / "p.safetensors", "--kind", "coop", "--fact", "position=front"]
    line = mistake(capsys, "import", tmp_path / "model.pth.tar", "--backbone", world.backbone("a"), *to)
    assert seen == [("cuda", "fp32")], line


# ---- what it says ----------------------------------------------------------------------------------------------------


def test_doctor_says_the_precision_and_why(world, monkeypatch):
    with stand_in_cuda():
        page = quietly("doctor", *flags(world, "asked"))
        assert "precision: bf16, which the card has in hardware (--precision fp32" in page and "tf32 is off" in page
        assert "no problem found" in page and "note precision" not in page
        named = quietly("doctor", *flags(world, "asked", "--precision", "fp32"))
        assert "precision: fp32, as --precision says; tf32 is off" in named
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
        page = quietly("doctor", *flags(world, "asked"))
        assert "note precision: fp32, since the card has no bf16 in hardware; tf32 is off" in page
        micro = quietly("doctor", "--methods", "zs-clip", "--seeds", "1", "--out", world.home / "asked")
        assert "device: cpu (" in micro and "(--device cuda uses it)" in micro and "precision: fp32\n" in micro
    assert "--device cuda" not in quietly("doctor", *flags(world, "asked"))


# ---- results that were made so ---------------------------------------------------------------------------------------


def records(world, out):
    stored = [json.loads(path.read_text()) for path in (world.home / out / "pair" / "runs").glob("*.json")]
    return {(record["run"]["precision"], record["run"]["method"]): record for record in stored}


@pytest.fixture(scope="module")
def made(world):
    """What a whole call with a card said. Its results are in "out"."""
    with stand_in_cuda():
        return quietly(*flags(world, "out"))


def shown(world, *argv):
    """The precision of what a command that reads records shows."""
    args = given(*argv)
    discover([])
    return choice_of(args, arch_of(args)).settings.precision


def test_a_run_on_a_card_is_a_run_in_bf16_named_or_not(world, made):
    assert "device: cuda (stand-in); precision of the frozen towers: bf16, which the card has in hardware" in made
    found = records(world, "out")
    assert set(found) == {("bf16", "taskres"), ("bf16", "zs-clip")}
    assert {record["status"] for record in found.values()} == {"done"}
    with stand_in_cuda():
        again = quietly(*flags(world, "out", "--precision", "bf16"))
    assert "0 runs done, 2 were done before" in again and "bf16, as --precision says" in again


def test_results_of_a_card_are_found_on_a_machine_without_one(world, made, tmp_path):
    where = ["--arch", world.arch, "--out", world.home / "out"]
    for more in ([], ["--shots", "2", "--views", "1"], [*BRIEF, "--precision", "auto"]):
        assert "TaskRes" in quietly("report", *where, *more)
        assert "2 records checked against their predictions, 0 differences" in quietly("check", *where, *more)
        assert "encoded again" in quietly("check", *where, *more, "--encode", "2", "--device", "cpu")
    quietly("export", *flags(world, "out"), "--to", tmp_path / "plugins")
    (card,) = (tmp_path / "plugins").glob("*taskres*.json")
    assert records(world, "out")["bf16", "taskres"]["key"] in card.name
    brief = ["--shots", "2", "--views", "1", "--out", tmp_path / "all"]
    quietly("merge", world.home / "out", "--arch", world.arch, *brief)
    tables = [out / "pair" / "tables" / "main.csv" for out in (world.home / "out", tmp_path / "all")]
    assert tables[0].read_text() == tables[1].read_text()


def test_where_both_precisions_are_stored_it_is_said_which_is_shown_and_how_to_see_the_other(world, made, capsys):
    mixed = world.home / "mixed"
    quietly("merge", world.home / "out", "--arch", world.arch, "--out", mixed, "--shots", "2", "--views", "1")
    said = quietly(*flags(world, "mixed"))
    header = "precision of the frozen towers: fp32; stored here are results in bf16 too, with which --precision bf16 "
    assert header in said
    stored = records(world, "mixed")
    assert len(stored) == 4 and {precision for precision, _ in stored} == {"bf16", "fp32"}
    where = ["--arch", world.arch, "--out", mixed]
    brief = ["--shots", "2", "--views", "1"]
    assert shown(world, "report", *where) == shown(world, "check", *where, *brief) == "fp32", "that of the last report"
    told = " ".join(quietly("report", *where).split())
    assert "2 stored records of other settings (precision bf16) are in no table of fp32; report" in told
    words = re.search(r"report (--[-\w ]+) shows them", told)[1].split()
    assert words == ["--shots", "2", "--precision", "bf16", "--views", "1"]
    quietly("report", *where, *words)
    assert "2 stored records are in none of these tables, which are of bf16" in quietly("check", *where)
    assert shown(world, "report", *where) == shown(world, "check", *where, *brief) == "bf16"
    status, out, err = call(capsys, "export", *flags(world, "mixed"), "--to", world.home / "plugins")
    assert status == 0 and "of bf16 alone; --precision fp32 exports the others" in " ".join((out + err).split())


def test_a_card_without_bf16_says_so_and_runs_in_fp32(world, monkeypatch):
    with stand_in_cuda():
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
        said = quietly(*flags(world, "older"))
    assert "fp32, since the card has no bf16 in hardware; tf32 is off" in said
    assert {precision for precision, _ in records(world, "older")} == {"fp32"}


def test_runs_through_ray_are_planned_in_the_precision_of_its_cards(world, monkeypatch, tmp_path):
    monkeypatch.setattr(engine, "only_on", lambda node: node)
    with stand_in_cuda():
        args = given(*flags(world, "ray"), "--engine", "ray")
        options = options_of(args)
        assert (options.device, options.precision) == ("cpu", "fp32"), "of the driver, which only plans"
        cluster = engine.Cluster(Played(), args, options, str(tmp_path / "probe"), print)
    assert cluster.options.precision == cluster.setup.options.precision == "bf16"
    planned = []
    monkeypatch.setattr(running, "joined", lambda *_: contextlib.nullcontext(cluster))
    monkeypatch.setattr(schedule, "run_all", lambda session, runs, *_: planned.extend((session, runs)) or 1 / 0)
    with stand_in_cuda(), pytest.raises(ZeroDivisionError):
        running.run(args)
    session, runs = planned
    assert {run.precision for run in runs} == {"bf16"} and all(session.keys.of(run) for run in runs)
    assert choice_of(args, options.arch).settings.precision == "bf16", "and so do its tables"
