"""200 photographs of 500 x 375, as JPEG, to the pixels of a 224 tower: threads of one process beside worker processes.

Skipped by default; run ``pytest tests/benchmarks/test_image_loading_speed.py --benchmark-only
--benchmark-group-by=group``. The workers are started before the clock runs.
"""

import numpy as np
import pytest
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from carryover.bench.features import decoding
from carryover.bench.features.transforms import Plain, View, halves
from carryover.bench.host.processes import cores
from carryover.datasets.images import split_of_files

COUNT, VIEWS = 200, 16


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for i in range(COUNT):
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).resize((500, 375), Image.BICUBIC)
        grain = rng.normal(0, 8, (375, 500, 3))
        Image.fromarray((np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8)).save(root / f"{i}.jpg", quality=90)
    return split_of_files(root, [f"{i}.jpg" for i in range(COUNT)], [0] * COUNT)


RECIPES = {
    "test transform": [Plain(halves(image_transform_v2(PreprocessCfg(size=224), is_train=False))[0])],
    f"{VIEWS} views": [View((224, 224), (0.08, 1.0), 1, v) for v in range(VIEWS)],
}


@pytest.mark.parametrize("what", RECIPES)
@pytest.mark.parametrize("workers", [0, cores()], ids=["threads", "one process a core"])
def test_loading(benchmark, photographs, monkeypatch, what, workers):
    benchmark.group = f"{COUNT} JPEGs, {what}"
    monkeypatch.setattr(decoding, "LEAST", 0)
    loader = decoding.Loader(workers)

    def load():
        return sum(part.shape[1] for parts in loader.load(photographs, RECIPES[what], 128) for part in parts)

    assert benchmark.pedantic(load, rounds=3, warmup_rounds=1) == COUNT
    loader.close()


def test_views_from_a_decode_each(benchmark, photographs):
    """What one decode for all views saves: compare with the same group's threads."""
    benchmark.group = f"{COUNT} JPEGs, {VIEWS} views"
    loader = decoding.Loader()

    def load():
        for recipe in RECIPES[f"{VIEWS} views"]:
            for _ in loader.load(photographs, [recipe], 128):
                pass

    benchmark.pedantic(load, rounds=1, warmup_rounds=0)
