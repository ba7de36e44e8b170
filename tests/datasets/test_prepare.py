"""``prepare``: whole datasets from a local server into CoOp's layout; ``--check`` on good and broken data roots."""

import dataclasses
import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import pytest
import sites
import standins
from checkout import FROM_HERE
from command_line import call

from carryover import datasets
from carryover.bench.errors import UserError
from carryover.datasets import coop_format, fetch, layouts, prepare
from carryover.datasets.sources import SOURCES, Source
from carryover.datasets.verify import check_dataset

LAYOUT = layouts.LAYOUTS["dtd"]


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setattr(fetch, "PAUSE", 0.0)
    with sites.serve() as site:
        yield site


@pytest.fixture
def small(monkeypatch):
    """Table 1 of the stand-ins: ``small(id, classes, train, val, test)``."""

    def small(id, *counts):
        layout = dataclasses.replace(
            layouts.LAYOUTS[id], **dict(zip(("classes", "train", "val", "test"), counts, strict=True))
        )
        monkeypatch.setitem(layouts.LAYOUTS, id, layout)
        if id in coop_format.LAYOUTS:
            monkeypatch.setitem(coop_format.LAYOUTS, id, layout)

    for id in standins.SPLIT_FILE_SETS:
        classes = len(standins.SPLIT_FILE_SETS[id][4])
        small(id, classes, 6 * classes, 5 * classes, 4 * classes)
    small("fgvc_aircraft", 5, 25, 20, 15)
    return small


def pack(folder: Path, inside: str, name: str) -> bytes:
    """A folder of a stand-in as an archive, under the name that the published archive gives it."""
    buffer = io.BytesIO()
    if name.endswith(".zip"):
        with zipfile.ZipFile(buffer, "w") as file:
            for path in sorted(folder.rglob("*")):
                file.write(path, f"{inside}/{path.relative_to(folder).as_posix()}")
    else:
        with tarfile.open(fileobj=buffer, mode="w" if name.endswith(".tar") else "w:gz") as file:
            file.add(folder, inside)
    return buffer.getvalue()


# How the published archives are laid out: {id: {archive: (folder of the stand-in, its name in the archive)}}, from the
# sets' own pages and CoOp's DATASETS.md.
PUBLISHED = {
    "caltech101": {"101_ObjectCategories.tar.gz": ("caltech-101/101_ObjectCategories", "101_ObjectCategories")},
    "oxford_pets": {"images.tar.gz": ("oxford_pets/images", "images")},
    "stanford_cars": {
        "cars_train.tgz": ("stanford_cars/cars_train", "cars_train"),
        "cars_test.tgz": ("stanford_cars/cars_test", "cars_test"),
    },
    "flowers102": {"102flowers.tgz": ("oxford_flowers/jpg", "jpg")},
    "food101": {"food-101.tar.gz": ("food-101", "food-101")},
    "fgvc_aircraft": {"fgvc-aircraft-2013b.tar.gz": ("fgvc_aircraft", "fgvc-aircraft-2013b/data")},
    "sun397": {"SUN397.tar.gz": ("sun397/SUN397", "SUN397")},
    "dtd": {"dtd-r1.0.1.tar.gz": ("dtd", "dtd")},
    "eurosat": {"EuroSAT.zip": ("eurosat/2750", "2750")},
    "ucf101": {"UCF-101-midframes.zip": ("ucf101/UCF-101-midframes", "UCF-101-midframes")},
    "imagenet_sketch": {"ImageNet-Sketch.zip": ("imagenet-sketch/images", "sketch")},
    "imagenet_a": {"imagenet-a.tar": ("imagenet-adversarial/imagenet-a", "imagenet-a")},
    "imagenet_r": {"imagenet-r.tar": ("imagenet-rendition/imagenet-r", "imagenet-r")},
    "imagenet_v2": {
        "imagenetv2-matched-frequency.tar.gz": (
            "imagenetv2/imagenetv2-matched-frequency-format-val",
            "imagenetv2-matched-frequency-format-val",
        )
    },
}


