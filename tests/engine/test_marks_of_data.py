"""Classes with one prompt and classes with too few shots are named in records, in tables and by doctor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import records
from PIL import Image

from carryover.bench.backbones.loading import tokenizer
from carryover.bench.cli import main

NAMES = {"Red_Fox": 9, "red fox": 9, "red_fox": 9, "dog": 20}  # pictures


def write(path):
    for label, (name, count) in enumerate(NAMES.items()):
        (path / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (20, 20), (60 * label, 5 * i, 90)).save(path / name / f"{i}.png")
    return f"folder:{path}"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("marks")
    given, out = write(folder / "mine"), folder / "out"
    flags = ["--datasets", given, "--methods", "zs-clip", "linear-probe", "--seeds", "1", "--shots", "8"]
    assert main.main([*flags, "--suite", "main", "--out", str(out), "--device", "cpu", "--jobs", "1"]) == 0
    return given, out


def test_a_run_writes_nothing_into_the_data_whatever_the_name_of_its_folder(tmp_path):
    path = tmp_path / "Größe & Ort" / "ein Satz"
    given = write(path)
    folders = [path, *filter(Path.is_dir, path.rglob("*"))]
    for folder in folders:
        folder.chmod(0o555)
    before = {file: file.stat().st_mtime_ns for file in (path.parent, path, *path.rglob("*"))}
    flags = ["--datasets", given, "--methods", "zs-clip", "--seeds", "1", "--shots", "1", "--suite", "main"]
    status = main.main([*flags, "--out", str(tmp_path / "out"), "--device", "cpu", "--jobs", "1"])
    assert {file: file.stat().st_mtime_ns for file in (path.parent, path, *path.rglob("*"))} == before
    for folder in folders:
        folder.chmod(0o755)
    assert status == 0


def test_classes_whose_prompts_are_the_same_tokens_are_named_in_record_table_and_doctor(finished, capsys):
    given, out = finished
    rows = tokenizer("ViT-B-16")(
        [f"a photo of a {name}." for name in ("Red Fox", "red fox", "red  fox", "dog")]
    ).tolist()
    assert rows[0] == rows[1] == rows[2] != rows[3]
    mark = "one prompt for several classes, which no text tells apart: 0 'Red Fox' = 2 'red fox' = 3 'red fox'"
    assert all(mark in json.loads(path.read_text())["marks"] for path in records(out))
    assert mark in (out / "micro" / "tables" / "main.md").read_text().replace("\\", "")
    capsys.readouterr()
    main.main(["doctor", "--datasets", given, "--out", str(out), "--device", "cpu"])
    assert "which no text tells apart: 0 'Red Fox'" in " ".join(capsys.readouterr().out.split())


def test_fewer_shots_than_asked_are_counted_in_the_record_and_marked_beside_the_cells(finished):
    _, out = finished
    mark = "fewer than 8 images a class were there: for 3 of 4 classes, the fewest 4 ('Red Fox')"
    for path in records(out):
        record = json.loads(path.read_text())
        assert mark in record["marks"] and record["split"]["fewest"] == 4 and record["split"]["support"] == 3 * 4 + 8
    assert mark in (out / "micro" / "tables" / "main.md").read_text().replace("\\", "")
