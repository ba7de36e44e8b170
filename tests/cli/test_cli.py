"""The command line as a user meets it: mistakes in one line, resume, check, failures; micro towers, a set on disk."""

import csv
import json
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from checkout import ROOT
from command_line import LOCAL, call, mistake, records
from safetensors.torch import save_file
from tiny_caltech import FOLDER, IMAGES, SPLIT, write_caltech

from carryover.bench.backbones import loading
from carryover.bench.backbones.archs import ARCHS
from carryover.bench.cli import flags, main
from carryover.bench.cli.commands import COMMANDS, module_of
from carryover.bench.cli.parsing import parse
from carryover.bench.cli.settings import plan_of
from carryover.bench.host.tensor_files import read_tensors
from carryover.bench.plan import method_files, names
from carryover.methods import Registered, discover

CAPTURED = {"capture_output": True, "text": True}

# ---- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv, expected",
    [
        (["--methods", "contcop"], "Did you mean 'contcoop'"),
        (["--datasets", "micro_star"], "Did you mean 'micro_stars'"),
        (["--arch", "vitb16"], "Did you mean 'vit-b16'"),
        (["--suite", "mian"], "Did you mean 'main'"),
        (["reprot"], "Did you mean 'report'"),
        (["ls", "method"], "Did you mean 'methods'"),
        (["--set", "coop.context_lengt=4"], "Did you mean 'context_length'"),
        (["--set", "coop.epochs=many"], "int"),
        (["--methds", "coop"], "--methds"),
        (["--seeds", "one"], "one"),
        (["--shots", "0"], "--shots"),
        (["--limit", "-1"], "--limit"),
        (["--views", "0"], "--views"),
        (["--views", "epochs"], "'epoch'"),
        (["--precision", "fp16"], "fp16"),
        (["--config", "nowhere.toml"], "nowhere.toml"),
        (["--plugin-dir", "nowhere"], "nowhere"),
        (["--base-weights", "nowhere.pt"], "nowhere.pt"),
        (["--arch", "vit-b16", "--datasets", "caltech101"], "--data-root"),
        (["--arch", "vit-b16", "--datasets", "caltech101", "--data-root", "nowhere"], "nowhere"),
    ],
)
def test_a_mistake_ends_in_one_line_that_names_it(capsys, tmp_path, monkeypatch, argv, expected):
    monkeypatch.chdir(tmp_path)
    assert expected in mistake(capsys, *argv, "--out", tmp_path / "out", "--jobs", 1)
    assert not list((tmp_path / "out").rglob("*.json"))


@pytest.mark.parametrize(
    "text, expected",
    [
        ("seeds = [1", "TOML"),
        ("sedes = [1]", "seeds"),
        ('seeds = ["one"]', "seeds"),
        ('methods = "cop"', "coop"),
        ("fresh = 1", "fresh"),
        ("shots = 'many'", "shots"),
        ('device = "gpu"', "device"),
        ("shots = 0", "shots"),
    ],
)
def test_a_mistake_in_a_config_file_ends_in_one_line_too(capsys, tmp_path, text, expected):
    (tmp_path / "run.toml").write_text(text)
    assert expected in mistake(capsys, "--config", tmp_path / "run.toml", "--dry-run", "--out", tmp_path / "out")


def test_a_config_file_sets_flags_and_the_command_line_wins(capsys, tmp_path):
    def planned(*flags):
        return int(re.search(r"(\d+) runs on", call(capsys, "--config", tmp_path / "run.toml", *flags)[1])[1])

    (tmp_path / "run.toml").write_text(
        'suite = "main"\nmethods = ["coop", "zs-clip"]\nseeds = [1, 2]\ndatasets = ["micro_stars"]\n'
    )
    assert planned("--dry-run") == 4
    assert planned("--dry-run", "--seeds", 3) == 2
    (tmp_path / "run.toml").write_text(
        'suite = "main"\nmethods = "coop"\nseeds = 1\ndatasets = "micro_stars"\ndry-run = true\n'
    )
    assert planned() == 2  # zero-shot beside it


def test_debug_shows_the_traceback(capsys):
    status, _, err = call(capsys, "--methods", "contcop", "--debug")
    assert status == 2 and "Traceback" in err


