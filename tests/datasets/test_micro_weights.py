"""The shipped micro models: what is stored, what is regenerated, and how the update differs from the base."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from checkout import FROM_HERE

from carryover.bench.backbones import loading
from carryover.bench.backbones.archs import ARCHS
from carryover.datasets.micro import checkpoint, pretrain
from carryover.datasets.micro.words import END, PAD, Words, size, vocabulary

ROLES = ("base", "update", "unrelated", "second", "larger", "wider", "siglip")
FILES = {role: checkpoint.WEIGHTS / f"micro-{role}.safetensors" for role in ROLES}
TOWERS = {"update": ARCHS["micro"].new, **ARCHS["micro-all"].towers}
SALTS = {**dict.fromkeys(ROLES, 0), "unrelated": 1, "wider": 2, "siglip": 3}
FROM = {"update": "base", "second": "update", "larger": "base"}  # whose text tower each update started from


@pytest.fixture(scope="module")
def states():
    return {role: checkpoint.read(path) for role, path in FILES.items()}


def splitmix64_finaliser(value):
    """Steele, Lea and Flood 2014, written out over Python integers."""
    mask = (1 << 64) - 1
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
    return value ^ (value >> 31)


def test_the_files_are_small_enough_to_ship():
    sizes = [path.stat().st_size for path in checkpoint.WEIGHTS.glob("*.safetensors")]
    assert len(sizes) == len(FILES) and max(sizes) <= 3_500_000 and sum(sizes) <= 20_000_000


def test_rows_of_tokens_that_no_caption_used_are_their_initial_value(states):
    from safetensors import safe_open

    with safe_open(FILES["base"], "pt") as file:
        trained = set(file.get_tensor("token_ids").tolist())
    untrained = [token for token in range(0, checkpoint.VOCABULARY, 97) if token not in trained]
    rows = {role: state[checkpoint.EMBEDDING][untrained] for role, state in states.items() if role != "siglip"}
    assert all(torch.equal(rows["base"], rows[role]) for role in FROM)
    for role, salt in SALTS.items():
        if role == "siglip":  # its vocabulary is small, and trained whole
            continue
        assert torch.equal(rows[role], checkpoint.initial_rows(untrained, rows[role].shape[1], salt))
    assert abs(float(F.cosine_similarity(rows["base"].flatten(), rows["unrelated"].flatten(), dim=0))) < 0.02
    assert 0.01 < rows["base"].std() < 0.03 and len(untrained) > 400
    some = sorted(trained)
    assert not torch.equal(states["base"][checkpoint.EMBEDDING][some], checkpoint.initial_rows(some, 96))


def test_the_hash_behind_untrained_rows_is_pure_integer_arithmetic():
    from carryover.datasets.micro.hashing import mix

    values = [0, 1, 12345678901234567, 2**64 - 1]
    assert mix(np.array(values, np.uint64)).tolist() == [splitmix64_finaliser(value) for value in values]


@pytest.mark.parametrize("salt", [0, 1])
def test_initial_rows_are_that_hash_of_token_dimension_and_salt(salt):
    def value(token, dimension):
        counter = (token * 2**20 + dimension) ^ splitmix64_finaliser(salt)
        steps = splitmix64_finaliser((splitmix64_finaliser(counter) + 1) % 2**64) >> 53
        return (2 * steps + 1 - 2048) / 2048 / 32

    tokens = [0, 343, 49407]
    expected = [[value(token, dimension) for dimension in range(5)] for token in tokens]
    assert checkpoint.initial_rows(tokens, 5, salt).tolist() == expected


@pytest.mark.parametrize("role", ROLES[1:])
def test_saving_what_was_read_gives_the_same_weights(tmp_path, states, role):
    model = loading.build(f"micro-{role}")
    model.load_state_dict(states[role])
    from safetensors import safe_open

    with safe_open(FILES[role], "pt") as file:
        tokens = file.get_tensor("token_ids").tolist()
    checkpoint.save(model, tmp_path / "again.safetensors", tokens, salt=SALTS[role])
    again = checkpoint.read(tmp_path / "again.safetensors")
    assert again.keys() == states[role].keys()
    assert all(torch.equal(again[name], value) for name, value in states[role].items())


def test_the_unrelated_model_has_the_bases_recipe_and_none_of_its_values(states):
    base, other = (json.loads(checkpoint.metadata(FILES[role])["recipe"]) for role in ("base", "unrelated"))
    differing = {key for key, value in other.items() if base.get(key) != value}
    assert differing == {"name", "seed", "salt"}
    assert checkpoint.config("micro-base") == checkpoint.config("micro-unrelated")
    for name, value in states["base"].items():
        if value.ndim > 1:
            cosine = F.cosine_similarity(value.flatten(), states["unrelated"][name].flatten(), dim=0)
            assert abs(cosine) < 0.5, name


@pytest.mark.parametrize("role", FROM)
def test_an_update_follows_eva_clips_recipe(states, role):
    """Text tower from the one before, changed less in shallow layers; joint space and activation made anew."""
    base, new = states[FROM[role]], states[role]
    assert {n: v.shape for n, v in base.items() if n.startswith("text.")} == {
        n: v.shape for n, v in new.items() if n.startswith("text.")
    }

    def change(part):
        names = [n for n in base if n.startswith(f"text.transformer.resblocks.{part}.") and n.endswith("weight")]
        gap = torch.cat([(new[n] - base[n]).flatten() for n in names]).norm()
        return gap / torch.cat([base[n].flatten() for n in names]).norm()

    assert 0 < change(0) < change(3) < change(5) < 0.5
    cosine = F.cosine_similarity(base["text.text_projection"].flatten(), new["text.text_projection"].flatten(), dim=0)
    assert abs(cosine) < 0.1
    assert (TOWERS["base"].activation, TOWERS[role].activation) == ("quick_gelu", "gelu")


def test_the_further_updates_have_the_updates_recipe_and_say_where_they_started():
    recipes = {role: json.loads(checkpoint.metadata(FILES[role])["recipe"]) for role in ROLES}
    for role, differs in {"second": {"name", "seed", "text_from"}, "larger": {"name", "seed"}}.items():
        assert {k for k, v in recipes["update"].items() if recipes[role][k] != v} == differs
        assert recipes[role]["text_from"] == f"micro-{FROM[role]}"
        assert checkpoint.metadata(FILES[role])["stage"] == "done"
    assert len({recipe["seed"] for recipe in recipes.values()}) == len(ROLES)
    assert checkpoint.config("micro-second") == checkpoint.config("micro-update")


def test_the_larger_update_has_the_larger_vision_tower(states):
    def size(role):
        # not the pooling by attention, which only the base's kind of tower has
        names = [n for n in states[role] if n.startswith("visual.") and "attnpool" not in n and "running" not in n]
        return sum(states[role][name].numel() for name in names)

    assert 2 < size("larger") / size("base") < 3
    total = {r: sum(v.numel() for n, v in states[r].items() if n.startswith("visual.")) for r in ("larger", "update")}
    assert 1.8 < total["larger"] / total["update"] < 2.2


def test_siglips_like_is_what_its_name_says(states):
    """Own words, no causal mask, read at the last position, a projection with a bias, a bias of its logits that was
    trained; nothing of its text tower is the base's."""
    config, words = checkpoint.config("micro-siglip")["text_cfg"], Words()
    assert config["no_causal_mask"] and config["pool_type"] == "last" and config["vocab_size"] == size()
    state = states["siglip"]
    assert state[checkpoint.EMBEDDING].shape == (size(), 96) and "text.text_projection.bias" in state
    assert float(state["logit_bias"]) != -10
    assert words(["A Red star."])[0, :6].tolist() == [*words.encode("a red star ."), END, PAD]
    assert words.encode("zebra") == [vocabulary()[letter] for letter in "zebra"], "a strange word is spelled"
    assert words(["a " * 90]).shape == (1, 32) and words(["a " * 90])[0, -1] == END
    assert max(map(len, map(words.encode, Path(checkpoint.WEIGHTS / "micro-siglip.txt").read_text().split()))) == 1


