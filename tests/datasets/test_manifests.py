"""Few-shot subsets written by a run and read back: the same run; another's images; what does not fit is refused."""

import csv
import hashlib
import json
import shutil

import pytest
from command_line import LOCAL, call, mistake, records
from standins import write_imagenet
from tiny_caltech import FOLDER, IMAGES, ON_DISK, write_caltech

from carryover import datasets
from carryover.bench.errors import UserError
from carryover.bench.records.selection import of_one_folder, of_one_source
from carryover.datasets import manifests
from carryover.datasets.fewshot import draw
from carryover.datasets.manifests import MARK, read, text_of

RUN = ("--datasets", "caltech101", "--methods", "zs-clip", "linear-probe", "--seeds", 1, "--shots", 2, "--limit", 1)
NAME = "caltech101-2shot-seed1"
pytestmark = pytest.mark.usefixtures("tables_alone")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(data root, results folder) of a run whose manifests the tests feed back."""
    from carryover.bench.cli import main

    root, out = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("results") / "out"
    write_caltech(root)
    assert main.main([str(part) for part in (*RUN, *LOCAL, "--data-root", root, "--out", out)]) == 0
    return root, out


@pytest.fixture
def data(finished):
    return datasets.load("caltech101", str(finished[0]))


@pytest.fixture
def given(finished, tmp_path):
    """A copy of the manifests that a test may change."""
    return shutil.copytree(finished[1] / "micro" / "splits", tmp_path / "given")


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path, rows):
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))


def test_a_run_writes_each_picture_with_the_sha256_of_its_file(finished):
    root, out = finished
    folder = out / "micro" / "splits"
    assert {path.name for path in folder.iterdir()} == {f"{NAME}-train.jsonl", f"{NAME}-val.jsonl"}
    for path in folder.iterdir():
        rows = lines(path)
        assert len(rows) == 2 * len(ON_DISK)
        for row in rows:
            assert row["class"] == ON_DISK[row["label"]].replace("_", " ")
            assert row["sha256"] == hashlib.sha256((root / FOLDER / IMAGES / row["key"]).read_bytes()).hexdigest()


def test_a_runs_own_manifests_give_the_same_run(finished, given, tmp_path, capsys):
    root, out = finished
    argv = (*RUN, *LOCAL, "--data-root", root, "--manifests", given)
    copy = shutil.copytree(out, tmp_path / "copy")
    status, said, _ = call(capsys, *argv, "--out", copy)
    assert status == 0 and "0 runs done, 2 were done before" in " ".join(said.split())
    assert call(capsys, *argv, "--out", tmp_path / "fresh")[0] == 0
    assert [path.name for path in records(tmp_path / "fresh")] == [path.name for path in records(out)]
    for path in records(tmp_path / "fresh"):
        assert MARK in json.loads(path.read_text())["marks"]
    for path in (out / "micro" / "splits").iterdir():
        assert (tmp_path / "fresh" / "micro" / "splits" / path.name).read_bytes() == path.read_bytes()
    for kind in ("md", "tex"):
        assert "manifest of the user" in (tmp_path / "fresh" / "micro" / "tables" / f"main.{kind}").read_text()


def test_other_images_are_another_run_marked_and_never_averaged_with_drawn_ones(finished, given, tmp_path, capsys):
    root, out = finished
    path = given / f"{NAME}-train.jsonl"
    write(path, lines(path)[::-1])
    copy = shutil.copytree(out, tmp_path / "copy")
    argv = (*RUN, *LOCAL, "--data-root", root, "--out", copy)
    status, said, _ = call(capsys, *argv, "--manifests", given)
    assert status == 0 and "2 runs done, 0 were done before" in " ".join(said.split())
    assert [row["key"] for row in lines(copy / "micro" / "splits" / path.name)] == [r["key"] for r in lines(path)]
    table = copy / "micro" / "tables" / "main.md"
    assert "manifest of the user" in table.read_text()
    assert call(capsys, *argv)[0] == 0, "back to the drawn ones, which are all done"
    assert "manifest of the user" not in table.read_text()


def test_records_of_given_and_drawn_images_are_told_apart_dataset_by_dataset():
    def record(key, dataset, *marks):
        return {"key": key, "run": {"dataset": dataset}, "marks": list(marks)}

    both = [record("a", "x"), record("b", "x", MARK)]
    alone = [record("c", "y", MARK), record("d", "z")]
    assert of_one_source(both + alone, True) == both[1:] + alone
    assert of_one_source(both + alone, False) == both[:1] + alone


def test_seeds_of_two_folders_are_never_averaged(finished, given, tmp_path, capsys):
    """Each call's table is of its own folder; a report that names none is of the newest; the rest is counted."""
    root, out = finished[0], tmp_path / "two"
    first = given / f"{NAME}-train.jsonl"
    second = shutil.copytree(given, tmp_path / "second")
    for part in ("train", "val"):
        shutil.move(second / f"{NAME}-{part}.jsonl", second / f"caltech101-2shot-seed2-{part}.jsonl")
    argv = (*LOCAL, "--data-root", root, "--out", out)
    assert call(capsys, *RUN, *argv, "--manifests", given)[0] == 0
    run = [2 if part == 1 and RUN[i - 1] == "--seeds" else part for i, part in enumerate(RUN)]
    status, said, _ = call(capsys, *run, *argv, "--manifests", second)
    assert status == 0 and "2 stored records of other few-shot images" in " ".join(said.split())

    def seeds():
        with (out / "micro" / "tables" / "main.csv").open(newline="") as file:
            return {row["seeds"] for row in csv.DictReader(file) if row["dataset"] == "caltech101"}

    assert seeds() == {"1"}
    settings = ("--shots", 2, "--limit", 1)
    status, said, _ = call(capsys, "report", *settings, "--out", out)
    assert status == 0 and "2 stored records of other few-shot images" in " ".join(said.split()) and seeds() == {"1"}
    status, said, _ = call(capsys, "report", *settings, "--out", out, "--manifests", tmp_path)  # it has no manifests
    assert "2 stored records of other few-shot images" in " ".join(said.split()) and seeds() == {"1"}

    for part in ("train", "val"):  # the first folder grows by the second's seed: one folder, two seeds
        name = f"caltech101-2shot-seed2-{part}.jsonl"
        shutil.copy(second / name, given / name)
    status, said, _ = call(capsys, "report", *settings, "--out", out, "--manifests", given)
    assert status == 0 and "other few-shot images" not in said and seeds() == {"2"}
    write(first, lines(first)[::-1])  # no longer what the first run used
    call(capsys, "report", *settings, "--out", out, "--manifests", given)
    assert seeds() == {"1"}