def write_standin(id: str, root: Path) -> None:
    if id in standins.SPLIT_FILE_SETS:
        standins.write_split_file_set(id, root)
    elif id == "fgvc_aircraft":
        standins.write_fgvc(root)
    else:
        folders = [str(n) for n in range(1000)] if id == "imagenet_v2" else standins.all_wnids()[:200]
        standins.write_ood(id, root, folders)
    if id in ("food101", "dtd"):  # what their archives hold besides
        for name in {"food101": ["meta"], "dtd": ["imdb", "labels"]}[id]:
            path = root / layouts.LAYOUTS[id].folder / name / "list.txt"
            path.parent.mkdir()
            path.write_text("list")


@pytest.fixture
def publish(site, tmp_path, monkeypatch):
    """Puts a stand-in's archives and split on the site; returns its sources as they are there, checksums right."""

    def publish(id):
        made = tmp_path / "published" / id
        write_standin(id, made)
        layout, sources = layouts.LAYOUTS[id], []
        if layout.split:
            split = made / layout.folder / layout.split
            site.put(layout.split, split.read_bytes())
            split.unlink()
        for name, (folder, inside) in PUBLISHED[id].items():
            site.put(name, pack(made / folder, inside, name))
        if id == "caltech101":  # an archive in an archive
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w") as file:
                file.writestr("__MACOSX/caltech-101/._x", b"x")
                file.writestr("caltech-101/101_ObjectCategories.tar.gz", site.files.pop("101_ObjectCategories.tar.gz"))
            site.put("caltech-101.zip", buffer.getvalue())
        for source in SOURCES[id]:
            body = site.files.get(source.name)
            if body is not None:
                digest = "sha256:" + hashlib.sha256(body).hexdigest()
                url = f"{site.address}/{source.name}"
                source = dataclasses.replace(source, url=url, size=len(body), digest=digest, by_hand="")
                sources.append(source)
        monkeypatch.setitem(SOURCES, id, tuple(sources))
        return sources

    return publish


# ---- the list of sources ---------------------------------------------------------------------------------------------


def test_every_dataset_of_the_paper_has_sources_that_fill_its_layout():
    paper = [*datasets.PAPER_ORDER, *datasets.PAPER_OOD]
    assert [*SOURCES][: len(paper)] == [*layouts.LAYOUTS][: len(paper)] == paper and {*SOURCES} == {*layouts.LAYOUTS}
    for id in paper:
        layout = layouts.LAYOUTS[id]
        places = {place for source in SOURCES[id] if not source.extra for _, place in source.gives}
        images = {"imagenet": {"images/train", "images/val"}, "stanford_cars": {"cars_train", "cars_test"}}
        assert images.get(id, {layout.images}) <= places
        assert not layout.split or layout.split in places


def test_sources_are_sound():
    """Names are unique, for the download folder and a mirror are flat; a checksum has the length of its kind."""
    every = [source for sources in SOURCES.values() for source in sources]
    assert max(Counter(source.name for source in every if source.name).values()) == 1
    for source in every:
        kind, _, digest = source.digest.partition(":")
        assert len(digest) == {"sha256": 64, "md5": 32, "": 0}[kind] and digest == digest.lower()
        assert source.address.startswith(("https://", "http://data.vision.ee.ethz.ch/"))
        assert source.address.startswith("https://") or source.digest
        assert source.archive or len(source.gives) == 1 or not source.name
        assert source.name or source.by_hand


