"""The examples of docs/python.md and README, from their own text, in a process that has only the installed package."""

import re

import numpy as np
import pytest
import torch
from checkout import ROOT
from installed import installed, run
from PIL import Image
from plugin_files import plugin_file

from carryover import datasets
from carryover.bench.backbones import loading
from carryover.bench.backbones.names import tower_of
from carryover.bench.plugins.format import read
from carryover.methods.base import Classes

PAGE, README = ((ROOT / name).read_text(encoding="utf-8") for name in ("docs/python.md", "README.md"))


SMALL = "shots=1, views=1, limit=2, set=['*.steps=4']"


def example(name, text=PAGE):
    (code,) = re.findall(rf"<!-- {name} -->\n```python\n(.*?)```", text, re.DOTALL)
    lines = [line for line in code.splitlines() if line and not line.startswith(("import ", "from "))]
    assert len(lines) <= 10
    return code


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return installed(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def backbone():
    return loading.load(tower_of("micro-base"))


@pytest.fixture
def folder(tmp_path, backbone):
    """A plug-in and pictures, one of which is none."""
    data = datasets.load("micro_textures")
    (tmp_path / "PICTURES" / "deep").mkdir(parents=True)
    for i, image in enumerate(data.train.read(range(12))):
        image.save(tmp_path / "PICTURES" / ("deep" if i % 2 else "") / f"{i}.png")
    (tmp_path / "PICTURES" / "deep" / "x.png").write_bytes(b"nothing")
    path = plugin_file(tmp_path / "made", backbone, Classes(data.id, data.classnames, data.templates))
    (tmp_path / "PLUGIN.safetensors").write_bytes(path.read_bytes())
    return tmp_path


def test_a_folder_is_classified(site, folder, backbone):
    lines = run(site, example("classify"), folder).splitlines()
    assert lines[0] == "Plugin(linear-probe of micro-base, 10 classes) fits" and len(lines) == 14
    plugin = read(folder / "PLUGIN.safetensors")
    for line in lines[1:]:
        name, _, told = line.partition(".png ")
        if name.endswith("/x"):
            assert "cannot be read" in told
            continue
        pixels = backbone.preprocess(Image.open(folder / f"{name}.png").convert("RGB"))
        logits = backbone.encode_images(pixels[None]) @ plugin.tensors["weight"].T + plugin.tensors["bias"]
        value, best = logits.softmax(-1)[0].max(0)
        assert told == f"{plugin.shape.classnames[best]} {float(value):.0%}"


def test_readmes_snippet_asks_a_plugin_that_was_ported_to_the_backbone_it_names(site, folder, backbone):
    import carryover

    (code,) = re.findall(r"```python\n(import carryover\n.*?)```", README, re.DOTALL)
    update = carryover.load_backbone("micro-update")
    (folder / "PICTURES" / "deep" / "x.png").unlink()
    ported = carryover.ports.fit("procrustes", folder / "PLUGIN.safetensors", backbone, update, folder / "PICTURES")
    ported.save(folder / "PORTED.safetensors")
    (folder / "PICTURES").rename(folder / "FOLDER")
    printed = run(site, code + "for one, row in zip(names, probabilities): print(one, row.max())", folder)
    pixels = [update.preprocess(Image.open(path).convert("RGB")) for path in in_order(folder / "FOLDER")]
    names, expected = ported.classify(update.encode_images(torch.stack(pixels)))
    found = [line.rsplit(" ", 1) for line in printed.splitlines()]
    assert [name for name, _ in found] == names and len(names) == 12
    np.testing.assert_allclose([float(value) for _, value in found], expected.max(-1).values, atol=1e-5)


def in_order(folder):
    """A folder's own pictures, then those of the folder in it."""
    return [*sorted(folder.glob("*.png")), *sorted(folder.glob("deep/*.png"))]


def test_a_head_is_ported_between_two_embedding_files(site, tmp_path):
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    old = rng.normal(size=(80, 12)) + 1
    weight, bias, order = rng.normal(size=(4, 12)), rng.normal(size=4), rng.permutation(80)
    np.savez(tmp_path / "old.npz", features=old, ids=np.arange(80))
    np.savez(tmp_path / "new.npz", features=(old @ turn)[order] * 3, ids=order)
    np.savez(tmp_path / "head.npz", weight=weight, bias=bias)
    assert run(site, example("head"), tmp_path).strip() == "80 rows, fit 1.000, agreement 1.000"
    with np.load(tmp_path / "head-for-new.npz") as made:
        np.testing.assert_allclose((old @ turn * 3) @ made["weight"].T + made["bias"], old @ weight.T + bias, atol=1e-6)


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.long)])
def test_a_method_of_ones_own_becomes_a_row_of_a_frame_without_a_guard(site, tmp_path, jobs):
    """Worker processes must not run the script again."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "shift.py").write_text(example("method"), encoding="utf-8")
    code = example("run").replace("quiet=True", f"quiet=True, jobs={jobs}, {SMALL}")
    rows = run(site, "print('begun')\n" + code, tmp_path).splitlines()
    assert rows[0] == "begun" and rows.count("begun") == 1
    assert [row.split()[1:3] for row in rows[2:]] == [
        [name, method] for name in ("micro_stars", "average") for method in ("zs-clip", "shift[steps=4]")
    ]
    assert all(0 <= float(number) <= 100 for row in rows[2:] for number in row.split()[3:])
    assert (tmp_path / "results" / "micro" / "tables" / "main.csv").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "results", "script.py"]


UNTOUCHED = """
import logging, multiprocessing, os, random, signal, sys, threading, warnings
import torch
import carryover
assert "/carryover/__init__.py" in carryover.__file__ and "{root}" not in carryover.__file__, carryover.__file__
assert "MKL_CBWR" not in os.environ  # torch was there first
torch.set_num_threads(1)
torch.manual_seed(3)
torch.backends.cuda.matmul.allow_tf32 = True
def state():
    signals = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    root = logging.getLogger()
    torches = torch.get_num_threads(), torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    modes = torch.get_default_dtype(), torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled()
    rest = sys.excepthook, sys.unraisablehook, threading.excepthook, os.getcwd(), list(sys.path), dict(os.environ)
    return signals, list(root.handlers), root.level, *torches, *modes, torch.get_rng_state().tolist(), *rest