def test_of_records_with_given_images_those_of_one_folder_stay_dataset_by_dataset():
    def record(key, dataset, seed, started, **files):
        files = {f"{dataset}-2shot-{name}-train.jsonl": digest for name, digest in files.items()}
        run = {"dataset": dataset, "seed": seed, "shots": 2}
        return {"key": key, "run": run, "marks": [MARK] * bool(files), "started": started, "manifests": files}

    old, new = record("a", "x", 1, "1", seed1="p"), record("b", "x", 2, "2", seed2="q")
    both = [record("c", "y", 1, "1", seed1="p"), record("d", "y", 2, "2", seed1="p", seed2="q")]
    drawn = record("e", "z", 1, "0")
    unknown = {**record("f", "y", 3, "0", seed3="r"), "manifests": {}}  # of a version that kept no digests
    assert of_one_folder([old, new, *both, unknown, drawn]) == [new, *both, drawn]
    assert of_one_folder([unknown]) == [unknown]


def test_without_a_val_file_validation_is_the_drawn_one(data, given):
    (given / f"{NAME}-val.jsonl").unlink()
    support, val = read(given, data, 2, 1)
    drawn = draw(data.train, data.val, 2, 1)
    assert val is None and data.train.take(support).keys == drawn[0].keys
    write(given / f"{NAME}-train.jsonl", lines(given / f"{NAME}-train.jsonl")[::-1])
    others = draw(data.train, data.val, 2, 1, read(given, data, 2, 1)[0])
    assert others[0].keys == drawn[0].keys[::-1] and others[1].keys == drawn[1].keys


