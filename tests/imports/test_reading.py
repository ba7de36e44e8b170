"""Foreign files as tensors: what is read, what is refused in one line, and that nothing of a file is ever run."""

import io
import os
import pickle
import re
import subprocess
import tarfile
import zipfile
from argparse import Namespace

import joblib
import numpy as np
import pytest
import torch
from dassl_files import checkpoint
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from torch import nn

from carryover.bench.errors import UserError
from carryover.bench.host.identity import sha256_of
from carryover.bench.imports import reading
from carryover.bench.imports.reading import read


def refused(path):
    with pytest.raises(UserError) as caught:
        read(path)
    line = str(caught.value)
    assert "\n" not in line and line.startswith("import: ") and str(path.name if path.is_file() else path) in line
    return line


@pytest.fixture
def state():
    torch.manual_seed(0)
    return {"ctx": torch.randn(4, 8).half(), "token_prefix": torch.randn(3, 1, 8)}


def equal(found, state):
    return list(found) == list(state) and all(
        torch.equal(found[name], state[name]) and found[name].dtype == state[name].dtype for name in state
    )


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("solver", [torch.optim.SGD, torch.optim.Adam, torch.optim.RAdam, torch.optim.AdamW])
@pytest.mark.parametrize("scheduler", [torch.optim.lr_scheduler.CosineAnnealingLR, torch.optim.lr_scheduler.StepLR])
def test_a_checkpoint_with_a_live_scheduler_is_read_without_it(tmp_path, state, solver, scheduler, legacy):
    path = tmp_path / "model.pth.tar-50"
    torch.save(checkpoint(state, solver, scheduler), path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    found = read(path)
    assert equal(found.tensors, state) and found.plain == {"epoch": 50, "val_result": None}
    assert found.notes == ("passed over, as only training needs it: optimizer, scheduler",)
    assert found.path == path and found.sha256 == sha256_of(path)


def test_stand_ins_do_not_stay_behind(tmp_path, state):
    path = tmp_path / "a.pt"
    torch.save(checkpoint(state), path)
    before = set(torch.serialization.get_safe_globals())  # in no order of its own
    read(path)
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize("name", ["adapter.pt", "weights.bin", "last.ckpt", "old", "x.safetensors"])
def test_names_say_nothing_of_what_a_file_is(tmp_path, state, name):
    torch.save(state, tmp_path / name)
    assert equal(read(tmp_path / name).tensors, state)
    save_file(state, tmp_path / name)
    assert equal(read(tmp_path / name).tensors, state)


def test_nested_states_become_dotted_names_and_plain_values_stay_plain(tmp_path):
    a, b = torch.randn(2, 3), torch.randn(3, 2)
    lora = {"weights": {"layer_0": {"q_proj": {"w_lora_A": a, "w_lora_B": b}}}, "metadata": {"r": 2, "params": ["q"]}}
    torch.save(lora, tmp_path / "lora.pt")
    found = read(tmp_path / "lora.pt")
    assert list(found.tensors) == ["layer_0.q_proj.w_lora_A", "layer_0.q_proj.w_lora_B"]
    assert found.plain == {"metadata": {"r": 2, "params": ["q"]}} and not found.notes

    torch.save(
        {"model": {"state_dict": {"module.fc.weight": a, "module.fc.bias": b[0]}}, "args": Namespace(lr=1)},
        tmp_path / "m",
    )
    found = read(tmp_path / "m")
    assert list(found.tensors) == ["fc.weight", "fc.bias"] and found.notes == (
        "passed over, as only training needs it: args",
    )

    torch.save([a], tmp_path / "list")
    assert "holds one list" in refused(tmp_path / "list")
    torch.save({"rows": [a, b], 3: a, "classes": ("cat", "dog"), "size": a.shape}, tmp_path / "rows")
    found = read(tmp_path / "rows")
    assert list(found.tensors) == ["rows.0", "rows.1", "3"]
    assert found.plain == {"classes": ["cat", "dog"], "size": [2, 3]}


def test_tensors_beside_those_that_were_taken_are_named_as_such(tmp_path, state):
    torch.save({"state_dict": state, "ema": {"module": dict(state)}, "optimizer": {"state": {}}}, tmp_path / "a.pt")
    assert read(tmp_path / "a.pt").notes == (
        "passed over, as only training needs it: optimizer",
        "passed over, as 'state_dict' was taken: ema",
    )


def test_a_tensor_alone_and_a_parameter(tmp_path):
    value = nn.Parameter(torch.randn(3, 4))
    for one in (value, value.data, value.data.t()):
        torch.save(one, tmp_path / "t.pt")
        found = read(tmp_path / "t.pt").tensors
        assert list(found) == ["tensor"] and torch.equal(found["tensor"], one) and type(found["tensor"]) is torch.Tensor
        assert not found["tensor"].requires_grad


def test_numpy_scalars_are_passed_over(tmp_path, state):
    torch.save({**state, "best": {"accuracy": np.float64(3.5)}, "epoch": 2}, tmp_path / "c.pt")
    found = read(tmp_path / "c.pt")
    assert equal(found.tensors, state) and found.plain == {"epoch": 2}
    assert found.notes == ("passed over, as only training needs it: best",)


def test_arrays_of_numpy(tmp_path):
    coef, classes = np.random.default_rng(0).normal(size=(3, 5)), np.array(["cat", "dog", "owl"])
    np.savez(
        tmp_path / "h.npz", coef_=coef, big=coef.astype(">f4"), turned=np.asfortranarray(coef), classes_=classes, k=3
    )
    found = read(tmp_path / "h.npz")
    assert torch.equal(found.tensors["coef_"], torch.from_numpy(coef))
    assert torch.equal(found.tensors["big"], torch.from_numpy(coef.astype("f4")))
    assert torch.equal(found.tensors["turned"], found.tensors["coef_"]) and found.tensors["k"] == 3
    assert found.plain == {"classes_": ["cat", "dog", "owl"]}
    np.savez_compressed(tmp_path / "z.npz", coef_=coef)
    assert torch.equal(read(tmp_path / "z.npz").tensors["coef_"], torch.from_numpy(coef))
    np.save(tmp_path / "a.npy", coef.astype("f2"))
    assert torch.equal(read(tmp_path / "a.npy").tensors["tensor"], torch.from_numpy(coef.astype("f2")))


# ---- folders ---------------------------------------------------------------------------------------------------------


def test_a_folder_of_peft_and_any_of_its_files(tmp_path):
    value = {"base_model.model.x.lora_A.weight": torch.ones(2, 3)}
    save_file(value, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text('{"r": 2}')
    for path in (tmp_path, tmp_path / "adapter_config.json", tmp_path / "adapter_model.safetensors"):
        found = read(path)
        assert equal(found.tensors, value) and found.plain == {"adapter_config": {"r": 2}} and found.path == tmp_path
    (tmp_path / "adapter_config.json").write_text("[" * 100_000)
    assert "no configuration of peft" in refused(tmp_path)
    (tmp_path / "adapter_model.safetensors").unlink()
    assert "expected both" in refused(tmp_path)


def test_a_cache_of_tip_adapter_and_its_shots(tmp_path):
    keys, values, best = torch.randn(8, 6).half(), torch.eye(6)[:, :3].half(), nn.Parameter(torch.randn(6, 8))
    torch.save(keys.t().contiguous().t(), tmp_path / "keys_2shots.pt")
    torch.save(values, tmp_path / "values_2shots.pt")
    found = read(tmp_path)
    assert equal(found.tensors, {"keys": keys, "values": values}) and found.plain == {"shots": 2}
    torch.save(best, tmp_path / "best_F_2shots.pt")
    for path in (tmp_path, tmp_path / "keys_2shots.pt", tmp_path / "best_F_2shots.pt"):
        assert equal(read(path).tensors, {"keys": keys, "values": values, "best_F": best.data})
    torch.save(keys, tmp_path / "keys_16shots.pt")
    assert "caches of 2, 16 shots; give the keys file of one" in refused(tmp_path)
    assert "lacks 'values_16shots.pt' beside it" in refused(tmp_path / "keys_16shots.pt")


def test_an_output_folder_of_dassl_at_each_of_its_levels(tmp_path, state):
    place = tmp_path / "coop" / "nctx4_cscFalse_ctpend" / "seed1"
    trainer = place / "prompt_learner"
    trainer.mkdir(parents=True)
    for epoch in (5, 10):
        torch.save(
            checkpoint({**state, "epoch_was": torch.tensor(epoch)}, epoch=epoch), trainer / f"model.pth.tar-{epoch}"
        )
    (trainer / "checkpoint").write_text("model.pth.tar-10\n")
    (place / "log.txt").write_text("TRAINER:\n  COOP:\n    CLASS_TOKEN_POSITION: end\n" + "x" * 10**6)
    for path in (place, trainer, trainer / "model.pth.tar-10"):
        found = read(path)
        assert found.tensors["epoch_was"] == 10 and found.path == trainer / "model.pth.tar-10"
        assert "CLASS_TOKEN_POSITION: end" in found.plain["log"] and len(found.plain["log"]) <= 100_000
    assert read(place).notes[0] == "of the epochs 5, 10 there, 'prompt_learner/model.pth.tar-10' was taken"
    torch.save(checkpoint({**state, "epoch_was": torch.tensor(7)}), trainer / "model-best.pth.tar")
    assert read(place).tensors["epoch_was"] == 7
    assert read(place).notes[0] == "of the checkpoints there, 'prompt_learner/model-best.pth.tar' was taken"
    for epoch in (5, 10):
        (trainer / f"model.pth.tar-{epoch}").unlink()
    assert read(place).notes[0] == "'prompt_learner/model-best.pth.tar' was taken"
    assert not any("was taken" in note for note in read(trainer / "model-best.pth.tar").notes)
    (place / "clip_adapter").mkdir()
    torch.save(checkpoint(state), place / "clip_adapter" / "model.pth.tar-1")
    assert "checkpoints in 'clip_adapter', 'prompt_learner'; give one" in refused(place)
    assert "holds no adapter_config.json, no keys_*shots.pt" in refused(tmp_path)


# ---- what is refused -------------------------------------------------------------------------------------------------


class Calls:
    """Pickled, a call of any function."""

    def __init__(self, function, *args, state=None):
        self.function, self.args, self.state = function, args, state

    def __reduce__(self):
        return (self.function, self.args, self.state) if self.state is not None else (self.function, self.args)


def attacks(marker):
    command = f"open({str(marker)!r}, 'w').close()"
    shell = f"touch {marker}"
    yield "os.system", Calls(os.system, shell)
    yield "builtins.eval", Calls(eval, command)
    yield "builtins.exec", Calls(exec, command)
    yield "builtins.getattr", Calls(getattr, Calls(__import__, "os"), "system")
    yield "subprocess.Popen", Calls(subprocess.Popen, ["touch", str(marker)])
    yield "a state of an optimiser", Calls(torch.optim.SGD.__new__, torch.optim.SGD, state=Calls(os.system, shell))
    objects = np.array([Calls(os.system, shell)], dtype=object)
    yield "numpy objects", objects
    yield "a module", nn.Linear(2, 2)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("number", range(8))
@pytest.mark.parametrize("place", ["alone", "in the state", "in the scheduler", "as a key"])
def test_nothing_of_a_malicious_file_is_run(tmp_path, state, number, place, legacy):
    marker = tmp_path / "ran"
    _, evil = list(attacks(marker))[number]
    held = {
        "alone": evil,
        "in the state": {"state_dict": {**state, "x": evil}},
        "in the scheduler": checkpoint(state, scheduler=torch.optim.lr_scheduler.CosineAnnealingLR),
        "as a key": {(1, 2): evil, **state},
    }[place]
    if place == "in the scheduler":
        held["scheduler"]["successor"].__dict__["more"] = evil  # what its __setstate__ would be given
    path = tmp_path / "model.pth.tar-1"
    torch.save(held, path, _use_new_zipfile_serialization=not legacy)
    line = refused(path)
    assert not marker.exists()
    assert "asks for " in line and "nothing of it was run" in line


def test_the_attacks_of_this_file_do_run_elsewhere(tmp_path):
    marker = tmp_path / "ran"
    for name, evil in list(attacks(marker))[:3]:
        data = pickle.dumps(evil)
        pickle.loads(data)
        assert marker.exists(), name
        marker.unlink()


@pytest.mark.parametrize("name", ["os.system", "posix.system", "builtins.eval"])
def test_the_line_names_what_the_file_asks_for(tmp_path, name):
    evil = {
        "os.system": Calls(os.system, "true"),
        "posix.system": Calls(os.system, "true"),
        "builtins.eval": Calls(eval, "1"),
    }
    torch.save({"a": evil[name]}, tmp_path / "a.pt")
    assert re.search(rf"asks for {'posix.system' if 'system' in name else name},", refused(tmp_path / "a.pt"))


@pytest.mark.parametrize("protocol", range(6))
def test_bare_pickles_are_refused_whatever_their_protocol(tmp_path, protocol):
    marker = tmp_path / "ran"
    for name, evil in attacks(marker):
        if name == "a module":
            continue
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(evil, protocol))
        refused(tmp_path / "a.pkl")
    assert not marker.exists()


def test_scikit_learns_models_and_what_to_do(tmp_path):
    model = LogisticRegression().fit(np.eye(3), [0, 1, 2])
    for name, options in {"a.joblib": {}, "b.joblib.gz": {"compress": 3}}.items():
        joblib.dump(model, tmp_path / name, **options)
        assert "coef_ and intercept_ by numpy.savez" in refused(tmp_path / name)
    (tmp_path / "c.pkl").write_bytes(pickle.dumps(model))
    assert "is a pickle of scikit-learn" in refused(tmp_path / "c.pkl")
    torch.save(model, tmp_path / "d.pt")
    assert "coef_ and intercept_ by numpy.savez" in refused(tmp_path / "d.pt")


def test_modules_and_programs_of_torch_and_what_to_do(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "m.pt")
    line = refused(tmp_path / "m.pt")
    assert "asks for torch.nn.modules.linear.Linear" in line and "save the state_dict() alone by torch.save" in line
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), str(tmp_path / "s.pt"))
    assert "TorchScript archive, which is a program and is not run" in refused(tmp_path / "s.pt")


