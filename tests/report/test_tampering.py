"""Kinds of tampering with a results folder, each found by ``check`` in a line that names the place.

One small result of the micro world is made once. Who tampers hashes anew what lies in the way, and makes the report
again where the kind says so.
"""

import base64
import contextlib
import csv
import hashlib
import io
import json
import re
import shutil

import matplotlib
import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file

from carryover.bench.cli.main import main
from carryover.bench.engine import schedule
from carryover.bench.report import drawings

SETTINGS = ["--shots", "1", "--views", "2", "--limit", "2", "--set", "*.steps=2", "--device", "cpu"]
PLAN = ["--suite", "main", "--datasets", "micro_stars", "--seeds", "1", "2", "--jobs", "1"]


def command(out, *words):
    """Exit status and all that was printed."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = main([*words, *SETTINGS, "--out", str(out)])
    return status, said.getvalue()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("made")
    status, said = command(out, *PLAN, "--methods", "zs-clip", "coop")
    assert status == 0, said
    return out


@pytest.fixture
def out(made, tmp_path):
    shutil.copytree(made, tmp_path / "out")
    return tmp_path / "out"


# ---- a forger's tools ------------------------------------------------------------------------------------------------


def sealed(content):
    content = {name: value for name, value in content.items() if name != "sha256"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return {**content, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def files(out, kind):
    return sorted((out / "micro" / kind).iterdir())


def record_of(out, method="coop", seed=1):
    """(path, content)"""
    stored = [(path, json.loads(path.read_text())) for path in files(out, "runs")]
    return next(one for one in stored if (one[1]["run"]["method"], one[1]["run"]["seed"]) == (method, seed))


def predictions_of(out, method="coop", seed=1):
    return out / "micro" / "predictions" / f"{record_of(out, method, seed)[0].stem}.safetensors"


def change_record(out, change, again=True):
    path, record = record_of(out)
    change(record)
    path.write_text(json.dumps(sealed(record) if again else record))


def report(out):
    assert command(out, "report")[0] == 0


def change_tensors(path, change):
    with safe_open(path, "np") as file:
        tensors, header = {name: file.get_tensor(name).copy() for name in file.keys()}, file.metadata()
    header = change(tensors, header) or header
    save_file(tensors, path, header)


def change_predictions(out, change, again=True):
    """... and, ``again``, the record's hash, counts and accuracies; then the report."""
    path = predictions_of(out)
    change_tensors(path, lambda tensors, header: change(tensors))
    if not again:
        return
    with safe_open(path, "np") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}

    def follow(record):
        record["files"]["predictions"] = sha256(path)
        for role, target in record["targets"].items():
            target["correct"] = int((found[f"{role}.predicted"] == found[f"{role}.label"]).sum())
            target["accuracy"] = 100 * target["correct"] / target["count"]

    change_record(out, follow)
    report(out)


def change_text(out, name, change):
    path = out / "micro" / name
    before = path.read_bytes().decode()
    after = change(before)
    assert after != before, "the forger changed nothing"
    path.write_bytes(after.encode())


def first_number(text):
    return re.sub(r"(\d)\.(\d)(\d)", lambda found: f"{found[1]}.{(int(found[2]) + 5) % 10}{found[3]}", text, count=1)


def rolled(path):
    """The file's rows moved on by one, its header hashed anew; returns the sha256 of the content."""
    found = {}

    def roll(tensors, header):
        tensors["features"] = np.roll(tensors["features"], 1, axis=0)
        values = tensors["features"]
        found["sha256"] = hashlib.sha256(f"torch.{values.dtype} {values.shape}".encode() + values.tobytes()).hexdigest()
        header = {**json.loads(header["identity"]), **found}
        return {"identity": json.dumps(header, sort_keys=True, separators=(",", ":"))}

    change_tensors(path, roll)
    return found["sha256"]


def test_files(out):
    """Feature files of test pictures."""
    for path in sorted((out / "cache").glob("*.safetensors")):
        with safe_open(path, "np") as file:
            if (
                json.loads(file.metadata()["identity"])["recipe"] == "test"
                and file.get_tensor("features").shape[0] > 10
            ):
                yield path


test_files.__test__ = False


# ---- the kinds -------------------------------------------------------------------------------------------------------

KINDS = {}


def kind(name, told):
    """Registers a way to tamper and what ``check`` says of it; it may return words that ``check`` is called with."""

    def add(tamper):
        KINDS[name] = tamper, told
        return tamper

    return add


