"""The plug-in format: what runs write, what is refused and in which words, and the document's own converter."""

import pickle
import re
from dataclasses import asdict, fields
from pathlib import Path

import pytest
import torch
from checkout import ROOT
from safetensors.torch import save_file
from tiny_fits import make
from worlds import rewritten

from carryover.bench.engine import plugin_header
from carryover.bench.engine.plugin_header import header_of
from carryover.bench.engine.run_store import RunStore
from carryover.bench.errors import UserError
from carryover.bench.host.identity import canonical
from carryover.bench.host.tensor_files import read_tensors
from carryover.bench.plan.runs import Run
from carryover.bench.plugins import format
from carryover.bench.plugins.format import Plugin, read
from carryover.methods import source_hash
from carryover.methods.base import METHODS, Shape

SHAPE = {"width": 32, "dim": 32, "classnames": ["a"], "support": 1}
DOCUMENT = ROOT / "docs" / "plugins.md"


@pytest.fixture
def written(tmp_path, tiny):
    """A plug-in as a run writes it."""
    method = make("coop", context_length=4)
    run = Run("tiny", "toy", "coop", 3, 16, "published", "fp32", 2, None, method.config)
    store = RunStore(tmp_path, "tiny")
    store.write_plugin("k" * 16, method.learned(), header_of(run, method, [tiny.base]))
    return store.path("plugins", "k" * 16)


def refusal(path) -> str:
    with pytest.raises(UserError) as caught:
        read(path)
    line = str(caught.value)
    assert "\n" not in line and str(path) in line
    return line


def test_a_runs_plugin_says_what_it_is_and_where_it_was_trained(written, tiny):
    plugin = read(written)
    assert isinstance(plugin, Plugin) and plugin.method == "coop" and list(plugin.tensors) == ["context"]
    assert plugin.header["format"] == "carryover-plugin" and plugin.header["version"] == 1
    assert plugin.home == {
        "backbone": "tiny-base",
        "fingerprint": tiny.base.fingerprint,
        "width": 32,
        "dim": 32,
        "activation": "quick_gelu",
    }
    assert (plugin.header["dataset"], plugin.header["shots"], plugin.header["seed"]) == ("toy", 16, 3)
    assert plugin.header["source"] == source_hash(METHODS["coop"])
    assert plugin.header["config"]["context_length"] == 4 and plugin.shape.classnames[0] == "cat"


def test_every_entry_of_a_methods_shape_is_kept_and_documented(written, tmp_path):
    full = Shape(32, 32, ("cat", "dog"), 4, 3, 2, 48)
    names = [field.name for field in fields(Shape)]
    assert sorted(names) == sorted([*format.OF_SHAPE, *format.MAY_BE_IN_SHAPE])
    path = rewritten(written, tmp_path / "p.safetensors", lambda header: {**header, "shape": asdict(full)})
    assert read(path).shape == full
    assert all(f"`{name}`" in DOCUMENT.read_text(encoding="utf-8") for name in names)
    path = rewritten(written, tmp_path / "p.safetensors", lambda header: {**header, "shape": SHAPE})
    assert read(path).shape == Shape(32, 32, ("a",), 1)


def test_a_directorys_place_is_not_told(tiny):
    found = plugin_header.described("local-dir:/home/someone/models/clip", "ab", 1, 2, None)
    assert found["backbone"] == "local-dir:clip"
    assert plugin_header.described("hf-hub:org/name", None, 1, 2, None)["backbone"] == "hf-hub:org/name"


def test_every_field_of_the_format_is_documented_and_each_that_is_missing_is_named(written, tmp_path):
    text = DOCUMENT.read_text(encoding="utf-8")
    for name in plugin_header.FIELDS:
        assert f"`{name}`" in text, name
        path = rewritten(written, tmp_path / "p.safetensors", lambda header, name=name: {**without(header, name)})
        assert f"field '{name}' is missing" in refusal(path)
    for outer, inner in (("shape", format.OF_SHAPE), ("trained_on", format.OF_BACKBONE)):
        for name in inner:
            assert f"`{name}`" in text, name

            def less(header, outer=outer, name=name):
                part = header[outer][0] if outer == "trained_on" else header[outer]
                del part[name]

            assert f"{name}' is missing" in refusal(rewritten(written, tmp_path / "p.safetensors", less))


def without(header, *names):
    return {name: value for name, value in header.items() if name not in names}


def test_all_that_is_missing_or_of_another_kind_is_named_at_once(written, tmp_path):
    def change(header):
        header |= {"seed": "one", "trained_on": [], "shots": True}
        header["shape"]["width"] = -1
        return without(header, "dataset", "made_by")

    line = refusal(rewritten(written, tmp_path / "p.safetensors", change))
    for part in ("'dataset' is missing", "'made_by' is missing", "seed is str", "no backbone", "shots is bool", "-1"):
        assert part in line


