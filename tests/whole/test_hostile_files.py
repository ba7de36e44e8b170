"""Files that nobody vouches for: nothing in them runs, nothing leads outside, each is refused in one line or read."""

import ast
import json
import os
import pickle
import re
import struct
import subprocess
import zipfile
import zlib

import pytest
import torch
from checkout import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from local_towers import MICRO, saved_locally
from PIL import Image
from safetensors.torch import load_file
from tiny_caltech import FOLDER, IMAGES, write_split

from carryover import datasets
from carryover.bench.backbones import loading
from carryover.bench.backbones.arch_files import find_arch
from carryover.bench.backbones.archs import Tower
from carryover.bench.cli import main, parsing
from carryover.bench.engine.run_store import RunStore
from carryover.bench.errors import UserError
from carryover.bench.host.identity import canonical, parse_json, sealed
from carryover.bench.host.tensor_files import read_tensors, write_tensors
from carryover.bench.plan import runs
from carryover.bench.plan.settings import Settings, configure, parse_overrides
from carryover.bench.records import recount, schema
from carryover.bench.records.selection import choose
from carryover.datasets import coop_format, manifests
from carryover.datasets.images import read_image
from carryover.datasets.listing import Listing
from carryover.methods import Registered

bounded = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=8)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


def refusal(act, *args) -> str:
    with pytest.raises(UserError) as caught:
        act(*args)
    line = str(caught.value)
    assert "\n" not in line and len(line) < 2000
    return line


# ---- what the sources may not use ------------------------------------------------------------------------------------

MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml", "code", "pty"}
CALLS = {"eval", "exec", "compile", "__import__"}
ATTRIBUTES = {
    "os.system",
    "os.popen",
    "pd.read_pickle",
    "pandas.read_pickle",
    "torch.jit.load",
    "torch.hub.load",
    "np.fromfile",
}


def sources():
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "*.py"], capture_output=True, text=True)
    names = listed.stdout.split() or [
        p.relative_to(ROOT).as_posix() for p in ROOT.rglob("*.py") if ".venv" not in p.parts
    ]
    return [ROOT / name for name in names if name.split("/")[0] in ("bench", "datasets", "methods", "run_all.py")]


def dangers(text):
    """Lines of a source that could run what a file holds."""
    for node in ast.walk(ast.parse(text)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name.split(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [(node.module or "").split(".")[0]]
        if MODULES & set(names):
            yield node.lineno, names
        if not isinstance(node, ast.Call):
            continue
        called, given = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
        loads = called == "torch.load" and given.get("weights_only") != "True"
        bare = called in ("np.load", "numpy.load") and "allow_pickle" not in given  # its default has changed before
        arrays = bare or given.get("allow_pickle", "False") != "False"
        shell = given.get("shell", "False") != "False"
        if called in CALLS | ATTRIBUTES or loads or arrays or shell:
            yield node.lineno, called


def test_no_source_unpickles_evaluates_or_calls_a_shell():
    found = {str(path.relative_to(ROOT)): list(dangers(path.read_text(encoding="utf-8"))) for path in sources()}
    assert len(found) > 60 and not {name: lines for name, lines in found.items() if lines}


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "import yaml",
        "eval(x)",
        "exec(x)",
        "torch.load(p)",
        "torch.load(p, weights_only=False)",
        "np.load(p)",
        "np.load(p, allow_pickle=True)",
        "os.system(x)",
        "subprocess.run(x, shell=True)",
        "import a, marshal",
        "pd.read_pickle(p)",
    ],
)
def test_the_scan_sees_what_it_looks_for(line):
    assert list(dangers(line))


# ---- checkpoints -----------------------------------------------------------------------------------------------------


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def zipped(path, evil, state):
    torch.save({**state, "extra": evil}, path)


def legacy(path, evil, state):
    torch.save({**state, "extra": evil}, path, _use_new_zipfile_serialization=False)


def bare(path, evil, state):
    path.write_bytes(pickle.dumps(evil))


def archived(path, evil, state):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(evil))
        file.writestr("archive/version", "3")