class Boom:
    """Unpickling this makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize(
    "make, expected",
    [
        (lambda p: save_file({"text.positional_embedding": torch.zeros(77, 64)}, p), "width 64"),
        (
            lambda p: save_file({"text.positional_embedding": torch.zeros(77, 96)}, p, {"activation": "gelu"}),
            "quick_gelu",
        ),
        (lambda p: save_file({"visual.proj": torch.zeros(3, 3)}, p), "positional_embedding"),
        (lambda p: save_file({"text.positional_embedding": torch.zeros(77, 96)}, p), "micro-base"),
        (lambda p: p.write_bytes(b"not weights at all" * 9), "cannot be read"),
        (lambda p: p.write_bytes(b""), "cannot be read"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_in_one_line(capsys, tmp_path, make, expected):
    path = tmp_path / "weights.safetensors"
    make(path)
    line = mistake(capsys, "--base-weights", path, "--datasets", "micro_stars", "--out", tmp_path / "out", "--jobs", 1)
    assert expected in line


@pytest.mark.parametrize(
    "content", [lambda mark: Boom(mark), lambda mark: {"state_dict": {"text.x": Boom(mark)}}, lambda mark: [1]]
)
def test_a_pickled_checkpoint_is_refused_and_its_code_is_not_run(capsys, tmp_path, content):
    torch.save(content(tmp_path / "mark"), tmp_path / "weights.pt")
    line = mistake(
        capsys,
        "--new-weights",
        tmp_path / "weights.pt",
        "--datasets",
        "micro_stars",
        "--out",
        tmp_path / "out",
        "--jobs",
        1,
    )
    assert "weights.pt" in line
    assert not (tmp_path / "mark").exists()


def test_a_tower_with_another_activation_than_declared_is_refused():
    from dataclasses import replace

    model, tower = loading.build("micro-base"), ARCHS["micro"].base
    loading.check(model, tower)
    for changes, expected in (
        ({"activation": "gelu"}, "QuickGELU"),
        ({"width": 64}, "width 96"),
        ({"dim": 64}, "joint width"),
    ):
        with pytest.raises(loading.UserError, match=expected):
            loading.check(model, replace(tower, **changes))
    with torch.no_grad():
        model.text.ln_final.bias[0] = float("nan")
    with pytest.raises(loading.UserError, match="ln_final.bias"):
        loading.check(model, tower)


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    line = mistake(
        capsys, "--datasets", "micro_stars", "--methods", "zs-clip", "--out", tmp_path / "file" / "out", "--jobs", 1
    )
    assert "file/out" in line and "--out" in line


@pytest.mark.parametrize("command", ["report", "check"])
def test_report_and_check_without_records_say_what_to_do(capsys, tmp_path, command):
    assert "no records" in mistake(capsys, command, "--out", tmp_path / "empty")


# ---- listing, from anywhere ------------------------------------------------------------------------------------------


def test_dry_run_counts_and_writes_its_estimate_alone(capsys, tmp_path):
    status, out, _ = call(
        capsys,
        "--dry-run",
        "--suite",
        "main",
        "--methods",
        "coop",
        "zs-clip",
        "--out",
        tmp_path / "out",
        "--cache",
        tmp_path / "c",
    )
    assert status == 0 and "66 runs" in out  # 11 datasets, 3 seeds, 2 methods
    (written,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    found = json.loads(written.read_text())
    assert written == tmp_path / "out" / "micro" / "estimate.json" and len(set(found["keys"])) == 66
    assert f"{sum(found['stages'].values()):.3f}" == f"{found['seconds']:.3f}" or found["jobs"] > 1


def test_ls_from_another_folder_is_not_fooled_by_another_datasets_package(tmp_path):
    decoy = tmp_path / "decoy"
    for package in ("datasets", "methods", "bench"):
        (decoy / package).mkdir(parents=True)
        (decoy / package / "__init__.py").write_text("raise RuntimeError('the wrong package')\n")
    done = subprocess.run(
        [sys.executable, str(ROOT / "run_all.py"), "ls"],
        cwd=decoy,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(decoy), "COLUMNS": "200"},
    )
    assert done.returncode == 0, done.stderr
    for name in ("contcoop", "caltech101", "micro_stars", "vit-l14"):
        assert name in done.stdout


LITERAL = """
from carryover.methods import coop
from carryover.methods import Method, register
from carryover.methods.kgcoop import KgCoOp