@kind("record: accuracy", "the record was changed")
def _(out):
    change_record(out, lambda record: record["targets"]["new"].update(accuracy=99.0), again=False)


@kind("record: accuracy, hashed anew, report remade", "new: accuracy is 99.0 in the record")
def _(out):
    change_record(out, lambda record: record["targets"]["new"].update(accuracy=99.0))
    report(out)


@kind("record: seed, hashed anew", "not the key of its run")
def _(out):
    change_record(out, lambda record: record["run"].update(seed=7))


@kind("record: no hash", "without a sha256")
def _(out):
    path, record = record_of(out)
    del record["sha256"]
    path.write_text(json.dumps(record))


@kind("record: cut", "cannot be read")
def _(out):
    path, _ = record_of(out)
    path.write_bytes(path.read_bytes()[:-40])


@kind("record: under another name", "expected 0123456789abcdef")
def _(out):
    path, _ = record_of(out)
    path.rename(path.with_name("0123456789abcdef.json"))


@kind("record: dropped", "was planned and recorded")
def _(out):
    record_of(out)[0].unlink()


@kind("record: dropped, report remade", "was planned and recorded")
def _(out):
    record_of(out, "coop", 2)[0].unlink()
    report(out)


@kind("record: dropped with plug-in and predictions, report remade", "was planned and recorded")
def _(out):
    path, _ = record_of(out, "coop", 2)
    for found in (out / "micro").glob(f"*/{path.stem}.*"):
        found.unlink()
    report(out)


@kind("record: dropped with its plan, report remade", "is not there; 3 records of its runs are")
def _(out):
    record_of(out, "coop", 2)[0].unlink()
    shutil.rmtree(out / "micro" / "plans", ignore_errors=True)
    report(out)


@kind("record: of another arch", "is a run of arch vit-b16")
def _(out):
    path, record = record_of(out)
    record["run"]["arch"] = "vit-b16"
    text = json.dumps({"run": record["run"], "identity": record["identity"]}, sort_keys=True, separators=(",", ":"))
    record["key"] = record["trained"] = hashlib.sha256(text.encode()).hexdigest()[:16]
    for kind_ in ("plugins", "predictions"):
        old = out / "micro" / kind_ / f"{path.stem}.safetensors"
        new = old.with_name(f"{record['key']}.safetensors")
        shutil.copy(old, new)
        if kind_ == "predictions":
            change_tensors(new, lambda tensors, header: {"key": record["key"]})
            record["files"]["predictions"] = sha256(new)
    (path.parent / f"{record['key']}.json").write_text(json.dumps(sealed(record)))
    report(out)


@kind("record: hash of a feature file, hashed anew", "with different content on one kind of machine")
def _(out):
    name = next(test_files(out)).stem
    change_record(out, lambda record: record.get("features", {}).get("base", {}).update({name: "0" * 64}))


@kind("plan: a run cut, hashed anew, its record dropped, report remade", "records of its runs are")
def _(out):
    path, _ = record_of(out, "coop", 2)
    path.unlink()
    for plan in (out / "micro").glob("plans/*.json"):
        content = json.loads(plan.read_text())
        del content["runs"][path.stem]
        name = hashlib.sha256(json.dumps(sorted(content["runs"]), separators=(",", ":")).encode()).hexdigest()[:16]
        plan.unlink()
        plan.with_name(f"{name}.json").write_text(json.dumps(sealed(content)))
    report(out)


@kind("plug-in: deleted", "its plug-in")
def _(out):
    files(out, "plugins")[0].unlink()


@kind("plug-in: a number", "the run left")
def _(out):
    def change(tensors, header):
        tensors["context"].reshape(-1)[0] += 1

    change_tensors(out / "micro" / "plugins" / predictions_of(out).name, change)


@kind("plug-in: another's", "the run left")
def _(out):
    one, two = (out / "micro" / "plugins" / predictions_of(out, "coop", seed).name for seed in (1, 2))
    shutil.copy(one, two)


@kind("predictions: deleted", "no readable predictions")
def _(out):
    predictions_of(out).unlink()


@kind("predictions: a class", "from the predictions")
def _(out):
    def change(tensors):
        tensors["new.predicted"][0] = (tensors["new.predicted"][0] + 1) % 2

    change_predictions(out, change, again=False)