@pytest.mark.parametrize(
    "change, expected",
    [
        ({"version": 3}, "version '3' of carryover-plugin, this program reads versions 1 and 2"),
        ({"version": 2}, "field 'ported' is missing"),
        ({"version": None}, "version 'None'"),
        ({"version": True}, "version 'True'"),
        ({"format": "other"}, "format 'other'"),
        ({"method": "cop"}, "Did you mean 'coop'.*--plugin-dir"),
        ({"shape": {"width": 32, "dim": 32, "classnames": ["a", 3], "support": 1}}, "classnames are not text"),
        ({"shape": {"width": 10**9, "dim": 32, "classnames": ["a"], "support": 1}}, "shape.width is 1000000000"),
        ({"shape": {**SHAPE, "text_layers": 10**6}}, "shape.text_layers is 1000000"),
        ({"shape": {**SHAPE, "image_width": "wide"}}, "shape.image_width is str"),
        ({"trained_on": ["micro-base"]}, r"trained_on\[0\] is no object"),
    ],
)
def test_another_version_format_method_or_kind_is_refused(written, tmp_path, change, expected):
    path = rewritten(written, tmp_path / "p.safetensors", lambda header: {**header, **change})
    assert re.search(expected, refusal(path))


def test_the_format_from_before_versions_names_the_command_that_completes_it(written, tmp_path):
    path = rewritten(written, tmp_path / "p.safetensors", lambda h: {**without(h, "version"), "format": "1"})
    assert f"run_all.py export {'k' * 16}" in refusal(path)


class Trap:
    def __init__(self, made):
        self.made = made

    def __reduce__(self):
        return Path.mkdir, (self.made,)


@pytest.mark.parametrize("ending", ["safetensors", "pt"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_is_refused_as_one_and_never_opened(tmp_path, ending, zipped):
    path, trap = tmp_path / f"plugin.{ending}", Trap(tmp_path / "made")
    torch.save(trap, path) if zipped else path.write_bytes(pickle.dumps(trap))
    assert "is a pickle" in refusal(path)
    assert not trap.made.exists()


def test_files_that_are_no_plugin_say_what_was_expected(tmp_path):
    bare = tmp_path / "bare.safetensors"
    save_file({"a": torch.zeros(1)}, bare)
    assert "no entry 'plugin'" in refusal(bare)
    for text in ("{", "[]", '{"format": NaN}', "[" * 100000):
        save_file({"a": torch.zeros(1)}, bare, metadata={"plugin": text})
        assert "expected a safetensors file of format carryover-plugin, version 1 or 2 (docs/plugins.md)" in refusal(
            bare
        )
    bare.write_bytes(b"x" * 100)
    assert "cannot be read as safetensors" in refusal(bare)
    assert "no file" in refusal(tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize(
    "entry, expected",
    [
        ('"x": 1e999', "'1e999' is more than a float holds"),
        ('"x": [{"y": -2.5e400}]', "'-2.5e400' is more than"),
        ('"dataset": "\\ud800"', "surrogates not allowed"),
        ('"x": {"\\udfff": 1}', "surrogates not allowed"),
        ('"x": ' + "[" * 60 + "]" * 60, "nested more than 50 deep"),
    ],
)
def test_a_header_that_results_could_not_be_written_with_is_refused(written, tmp_path, entry, expected):
    """Written by hand, as ``json.dumps`` of the test would not."""
    tensors, metadata = read_tensors(written)
    text = f"{metadata['plugin'][:-1]},{entry}}}"
    save_file(tensors, tmp_path / "p.safetensors", metadata={"plugin": text})
    line = refusal(tmp_path / "p.safetensors")
    assert expected in line and line.isprintable()


def test_further_fields_of_any_sound_content_are_kept(written, tmp_path):
    fields = {"x": [1.5, 10**400, {"y": [None, "\U0001f600 é"]}], "z": -1e308}
    assert (
        read(rewritten(written, tmp_path / "p.safetensors", lambda h: {**h, **fields})).header.items() >= fields.items()
    )


def test_plugins_that_older_runs_wrote_are_still_read_by_the_store(tmp_path):
    store = RunStore(tmp_path, "tiny")
    path = store.path("plugins", "key")
    path.parent.mkdir(parents=True)
    header = {"format": "1", "key": "key", "method": "coop", "base": "ab"}
    save_file({"context": torch.ones(2)}, path, metadata={"plugin": canonical(header)})
    tensors, metadata = store.read_plugin("key")
    assert tensors["context"].tolist() == [1, 1] and metadata == {"method": "coop", "base": "ab"}