def zipped(path, **members):
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(name.replace("__", "/"), data)


def test_other_files_by_what_they_are(tmp_path, state):
    path = tmp_path / "f"
    zipped(path, **{"saved_model.pb": b"x"})
    assert "Keras" in refused(path)
    zipped(path, **{"readme.txt": b"x"})
    assert "archive of something else" in refused(path)
    for start, word in {
        b"\x89HDF\r\n": "HDF5",
        b"version https://git-lfs.github.com/spec/v1\n": "git lfs pull",
        b"\n<!DOCTYPE html>": "web page",
        b"hello": "no file of a kind that is read",
        b"": "is empty",
    }.items():
        path.write_bytes(start)
        assert word in refused(path)
    with tarfile.open(path, "w") as file:
        file.add(__file__, "x")
    assert "tar archive: unpack it" in refused(path)
    save_file({"a": torch.ones(1)}, path, metadata={"plugin": "{}"})
    assert "is a plug-in of this suite already" in refused(path)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors", "npz", "npy"])
def test_cut_and_changed_files_are_one_line(tmp_path, state, kind):
    path, rng = tmp_path / "whole", np.random.default_rng(0)
    if kind in ("zip", "legacy"):
        torch.save(checkpoint(state), path, _use_new_zipfile_serialization=kind == "zip")
    elif kind == "safetensors":
        save_file(state, path)
    else:
        with open(path, "wb") as file:
            np.savez(file, a=np.ones((5, 5))) if kind == "npz" else np.save(file, np.ones((5, 5)))
    data = path.read_bytes()
    for count in (1, 4, 9, 20, len(data) // 3, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:count])
        refused(path)
    for _ in range(60):  # a byte that is another: read, or one line
        changed = bytearray(data)
        changed[rng.integers(len(data))] ^= 1 << rng.integers(8)
        path.write_bytes(changed)
        try:
            read(path)
        except UserError as error:
            assert "\n" not in str(error)


def test_headers_that_promise_more_than_there_is(tmp_path):
    path = tmp_path / "a"
    path.write_bytes((1 << 60).to_bytes(8, "little") + b"{" + b" " * 100)
    assert "its header should have 1152921504606846976 bytes" in refused(path)
    path.write_bytes((50_000_000).to_bytes(8, "little") + b'{"a":')
    refused(path)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**9, 10**9)})
    path.write_bytes(header.getvalue())
    assert "is more than the file holds" in refused(path)
    zipped(path, **{"a.npy": header.getvalue()})
    assert "is more than the file holds" in refused(path)
    np.savez(path.with_suffix(".npz"), a=np.array([{}], dtype=object))
    assert "Python objects, which are not opened" in refused(path.with_suffix(".npz"))
    torch.save({"a": torch.ones(1).expand(10**6, 10**6)}, path)
    assert "is larger than what the file holds" in refused(path)
    torch.save({"a": torch.eye(3).to_sparse()}, path)
    assert "no dense tensor" in refused(path)