@kind("predictions: true labels of one run, all hashed anew, report remade", "true labels other than those of")
def _(out):
    def change(tensors):
        for role in ("base", "new"):
            tensors[f"{role}.label"] = tensors["new.predicted"].copy()

    change_predictions(out, change)


@kind("predictions: reordered, all hashed anew, report remade", "true labels other than those of")
def _(out):
    def change(tensors):
        for name in tensors:
            tensors[name] = tensors[name][::-1].copy()

    change_predictions(out, change)


@kind("predictions: a class that is none, all hashed anew, report remade", "predicted class 999 of 10")
def _(out):
    def change(tensors):
        wrong = np.flatnonzero(tensors["new.predicted"] != tensors["new.label"])
        tensors["new.predicted"][wrong[0]] = 999

    change_predictions(out, change)


@kind("predictions: a confidence over 1, all hashed anew, report remade", "confidence 1.5")
def _(out):
    change_predictions(out, lambda tensors: tensors["new.confidence"].__setitem__(0, 1.5))


@kind("predictions: a confidence under that of chance, all hashed anew, report remade", "confidence 0.001")
def _(out):
    change_predictions(out, lambda tensors: tensors["new.confidence"].__setitem__(0, 0.001))


@kind("few-shot list: cut", "-train.jsonl' has sha256")
def _(out):
    path = files(out, "splits")[0]
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


@kind("few-shot list: a picture", "-train.jsonl' has sha256")
def _(out):
    path = files(out, "splits")[0]
    path.write_text(path.read_text().replace('"key": "', '"key": "x', 1))


@kind("few-shot list: deleted", "-train.jsonl' is not there")
def _(out):
    files(out, "splits")[0].unlink()


@kind("features: rolled and hashed anew", "holds features of sha256")
def _(out):
    rolled(next(test_files(out)))


@kind("features: rolled and hashed anew, in all records too (--encode)", "4 of 4 pictures have other features")
def _(out):
    path = next(test_files(out))
    now = rolled(path)
    for file in files(out, "runs"):
        record = json.loads(file.read_text())
        for found in record.get("features", {}).values():
            if path.stem in found:
                found[path.stem] = now
        file.write_text(json.dumps(sealed(record)))
    return ["--encode", "4"]


def rows_of(out):
    with (out / "micro" / "tables" / "main.csv").open(newline="") as file:
        return list(csv.reader(file))


def write_rows(out, rows, ending="\n", start=""):
    made = io.StringIO(newline="")
    csv.writer(made, lineterminator=ending).writerows(rows)
    (out / "micro" / "tables" / "main.csv").write_bytes((start + made.getvalue()).encode())


@kind("table: a cell", "main.csv: base of")
def _(out):
    rows = rows_of(out)
    rows[1][3] = str(float(rows[1][3]) + 1)
    write_rows(out, rows)


@kind("table: a cell, by one of the last place", "main.csv: has sha256")
def _(out):
    rows = rows_of(out)
    rows[1][3] = f"{float(rows[1][3]) + 0.0001:.4f}"
    write_rows(out, rows)


@kind("table: a row dropped", "is missing or cut")
def _(out):
    write_rows(out, rows_of(out)[:-1])


@kind("table: a row twice", "1 repeated row")
def _(out):
    write_rows(out, [*rows_of(out), rows_of(out)[-1]])


@kind("table: rows in another order", "another order")
def _(out):
    head, *rows = rows_of(out)
    write_rows(out, [head, *rows[::-1]])


@kind("table: a column's name", "main.csv: columns are")
def _(out):
    change_text(out, "tables/main.csv", lambda text: text.replace("base_std", "base_sem", 1))


@kind("table: byte order mark", "main.csv: columns are")
def _(out):
    write_rows(out, rows_of(out), start="\ufeff")


@kind("table: CRLF", "main.csv: its lines end")
def _(out):
    write_rows(out, rows_of(out), ending="\r\n")


@kind("table: no text", "main.csv: is no text")
def _(out):
    path = out / "micro" / "tables" / "main.csv"
    path.write_bytes(path.read_bytes() + b"\xff\xfe\n")


@kind("table: deleted", "main.csv: not there")
def _(out):
    (out / "micro" / "tables" / "main.csv").unlink()


@kind("table: Markdown", "main.md: line")
def _(out):
    change_text(out, "tables/main.md", first_number)


@kind("table: Markdown, CRLF", "main.md: line 1")
def _(out):
    change_text(out, "tables/main.md", lambda text: text.replace("\n", "\r\n"))


