"""Image features against open_clip's own transform and encoder; identities; crops against torchvision."""

import gc
import json
import math
import random

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as TF
from PIL import Image
from splits_in_memory import split
from tiny_towers import tiny_model, wrap
from torchvision.transforms import InterpolationMode, RandomResizedCrop

from carryover.bench.errors import UserError
from carryover.bench.features.decoding import ahead
from carryover.bench.features.store import FeatureStore
from carryover.bench.features.transforms import crop_box
from carryover.bench.host.identity import canonical
from carryover.bench.host.tensor_files import read_tensors, write_tensors
from carryover.bench.seeds import derive
from carryover.datasets.base import Split

NAMES = ("a", "b")


@pytest.fixture
def store(tiny, tmp_path):
    return FeatureStore(tmp_path / "cache", tiny.base, batch=3)


def files(store):
    return sorted(store.cache.glob("*.safetensors"))


def test_features_are_open_clips_own_transform_and_encoder(tiny, store):
    pictures = split()
    with torch.no_grad():
        expected = torch.cat(
            [tiny.base.model.encode_image(tiny.base.preprocess(image)[None]) for image in pictures.read(range(7))]
        )
    found = store.features(pictures, NAMES)
    assert found.shape == (7, 32) and found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_features_and_views_have_the_bits_of_open_clips_transform_and_torchvisions_crop(tiny, store):
    """Batch by batch through the whole transform; the crop is drawn again here from the documented recipe."""
    pictures, base = split(), tiny.base
    config = base.preprocess_config

    def view(index, v):
        image, rng = pictures.read([index])[0], random.Random(derive("view", 1, v, pictures.keys[index]))
        box = crop_box(image.height, image.width, (0.5, 1.0), rng)
        image = TF.resized_crop(image, *box, [32, 32], InterpolationMode.BICUBIC)
        return TF.normalize(TF.to_tensor(TF.hflip(image) if rng.random() < 0.5 else image), config.mean, config.std)

    def encoded(pixels):
        return torch.cat([base.encode_images(torch.stack(pixels[i : i + 3])) for i in (0, 3, 6)])

    assert torch.equal(store.features(pictures, NAMES), encoded([base.preprocess(i) for i in pictures.read(range(7))]))
    views = store.views(pictures, NAMES, 2, (0.5, 1.0), 1)
    for v in range(2):
        assert torch.equal(views[v], encoded([view(i, v) for i in range(7)]))


def test_a_picture_is_decoded_once_for_all_its_views_and_only_missing_ones_are_made(tiny, store):
    decoded = []

    def read(indices):
        decoded.extend(indices)
        return split().read(indices)

    counted = Split(split().keys, split().labels, read)
    four = store.views(counted, NAMES, 4, (0.5, 1.0), 1)
    assert sorted(decoded) == list(range(7))
    kept = {path: path.stat().st_mtime_ns for path in files(store)}
    for number in (1, 3):
        expected = canonical({"view": number})[1:-1]
        (path,) = [p for p in files(store) if expected in read_tensors(p)[1]["identity"]]
        path.unlink()
        del kept[path]
    decoded.clear()
    again = FeatureStore(store.cache, tiny.base, batch=3)
    assert torch.equal(again.views(counted, NAMES, 4, (0.5, 1.0), 1), four)
    assert sorted(decoded) == list(range(7)) and len(files(store)) == 4
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())


def test_a_stored_file_is_read_and_nothing_is_encoded_again(tiny, store, monkeypatch):
    calls = []
    encode = tiny.base.encode_images
    monkeypatch.setattr(tiny.base, "encode_images", lambda pixels: calls.append(len(pixels)) or encode(pixels))
    first = store.features(split(), NAMES)
    views = store.views(split(), NAMES, 2, (0.5, 1.0), 1)
    assert calls == [3, 3, 1] + [3, 3, 3, 3, 1, 1], "each batch by one view, then by the other"
    assert store.features(split(), NAMES) is first
    again = FeatureStore(store.cache, tiny.base, batch=2)
    assert torch.equal(again.features(split(), NAMES), first)
    assert torch.equal(again.views(split(), NAMES, 2, (0.5, 1.0), 1), views)
    assert len(calls) == 9


def test_more_views_keep_those_already_made(tiny, store):
    two = store.views(split(), NAMES, 2, (0.5, 1.0), 1)
    four = store.views(split(), NAMES, 4, (0.5, 1.0), 1)
    assert two.shape == (2, 7, 32) and torch.equal(four[:2], two)
    assert len(files(store)) == 4


def test_views_differ_from_one_another_and_depend_on_the_picture_not_its_place(tiny, store):
    pictures = split()
    views = store.views(pictures, NAMES, 3, (0.1, 0.5), 1)
    plain = store.features(pictures, NAMES)
    for v in range(3):
        assert not torch.allclose(views[v], plain, atol=1e-3)
        assert not torch.allclose(views[v], views[(v + 1) % 3], atol=1e-3)
    order = [4, 2, 6]
    torch.testing.assert_close(
        store.views(pictures.take(order), NAMES, 3, (0.1, 0.5), 1), views[:, order], rtol=1e-4, atol=1e-5
    )