@pytest.mark.parametrize("ending", ["pt", "pth", "bin", "safetensors", "npz"])
@pytest.mark.parametrize("write", [zipped, legacy, bare, archived])
def test_a_malicious_checkpoint_is_refused_and_nothing_of_it_runs(tmp_path, write, ending):
    path, made = tmp_path / f"clip.{ending}", tmp_path / "made"
    write(path, Payload(made), {"positional_embedding": torch.zeros(77, 96)})
    tower = Tower("micro-update", "", "gelu", 96, 96, weights=str(path))
    assert str(path) in refusal(loading.load, tower)
    assert not made.exists()
    pickle.loads(pickle.dumps(Payload(made)))
    assert made.is_dir(), "the payload does what it is for"


def test_a_malicious_model_directory_is_refused_and_nothing_of_it_runs(tmp_path):
    saved_locally(tmp_path / "model", 3, False)
    weights = tmp_path / "model" / "open_clip_model.safetensors"
    torch.save(
        {**load_file(weights), "extra": Payload(tmp_path / "made")}, tmp_path / "model" / "open_clip_pytorch_model.bin"
    )
    weights.unlink()
    (tmp_path / "arch.toml").write_text('[base]\nmodel = "local-dir:model"\n[new]\nmodel = "local-dir:model"\n')
    arch = loading.resolve_arch(find_arch(str(tmp_path / "arch.toml")))
    refusal(loading.load, arch.base)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "config",
    ["", "{", "[]", "null", "{}", '{"model_cfg": 3}', '{"model_cfg": {"embed_dim": "x"}}', "[" * 100000, "\x00"],
)
def test_a_model_directory_of_rubbish_is_one_line(tmp_path, capsys, config):
    saved_locally(tmp_path / "model", 3, False)
    (tmp_path / "model" / "open_clip_config.json").write_text(config)
    (tmp_path / "arch.toml").write_text('[base]\nmodel = "local-dir:model"\n[new]\nmodel = "local-dir:model"\n')
    assert main.main(["--arch", str(tmp_path / "arch.toml"), "--dry-run", "--methods", "coop"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


# ---- safetensors -----------------------------------------------------------------------------------------------------

ONE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def tensors(header, body=bytes(16), length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


HEADERS = {
    "length of exabytes": tensors({"a": ONE}, length=2**63),
    "length of all bits": tensors({"a": ONE}, length=2**64 - 1),
    "length past the end": tensors({"a": ONE}, length=10**6),
    "length of nothing": tensors(b"", length=0),
    "offsets that overlap": tensors({"a": ONE, "b": ONE}),
    "offsets past the end": tensors({"a": {**ONE, "shape": [2**40], "data_offsets": [0, 2**42]}}),
    "offsets turned round": tensors({"a": {**ONE, "data_offsets": [8, 0]}}),
    "offsets below zero": tensors({"a": {**ONE, "data_offsets": [-8, 0]}}),
    "a hole between": tensors({"a": {**ONE, "data_offsets": [8, 16]}}),
    "bytes left over": tensors({"a": ONE}, bytes(99)),
    "a shape that overflows": tensors({"a": {**ONE, "shape": [2**62, 2**62]}}),
    "a shape of another size": tensors({"a": {**ONE, "shape": [3]}}, bytes(8)),
    "no such type": tensors({"a": {**ONE, "dtype": "PY"}}, bytes(8)),
    "no type": tensors({"a": {"shape": [2], "data_offsets": [0, 8]}}, bytes(8)),
    "no JSON": tensors(b"{'a': 1}"),
    "no object": tensors(b"[1, 2]"),
    "no text": tensors(b"\xff\xfe\x00{"),
    "nested": tensors(b'{"a":' * 10000),
    "metadata of numbers": tensors({"__metadata__": {"key": 3}, "a": ONE}, bytes(8)),
    "names twice": tensors(b'{"a":' + json.dumps(ONE).encode() + b',"a":' + json.dumps(ONE).encode() + b"}", bytes(8)),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_a_safetensors_header_that_lies_is_refused_or_gives_what_the_body_holds(tmp_path, kind):
    path = tmp_path / "x.safetensors"
    path.write_bytes(HEADERS[kind])
    try:
        found, _ = read_tensors(path)
    except UserError as error:
        assert "damaged" in str(error) and str(path) in str(error) and "\n" not in str(error)
    else:
        assert kind == "names twice" and {name: value.tolist() for name, value in found.items()} == {"a": [0, 0]}
    tower = Tower("micro-update", "", "gelu", 96, 96, weights=str(path))
    assert str(path) in refusal(loading.load, tower)


@pytest.mark.parametrize(
    "change",
    [
        lambda good: {},
        lambda good: {"base.predicted": good["base.predicted"]},
        lambda good: {**good, "base.label": good["base.label"][:1]},
        lambda good: {**good, "base.label": torch.zeros(2, 2)},
        lambda good: {name: value.bfloat16() for name, value in good.items()},
        lambda good: {name: value.to(torch.float8_e4m3fn) for name, value in good.items()},
        lambda good: {name: value[:0] for name, value in good.items()},
        lambda good: {"..": torch.zeros(1), **good},
    ],
)
def test_predictions_of_another_form_are_a_difference_not_a_crash(tmp_path, change):
    store, good = (
        RunStore(tmp_path, "toy"),
        {f"base.{n}": torch.arange(2, dtype=torch.int32) for n in ("predicted", "label")},
    )
    write_tensors(store.path("predictions", "k"), {n: v.contiguous() for n, v in change(good).items()}, {"key": "k"})
    claim = {"base": {"correct": 2, "count": 2, "accuracy": 100.0}}
    record = {"key": "k", "status": "done", "run": {"dataset": "d", "method": "m", "seed": 1}, "targets": claim}
    _, lines = recount.recount([record], store.read_predictions)
    assert lines and all("k (d, m, seed 1)" in line for line in lines)


@bounded
@given(st.binary(max_size=200), st.integers(0, 300))
def test_bytes_of_any_kind_are_no_tensors_or_are_refused(tmp_path_factory, noise, place):
    path = tmp_path_factory.getbasetemp() / "noise.safetensors"
    good = tensors({"a": ONE}, bytes(8))
    path.write_bytes(good[:place] + noise + good[place + len(noise) :])
    try:
        found, header = read_tensors(path)
        assert all(isinstance(value, torch.Tensor) for value in found.values()) and isinstance(header, dict)
    except UserError as error:
        assert "\n" not in str(error)


kinds = st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.bool])


@bounded
@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
            lambda n: n != "__metadata__"
        ),
        st.tuples(st.lists(st.integers(0, 3), max_size=3), kinds, st.integers(0, 99)),
        max_size=4,
    ),
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=6).filter(lambda n: n not in ("format", "key")),
        values,
        max_size=3,
    ),
)
def test_any_plugin_comes_back_bit_for_bit_and_is_the_same_bytes_each_time(tmp_path_factory, described, metadata):
    store, made = RunStore(tmp_path_factory.getbasetemp(), "plugins"), {}
    for name, (shape, kind, seed) in described.items():
        made[name] = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).mul(9).to(kind)
    store.write_plugin("k", made, metadata)
    first = store.path("plugins", "k").read_bytes()
    found, header = store.read_plugin("k")
    assert header == json.loads(json.dumps(metadata)) and found.keys() == made.keys()
    for name, value in made.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value)
    store.write_plugin("k", made, metadata)
    assert store.path("plugins", "k").read_bytes() == first


