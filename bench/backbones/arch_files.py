"""An arch of the user's own, read from a few lines of TOML. Base and targets may be any models, of any widths and
vocabularies: what a plug-in asks of a target is its own affair (``carryover.methods.asks``)::

datasets = ["dtd", "folder:photos"]     # optional; default: the paper's eleven

[base]
model = "ViT-B-16-quickgelu"            # open_clip name, "hf-hub:ORG/NAME" or "local-dir:PATH"
pretrained = "openai"                   # open_clip tag; or weights = "FILE"; with both, the tag's picture transform

[new]
model = "ViT-B-16-quickgelu"
pretrained = "dfn2b"

[more.laion]                            # further updates, as many as wanted, each with tables of its own
model = "ViT-B-16"
pretrained = "laion2b_s34b_b88k"

[controls.other]                        # compared in layer drift only, as many as wanted
model = "ViT-B-16"
pretrained = "datacomp_xl_s13b_b90k"
"""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

from carryover.bench.backbones.archs import ARCHS, OTHER_ACTIVATION, Arch, Tower
from carryover.bench.errors import UserError, quoted, unknown

KEYS = ("id", "protocol", "datasets", "base", "new", "more", "controls")
TOWER_KEYS = ("model", "pretrained", "weights", "activation")
PROTOCOLS = ("published", "micro")
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # becomes a folder and part of file names
TAKEN = ("base", "new", "paper", "reference", "published", "cache", "evaluations", OTHER_ACTIVATION)


def read_toml(path: Path, what: str) -> dict:
    """Raises UserError for a file that is not there or not TOML; ``what`` says which option named it."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{what}: cannot read '{path}': {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{what}: '{path}' is not TOML: {error}") from None
    except RecursionError:
        raise UserError(f"{what}: '{path}' is nested too deeply") from None


def read_arch(path: Path) -> Arch:
    """The arch that a TOML file describes; paths in it are relative to the file. Raises UserError naming the key."""
    where, values = f"--arch {path}", read_toml(path, "--arch")
    for key in values:
        if key not in KEYS:
            raise unknown(f"key in {path}", key, KEYS)
    id = values.get("id", path.stem)
    # Some file systems take "Micro" for "micro".
    if not isinstance(id, str) or not SAFE_NAME.fullmatch(id) or id.casefold() in (*ARCHS, *TAKEN):
        raise UserError(
            f"{where}: id {quoted(str(id))} names its results folder; expected letters, digits, '.', '_' or '-', and "
            f'none of {", ".join((*ARCHS, *TAKEN))}: add id = "my-pair"'
        )
    protocol = values.get("protocol", "published")
    if protocol not in PROTOCOLS:
        raise unknown(f"protocol in {path}", str(protocol), PROTOCOLS)
    for role in ("base", "new"):
        if not isinstance(values.get(role), dict):
            raise UserError(
                f"{where}: no [{role}] table; expected one with model = … and pretrained = … or weights = …"
            )
    more, controls = (read_named(where, key, values.get(key, {})) for key in ("more", "controls"))
    for name in controls:
        if name in more:
            raise UserError(f"{where}: [controls.{name}]: [more.{name}] has that name; choose another")
    return Arch(
        id,
        read_tower(where, path.parent, "base", values["base"]),
        read_tower(where, path.parent, "new", values["new"]),
        protocol,
        read_datasets(where, path.parent, values.get("datasets", "paper")),
        {name: read_tower(where, path.parent, f"more.{name}", table) for name, table in more.items()},
        str(path),
        {name: read_tower(where, path.parent, f"controls.{name}", table) for name, table in controls.items()},
    )


def read_named(where: str, key: str, tables) -> dict[str, dict]:
    """The tables of [more.NAME] or [controls.NAME] by name."""
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        what = {"more": "further updates", "controls": "controls"}[key]
        raise UserError(f"{where}: expected {what} as [{key}.NAME] tables")
    for name in tables:
        if not SAFE_NAME.fullmatch(name) or name in TAKEN:
            raise UserError(
                f"{where}: [{key}.{name}]: expected a name of letters, digits, '.', '_' or '-', and none of "
                f"{', '.join(TAKEN)}"
            )
    return tables


def read_tower(where: str, folder: Path, role: str, table: dict) -> Tower:
    for key, value in table.items():
        if key not in TOWER_KEYS:
            raise unknown(f"key in [{role}] of {where}", key, TOWER_KEYS)
        if not isinstance(value, str) or not value:
            raise UserError(f"{where}: [{role}] {key} = {value!r}: expected text")
    model, weights = table.get("model", ""), table.get("weights", "")
    if not model:
        raise UserError(
            f"{where}: [{role}] has no model; expected an open_clip name, hf-hub:ORG/NAME or local-dir:PATH"
        )
    if model.startswith("local-dir:"):
        place = folder / model.removeprefix("local-dir:")
        if not (place / "open_clip_config.json").is_file():
            raise UserError(
                f"{where}: [{role}] '{place}' holds no open_clip_config.json; expected a saved open_clip model"
            )
        model = f"local-dir:{place}"
    hosted = Tower(model).hosted
    if hosted and (weights or table.get("pretrained")):
        raise UserError(f"{where}: [{role}] {model} brings its own weights; leave out pretrained and weights")
    if weights and not (folder / weights).is_file():
        raise UserError(
            f"{where}: [{role}] no weights at '{folder / weights}'; expected a .safetensors or .pt checkpoint"
        )
    if not (hosted or weights or table.get("pretrained") or model.startswith("micro-")):
        raise UserError(f'{where}: [{role}] has no weights; add pretrained = "TAG" or weights = "FILE"')
    return Tower(
        model,
        table.get("pretrained", ""),
        table.get("activation", ""),
        weights=weights and str(folder / weights),
        clip_transform=False,  # the model's own
        layers=0,
    )


def read_datasets(where: str, folder: Path, given) -> str | tuple[str, ...]:
    """ "paper", "micro", or ids; folders relative to the file."""
    if given in ("paper", "micro"):
        return given
    if not isinstance(given, list) or not given or not all(isinstance(id, str) for id in given):
        raise UserError(f'{where}: datasets = {given!r}: expected "paper", "micro" or a list of dataset ids')
    return tuple(f"folder:{folder / id.removeprefix('folder:')}" if id.startswith("folder:") else id for id in given)


def find_arch(name: str, base_weights: str = "", new_weights: str = "") -> Arch:
    """The arch of that name or TOML file, with local checkpoints put in. Raises UserError for an unknown one or a
    missing file."""
    if name.endswith(".toml"):
        arch = read_arch(Path(name))
    elif name.lower() in ARCHS:
        arch = ARCHS[name.lower()]
    else:
        raise unknown("arch", name, [*ARCHS, "FILE.toml"])
    for option, path in (("--base-weights", base_weights), ("--new-weights", new_weights)):
        if path and not Path(path).is_file():
            raise UserError(
                f"{option}: no file at '{path}'; give a .safetensors or .pt checkpoint, or leave the option "
                "out to download the published weights"
            )
        tower = arch.base if option == "--base-weights" else arch.new
        if path and tower.hosted:
            raise UserError(
                f"{option}: {tower.model} brings its own weights, so '{path}' would not be read; name the model by its "
                "open_clip name in the arch file to give it a checkpoint"
            )
    base = replace(arch.base, weights=base_weights or arch.base.weights)
    return replace(arch, base=base, new=replace(arch.new, weights=new_weights or arch.new.weights))