def test_packed_archives_and_endless_nests_are_refused(tmp_path):
    path, packed = tmp_path / "a.pt", tmp_path / "b.pt"
    torch.save({"a": torch.zeros(10**6)}, path)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert "is a packed archive" in refused(packed)
    loop: dict = {"x": torch.ones(1)}
    loop["self"] = loop
    torch.save(loop, path)
    assert "nested" in refused(path) or "entries" in refused(path)
    many = ["x"]
    for _ in range(12):
        many = [many] * 10
    torch.save({"a": torch.ones(1), "b": many}, path)
    assert "holds more than 1000000 entries" in refused(path)


def test_packed_arrays_are_read_unless_they_unpack_to_an_absurd_size(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    values = np.random.default_rng(0).normal(size=(500, 64))
    np.savez_compressed(path, weight=values, bias=np.zeros(500_000))
    assert (read(path).tensors["weight"].numpy() == values).all()
    bomb = tmp_path / "bomb.npz"
    np.savez_compressed(bomb, weight=np.zeros((1100, 8192)))  # 69 MB of 70 KB
    monkeypatch.setattr(reading, "of_stream", lambda *given: pytest.fail("it was unpacked"))
    assert "would unpack to 69 MB: at most 4 GB and 100 times its size" in refused(bomb)
    monkeypatch.setattr(reading, "LARGEST_PACKED", 1 << 18)
    assert "would unpack to 4 MB" in refused(path)


def test_what_is_no_file(tmp_path):
    assert "no file or folder" in refused(tmp_path / "gone")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "cannot be read" in refused(tmp_path / "loop")
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    assert "no file or folder" in refused(tmp_path / "broken")
    os.mkfifo(tmp_path / "pipe")
    assert "it is a pipe and no file" in refused(tmp_path / "pipe") or "cannot be read" in refused(tmp_path / "pipe")
    (tmp_path / "empty").mkdir()
    assert "give a file" in refused(tmp_path / "empty")
    (tmp_path / "x" / "prompt_learner").mkdir(parents=True)
    (tmp_path / "x" / "prompt_learner" / "model.pth.tar-3").mkdir()
    line = refused(tmp_path / "x")
    assert "\n" not in line
