"""Tiny towers in directories, pictures in a folder, and plug-ins that the suite's own commands trained and exported."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from local_towers import saved_locally
from safetensors.torch import load_file, save_file
from tiny_caltech import picture

from carryover.bench.cli import main
from carryover.bench.host.tensor_files import read_tensors

SETS = {"animals": ("cat", "brown bear", "sea lion", "ant"), "vehicles": ("cat", "red bus", "tram", "canoe")}
METHODS = ("zs-clip", "linear-probe", "tip-adapter-f", "coop", "contcoop", "rada-towers", "clip-lora", "maple", "tpt")
SHORT = ["--shots", "2", "--seeds", "1", "--views", "1", "--set", "*.steps=3", "*.max_iter=5", "*.search_steps=1"]


@dataclass(frozen=True)
class World:
    """``arch``: TOML of the towers ``a`` (base) and ``b``; ``data``: folders of SETS; ``plugins``: exported."""

    home: Path

    @property
    def arch(self) -> Path:
        return self.home / "pair.toml"

    @property
    def out(self) -> Path:
        return self.home / "out"

    def data(self, name="animals") -> str:
        return f"folder:{self.home / name}"

    def plugin(self, method) -> Path:
        (path,) = (self.home / "plugins").glob(f"folder_animals-{method}-seed1-*.safetensors")
        return path

    def record(self, method) -> dict:
        key = self.plugin(method).stem.rsplit("-", 1)[1]
        return json.loads((self.out / "pair" / "runs" / f"{key}.json").read_text())

    def backbone(self, name) -> str:
        return f"local-dir:{self.home / name}"


def begun(home: Path, sets=("animals",)) -> World:
    """Towers and pictures, before any run."""
    world = World(home)
    saved_locally(home / "a", 3, True)
    saved_locally(home / "b", 4, False)
    world.arch.write_text('[base]\nmodel = "local-dir:a"\n[new]\nmodel = "local-dir:b"\n')
    for name in sets:
        pictures_in(home / name, SETS[name])
    return world


def made(home: Path, methods=METHODS) -> World:
    world = begun(home, SETS)
    flags = [
        "--arch",
        str(world.arch),
        "--datasets",
        world.data(),
        "--methods",
        *methods,
        *SHORT,
        "--out",
        str(world.out),
    ]
    quietly("--suite", "main", "--jobs", "1", "--device", "cpu", *flags)
    quietly("export", *flags, "--to", str(home / "plugins"))
    return world


def pictures_in(folder, classes, per_class=12):
    rng = np.random.default_rng(0)
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(per_class):
            picture(rng, label).save(folder / name / f"{i:02}.png")


def quietly(*argv) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        assert main.main([str(word) for word in argv]) == 0, out.getvalue()
    return out.getvalue()


def header_in(path) -> dict:
    return json.loads(read_tensors(path)[1]["plugin"])


def rewritten(path, to, change=lambda header: None, tensors=None):
    """A copy with a changed header, and other tensors where they are given."""
    header = header_in(path)
    header = change(header) or header
    save_file(load_file(path) if tensors is None else tensors, to, metadata={"plugin": json.dumps(header)})
    return to