class Both(KgCoOp, coop.CoOp):
    paper = "two " "bases"


@register("ZZ-Mine")
class Mine(Both):
    needs = "views"


@register("zz-plain")
class Plain(Method):
    name, paper, depth = "Mine [2]", "nobody", "deep"
"""
COMPUTED = """
from carryover.methods.base import METHODS, Method

for number in (1, 2):
    METHODS.register(f"zz-{number}")(type("Made", (Method,), {"name": str(number), "depth": "output"}))
"""


@pytest.mark.parametrize("text, read", [("", True), (LITERAL, True), (COMPUTED, False)])
def test_methods_are_listed_from_their_files_as_importing_them_tells(clean_registry, monkeypatch, tmp_path, text, read):
    (tmp_path / "mine.py").write_text(text)
    with monkeypatch.context() as patch:
        if read:
            patch.setattr(method_files, "imported", lambda dirs: pytest.fail("imported"))
        found = method_files.listed((str(tmp_path),))
    assert found == method_files.imported((str(tmp_path),))
    files = (ROOT / "methods").glob("*.py")
    assert len(found) == sum(file.read_text().count("\n@register(") for file in files) + 2 * bool(text)


@pytest.mark.parametrize(
    "text",
    [
        "import nothing_of_this_name",
        "raise SystemExit(1)",
        "from carryover.methods.base import register\n@register('coop')\nclass Again: pass",
        "from carryover.methods.base import register\n@register('zz')\nclass NoMethod: pass",
        "class Half:",
        "from carryover.methods.base import register\n@register('zz')\nclass Own(Own): pass",
    ],
)
def test_a_method_file_that_would_fail_is_refused_by_the_list_too(capsys, clean_registry, tmp_path, text):
    (tmp_path / "mine.py").write_text(text)
    mistake(capsys, "ls", "methods", "--plugin-dir", tmp_path)


HELPS = [["--help"], ["--version"], *([command, "--help"] for command in COMMANDS)]
LISTS = [["ls"], ["ls", "methods"], ["ls", "datasets"], ["ls", "archs"]]


@pytest.mark.parametrize("argv", HELPS + LISTS, ids=" ".join)
def test_help_and_lists_answer_within_a_second_of_cpu_time(argv):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-X", "importtime", str(ROOT / "run_all.py"), *argv], **CAPTURED)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0 and done.stdout
    assert not re.search(r"\|\s+(torch|open_clip|pandas)$", done.stderr, re.MULTILINE)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


# ---- commands, flags, names ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_each_commands_help_shows_its_own_flags_and_two_examples(capsys, command):
    module = module_of(command)
    status, out, _ = call(capsys, "--help", command.upper())
    assert status == 0 and out.startswith(f"usage: run_all.py {command}")
    shown = set(re.findall(r"^  (?:-h, )?(--[a-z-]+)", out, re.MULTILINE))
    assert shown == {*module.FLAGS, *flags.CALL}
    assert len(module.EXAMPLES) >= 2
    for words, _ in module.EXAMPLES:
        assert parse(shlex.split(words)).command == command


def test_every_command_is_named_in_the_help_without_one(capsys):
    out = call(capsys, "--help")[1]
    assert all(re.search(rf"^  {command} ", out, re.MULTILINE) for command in COMMANDS)


@pytest.mark.parametrize(
    "line, command, expected",
    [
        ("", "run", {"arch": "micro", "seeds": [1, 2, 3], "methods": [], "what": []}),
        ("--arch VIT-B16 --fresh", "run", {"arch": "vit-b16", "fresh": True}),
        ("--arch Pair.toml", "run", {"arch": "Pair.toml"}),
        ("prepare --data-root DATA dtd eurosat", "prepare", {"data_root": "DATA", "what": ["dtd", "eurosat"]}),
        ("--data-root report prepare dtd", "prepare", {"data_root": "report", "what": ["dtd"]}),
        ("--to plugins export KEY", "export", {"to": "plugins", "what": ["KEY"]}),
        ("REPORT --arch micro --datasets x --jobs 2", "report", {"datasets": ["x"], "jobs": 2}),
        ("check --set *.steps=4 --limit 2", "check", {"overrides": ["*.steps=4"], "limit": 2}),
        ("--seeds 1,2 3 --seeds 4, 5", "run", {"seeds": [1, 2, 3, 4, 5]}),
        ("--methods CoOp,ContCoOp Tip-Adapter-F", "run", {"methods": ["CoOp", "ContCoOp", "Tip-Adapter-F"]}),
        ("--suite main,ood --device CPU", "run", {"suite": ["main", "ood"], "device": "cpu"}),
        ("--datasets DTD,Folder:A,b folder:C", "run", {"datasets": ["dtd", "folder:A,b", "folder:C"]}),
        ("--datasets my-folder:x,y", "run", {"datasets": ["my-folder:x", "y"]}),
        ("evaluate --dataset Folder:A,B --plugin P", "evaluate", {"dataset": "folder:A,B"}),
    ],
)
def test_command_lines_of_every_form(line, command, expected):
    args = parse(line.split())
    assert args.command == command
    assert {name: getattr(args, name) for name in expected} == expected


@pytest.mark.parametrize(
    "ours, theirs",
    [
        ("coop.lr=0.1", "CoOp.learning_rate=0.1"),
        ("*.batch=4", "*.batch_size=4"),
        ("tip-adapter-f.weight_decay=0.1", "Tip-Adapter-F.weight_decay=0.1"),
        ("contcoop.context_length=4", "CONTCOOP.n_ctx=4"),
        ("coop.context_length=8", "coop.num_context_tokens=8"),
        ("contcoop.lam=0.5", "contcoop.lambda=0.5"),
    ],
)
def test_another_word_for_an_option_is_the_same_run(ours, theirs):
    def planned(override):
        line = ["--suite", "MAIN", "--methods", "coop,CONTCOOP,tip-adapter-f", "--seeds", "1", "--set", override]
        return plan_of(parse(line), ARCHS["micro"])

    discover()
    assert planned(ours) == planned(theirs)


def test_every_other_word_means_an_option_that_a_method_has_or_a_flag():
    discover()
    own = {field.name for kind in Registered().values() for field in fields(kind.Config)}
    known = {flag for group in flags.GROUPS.values() for flag in group}
    assert all(means in (known if means.startswith("--") else own) for means in names.ALIASES.values())
    with pytest.raises(loading.UserError, match="--shots 4"):
        names.overrides(["coop.num_shots=4"], Registered())


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_commands_flags_and_names(capsys, shell):
    pytest.importorskip("shtab")
    status, out, _ = call(capsys, "--print-completion", shell)
    assert status == 0
    for word in ("leaderboard", "--fail-fast", "tip-adapter-f", "micro_stars", "vit-l14-all"):
        assert word in out


# ---- from anywhere, beside other packages ----------------------------------------------------------------------------

SEEING = """
import os
import datasets
from carryover.methods.zs_clip import ZeroShotCLIP
from carryover.methods.base import register