@kind("table: LaTeX", "main.tex: line")
def _(out):
    change_text(out, "tables/main.tex", first_number)


@kind("table: one more", "best.csv: no analysis")
def _(out):
    write_rows(out, rows_of(out))
    shutil.copy(out / "micro" / "tables" / "main.csv", out / "micro" / "tables" / "best.csv")


@kind("table: one more, Markdown alone", "best.md: no analysis")
def _(out):
    (out / "micro" / "tables" / "best.md").write_text("| coop | 99.9 |\n")


@kind("report.md: a number", "report.md: line")
def _(out):
    change_text(out, "report.md", first_number)


@kind("report.html: a number", "report.html: line")
def _(out):
    change_text(out, "report.html", lambda text: re.sub(r"(\d)\.(\d\d)<", r"\1.01<", text, count=1))


@kind("report.html: a script", "report.html: line")
def _(out):
    change_text(out, "report.html", lambda text: text.replace("</body>", "<script>alert(1)</script></body>"))


@kind("report.html: a script in a figure", "holds what could run")
def _(out):
    change_text(out, "report.html", lambda text: text.replace("</svg>", "<script>alert(1)</script></svg>", 1))


@kind("report.html: a handler in a figure", "holds what could run: 'onload")
def _(out):
    change_text(out, "report.html", lambda text: text.replace("<svg ", '<svg onload="alert(1)" ', 1))


@kind("report.html: a figure redrawn", "is neither what the records give")
def _(out):
    change_text(out, "report.html", moved)


@kind("report.html: one more figure", "figures, recomputed")
def _(out):
    change_text(out, "report.html", lambda text: text.replace("</body>", "<svg><text>99.9</text></svg></body>"))


@kind("report.html: deleted", "report.html: not there")
def _(out):
    (out / "micro" / "report.html").unlink()


@kind("report.md: no text", "report.md: is no text")
def _(out):
    (out / "micro" / "report.md").write_bytes(b"\xff\xfe")


def moved(text):
    """The first bar or line of a figure, 5 points higher."""
    return re.sub(r'(<path d="M \d+\.?\d* )(\d+\.?\d*)', lambda m: f"{m[1]}{float(m[2]) + 5:g}", text, count=1)


def vector(out):
    return next(path for path in files(out, "figures") if path.suffix == ".svg")


@kind("figure: a bar of the SVG", ".svg: is not what the records give")
def _(out):
    change_text(out, f"figures/{vector(out).name}", moved)


@kind("figure: a colour of the SVG", ".svg: is not what the records give")
def _(out):
    change_text(out, f"figures/{vector(out).name}", lambda text: re.sub(r"#[0-9a-fA-F]{6}", "#ff00ff", text, count=1))


@kind("figure: a script in the SVG", ".svg: holds what could run")
def _(out):
    change_text(out, f"figures/{vector(out).name}", lambda text: text.replace("</svg>", "<script>1</script></svg>"))


@kind("figure: the SVG, the list of files hashed anew", ".svg: is not what the records give")
def _(out):
    change_text(out, f"figures/{vector(out).name}", moved)
    path = out / "micro" / "written.json"
    if path.is_file():
        content = json.loads(path.read_text())
        content["files"][f"figures/{vector(out).name}"] = sha256(vector(out))
        path.write_text(json.dumps(sealed(content)))


@kind("figure: the SVG, said to be of another matplotlib", ".svg: has sha256")
def _(out):
    change_text(out, f"figures/{vector(out).name}", lambda text: moved(text).replace("Matplotlib v", "Matplotlib v0."))


@kind("figure: the PNG", ".png: shows other")
def _(out):
    path = vector(out).with_suffix(".png")
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGBA")).copy()
    pixels[40:50, 40:60, :3] = 0
    Image.fromarray(pixels).save(path)


@kind("figure: a PNG that is none", ".png: shows other")
def _(out):
    vector(out).with_suffix(".png").write_bytes(base64.b64decode("iVBORw0KGgo="))


@kind("figure: SVG deleted", ".svg: not there")
def _(out):
    vector(out).unlink()


@kind("figure: PNG deleted", ".png: not there")
def _(out):
    vector(out).with_suffix(".png").unlink()


@kind("figure: one more", "ours_wins.svg: no analysis")
def _(out):
    shutil.copy(vector(out), vector(out).with_name("ours_wins.svg"))


