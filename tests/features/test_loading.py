"""Pictures of every kind through threads and worker processes against Pillow's own RGB; broken ones refused by name."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from checkout import ROOT
from command_line import LOCAL, call, records
from PIL import Image
from standins import write_folder
from tiny_caltech import FOLDER, IMAGES, picture, write_caltech

from carryover.bench.errors import UserError
from carryover.bench.features import decoding
from carryover.bench.features.decoding import Loader, default_workers, roomy
from carryover.bench.features.store import FeatureStore
from carryover.bench.features.transforms import Plain, View
from carryover.datasets.base import Split
from carryover.datasets.images import FileReader, read_image, split_of_files

SIZE = (23, 17)


def keep(image):
    """A transform that changes nothing."""
    return image


def colours():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8))


def turned(path):
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees": not applied, as in the field's loaders
    colours().save(path, exif=exif)


DEEP = np.arange(SIZE[0] * SIZE[1], dtype=np.uint16).reshape(SIZE[1], SIZE[0]) * 150


def deep_grey(path):
    Image.fromarray(DEEP).save(path)


def palette(path):
    colours().quantize(16).save(path, transparency=3)


def clear(mode):
    def save(path):
        image = colours().convert(mode)
        image.putalpha(Image.linear_gradient("L").resize(SIZE))
        image.save(path)

    return save


KINDS = {
    "plain.jpg": lambda path: colours().save(path),
    "turned.jpg": turned,
    "cmyk.jpg": lambda path: colours().convert("CMYK").save(path),
    "grey.jpg": lambda path: colours().convert("L").save(path),
    "palette.png": palette,
    "deep.png": deep_grey,
    "la.png": clear("LA"),
    "rgba.png": clear("RGBA"),
    "bits.png": lambda path: colours().convert("1").save(path),
    "drawn.gif": lambda path: colours().save(path),
    "film.gif": lambda path: colours().save(
        path, save_all=True, append_images=[colours().transpose(Image.Transpose.ROTATE_180)]
    ),
    "web.webp": lambda path: clear("RGBA")(path),
    "deep.tif": deep_grey,
    "misnamed.jpg": lambda path: colours().save(path, format="PNG"),
}


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    root = tmp_path_factory.mktemp("kinds")
    for name, save in KINDS.items():
        save(root / name)
    return split_of_files(root, list(KINDS), [0] * len(KINDS), dataset="kinds")


@pytest.fixture(scope="module")
def processes():
    """Two worker processes that all tests of this file share, as splits do in a session."""
    patch = pytest.MonkeyPatch()
    patch.setattr(decoding, "LEAST", 0)
    loader = Loader(2)
    yield loader
    loader.close()
    patch.undo()


def loaded(loader, split, recipes, batch=4):
    """(R, N, H, H, 3) of the whole split."""
    return torch.cat([torch.cat(parts, 1) for parts in loader.load(split, recipes, batch)], 1)


def test_every_kind_of_picture_is_pillows_rgb_but_deep_grey_in_this_process_and_in_workers(kinds, processes):
    root = kinds.reader.root
    deep = np.repeat((DEEP // 256).astype(np.uint8)[..., None], 3, 2)  # Pillow's RGB has all above 255 white
    expected = np.stack(
        [deep if name.startswith("deep") else np.asarray(Image.open(root / name).convert("RGB")) for name in KINDS]
    )
    assert expected.shape == (len(KINDS), SIZE[1], SIZE[0], 3), "EXIF does not turn a picture"
    assert np.array_equal(np.stack([np.asarray(read_image(root / name)) for name in KINDS]), expected)
    for loader in (Loader(0), processes):
        assert np.array_equal(loaded(loader, kinds, [Plain(keep)])[0].numpy(), expected)
    assert processes._processes is not None and Loader(0)._processes is None


def write_bomb(path):
    """A PNG header that claims 30000 x 30000 pixels."""
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"x") + chunk(b"IEND", b""))


def cut(name, save):
    def write(path):
        whole = path.with_name(name)
        save(whole)
        path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])

    return write


BROKEN = {
    "truncated.jpg": cut("whole.jpg", lambda path: colours().resize((300, 200)).save(path)),
    "truncated.png": cut("whole.png", lambda path: colours().resize((300, 200)).save(path)),
    "truncated.gif": cut("whole.gif", lambda path: colours().resize((300, 200)).save(path)),
    "truncated.webp": cut("whole.webp", lambda path: colours().resize((300, 200)).save(path)),
    "truncated.tif": cut("whole.tif", lambda path: colours().resize((300, 200)).save(path)),
    "empty.jpg": lambda path: path.write_bytes(b""),
    "text.jpg": lambda path: path.write_text("<html>not found</html>"),
    "bomb.png": write_bomb,
    "vanished.jpg": lambda path: None,
    "folder.jpg": lambda path: path.mkdir(),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_picture_that_cannot_be_read_is_refused_by_dataset_and_path(tmp_path, processes, name):
    BROKEN[name](tmp_path / name)
    colours().save(tmp_path / "good.png")
    split = split_of_files(tmp_path, ["good.png"] * 9 + [name, "good.png"], [0] * 11, dataset="mine")
    for loader in (Loader(0), processes):
        with pytest.raises(UserError) as caught:
            loaded(loader, split, [Plain(keep)])
        line = str(caught.value)
        assert line.startswith(f"mine: image '{tmp_path / name}'") and "\n" not in line
        assert len(loaded(loader, split.take(range(9)), [Plain(keep)])[0]) == 9, "what comes after is not disturbed"


def photographs(root, count=11):
    root.mkdir()
    for i in range(count):
        picture(np.random.default_rng(i), i, (50 + i, 38 + 2 * i)).save(root / f"{i}.jpg")
    return split_of_files(root, [f"{i}.jpg" for i in range(count)], [i % 2 for i in range(count)])


def test_features_and_views_have_the_same_bytes_from_threads_and_workers(tiny, tmp_path, processes):
    split, names = photographs(tmp_path / "pictures"), ("a", "b")

    def written(cache, loader):
        store = FeatureStore(cache, tiny.base, batch=4, loader=loader)
        store.features(split, names)
        store.views(split, names, 3, (0.1, 1.0), 1)
        store.features(split.take([3, 1]).take([1]), names)
        return {path.name: path.read_bytes() for path in cache.iterdir()}

    threads = written(tmp_path / "threads", Loader(0))
    assert len(threads) == 5 and written(tmp_path / "processes", processes) == threads


def test_arrays_by_a_pipe_are_the_same_bytes_where_shared_memory_is_small(tmp_path, monkeypatch):
    split, recipes = photographs(tmp_path / "pictures"), [View((32, 32), (0.1, 1.0), 1, v) for v in range(2)]
    monkeypatch.setattr(decoding, "LEAST", 0)
    monkeypatch.setattr(decoding, "SHARED_MEMORY", str(tmp_path))
    monkeypatch.setattr(decoding.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 64 << 20}))
    assert not roomy(2)
    loader = Loader(1)
    assert torch.equal(loaded(loader, split, recipes), loaded(Loader(0), split, recipes))
    loader.close()


def test_small_and_rendered_splits_start_no_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "LEAST", 1000)
    loader, plain = Loader(2), [Plain(keep)]
    assert len(loaded(loader, photographs(tmp_path / "pictures", 1), plain)[0]) == 1
    rendered = Split(("a",) * 1200, np.zeros(1200, np.int64), lambda chosen: [Image.new("RGB", (2, 2)) for _ in chosen])
    assert loaded(loader, rendered, plain, batch=500).shape[1] == 1200
    assert loader._processes is None


def test_the_global_generator_is_not_drawn_from(tmp_path, processes):
    split = photographs(tmp_path / "pictures", 3)
    state = torch.random.get_rng_state()
    loaded(processes, split, [Plain(first)])
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_reader_of_files_carries_only_the_files_chosen():
    split = split_of_files(Path("root"), ["a", "b", "c"], [0, 1, 2], dataset="x").take([2, 0]).take([1, 0])
    assert split.reader == FileReader(Path("root"), ("a", "c"), "x")


@pytest.mark.long
def test_a_dead_worker_is_said_in_one_line_and_the_next_split_is_read(tmp_path, processes):
    split = photographs(tmp_path / "pictures")
    with pytest.raises(UserError, match="--workers"):
        loaded(processes, split, [Plain(end)])
    assert loaded(processes, split, [Plain(first)]).shape[1] == 11


def end(image):
    os._exit(9)


def first(image):
    return image.resize((4, 4))


SLOW = """
import sys, time
sys.path[:0] = sys.argv[1:4]
from pathlib import Path