def test_the_wider_model_has_widths_of_its_own(states):
    config = checkpoint.config("micro-wider")
    assert (
        states["wider"]["text.text_projection"].shape
        == (128, 112)
        == (config["text_cfg"]["width"], config["embed_dim"])
    )


def test_the_sigmoid_loss_is_siglips():
    """Zhai et al. 2023, equation 1, written out pair by pair."""
    torch.manual_seed(0)
    images, texts, t, b = torch.randn(5, 7), torch.randn(5, 7), torch.tensor(3.0), torch.tensor(-1.5)
    x, y = F.normalize(images, dim=-1), F.normalize(texts, dim=-1)
    total = 0.0
    for i in range(5):
        for j in range(5):
            z = 1 if i == j else -1
            total += float(torch.log(1 / (1 + torch.exp(z * (-t * x[i] @ y[j] - b)))))
    assert float(pretrain.pairwise(images, texts, t, b)) == pytest.approx(-total / 5, rel=1e-5)


@pytest.mark.parametrize("role", FILES)
def test_the_shipped_files_load_through_every_check(role):
    tower = TOWERS[role]
    backbone = loading.load(tower)
    assert backbone.text.fast == (role != "siglip") and (backbone.width, backbone.dim) == (tower.width, tower.dim)
    assert 10 < float(backbone.scale) < 100


@pytest.mark.long
def test_the_command_that_trains_them_runs(tmp_path):
    """For the base, for its update, which starts from it, and for the one with a loss and words of its own; the others
    are trained as these are."""
    steps = ["--attribute-steps", "2", "--align-steps", "2", "--precision", "fp32"]
    command = [sys.executable, "-m", "carryover.datasets.micro.pretrain", "--out", str(tmp_path), *steps]
    for role in ("base", "update", "siglip"):
        done = subprocess.run([*command, "--model", role], env=FROM_HERE, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        state = checkpoint.read(tmp_path / f"micro-{role}.safetensors")
        assert checkpoint.metadata(tmp_path / f"micro-{role}.safetensors")["stage"] == "done"
        assert all(torch.isfinite(value).all() for value in state.values() if value.is_floating_point())