def test_validation_may_come_from_both_lists_but_not_from_the_support_set(data, given):
    support = set(data.train.take(read(given, data, 2, 1)[0]).keys)
    spare = next(i for i, key in enumerate(data.train.keys) if key not in support)
    path = given / f"{NAME}-val.jsonl"
    free = list(data.train.take([spare]).rows(data.classnames))
    rows = lines(path)[:3] + free
    write(path, rows)
    _, val = read(given, data, 2, 1)
    assert list(val.keys) == [row["key"] for row in rows]
    assert val.labels.tolist() == [row["label"] for row in rows]
    assert [len(val.read([i])) for i in range(4)] == [1] * 4 and val.portable
    assert [val.file_sha256(i) for i in range(3)] == [row["sha256"] for row in rows[:3]]
    assert len(val.stamper(range(4))) == 4
    write(path, rows + lines(given / f"{NAME}-train.jsonl")[:1])
    with pytest.raises(UserError, match=f"line 5: .* is also in .*{NAME}-train"):
        read(given, data, 2, 1)


def test_imagenet_draws_validation_from_what_the_given_images_leave(tmp_path):
    from standins import all_wnids

    write_imagenet(tmp_path, all_wnids()[:3], train=3)
    data = datasets.load("imagenet", str(tmp_path))
    drawn = draw(data.train, data.val, 1, 1)
    others = [next(i for i in range(3 * c, 3 * c + 3) if data.train.keys[i] not in drawn[0].keys) for c in range(3)]
    (tmp_path / "given").mkdir()
    chosen = data.train.take(others)
    (tmp_path / "given" / "imagenet-1shot-seed1-train.jsonl").write_text(text_of(chosen, data.classnames))
    support, _ = read(tmp_path / "given", data, 1, 1)
    given_support, val = draw(data.train, data.val, 1, 1, support)
    assert given_support.keys == chosen.keys
    assert len(val) == 3 and not set(val.keys) & set(chosen.keys)
    text = text_of(chosen, data.classnames)
    (tmp_path / "given" / "imagenet-1shot-seed1-val.jsonl").write_text(text)
    with pytest.raises(UserError, match="is also in"):
        read(tmp_path / "given", data, 1, 1)


def test_rendered_pictures_have_no_sha256_and_one_that_is_claimed_is_refused(tmp_path):
    data = datasets.load("micro_counting")
    support, val = draw(data.train, data.val, 2, 1)
    for part, split in (("train", support), ("val", val)):
        text = text_of(split, data.classnames)
        assert text == split.manifest(data.classnames)
        (tmp_path / f"micro_counting-2shot-seed1-{part}.jsonl").write_text(text)
    indices, read_val = read(tmp_path, data, 2, 1)
    assert data.train.take(indices).keys == support.keys and read_val.keys == val.keys
    path = tmp_path / "micro_counting-2shot-seed1-train.jsonl"
    write(path, [{**row, "sha256": "0" * 64} for row in lines(path)])
    with pytest.raises(UserError, match="line 1: .*rendered"):
        read(tmp_path, data, 2, 1)


def test_a_folder_of_ones_own_has_a_name_without_a_colon():
    assert manifests.name_of("folder:mine", 16, 3, "train") == "folder-mine-16shot-seed3-train"


# ---- what is refused -------------------------------------------------------------------------------------------------