def main():
    from carryover.bench.features import decoding
    from carryover.bench.features.transforms import Plain
    from carryover.datasets.images import split_of_files
    from test_loading import slow

    decoding.LEAST = 0
    split = split_of_files(Path(sys.argv[4]), ["0.jpg"] * 5000, [0] * 5000)
    for _ in decoding.Loader(2).load(split, [Plain(slow)], 1):
        print(*[w.pid for w in __import__("multiprocessing").active_children()], flush=True)


try:  # without asking for __name__: its workers know nothing of it
    main()
except KeyboardInterrupt:
    sys.exit(130)
"""


def slow(image):
    time.sleep(0.05)
    return image


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs process groups")
def test_no_worker_outlives_a_stopped_or_killed_parent(tmp_path):
    photographs(tmp_path / "pictures", 1)
    (tmp_path / "slow.py").write_text(SLOW)
    ways = (ROOT / "src", ROOT / "tests" / "support", ROOT / "tests" / "features")
    argv = [sys.executable, tmp_path / "slow.py", *ways, tmp_path / "pictures"]
    error = tmp_path / "error"
    with open(error, "w") as err:
        stopped = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=err, text=True, start_new_session=True)
    killed = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    pids = [int(pid) for parent in (stopped, killed) for pid in parent.stdout.readline().split()]
    assert len(pids) == 4
    os.killpg(stopped.pid, signal.SIGINT)  # a terminal sends it to the workers too
    killed.kill()
    assert stopped.wait(60) == 130 and error.read_text() == ""
    killed.wait(60)
    deadline = time.monotonic() + 60
    while any(map(alive, pids)):
        assert time.monotonic() < deadline, "workers are still there"
        time.sleep(0.1)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_processes_are_the_default_only_where_a_gpu_waits():
    assert default_workers("cpu") == 0
    assert 0 <= default_workers("cuda") <= 16


# ---- a whole run -----------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_broken_picture_stops_its_dataset_alone(tmp_path, capsys, monkeypatch):
    root, out = tmp_path / "data", tmp_path / "out"
    write_caltech(root)
    write_folder(tmp_path / "mine", ["ant", "bee"])
    broken = sorted((tmp_path / "mine" / "ant").iterdir())[0]
    broken.unlink()
    broken.write_text("not a picture")
    argv = ["--datasets", f"folder:{tmp_path / 'mine'}", "caltech101", "--data-root", root, "--seeds", 1, "--shots", 16]
    argv += ["--methods", "zs-clip", "linear-probe", "--out", out, *LOCAL]
    monkeypatch.setattr(decoding, "LEAST", 0)
    for workers in (0, 1):
        status, said, err = call(capsys, *argv, "--workers", workers)
        assert status == 1 and "Traceback" not in said + err
        found = {(r["run"]["dataset"], r["run"]["method"]): r for r in map(read, records(out))}
        assert len(found) == 4
        for (dataset, _), record in found.items():
            assert record["status"] == ("done" if dataset == "caltech101" else "failed")
            if dataset == "folder:mine":
                assert record["error"].startswith("folder:mine: image '") and str(broken) in record["error"]
        assert str(broken) in said
    assert (root / FOLDER / IMAGES).is_dir()


@pytest.mark.long
def test_a_dataset_that_vanishes_before_a_worker_process_reads_it_stops_alone(tmp_path, capsys, monkeypatch):
    from carryover.bench.engine import schedule

    root, out = tmp_path / "data", tmp_path / "out"
    write_caltech(root)
    write_folder(tmp_path / "mine", ["ant", "bee"])
    in_workers = schedule.in_workers

    def later(*given):
        (tmp_path / "mine").rename(tmp_path / "away")
        return in_workers(*given)

    monkeypatch.setattr(schedule, "in_workers", later)
    argv = ["--datasets", f"folder:{tmp_path / 'mine'}", "caltech101", "--data-root", root, "--seeds", 1, "--shots", 1]
    status, said, err = call(capsys, *argv, "--methods", "zs-clip", "--out", out, "--jobs", 2, "--device", "cpu")
    assert status == 1 and "Traceback" not in said + err
    by_dataset = {r["run"]["dataset"]: r for r in map(read, records(out))}
    assert by_dataset["caltech101"]["status"] == "done"
    assert by_dataset["folder:mine"]["status"] == "failed" and "no folder" in by_dataset["folder:mine"]["error"]


def read(path):
    return json.loads(path.read_text())