@kind("figure: another with its ending in capitals", "figure2a.PNG: no record here is of this figure")
def _(out):
    shutil.copy(out / "micro" / "figures" / "figure2a.png", out / "micro" / "figures" / "figure2a.PNG")


@kind("page: an audit of what is not audited", "audit.html: no audit is made of these records")
def _(out):
    (out / "micro" / "audit.html").write_text("<h1>All methods carry over, verified</h1>")


def thumbnail_of(out):
    return next(path for path in files(out, "examples") if path.suffix == ".jpg")


@kind("example: another picture", ".jpg' has sha256")
def _(out):
    Image.new("RGB", (64, 64), "red").save(thumbnail_of(out))


@kind("example: another picture, report remade", ".jpg' has sha256")
def _(out):
    Image.new("RGB", (64, 64), "red").save(thumbnail_of(out))
    report(out)


@kind("example: deleted", ".jpg' is not there")
def _(out):
    thumbnail_of(out).unlink()


@kind("example: one too many", "no example is of this file")
def _(out):
    shutil.copy(thumbnail_of(out), out / "micro" / "examples" / "mine.jpg")


@kind("list of examples: edited", "examples.json' was changed")
def _(out):
    change_text(out, "examples/examples.json", lambda text: text.replace('"name": "', '"name": "x', 1))


@kind("list of examples: a class renamed, hashed anew", "report.html: line")
def _(out):
    path = out / "micro" / "examples" / "examples.json"
    content = json.loads(path.read_text())
    content["examples"][0]["true"]["name"] = "ours"
    path.write_text(json.dumps(sealed(content)))


@kind("report.html: another example picture", "report.html: line")
def _(out):
    change_text(out, "report.html", lambda text: text.replace("base64,/9j/4AAQ", "base64,/9j/4AAR", 1))


def linked(path):
    elsewhere = path.parents[2] / f"elsewhere{path.suffix}"
    shutil.move(path, elsewhere)
    path.symlink_to(elsewhere)


@kind("link: a figure", ".svg' is a link to")
def _(out):
    linked(vector(out))


@kind("link: a table", "main.csv' is a link to")
def _(out):
    linked(out / "micro" / "tables" / "main.csv")


@kind("link: a record", ".json' is a link to")
def _(out):
    linked(record_of(out)[0])


@kind("list of files: edited", "written.json: was changed")
def _(out):
    path = out / "micro" / "written.json"
    if path.is_file():
        path.write_text(path.read_text().replace("tables/main.csv", "tables/mine.csv"))


@kind("list of files: deleted", "written.json: not there")
def _(out):
    (out / "micro" / "written.json").unlink()


QUICK = {  # one of each room; the others take a minute and a half
    "record: dropped, report remade",
    "predictions: true labels of one run, all hashed anew, report remade",
    "features: rolled and hashed anew",
    "report.html: a script in a figure",
    "example: another picture, report remade",
}


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in KINDS]
)
def test_check_names_what_was_tampered_with(out, name):
    tamper, told = KINDS[name]
    status, said = command(out, "check", *(tamper(out) or []))
    differs = [line for line in said.splitlines() if line.startswith("differs ")]
    assert status == 1 and any(told in line for line in differs), said
    assert "Traceback" not in said and said.rstrip().endswith(f" {len(differs)} differences")


# ---- what is no tampering --------------------------------------------------------------------------------------------


def agrees(out, *words):
    status, said = command(out, "check", *words)
    assert status == 0 and said.rstrip().endswith(" 0 differences"), said
    return said


def test_an_untouched_folder_agrees_its_features_and_weights_too(out):
    said = agrees(out, "--encode", "4")
    assert "10 of 10 feature files" in said and "4 pictures of each of 10 feature files" in said
    shutil.rmtree(out / "cache")
    said = agrees(out, "--encode", "4")
    assert "0 of 10 feature files" in said and "10 are not in" in said


def test_runs_of_fewer_or_more_methods_other_settings_and_few_shot_lists_leave_it_in_agreement(out):
    assert command(out, *PLAN, "--methods", "zs-clip")[0] == 0
    agrees(out)
    assert command(out, *PLAN, "--methods", "kgcoop")[0] == 0
    agrees(out)
    assert command(out, *PLAN, "--methods", "coop", "--set", "coop.context_length=2")[0] == 0
    agrees(out, "--set", "coop.context_length=2")
    report(out)
    agrees(out)
    given = out / "given"
    shutil.copytree(out / "micro" / "splits", given)
    for path in given.glob("*-train.jsonl"):  # the same pictures in another order
        path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    assert command(out, *PLAN, "--methods", "zs-clip", "--manifests", str(given))[0] == 0
    agrees(out, "--manifests", str(given))
    report(out)
    agrees(out)