# ---- records ---------------------------------------------------------------------------------------------------------


def record(key="k" * 16, **changes):
    run = {"arch": "micro", "dataset": "micro_shapes", "method": "coop", "seed": 1, "shots": 16, "protocol": "micro"}
    run |= {"precision": "fp32", "views": 4, "limit": None, "test": "", "config": {}}
    targets = {role: {"accuracy": 50.0, "correct": 1, "count": 2} for role in ("base", "new")}
    return {"key": key, "status": "done", "run": run, "targets": targets, "started": "2026", **changes}


def write_run(store, text, key="k" * 16):
    path = store.path("runs", key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


RECORDS = {
    "NaN": canonical(record()).replace("50.0", "NaN"),
    "infinity": canonical(record()).replace("50.0", "-Infinity"),
    "more than a float": canonical(record()).replace("50.0", "1e999"),
    "nested": "[" * 200000,
    "nested within": canonical(record(about="x")).replace('"x"', '{"a":' * 50000),
    "a number of a million digits": canonical(record(peak_memory_bytes=7)).replace("7", "7" * 10**6),
    "accuracy as text": canonical(record()).replace("50.0", '"50"'),
    "accuracy true": canonical(record()).replace("50.0", "true"),
    "accuracy of 150": canonical(record()).replace("50.0", "150"),
    "seed as text": canonical(record()).replace('"seed":1', '"seed":"1"'),
    "no method": canonical(record()).replace('"method"', '"methods"'),
    "run a list": canonical(record(run=[1])),
    "key a path": canonical(record("../../k")),
    "key a list": canonical(record(["k"])),
    "trained a path": canonical(record(trained="../../../etc/passwd")),
    "targets a list": canonical(record(targets=[1, 2])),
    "targets of lists": canonical(record(targets={"base": [], "new": []})),
    "names a list": canonical(record(names=["x"])),
    "marks of numbers": canonical(record(marks=[1, {}])),
    "seconds of text": canonical(record(seconds={"fit": "long", "evaluate": []})),
    "an object within versions": canonical(record(versions={"torch": {"a": 1}})),
    "no JSON": "{'key': 1}",
    "nothing": "",
    "no UTF-8": "\udcff",
}


@pytest.mark.parametrize("kind", RECORDS)
def test_a_record_that_no_table_could_read_is_left_out_and_named_and_its_run_done_again(tmp_path, kind):
    store = RunStore(tmp_path, "micro")
    path = write_run(store, "x")
    path.write_bytes(RECORDS[kind].encode("utf-8", "surrogateescape"))
    store.write_record(record("good"))
    assert [found["key"] for found in store.records()] == ["good"]
    (line,) = store.refused()
    assert path.name in line and "is left out" in line and line.isprintable()
    write_tensors(store.path("plugins", "k" * 16), {}, {})
    write_tensors(store.path("predictions", "k" * 16), {}, {})
    assert store.read_record("k" * 16) is None


def mutated(draw_value):
    """A record with one entry, somewhere, replaced."""

    def change(chosen):
        whole, path, new = record(), chosen[0], chosen[1]
        place = whole
        for name in path[:-1]:
            place = place[name]
        place[path[-1]] = new
        return whole

    paths = [(n,) for n in (*record(), *schema.OF_RECORD)] + [("run", n) for n in record()["run"]]
    paths += [("targets", "new"), ("targets", "new", "accuracy"), ("targets", "base", "count"), ("targets", "x")]
    return st.tuples(st.sampled_from(paths), draw_value).map(change)


@settings(bounded, max_examples=20)
@given(mutated(values))
def test_a_record_with_any_entry_replaced_is_left_out_or_all_tables_can_be_made(tmp_path_factory, changed):
    from carryover.bench.backbones import archs
    from carryover.bench.report import outputs, report

    store = RunStore(tmp_path_factory.mktemp("records"), "micro")
    store.write_record(record("good"))
    write_run(store, json.dumps(sealed(changed)))
    chosen = choose(store.records(), archs.ARCHS["micro"], Settings(16, "micro", "fp32", 4, None, methods=Registered()))
    for output in outputs.made_from(chosen).values():
        assert output.csv.count("\n") >= 1 and output.texts.keys() <= {"md", "tex"}
    markdown, page = report.texts(chosen)
    assert markdown and page


@bounded
@given(values.filter(lambda v: v != {}))
def test_any_record_that_is_written_comes_back(tmp_path_factory, curve):
    store, one = RunStore(tmp_path_factory.getbasetemp(), "written"), record(curve=[curve], about="é \u2028 \x00")
    store.write_record(one)
    assert store.records() == [one]


# ---- keys ------------------------------------------------------------------------------------------------------------


def shuffled(value, random):
    if isinstance(value, dict):
        items = [(name, shuffled(inner, random)) for name, inner in value.items()]
        random.shuffle(items)
        return dict(items)
    return [shuffled(inner, random) for inner in value] if isinstance(value, list) else value


@bounded
@given(values, st.randoms(use_true_random=False))
def test_canonical_json_is_one_text_whatever_the_order_and_reads_back(value, random):
    assert canonical(shuffled(value, random)) == canonical(value)
    assert parse_json(canonical(value)) == value and canonical(value).isascii()
    assert runs.key_of(shuffled({"x": value}, random), {"y": value}) == runs.key_of({"x": value}, {"y": value})


@bounded
@given(values, values)
def test_other_content_is_another_key(one, other):
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)  # 1 and 1.0 and true are three
    assert (canonical(one) == canonical(other)) == same
    assert (runs.key_of({"v": one}, {}) == runs.key_of({"v": other}, {})) == same
    assert runs.key_of({"a": one}, {"b": other}) != runs.key_of({"b": other}, {"a": one})