with open(os.environ["SEEN"], "a") as file:
    print(os.getpid(), datasets.__file__, file=file)


@register("zz-sees")
class Sees(ZeroShotCLIP):
    pass
"""
LINE = "--suite main --datasets micro_stars --methods zz-sees --seeds 1 2 --shots 1 --limit 1 --jobs 2 --device cpu"
SCRIPT = """
import os
import sys

with open(os.environ["SEEN"], "a") as file:
    print("script", file=file)
from carryover.bench.cli.main import main

assert main(sys.argv[1:]) == 0
"""


@pytest.fixture
def beside(tmp_path):
    """``beside(words, **more)``: a program beside another package `datasets`, with a method that imports it; it gives
    (what was done, lines that the method's file wrote where it was imported)."""
    (tmp_path / "decoy" / "datasets").mkdir(parents=True)
    (tmp_path / "decoy" / "datasets" / "__init__.py").write_text("")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "sees.py").write_text(SEEING)
    path = os.pathsep.join([str(ROOT / "src"), str(tmp_path / "decoy")])
    told = {"PYTHONPATH": path, "SEEN": str(tmp_path / "seen")}

    def run(words, flags, cwd=ROOT, **more):
        words = [sys.executable, *words, *flags, "--plugin-dir", tmp_path / "mine", "--out", tmp_path / "out"]
        done = subprocess.run(list(map(str, words)), cwd=cwd, env={**os.environ, **told}, **CAPTURED, **more)
        return done, (tmp_path / "seen").read_text().splitlines()

    run.decoy = str(tmp_path / "decoy" / "datasets" / "__init__.py")
    return run