def test_a_crop_of_the_whole_picture_means_the_test_transform(store):
    assert torch.equal(store.views(split(), NAMES, 5, (1.0, 1.0), 1), store.features(split(), NAMES)[None])


@pytest.mark.parametrize("crop", [(0.5, 1.0), (1.0, 1.0)])
@pytest.mark.parametrize("rows", [2, 3, 7, 100])
def test_rows_of_views_are_features_and_views_of_the_same_pictures(tiny, store, rows, crop):
    found = store.rows(split(), NAMES, 3, crop, 1)
    parts = [part.clone() for part in found.split(rows)]
    there = FeatureStore(store.cache, tiny.base, batch=3)
    expected = torch.cat([there.features(split(), NAMES)[None], there.views(split(), NAMES, 3, crop, 1)]).transpose(
        0, 1
    )
    assert len(found) == 7 and [len(part) for part in parts[:-1]] == [rows] * (len(parts) - 1)
    assert torch.equal(torch.cat(parts), expected)
    assert store.used == there.used, "records name the same files and contents"
    again = [part.clone() for part in there.rows(split(), NAMES, 3, crop, 1).split(rows)]
    assert all(map(torch.equal, again, parts)), "what is in memory too is read alike"


def test_of_many_views_a_batch_of_pictures_is_held_and_never_the_whole(store):
    pictures, rows, views = split(300), 16, 24
    one = rows * (1 + views) * store.backbone.dim * 4

    def held():
        gc.collect()
        storages = {
            x.untyped_storage()
            for x in gc.get_objects()
            if type(x) is torch.Tensor and x.device.type == "cpu" and x.layout == torch.strided
        }
        return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())

    before = held()
    found = store.rows(pictures, NAMES, views, (0.5, 1.0), 1)
    assert held() - before < one, "nothing of what was encoded is kept"
    most = max(held() for _ in found.split(rows)) - before
    assert one <= most < 3 * one < 300 * (1 + views) * store.backbone.dim * 4 / 5


def test_rows_of_a_file_that_was_taken_away_end_in_one_line(store):
    found = store.rows(split(), NAMES, 2, (0.5, 1.0), 1)
    found.paths[1].unlink()
    with pytest.raises(UserError, match="a file is gone or damaged .*; run again"):
        next(found.split(3))


def test_a_file_is_named_by_everything_that_can_change_it(tiny, store, tmp_path):
    other = wrap(tiny_model(9, True), "tiny-base", "quick_gelu")

    def names(which, run):
        before = set(files(which))
        run(which)
        return {path.name for path in set(files(which)) - before}

    made = [names(store, lambda s: s.features(split(), NAMES))]
    for changed in (
        FeatureStore(tmp_path / "b", other),
        FeatureStore(tmp_path / "c", tiny.base, "bf16"),
        FeatureStore(tmp_path / "d", tiny.new),
    ):
        made.append(names(changed, lambda s: s.features(split(), NAMES)))
    made.append(names(store, lambda s: s.features(split(keys=[*"uvwxyz", "p6"]), NAMES)))
    made.append(names(store, lambda s: s.features(split(labels=[0] * 7), NAMES)))
    made.append(names(store, lambda s: s.features(split(6), NAMES)))
    made.append(names(store, lambda s: s.features(split(), ("a", "c"))))
    made.append(names(store, lambda s: s.views(split(), NAMES, 2, (0.5, 1.0), 1)))
    made.append(names(store, lambda s: s.views(split(), NAMES, 1, (0.5, 1.0), 2)))
    made.append(names(store, lambda s: s.views(split(), NAMES, 1, (0.4, 1.0), 1)))
    assert [len(found) for found in made] == [1] * 8 + [2, 1, 1]
    assert len(set().union(*made)) == 12


def test_a_file_of_another_identity_is_refused_and_both_are_printed(tiny, store):
    store.features(split(), NAMES)
    (path,) = files(store)
    tensors, header = read_tensors(path)
    write_tensors(path, tensors, {"identity": header["identity"].replace("fp32", "fp64")})
    with pytest.raises(UserError) as caught:
        FeatureStore(store.cache, tiny.base).features(split(), NAMES)
    expected = canonical({k: v for k, v in json.loads(header["identity"]).items() if k != "sha256"})
    assert expected in str(caught.value) and expected.replace("fp32", "fp64") in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "change", [lambda f: f + 1e-3 * (torch.arange(f.numel()) == 5).view_as(f), lambda f: f.half(), lambda f: f[:, ::2]]
)
def test_features_changed_under_an_honest_header_are_named_and_made_again(tiny, store, caplog, change):
    features = store.features(split(), NAMES)
    (path,) = files(store)
    honest = path.read_bytes()
    tensors, header = read_tensors(path)
    write_tensors(path, {"features": change(tensors["features"]).contiguous()}, header)
    assert path.read_bytes() != honest
    assert torch.equal(FeatureStore(store.cache, tiny.base, batch=3).features(split(), NAMES), features)
    written = json.loads(header["identity"])["sha256"]
    assert path.name in caplog.text and written in caplog.text and caplog.text.count("sha256") == 1
    assert path.read_bytes() == honest