carryover.load_plugin  # imports what it needs
before, filters = state(), len(warnings.filters)
plugin = carryover.load_plugin("PLUGIN.safetensors")
assert state() == before, "load_plugin"
backbone = carryover.load_backbone(plugin.backbone)
assert state() == before, "load_backbone"
model = plugin.bind(backbone)
names, probabilities = model.classify(["PICTURES/0.png", "PICTURES/2.png"])
assert abs(probabilities.sum() - 2) < 1e-5 and len(names) == 2
assert state() == before, "classify"
other = carryover.load_backbone("micro-update")
features = torch.randn(40, 96, generator=torch.Generator().manual_seed(0))
ported = carryover.ports.fit("procrustes", plugin, backbone, other, (features, features))
assert state() == before, "fit"
bound = ported.bind(other)
assert bound.classify("PICTURES/0.png")[1].shape == (1, 10)
ported.save("PORTED.safetensors")
again = carryover.load_plugin("PORTED.safetensors")
assert again.backbone == "micro-update" and again.fits(other) is None
assert "it was ported to" in again.fits(backbone)
assert again.bind(other).classify("PICTURES/0.png")[0] == bound.classify("PICTURES/0.png")[0]
assert torch.equal(again.bind(other).logits(features), ported.logits(features))
carryover.run(methods=["shift"], datasets=["micro_stars"], seeds=[1], plugin_dir=["mine"], jobs=1, quiet=True, {small})
assert state() == before, "run"
assert not multiprocessing.active_children() and threading.enumerate() == [threading.main_thread()]
assert len(warnings.filters) == filters
print("well")
"""


def test_calls_leave_the_process_as_it_was_also_where_no_file_is_the_main_module(site, folder):
    (folder / "mine").mkdir()
    (folder / "mine" / "shift.py").write_text(example("method"), encoding="utf-8")
    code = UNTOUCHED.replace("{root}", str(ROOT)).replace("{small}", SMALL)
    assert run(site, code, folder, name="-").strip().splitlines()[-1] == "well"


WRONG = """
import carryover
from carryover.bench.errors import UserError
for call in (
    lambda: carryover.load_plugin("gone.safetensors"),
    lambda: carryover.load_backbone("nothing"),
    lambda: carryover.load_backbone("micro-base", precision="fp8"),
    lambda: carryover.run(methods=["nothing"]),
    lambda: carryover.run(method=["coop"]),
    lambda: carryover.run(datasets=["folder:PICTURES"], methods=["coop"], quiet=True, out="other"),
    lambda: model.classify("PICTURES"),
    lambda: model.classify([3]),
    lambda: model.classify([]),
    lambda: model.logits(backbone.scale),
    lambda: plugin.bind(backbone, classes=["waves", "other"]),
):
    try:
        if "plugin" not in globals():
            plugin, backbone = carryover.load_plugin("PLUGIN.safetensors"), carryover.load_backbone("micro-base")
            model = plugin.bind(backbone)
        call()
    except UserError as error:
        assert "\\n" not in str(error)
        print(error)
print(plugin.fits(backbone, classes=["waves", "other"]))
print(dir(carryover))
try:
    carryover.nothing
except AttributeError as error:
    print(error)
"""


def test_what_is_wrong_is_one_line(site, folder):
    (folder / "PICTURES" / "deep" / "y.png").write_bytes(b"nothing")
    lines = run(site, WRONG, folder).splitlines()
    told = (
        "no file 'gone.safetensors'",
        "unknown --backbone",
        "unknown precision 'fp8'",
        "unknown method 'nothing'",
        "unknown flag of run 'method'. Did you mean 'methods'?",
        "folder:",
        "x.png' cannot be read",
        "a picture is int, expected a path",
        "no picture: expected",
        "features have shape ()",
        "none for 1 of the 2 classes",
        "none for 1 of the 2 classes",
        "'load_plugin'",
        "no attribute 'nothing'",
    )
    assert len(lines) == len(told), lines
    for line, part in zip(lines, told, strict=True):
        assert part in line


def test_other_names_give_the_zero_shot_answers_of_these_names(backbone, folder):
    import carryover

    data = datasets.load("micro_textures")
    path = plugin_file(folder / "more", backbone, Classes(data.id, data.classnames, data.templates), "zs-clip")
    names = ("a dog", "waves")
    bound = carryover.load_plugin(path).bind(backbone, classes=names)
    features = torch.randn(5, backbone.dim, generator=torch.Generator().manual_seed(1))
    text = backbone.zero_shot(Classes("", names, data.templates))
    expected = backbone.scale * torch.nn.functional.normalize(features, dim=-1) @ text.T
    torch.testing.assert_close(bound.logits(features), expected)
    assert bound.names == names and np.array_equal(bound.logits(features.numpy()), bound.logits(features).numpy())