def test_checksums_are_those_of_torchvision_where_it_has_the_same_kind():
    """Its source is read as text, for the classes keep their addresses in different ways."""
    import torchvision.datasets as there

    text = (Path(there.__file__).parent / "eurosat.py").read_text()
    (eurosat,) = (source for source in SOURCES["eurosat"] if source.archive)
    assert eurosat.digest.removeprefix("md5:") in text and eurosat.url in text
    for module, id in (("dtd", "dtd"), ("fgvc_aircraft", "fgvc_aircraft"), ("caltech", "caltech101")):
        text = (Path(there.__file__).parent / f"{module}.py").read_text()
        assert any(source.archive and source.url in text for source in SOURCES[id])


# ---- from the server to the layout -----------------------------------------------------------------------------------


@pytest.mark.parametrize("id", [id for id in PUBLISHED if id in standins.SPLIT_FILE_SETS or id == "fgvc_aircraft"])
def test_a_dataset_is_fetched_and_arranged_and_read(publish, site, small, tmp_path, id):
    sources, root = publish(id), str(tmp_path / "data")
    outcome = prepare.prepare(id, root)
    assert outcome.state == "ready" and not outcome.failed and not outcome.by_hand, outcome
    data = datasets.load(id, root)
    reference = tmp_path / "reference"
    write_standin(id, reference)
    assert data.test.sha256(data.classnames) == datasets.load(id, str(reference)).test.sha256(data.classnames)
    assert sorted(site.asked()) == sorted(source.name for source in sources)
    folder = Path(root) / layouts.LAYOUTS[id].folder
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("id", ["imagenet_v2", "imagenet_sketch", "imagenet_a"])
def test_an_out_of_distribution_set_is_fetched_and_arranged(publish, site, small, tmp_path, id):
    small(id, 1000 if id == "imagenet_v2" else 200, 0, 0, 1000 if id == "imagenet_v2" else 200)
    publish(id)
    outcome = prepare.prepare(id, str(tmp_path / "data"))
    assert outcome.state == "ready", outcome