LONG = [pytest.param(name, marks=pytest.mark.long) for name in ("script", "run_all.py", "stdin")]


@pytest.mark.parametrize("program", LONG)
def test_workers_start_without_a_main_guard_and_see_the_other_datasets_package(beside, tmp_path, program):
    (tmp_path / "script.py").write_text(SCRIPT)
    words = {"run_all.py": [ROOT / "run_all.py"], "script": [tmp_path / "script.py"], "stdin": ["-"]}[program]
    given = {"input": SCRIPT} if program == "stdin" else {}
    done, lines = beside(words, LINE.split(), ROOT if program == "run_all.py" else tmp_path, **given)
    assert done.returncode == 0, done.stderr
    assert lines.count("script") == (program != "run_all.py")
    seen = [line.split(" ", 1) for line in lines if line != "script"]
    assert len({pid for pid, _ in seen}) > 1, "worker processes imported it too"
    assert {file for _, file in seen} == {beside.decoy}


@pytest.mark.parametrize("program", ["module", "console script"])
def test_the_other_datasets_package_is_seen_from_the_checkout_too(beside, tmp_path, program):
    console = tmp_path / "carryover"
    console.write_text("import sys\nfrom carryover.bench.cli.main import main\nsys.exit(main())\n")
    done, lines = beside(["-m", "carryover"] if program == "module" else [console], ["report"])
    assert done.returncode == 2 and "run first: carryover --arch micro" in done.stderr
    assert [line.split(" ", 1)[1] for line in lines] == [beside.decoy]


# ---- a small experiment ----------------------------------------------------------------------------------------------