# ---- lists of pictures -----------------------------------------------------------------------------------------------

OUTSIDE = [
    "../secret.jpg",
    "face/../../secret.jpg",
    "./../secret.jpg",
    "/etc/passwd",
    "//etc/passwd",
    "face/..",
    "..",
    ".",
    "",
    "face/",
    "face/\x00.jpg",
    "face\x00/a.jpg",
    "..\\secret.jpg",
    "face\\..\\..\\secret.jpg",
    "C:\\secret.jpg",
    "C:/secret.jpg",
    "~/secret.jpg",
    "face/../../101_ObjectCategories/../secret.jpg",
    "\ud800/x.jpg",
    "face/\udcff.jpg",
    "f" * 5000,
    "a/" * 3000,
    "file:///etc/passwd",
    "http://x/y.jpg",
    "link.jpg",
    "way/secret.jpg",
    "way/sub/x.jpg",
    "way/../secret.jpg",
]


@pytest.mark.parametrize("path", OUTSIDE)
def test_a_split_file_leads_to_no_file_outside_its_folder(caltech, path):
    root, lists = caltech
    images = root / FOLDER / IMAGES
    Image.new("RGB", (8, 8)).save(root / FOLDER / "secret.jpg")
    (images / "link.jpg").symlink_to(root / FOLDER / "secret.jpg")
    (images / "way").symlink_to(root / FOLDER)
    lists["test"][0][0] = path
    write_split(root, lists)
    line = refusal(datasets.load, "caltech101", str(root))
    assert "outside" in line or "missing" in line or "UTF-8" in line
    assert line.isprintable()