def test_a_damaged_file_is_named_and_made_again(tiny, store, caplog):
    features = store.features(split(), NAMES)
    (path,) = files(store)
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    assert torch.equal(FeatureStore(store.cache, tiny.base, batch=3).features(split(), NAMES), features)
    assert path.name in caplog.text and "damaged" in caplog.text
    assert path.read_bytes() == whole


def test_a_replaced_picture_is_encoded_again_though_its_name_and_size_are_the_same(tiny, tmp_path):
    from carryover.datasets.images import split_of_files

    root, pixels = tmp_path / "pictures", np.random.default_rng(0).integers(0, 256, (2, 40, 40, 3), np.uint8)
    root.mkdir()

    def features():
        given = split_of_files(root, ["a.bmp"], [0])
        return FeatureStore(tmp_path / "cache", tiny.base).features(given, ("thing",))

    Image.fromarray(pixels[0]).save(root / "a.bmp")
    first, size = features(), (root / "a.bmp").stat().st_size
    assert torch.equal(features(), first)
    Image.fromarray(pixels[1]).save(root / "a.bmp")
    assert (root / "a.bmp").stat().st_size == size and not torch.equal(features(), first)


def test_an_unreadable_picture_leaves_no_file_behind(tiny, tmp_path):
    def read(indices):
        if 5 in indices:
            raise UserError("image 'p5' cannot be read")
        return split().read(indices)

    store = FeatureStore(tmp_path / "cache", tiny.base, batch=2)
    with pytest.raises(UserError, match="p5"):
        store.features(Split(split().keys, split().labels, read), NAMES)
    assert not store.cache.exists() or not list(store.cache.iterdir())


def test_no_pictures_give_no_rows(store):
    assert store.features(split(0), NAMES).shape == (0, 32)


def test_batches_come_back_in_order():
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as pool:
        assert list(ahead(pool, lambda i: i * i, list(range(11)), 3)) == [i * i for i in range(11)]


# ---- crops -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "height, width, area",
    [
        (100, 100, (0.08, 1.0)),
        (300, 200, (0.5, 1.0)),
        (64, 64, (0.7, 1.0)),
        (7, 5, (0.08, 1.0)),
        (20, 300, (0.9, 1.0)),
        (300, 20, (0.9, 1.0)),
        (1, 1, (0.08, 1)),
    ],
)
def test_crops_lie_within_the_picture_and_the_ranges(height, width, area):
    rng, fallbacks = random.Random(0), 0
    for _ in range(300):
        top, left, h, w = crop_box(height, width, area, rng)
        assert 0 < h <= height and 0 < w <= width and 0 <= top <= height - h and 0 <= left <= width - w
        if height * width >= 4096 and max(height, width) < 2 * min(height, width):
            slack = 2 / min(h, w)
            assert area[0] - slack <= h * w / (height * width) <= area[1] + slack
            assert 3 / 4 * (1 - slack) <= w / h <= 4 / 3 * (1 + slack)
        fallbacks += (h == height and w != width) or (w == width and h != height)
    if (height, width) in ((20, 300), (300, 20)):  # no crop of 90 % fits: the centre, as wide as the ratio lets it be
        assert fallbacks == 300
        assert (top, left) == ((height - h) // 2, (width - w) // 2)
        assert (h, w) in ((20, round(20 * 4 / 3)), (round(20 / 0.75), 20))


@pytest.mark.parametrize("height, width, area", [(100, 100, (0.08, 1.0)), (120, 90, (0.5, 1.0))])
def test_crops_are_distributed_as_torchvisions(height, width, area):
    count, rng = 3000, random.Random(1)
    ours = np.array([crop_box(height, width, area, rng) for _ in range(count)], float)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        blank = torch.zeros(3, height, width)
        theirs = np.array(
            [RandomResizedCrop.get_params(blank, list(area), [3 / 4, 4 / 3]) for _ in range(count)], float
        )

    def statistics(boxes):
        top, left, h, w = boxes.T
        values = np.stack([top, left, h, w, h * w, np.log(w / h), (h * w) ** 2, np.log(w / h) ** 2, top * left])
        return values.mean(1), values.std(1) / math.sqrt(count)

    (mean, error), (expected, other) = statistics(ours), statistics(theirs)
    assert (np.abs(mean - expected) < 5 * np.hypot(error, other)).all()