def test_a_second_call_asks_nothing_and_changes_nothing(publish, site, small, tmp_path):
    publish("dtd")
    prepare.prepare("dtd", str(tmp_path / "data"))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*")}
    site.log.clear()
    assert prepare.prepare("dtd", str(tmp_path / "data")).state == "ready"
    assert site.log == [] and before == {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*")}


def test_only_what_is_missing_is_fetched(publish, site, small, tmp_path):
    publish("dtd")
    prepare.prepare("dtd", str(tmp_path / "data"))
    site.log.clear()
    (tmp_path / "data/dtd/split_zhou_DescribableTextures.json").unlink()
    (tmp_path / "data/downloads/split_zhou_DescribableTextures.json").unlink()
    shutil.rmtree(tmp_path / "data/dtd/labels")
    assert prepare.prepare("dtd", str(tmp_path / "data")).state == "ready"
    assert site.asked() == ["split_zhou_DescribableTextures.json"]
    assert (tmp_path / "data/dtd/labels/list.txt").exists()  # from the archive that was kept


def test_what_is_there_is_never_overwritten(publish, site, small, tmp_path):
    publish("dtd")
    mine = tmp_path / "data/dtd/images/mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    outcome = prepare.prepare("dtd", str(tmp_path / "data"))
    assert outcome.state == "partial" and "missing" in outcome.finding.problems[0]
    assert mine.read_text() == "mine" and len(list(mine.parent.iterdir())) == 1


def test_a_download_that_was_broken_off_goes_on_in_the_next_run(publish, site, small, tmp_path):
    publish("dtd")
    size = len(site.files["dtd-r1.0.1.tar.gz"])
    site.cuts = [10**9, size // 2] + [0] * fetch.TRIES  # the split comes whole
    outcome = prepare.prepare("dtd", str(tmp_path / "data"))
    assert outcome.state == "partial" and "goes on" in outcome.failed[0]
    assert not (tmp_path / "data/dtd/images").exists()
    site.cuts, site.log = [], []
    assert prepare.prepare("dtd", str(tmp_path / "data")).state == "ready"
    assert [wanted for _, wanted, _ in site.log] == [f"bytes={size // 2}-"]


KILLED = """
import dataclasses, os, sys
from carryover.datasets import prepare, unpack
from carryover.datasets.sources import SOURCES
written = []
def copy(source, file, size):
    file.write(source.read())
    written.append(file.name)
    if len(written) == 5:
        os._exit(9)
unpack.shutil.copyfileobj = copy
sources = [dataclasses.replace(source, size=None, digest="") for source in SOURCES["dtd"]]
prepare.prepare("dtd", sys.argv[1], mirror=sys.argv[2], sources={"dtd": sources})
"""


@pytest.mark.long
def test_a_run_that_is_killed_while_unpacking_leaves_nothing_half_arranged(publish, site, small, tmp_path):
    """Killed for good, in a process of its own: no clearing up runs."""
    publish("dtd")
    root, folder = str(tmp_path / "data"), tmp_path / "data/dtd"
    assert subprocess.run([sys.executable, "-c", KILLED, root, site.address], env=FROM_HERE).returncode == 9
    split = "split_zhou_DescribableTextures.json"
    assert sorted(path.name for path in folder.iterdir()) == [".unpacking-dtd-r1.0.1.tar.gz", split]
    assert prepare.prepare("dtd", root).state == "ready"
    assert sorted(path.name for path in folder.iterdir()) == ["images", "imdb", "labels", split]


def test_a_file_put_in_the_download_folder_by_hand_is_checked_and_used(publish, site, small, tmp_path, monkeypatch):
    sources = publish("sun397")
    dead = [dataclasses.replace(source, by_hand="the address is dead") for source in sources if source.archive]
    monkeypatch.setitem(SOURCES, "sun397", tuple(source for source in sources if not source.archive) + tuple(dead))
    root = tmp_path / "data"
    outcome = prepare.prepare("sun397", str(root))
    (line,) = outcome.by_hand
    assert str(root / "downloads/SUN397.tar.gz") in line and str(root / "sun397/SUN397") in line and "dead" in line
    assert "SUN397.tar.gz" not in site.asked()
    (root / "downloads/SUN397.tar.gz").write_bytes(b"another file")
    outcome = prepare.prepare("sun397", str(root))
    assert "expected" in outcome.failed[0] and (root / "downloads/SUN397.tar.gz").exists()
    (root / "downloads/SUN397.tar.gz").write_bytes(site.files["SUN397.tar.gz"])
    assert prepare.prepare("sun397", str(root)).state == "ready"


def test_a_made_split_stands_in_for_one_that_cannot_be_had(publish, site, small, tmp_path):
    publish("eurosat")
    site.files.pop("split_zhou_EuroSAT.json")
    small("eurosat", 3, 24, 9, 12)  # of 15 a class: half, a fifth, the rest
    root = str(tmp_path / "data")
    outcome = prepare.prepare("eurosat", root)
    assert outcome.state == "partial" and "404" in outcome.failed[0]
    assert not (tmp_path / "data/eurosat/split_carryover_eurosat.json").exists()
    outcome = prepare.prepare("eurosat", root, make_split=True)
    assert outcome.state == "ready" and any("not the published split" in note for note in outcome.finding.notes)
    assert check_dataset("eurosat", root, make_split=True).ready and not check_dataset("eurosat", root).ready


ANSWER = b'{"error": "quota exceeded"}'
NO_SPLITS = {
    "no lists": ANSWER,
    "a list only": b"[]",
    "an empty list": b'{"train": [], "val": [], "test": []}',
    "other rows": b'{"train": [["a.jpg", 0]], "val": [["b.jpg", 0]], "test": [["c.jpg", 0]]}',
    "cut": b'{"train": [["a.jpg"',
}


@pytest.fixture
def unchecked(publish, monkeypatch):
    """The sources of DTD as they are for a split file whose checksum nobody states."""
    sources = tuple(dataclasses.replace(s, size=None, digest="") for s in publish("dtd"))
    monkeypatch.setitem(SOURCES, "dtd", sources)
    return sources


@pytest.mark.parametrize("kind", NO_SPLITS)
def test_what_is_no_split_is_neither_arranged_nor_kept_and_the_next_call_asks_again(
    unchecked, site, small, tmp_path, kind
):
    split = LAYOUT.split
    good, site.files[split] = site.files[split], NO_SPLITS[kind]
    root = tmp_path / "data"
    outcome = prepare.prepare("dtd", str(root))
    (line,) = outcome.failed
    assert outcome.state == "partial" and "expected lists train, val and test" in line and site.address in line
    assert str(root / "downloads" / split) in line and "\n" not in line
    assert not (root / "downloads" / split).exists() and not (root / "dtd" / split).exists()
    site.files[split] = good
    assert prepare.prepare("dtd", str(root)).state == "ready"


def test_a_split_that_is_none_is_replaced_once_a_right_one_can_be_had(unchecked, site, small, tmp_path):
    """As a version without this check left it: in the layout and among the downloads."""
    root, split = tmp_path / "data", LAYOUT.split
    prepare.prepare("dtd", str(root))
    for folder in ("dtd", "downloads"):
        (root / folder / split).write_bytes(ANSWER)
    good = site.files.pop(split)
    outcome = prepare.prepare("dtd", str(root))
    (problem,) = outcome.finding.problems
    assert outcome.state == "partial" and (root / "dtd" / split).read_bytes() == ANSWER
    assert f"'{root / 'dtd' / split}'" in problem and "delete" in problem and layouts.LAYOUTS["dtd"].source in problem
    site.files[split] = good
    assert prepare.prepare("dtd", str(root)).state == "ready"
    assert (root / "dtd" / split).read_bytes() == (root / "downloads" / split).read_bytes() == good


def test_published_split_files_have_checksums():
    """Counted by hand: Caltech101, OxfordPets, DTD and EuroSAT."""
    found = {id for id, sources in SOURCES.items() for s in sources if s.name == layouts.LAYOUTS[id].split and s.digest}
    assert found == {"caltech101", "oxford_pets", "dtd", "eurosat"}


def test_a_mirror_that_lacks_a_file_names_the_published_address(publish, site, small, tmp_path):
    sources = publish("dtd")
    published = tuple(dataclasses.replace(s, url=f"https://example.org/{s.name}") for s in sources)
    outcome = prepare.prepare("dtd", str(tmp_path / "data"), mirror=f"{site.address}/no", sources={"dtd": published})
    assert len(outcome.failed) == 2
    for source, line in zip(published, outcome.failed, strict=True):
        assert f"fetch {source.url} by hand" in line
    site.files[LAYOUT.split] = ANSWER
    for size, what in ((published[0].size, "bytes"), (None, "sha256")):
        sources = {"dtd": (dataclasses.replace(published[0], size=size),)}
        (line,) = prepare.prepare("dtd", str(tmp_path / "data"), mirror=site.address, sources=sources).failed
        assert what in line and published[0].url in line


def test_a_mirror_with_a_space_and_letters_outside_ascii_is_asked(publish, site, small, tmp_path, capsys):
    for source in publish("dtd"):
        site.put(f"meine%20B%C3%BCcher/a%2Bb/{source.name}", site.files.pop(source.name))
    mirror = f"{site.address}/meine Bücher/a%2Bb"
    assert call(capsys, "prepare", "dtd", "--data-root", tmp_path / "data", "--mirror", mirror)[0] == 0


@pytest.mark.parametrize("id", ["sun397", "dtd", "stanford_cars", "imagenet"])
def test_a_dataset_that_is_not_there_is_named_with_the_address_of_each_of_its_files(tmp_path, id):
    (problem,) = check_dataset(id, str(tmp_path)).problems
    assert "no folder" in problem and "\n" not in problem
    for source in SOURCES[id]:
        assert (source.url in problem) != source.extra and (source.by_hand in problem or source.extra)
    for place, url in {
        "sun397": {"split_zhou_SUN397.json": "drive.google.com", "SUN397": "vision.princeton.edu"},
    }.get(id, {}).items():
        assert re.search(rf"{place} \(from https://{url}", problem)


def test_an_archive_that_holds_something_else_is_refused(site, small, tmp_path, monkeypatch):
    (tmp_path / "x").mkdir()
    (tmp_path / "x/y.txt").write_text("y")
    url = site.put("dtd.tar.gz", pack(tmp_path / "x", "x", "dtd.tar.gz"))
    monkeypatch.setitem(SOURCES, "dtd", (Source("dtd.tar.gz", url, (("dtd/images", "images"),)),))
    outcome = prepare.prepare("dtd", str(tmp_path / "data"))
    assert "no 'dtd/images'" in outcome.failed[0] and not list((tmp_path / "data/dtd").iterdir())


def test_two_prepares_in_one_data_root_are_refused(tmp_path):
    pytest.importorskip("fcntl")
    with prepare.alone(str(tmp_path)):
        with pytest.raises(UserError, match="another prepare"):
            with prepare.alone(str(tmp_path)):
                pass
    with prepare.alone(str(tmp_path)):
        pass


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_command_prepares_what_it_can_and_lists_the_rest(publish, site, small, tmp_path, capsys):
    publish("dtd")
    root = tmp_path / "data"
    status, out, err = call(capsys, "prepare", "imagenet", "--data-root", root, "dtd")
    assert status == 1 and err == ""
    assert "missing imagenet:" in out and "ready   dtd: 3 classes, 18 / 15 / 12 images" in out
    by_hand = out[out.index("to fetch by hand:") :]
    assert "https://image-net.org" in by_hand and "register" in by_hand and "dtd" not in by_hand
    assert str(root / "imagenet/images/train") in by_hand and str(root / "imagenet/images/val") in by_hand
    assert "1 of 2 datasets ready" in out
    status, out, _ = call(capsys, "prepare", "--data-root", root, "--datasets", "dtd")
    assert status == 0 and "1 of 1 datasets ready" in out
    assert call(capsys, "prepare", "--check", "dtd", "--data-root", root)[0] == 0


def test_a_mirror_is_asked_for_all_files_by_name_also_for_dead_ones(
    publish, site, small, tmp_path, capsys, monkeypatch
):
    sources = publish("stanford_cars")
    dead = "https://ai.stanford.edu/dead"
    monkeypatch.setitem(
        SOURCES, "stanford_cars", tuple(dataclasses.replace(s, url=dead, by_hand="dead") for s in sources)
    )
    argv = ["prepare", "stanford_cars", "--data-root", tmp_path / "data"]
    assert call(capsys, *argv, "--mirror", site.address + "/")[0] == 0
    assert set(site.asked()) == {source.name for source in sources}


def test_a_config_file_can_name_data_root_and_mirror(publish, site, small, tmp_path, capsys):
    publish("dtd")
    (tmp_path / "run.toml").write_text(
        f'data-root = "{(tmp_path / "data").as_posix()}"\nmirror = "{site.address}"\ndatasets = ["dtd"]\n'
    )
    assert call(capsys, "prepare", "--config", tmp_path / "run.toml")[0] == 0


def test_all_fifteen_are_meant_where_none_is_named(tmp_path, capsys):
    status, out, _ = call(capsys, "prepare", "--check", "--data-root", tmp_path)
    assert status == 1 and out.count("\n") == len(layouts.LAYOUTS) + 1
    assert f"0 of {len(layouts.LAYOUTS)} datasets ready" in out
    assert all(f"bad     {id}: " in out for id in layouts.LAYOUTS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "argv, expected",
    [
        (["prepare", "dtd"], "--data-root"),
        (["prepare", "dtdd", "--data-root", "D"], "Did you mean 'dtd'"),
        (["prepare", "micro_stars", "--data-root", "D"], "embedded"),
        (["prepare", "folder:D", "--data-root", "D"], "folder:D"),
        (["prepare", "--data-root", "D", "--mirror", "mirror"], "http://"),
        (["run", "--check"], "prepare"),
        (["run", "--mirror", "http://x"], "prepare"),
        (["run", "dtd"], "--datasets"),
        (["ls", "methods", "archs"], "archs"),
    ],
)
def test_mistakes_end_in_one_line(capsys, tmp_path, monkeypatch, argv, expected):
    monkeypatch.chdir(tmp_path)
    status, _, err = call(capsys, *argv)
    assert status == 2 and err.startswith("error: ") and err.count("\n") == 1 and expected in err
    assert not list(tmp_path.iterdir())


def test_a_data_root_that_is_a_file_ends_in_one_line(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    status, _, err = call(capsys, "prepare", "dtd", "--data-root", tmp_path / "file")
    assert status == 2 and "--data-root" in err and err.count("\n") == 1


# ---- --check ---------------------------------------------------------------------------------------------------------


def break_nothing(folder, lists):
    pass


def lose_an_image(folder, lists):
    (folder / "images" / lists["val"][3][0]).unlink()


def spoil_an_image(folder, lists):
    path = folder / "images" / lists["test"][-1][0]
    path.unlink()  # a link that others share
    path.write_bytes(b"rubbish")


def lose_the_split(folder, lists):
    (folder / "split_zhou_DescribableTextures.json").unlink()


def save_a_page_as_split(folder, lists):
    (folder / "split_zhou_DescribableTextures.json").write_text("<html>")


def shorten_a_list(folder, lists):
    rows = {**lists, "train": lists["train"][1:]}
    (folder / "split_zhou_DescribableTextures.json").write_text(json.dumps(rows))


def lose_the_folder(folder, lists):
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    "breaking, expected",
    [
        (break_nothing, ""),
        (lose_an_image, "1 of 15 images"),
        (spoil_an_image, "cannot be read"),
        (lose_the_split, "no split file"),
        (save_a_page_as_split, "JSON"),
        (shorten_a_list, "17 training images, 18 in the paper's Table 1"),
        (lose_the_folder, "no folder"),
    ],
)
def test_check_finds_what_is_wrong_and_changes_nothing(small, tmp_path, capsys, breaking, expected):
    lists = standins.write_split_file_set("dtd", tmp_path)
    breaking(tmp_path / "dtd", lists)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    status, out, _ = call(capsys, "prepare", "dtd", "--check", "--data-root", tmp_path, "--make-split")
    assert status == (1 if expected else 0) and expected in out and out.count("\n") == 2, out
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


def test_check_reads_every_split_and_the_same_sample_each_time(small, tmp_path, monkeypatch):
    standins.write_split_file_set("dtd", tmp_path)
    seen = []
    monkeypatch.setattr("carryover.datasets.images.read_image", lambda path, dataset: seen.append(path.name))
    check_dataset("dtd", str(tmp_path))
    first, seen[:] = list(seen), []
    check_dataset("dtd", str(tmp_path))
    parts = Counter(int(name.split("_")[1].removesuffix(".jpg")) // 100 for name in first)
    assert seen == first and set(parts) == {0, 1, 2} and 15 <= len(first) <= 24


def test_many_broken_pictures_are_counted(small, tmp_path):
    lists = standins.write_split_file_set("dtd", tmp_path)
    for path, *_ in lists["train"] + lists["test"]:
        spoil_an_image(tmp_path / "dtd", {"test": [[path]]})
    finding = check_dataset("dtd", str(tmp_path))
    assert len(finding.problems) == 4 and finding.problems[-1].startswith("and ") and not finding.ready


def test_check_of_an_unknown_id_is_refused(tmp_path):
    with pytest.raises(UserError, match="dtd"):
        check_dataset("micro_stars", str(tmp_path))