METHODS = ("zs-clip", "linear-probe")
SETTINGS = ("--datasets", "caltech101", "--methods", *METHODS, "--seeds", 1, "--shots", 2, "--limit", 3)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(data root, results folder) of a finished experiment; tests copy it before they change it."""
    root, out = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("results") / "out"
    write_caltech(root)
    assert main.main([*map(str, (*SETTINGS, *LOCAL)), "--data-root", str(root), "--out", str(out)]) == 0
    return root, out


@pytest.fixture
def experiment(finished, tmp_path, capsys):
    """``experiment(*more)`` runs the same command on a copy of the finished results; ``experiment.out`` is the copy."""
    root, done = finished
    out = tmp_path / "out"
    shutil.copytree(done, out)

    def again(*argv, base=SETTINGS, local=LOCAL):
        return call(capsys, *argv, *base, *local, "--data-root", root, "--out", out)

    again.out, again.root = out, root
    return again


def stamps(paths):
    return {path.name: path.stat().st_mtime_ns for path in paths}


def test_an_experiment_leaves_record_plugin_and_predictions_of_each_run_and_the_tables(finished):
    folder = finished[1] / "micro"
    for kind, ending in (("runs", "json"), ("plugins", "safetensors"), ("predictions", "safetensors")):
        assert len(list((folder / kind).glob(f"*.{ending}"))) == len(METHODS)
    for name in ("tables/main.csv", "tables/main.md", "tables/main.tex", "report.md", "report.html"):
        assert (folder / name).stat().st_size > 0
    assert not [path for path in finished[1].rglob(".*") if path.is_file()], "no temporary file stays behind"
    rows = list(csv.DictReader((folder / "tables" / "main.csv").open()))
    stored = [json.loads(path.read_text()) for path in records(finished[1])]
    for record in stored:
        (row,) = [r for r in rows if (r["dataset"], r["method"]) == ("caltech101", record["run"]["method"])]
        assert float(row["base"]) == pytest.approx(record["targets"]["base"]["accuracy"], abs=0.01)
        assert float(row["new"]) == pytest.approx(record["targets"]["new"]["accuracy"], abs=0.01)
        assert any("trial" in mark for mark in record["marks"]), "--limit is marked"
        assert record["targets"]["base"]["count"] == 12


def test_a_second_call_does_nothing(experiment):
    before = stamps(experiment.out.rglob("micro/*/*.safetensors")) | stamps(records(experiment.out))
    status, out, _ = experiment()
    assert status == 0 and "0 runs done, 2 were done before" in " ".join(out.split())
    assert stamps(experiment.out.rglob("micro/*/*.safetensors")) | stamps(records(experiment.out)) == before


def plugin_bytes(out):
    """Each plug-in's tensors as bytes (safetensors writes the header's entries in no fixed order)."""
    found = {}
    for path in (out / "micro" / "plugins").iterdir():
        tensors, header = read_tensors(path)
        found[path.name] = {name: value.numpy().tobytes() for name, value in tensors.items()}, header
    return found


@pytest.mark.parametrize(
    "damage",
    [Path.unlink, lambda path: path.write_text(path.read_text()[:200])],
    ids=["record deleted", "record half written"],
)
def test_a_run_without_a_whole_record_is_done_again_alone_with_the_same_bits(experiment, damage):
    """A killed run is one without its record, for that is written last."""
    gone, kept = records(experiment.out)
    plugins, before = plugin_bytes(experiment.out), stamps([kept])
    accuracy = json.loads(gone.read_text())["targets"]
    damage(gone)
    status, out, _ = experiment()
    assert status == 0 and "1 run done, 1 were done before" in " ".join(out.split())
    assert stamps([kept]) == before
    assert json.loads(gone.read_text())["targets"] == accuracy
    assert plugin_bytes(experiment.out) == plugins


def test_fresh_does_all_runs_again_with_the_same_bits(experiment):
    plugins = plugin_bytes(experiment.out)
    status, out, _ = experiment("--fresh")
    assert status == 0 and "2 runs done, 0 were done before" in " ".join(out.split())
    assert plugin_bytes(experiment.out) == plugins


@pytest.mark.long
def test_worker_processes_give_the_bits_of_one_process(experiment):
    plugins = plugin_bytes(experiment.out)
    shutil.rmtree(experiment.out)
    status, _, _ = experiment(local=("--jobs", 2, "--device", "cpu"))
    assert status == 0
    assert plugin_bytes(experiment.out) == plugins


def test_check_agrees_then_finds_a_changed_accuracy(experiment):
    assert experiment("check")[0] == 0
    path = records(experiment.out)[0]
    record = json.loads(path.read_text())
    record["targets"]["new"]["accuracy"] += 1
    path.write_text(json.dumps(record))
    status, out, _ = experiment("check")
    assert status == 1 and record["run"]["method"] in out


@pytest.mark.parametrize("column", ["base", "new", "h"])
def test_check_finds_a_changed_table_cell(experiment, column):
    path = experiment.out / "micro" / "tables" / "main.csv"
    rows = list(csv.DictReader(path.open()))
    rows[0][column] = f"{float(rows[0][column]) + 0.05:.4f}"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    assert experiment("check")[0] == 1


@pytest.mark.long
@pytest.mark.parametrize("name", ["report.md", "report.html", "tables/main.md", "tables/main.tex"])
def test_check_names_a_number_changed_in_what_readers_see(experiment, name):
    assert experiment("report")[0] == 0 and experiment("check")[0] == 0
    path = experiment.out / "micro" / name
    text = path.read_text()
    path.write_text(
        text.replace("58.33", "58.34", 1) if "58.33" in text else re.sub(r"(\d)\.(\d\d)", r"\1.99", text, count=1)
    )
    assert path.read_text() != text
    status, out, _ = experiment("check")
    assert status == 1 and path.name in " ".join(out.split())


def test_check_finds_lost_and_damaged_predictions(experiment):
    first, second = sorted((experiment.out / "micro" / "predictions").iterdir())
    first.unlink()
    second.write_bytes(second.read_bytes()[:-4])
    status, out, _ = experiment("check")
    assert status == 1 and "damaged" in " ".join(out.split())


def test_report_makes_the_same_tables_from_stored_files_and_accuracies_from_records_alone(experiment):
    tables = experiment.out / "micro" / "tables"
    before = {path.name: path.read_bytes() for path in tables.iterdir()}
    shutil.rmtree(tables)
    assert experiment("report")[0] == 0
    assert {path.name: path.read_bytes() for path in tables.iterdir()} == before
    shutil.rmtree(tables)
    shutil.rmtree(experiment.out / "micro" / "predictions")
    assert experiment("report")[0] == 0
    # what is counted image by image
    counted = {
        f"{name}.{ending}" for name in ("pairs", "flips", "calibration", "answer") for ending in ("csv", "md", "tex")
    }
    after = {path.name: path.read_bytes() for path in tables.iterdir()}
    assert {name: after[name] for name in before.keys() - counted} == {n: before[n] for n in before.keys() - counted}
    assert {"main.csv", "records.csv"} < before.keys() - counted


@pytest.mark.long
def test_doctor_names_all_that_is_wrong_at_once(experiment, tmp_path):
    status, out, _ = experiment("doctor", base=("--datasets", "caltech101"))
    assert status == 0 and "no problem" in out
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"x")
    status, out, _ = experiment("doctor", "--base-weights", bad, base=("--datasets", "caltech101", "dtd"))
    assert status == 1 and "2 problems" in out


FAILING = """
from carryover.methods.base import Method, register