def test_without_examples_no_picture_stays_in_folder_and_report(out):
    page = out / "micro" / "report.html"
    assert "data:image" in page.read_text() and (out / "micro" / "examples").is_dir()
    assert command(out, "report", "--no-examples")[0] == 0
    assert "data:image" not in page.read_text() and not (out / "micro" / "examples").exists()
    agrees(out)
    assert command(out, *PLAN, "--methods", "zs-clip", "coop")[0] == 0
    assert "data:image" in page.read_text(), "a run keeps them again"
    assert command(out, *PLAN, "--methods", "zs-clip", "coop", "--no-examples")[0] == 0
    assert "data:image" not in page.read_text() and not (out / "micro" / "examples").exists()


def test_a_stopped_call_is_told_and_is_no_difference(out, monkeypatch):
    def stop(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(schedule, "in_process", stop)
    assert command(out, *PLAN, "--methods", "kgcoop")[0] == 130
    monkeypatch.undo()
    assert "2 planned runs have no record yet" in agrees(out)
    assert command(out, *PLAN, "--methods", "kgcoop")[0] == 0
    assert "planned" not in agrees(out)


def test_two_machines_folders_merged_agree_though_their_features_differ_in_last_bits(out, made, tmp_path):
    """The other machine's features of the same pictures have other bits, and its records say which machine that was."""
    for path in files(out, "runs"):
        record = json.loads(path.read_text())
        if record["run"]["method"] == "zs-clip":
            for kind_ in ("runs", "predictions", "plugins"):
                (out / "micro" / kind_ / f"{path.stem}{'.json' if kind_ == 'runs' else '.safetensors'}").unlink()
            continue
        record["processor"]["name"] = "another"
        record["features"] = {
            role: {name: hashlib.sha256(found.encode()).hexdigest() for name, found in read.items()}
            for role, read in record["features"].items()
        }
        path.write_text(json.dumps(sealed(record)))
    both = tmp_path / "both"
    shutil.copytree(made, both, ignore=lambda folder, names: [n for n in names if n == "cache"])
    for path in files(both, "runs"):
        if json.loads(path.read_text())["run"]["method"] == "coop":
            path.unlink()
    assert command(both, "merge", str(out))[0] == 0
    said = agrees(both)
    assert "0 of 10" in said
    shutil.copytree(made / "cache", both / "cache")
    assert "made on another machine, or changed: --encode tells" in agrees(both, "--encode", "2")


def test_records_from_before_hashes_were_kept_are_counted_in_one_line(out):
    for path in files(out, "runs"):
        record = json.loads(path.read_text())
        for name in ("features", "drawn", "plan"):
            record.pop(name, None)
        path.write_text(json.dumps(sealed(record)))
    shutil.rmtree(out / "micro" / "plans")
    (out / "micro" / "written.json").unlink()
    assert "4 records made before hashes of features were kept" in agrees(out)


def test_figures_of_another_matplotlib_are_known_by_their_hash_and_those_of_another_processor_by_eye(out, monkeypatch):
    monkeypatch.setattr(matplotlib, "__version__", "0.0.1")
    assert "were drawn by another matplotlib: compared by their sha256 alone" in agrees(out)
    monkeypatch.undo()
    path = vector(out)
    text = path.read_text()
    shaken = re.sub(r"\d+\.\d{3,}", lambda found: f"{float(found[0]) + 1e-4:.6f}", text)
    assert shaken != text and drawings.alike(shaken, text) and not drawings.alike(moved(text), text)


def test_weights_that_are_not_those_of_the_records_are_named(out):
    for path in files(out, "runs"):
        record = json.loads(path.read_text())
        record["identity"]["backbones"]["base"] = "0" * 64
        path.write_text(json.dumps(sealed(record)))
    status, said = command(out, "check", "--encode", "1")
    assert status == 1 and "weights of base" in said and "4 records say " + "0" * 64 in said


def test_a_forger_of_everything_is_said_to_be_beyond_it():
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert main(["check", "--help"]) == 0
    assert "What no check finds" in said.getvalue() and "--encode N" in said.getvalue()