def changed(index, **values):
    def change(rows, data):
        rows[index] = {**rows[index], **values}
        return rows

    return change


def put(index, line):
    def change(rows, data):
        return rows[:index] + [line + "\n"] + rows[index:]

    return change


def test_image(rows, data):
    (row,) = data.test.take([0]).rows(data.classnames)
    return [*rows, row]


def validation_image(rows, data):
    (row,) = data.val.take([0]).rows(data.classnames)
    return [*rows, row]


REFUSED = {
    "unknown image": (changed(2, key="face/of_nobody.jpg"), "line 3: 'face/of_nobody.jpg' is not in the training list"),
    "path outside": (changed(0, key="../../../etc/passwd"), "line 1: .* is not in the training list"),
    "test image": (test_image, "line 9: .* is a test image of caltech101"),
    "validation image to train on": (validation_image, "line 9: .* is not in the training list"),
    "twice": (lambda rows, data: [*rows, rows[0]], "line 9: .* a second time"),
    "wrong label": (changed(1, label=99), "line 2: .* has label 99"),
    "wrong class": (changed(1, **{"class": "dog"}), "line 2: .* class 'dog'"),
    "label as text": (changed(1, label="1"), "line 2 is .* expected"),
    "label true": (changed(1, label=True), "line 2 is .* expected"),
    "another file": (changed(4, sha256="0" * 64), "line 5: .* sha256 '0000.* the file here has"),
    "sha256 no text": (changed(4, sha256=7), "line 5: .* sha256 '7'"),
    "no JSON": (put(3, "{'class': 'dog'}"), "line 4 is .* expected"),
    "no object": (put(0, "[1, 2]"), "line 1 is .* expected"),
    "deep JSON": (put(0, "[" * 100000), "line 1 is .* expected"),
    "key missing": (put(1, '{"class": "face", "label": 0}'), "line 2 is .* expected"),
    "empty": (lambda rows, data: [], "names no image"),
    "a class missing": (lambda rows, data: [row for row in rows if row["label"] != 2], "0 images of class 'accordion'"),
    "too many of a class": (
        lambda rows, data: (
            rows
            + [
                row
                for row in data.train.rows(data.classnames)
                if row["label"] == 1 and row["key"] not in {r["key"] for r in rows}
            ][:1]
        ),
        "3 images of class 'water lilly'",
    ),
}
test_image.__test__ = False


@pytest.mark.parametrize("kind", REFUSED)
def test_a_manifest_that_does_not_fit_is_refused_with_its_file_and_line(data, given, kind):
    change, expected = REFUSED[kind]
    path = given / f"{NAME}-train.jsonl"
    write(path, change(lines(path), data))
    with pytest.raises(UserError, match=expected) as caught:
        read(given, data, 2, 1)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 1200


def test_a_validation_manifest_never_holds_a_test_image(data, given):
    path = given / f"{NAME}-val.jsonl"
    write(path, test_image(lines(path), data))
    with pytest.raises(UserError, match="line 9: .* is a test image"):
        read(given, data, 2, 1)


def test_a_file_that_is_no_text_is_refused(data, given):
    (given / f"{NAME}-train.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="UTF-8"):
        read(given, data, 2, 1)


def test_mistakes_on_the_command_line_end_in_one_line_before_any_work(finished, given, tmp_path, capsys):
    root, _ = finished
    argv = (*RUN, *LOCAL, "--data-root", root, "--out", tmp_path / "out", "--manifests")
    assert "nowhere" in mistake(capsys, *argv, tmp_path / "nowhere")
    line = mistake(capsys, *argv, given, "--seeds", 2)
    assert "caltech101-2shot-seed2-train.jsonl" in line and "seed 2" in line
    (given / f"{NAME}-train.jsonl").write_text("no manifest\n")
    assert f"{NAME}-train.jsonl' line 1" in mistake(capsys, *argv, given)
    assert not records(tmp_path / "out")