@pytest.mark.parametrize("name", ["", "_", " ", "\ud800", "__ _"])
def test_a_class_name_that_no_prompt_can_hold_is_refused(caltech, name):
    root, lists = caltech
    write_split(root, {part: [[p, y, name if y == 0 else n] for p, y, n in rows] for part, rows in lists.items()})
    assert "class name" in refusal(datasets.load, "caltech101", str(root))


rows = st.lists(
    st.one_of(values, st.tuples(st.text(max_size=6), st.integers(-1, 3), st.text(max_size=4)).map(list)), max_size=4
)
splits = st.one_of(values, st.fixed_dictionaries({"train": rows, "val": rows, "test": rows}))


@bounded
@given(splits)
def test_any_json_is_a_split_or_refused_in_one_line(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "split.json"
    path.write_text(json.dumps(content))
    try:
        lists = coop_format.read_lists("dtd", path)
        names = coop_format.read_classnames("dtd", path, lists)
        for part in ("train", "val", "test"):
            coop_format.read_split("dtd", path, lists[part], Listing(path.parent / "none"))
    except UserError as error:
        assert "\n" not in str(error) and str(error).isprintable()
    else:
        assert len(names) and all(name.strip() for name in names)


@bounded
@given(st.text(max_size=30))
def test_no_path_is_allowed_that_the_system_resolves_to_outside(tmp_path_factory, text):
    root = tmp_path_factory.getbasetemp() / "root"
    (root / "a").mkdir(parents=True, exist_ok=True)
    for path in (text, f"a/{text}", f"{text}/a", f"../{text}", f"a/../{text}"):
        try:
            Listing(root).check("x", "list", [path])
        except UserError as error:
            assert str(error).isprintable()
        else:
            pytest.fail(f"{path!r} is no file")


lines = st.one_of(
    st.text(max_size=30),
    values.map(json.dumps),
    st.fixed_dictionaries({"key": scalars, "class": scalars, "label": scalars}).map(json.dumps),
)


@bounded
@given(st.lists(lines, max_size=4))
def test_any_lines_are_a_manifest_or_refused_in_one_line(caltech_readonly, tmp_path_factory, given_lines):
    folder = tmp_path_factory.getbasetemp()
    data = datasets.load("caltech101", str(caltech_readonly[0]))
    (folder / "caltech101-2shot-seed1-train.jsonl").write_text(
        "\n".join(given_lines), encoding="utf-8", errors="replace"
    )
    line = refusal(manifests.read, folder, data, 2, 1)
    assert line.isprintable()


@pytest.mark.parametrize(
    "given", ["../../x", "/etc", "micro_shapes/../x", "folder:", "folder:/", "caltech101\x00", "", "\ud800"]
)
def test_an_id_that_is_a_path_is_no_dataset(given):
    assert refusal(datasets.identify, given)


def test_the_name_of_a_folder_is_its_own_whatever_the_path(tmp_path):
    for name in ("a b", "x..y", "ünï", "<b>", "=1+1"):
        (tmp_path / name / "sub").mkdir(parents=True)
        id = datasets.identify(f"folder:{tmp_path / name / 'sub' / '..'}")
        assert id == f"folder:{name}"
        assert "/" not in manifests.name_of(id, 16, 1, "train")


def test_a_picture_of_too_many_pixels_is_refused(tmp_path):
    """60000 x 60000 pixels in a file of some hundred bytes: no memory is asked for them."""
    path = tmp_path / "bomb.png"
    Image.new("1", (8, 8)).save(path)
    body = bytearray(path.read_bytes())
    body[16:24] = struct.pack(">II", 60000, 60000)
    body[29:33] = struct.pack(">I", zlib.crc32(body[12:29]))
    path.write_bytes(body)
    assert "bomb.png" in refusal(read_image, path)


# ---- command line and TOML -------------------------------------------------------------------------------------------

toml_scalars = st.one_of(
    st.integers(-9, 99).map(str),
    st.text(string := "ab./-", max_size=5).map(json.dumps),
    st.sampled_from(["true", "1.5", "nan", "1979-05-27", "[]", "{}", '["x"]', "[[1]]", "{ a = 1 }"]),
)
keys = st.sampled_from(
    [
        "id",
        "datasets",
        "protocol",
        "base",
        "new",
        "more",
        "controls",
        "model",
        "pretrained",
        "weights",
        "activation",
        "x",
    ]
)
tables = st.sampled_from(
    ["", "[base]", "[new]", "[more.x]", "[more]", "[controls.y]", "[[more]]", "[base.model]", '["a/b"]', "[", "]"]
)


@bounded
@given(st.lists(st.tuples(tables, st.dictionaries(keys, toml_scalars, max_size=3)), max_size=5), st.text(max_size=10))
def test_any_arch_file_is_an_arch_or_refused_in_one_line(tmp_path_factory, parts, noise):
    path = tmp_path_factory.getbasetemp() / "any.toml"
    text = "\n".join([f"{head}\n" + "\n".join(f"{k} = {v}" for k, v in table.items()) for head, table in parts])
    for content in (text, text + noise, MICRO + text):
        path.write_text(content, encoding="utf-8", errors="replace")
        try:
            arch = find_arch(str(path))
            assert re.fullmatch(r"[A-Za-z0-9][\w.-]*", arch.id) and {"base", "new"} <= set(arch.towers)
        except UserError as error:
            assert "\n" not in str(error)


@bounded
@given(
    st.dictionaries(
        st.sampled_from(
            [
                "seeds",
                "shots",
                "datasets",
                "set",
                "suite",
                "fresh",
                "limit",
                "out",
                "debug",
                "data-root",
                "device",
                "x",
                "help",
                "config",
            ]
        ),
        toml_scalars,
        max_size=3,
    )
)
def test_any_config_is_flags_or_refused_in_one_line(tmp_path_factory, table):
    path = tmp_path_factory.getbasetemp() / "flags.toml"
    path.write_text("\n".join(f"{k} = {v}" for k, v in table.items()))
    try:
        args = parsing.parse(["--config", str(path)])
        assert all(isinstance(seed, int) for seed in args.seeds) and args.command == "run"
    except UserError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("option", ["--config", "--arch"])
@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"a = " + b"[" * 50000, b"a" * 100000, b"\x00", b"seeds = 1\nseeds = 2", b"[base]\n[base]"]
)
def test_rubbish_for_toml_is_one_line(tmp_path, capsys, option, content):
    (tmp_path / "x.toml").write_bytes(content)
    assert main.main([option, str(tmp_path / "x.toml"), "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "x.toml" in said


@bounded
@given(
    st.one_of(
        st.text(max_size=20),
        st.tuples(
            st.sampled_from(["coop.lr", "coop.epochs", "*.crop", "coop.start", "contcoop.attention"]),
            st.text("0123456789.,-()[]{}eE'\"+*ntra _", max_size=12),
        ).map("=".join),
    )
)
def test_any_text_for_set_is_an_option_or_refused_in_one_line(text):
    try:
        config = configure(Registered(), "coop", "dtd", 16, "micro", parse_overrides([text], Registered()))
        json.dumps(runs.as_stored(config), allow_nan=False)
        for name, value in vars(configure(Registered(), "coop", "dtd", 16, "micro", {})).items():
            assert type(getattr(config, name)) is type(value)
    except UserError as error:
        assert "\n" not in str(error).replace(text, "")