@register("zz-fails")
class Fails(Method):
    name, paper, depth = "Fails [here]", "nobody", "none"

    def bind(self, backbone, classes):
        raise RuntimeError("on [purpose]")
"""


def test_a_failing_method_fails_alone_and_the_exit_status_says_so(experiment, clean_registry, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "fails.py").write_text(FAILING)
    shutil.rmtree(experiment.out)
    settings = (*SETTINGS[:3], "zz-fails", *SETTINGS[3:])
    status, out, err = experiment("--plugin-dir", mine, base=settings)
    assert status == 1 and "Traceback" not in out + err
    text = " ".join(out.split())
    assert "2 runs done, 0 were done before, 1 failed" in text and "on [purpose]" in text
    by_method = {json.loads(p.read_text())["run"]["method"]: json.loads(p.read_text()) for p in records(experiment.out)}
    assert {name: record["status"] for name, record in by_method.items()} == {
        "zz-fails": "failed",
        "zs-clip": "done",
        "linear-probe": "done",
    }
    assert "on [purpose]" in by_method["zz-fails"]["error"] and not by_method["zz-fails"]["targets"]
    status, out, _ = experiment("--plugin-dir", mine, base=settings)
    assert status == 1 and "0 runs done, 2 were done before, 1 failed" in " ".join(out.split()), (
        "only the failed one again"
    )


def test_a_plugin_file_that_cannot_be_imported_is_named_in_one_line(capsys, tmp_path):
    (tmp_path / "broken.py").write_text("import nothing_of_this_name\n")
    assert "broken.py" in mistake(capsys, "ls", "methods", "--plugin-dir", tmp_path)


def test_a_truncated_test_picture_fails_the_runs_by_name_without_a_traceback(finished, tmp_path, capsys):
    root = tmp_path / "copy"
    shutil.copytree(finished[0], root)
    name = json.loads((root / FOLDER / SPLIT).read_text())["test"][0][0]  # the first of its class: within --limit
    broken = root / FOLDER / IMAGES / name
    broken.write_bytes(broken.read_bytes()[: -broken.stat().st_size // 2])
    status, out, err = call(capsys, *SETTINGS, *LOCAL, "--data-root", root, "--out", tmp_path / "out")
    stored = [json.loads(path.read_text()) for path in records(tmp_path / "out")]
    assert status == 1 and "Traceback" not in out + err
    assert len(stored) == 2
    assert all(record["status"] == "failed" and broken.name in record["error"] for record in stored)
