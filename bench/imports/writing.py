"""From a foreign file to a plug-in file of the suite: which format it is, what is missing, and what its header says."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from carryover.bench.engine.plugin_header import described, made_by
from carryover.bench.engine.run_store import PLUGIN_FORMAT, PLUGIN_VERSION
from carryover.bench.errors import UserError, quoted, unknown
from carryover.bench.host.identity import canonical
from carryover.bench.host.tensor_files import write_tensors
from carryover.bench.imports.base import FORMATS, TEMPLATES, Facts, Foreign, Format, Imported
from carryover.bench.imports.names_beside import agreed
from carryover.bench.plan.runs import NUMBERS_VERSION
from carryover.bench.plugins.contract import config_of, made, of_tensors
from carryover.bench.plugins.format import Plugin
from carryover.methods.base import METHODS

SHOWN = 6  # tensors that a message lists


def format_of(file: Foreign, named: str = "") -> type[Format]:
    """The format of that id, or the one that recognises the file. Raises UserError where none does, or several."""
    if named:
        if named not in FORMATS:
            raise unknown("format", named, FORMATS)
        return FORMATS[named]
    found = [id for id in FORMATS if FORMATS[id].recognises(file)]
    if len(found) == 1:
        return FORMATS[found[0]]
    if found:
        raise UserError(f"import: '{file.path}' may be {' or '.join(found)}; say which by --kind")
    more = next((told for id in FORMATS if (told := FORMATS[id].beside(file))), "")
    raise UserError(
        f"import: '{file.path}' is no file of a known kind ({', '.join(FORMATS)}); it holds {held(file)}{more}"
    )


def held(file: Foreign) -> str:
    shown = [f"{quoted(name, 60)} {tuple(value.shape)}" for name, value in list(file.tensors.items())[:SHOWN]]
    more = f" and {len(file.tensors) - SHOWN} more" if len(file.tensors) > SHOWN else ""
    return (", ".join(shown) or "no tensor") + more


def imported(file: Foreign, kind: type[Format], facts: Facts) -> Plugin:
    """The plug-in as its file will hold it. Raises UserError for facts that are missing, and for a file that does not
    make a plug-in."""
    facts.check_texts()
    whole, proven = agreed(file, facts)
    whole.check(f"import: '{file.path}' ({kind.name})", kind.facts(file))
    found = kind.made(file, whole)
    return plugin_of(file, kind, facts, replace(found, proven=(*found.proven, *proven)))


def check_names(file: Foreign, found: Imported, facts: Facts) -> None:
    """Raises UserError for class names that are empty, or stand there twice, unless the dataset or the file's own
    tokens have them so: answers are told by name."""
    names = [name.strip() for name in found.shape.classnames]
    said = "--classes or the file" if facts.classes else "the file"
    twice = found.repeats or (bool(facts.listed) and facts.classes == facts.listed)
    if "" in names:
        raise UserError(f"import: '{file.path}': class name {names.index('') + 1} is empty, as {said} says it")
    first: dict[str, int] = {}
    for number, name in enumerate(names, start=1):
        if first.setdefault(name, number) != number and not twice:
            raise UserError(
                f"import: '{file.path}': the name {quoted(name)} stands twice, as {first[name]} and as {number}; "
                "answers are told by name: give each class one of its own by --classes"
            )


def check_templates(file: Foreign, kind: type[Format]) -> None:
    """Raises UserError for a format that takes no prompts, where some are given."""
    if TEMPLATES not in kind.facts(file):
        raise UserError(f"import: '{file.path}' ({kind.name}) reads no prompts; leave --template out")


def plugin_of(file: Foreign, kind: type[Format], facts: Facts, found: Imported) -> Plugin:
    check_names(file, found, facts)
    tower = facts.tower
    fingerprint = found.fingerprint
    home = described(tower.label, fingerprint, found.shape.width, found.shape.dim, tower.activation or None)
    header: dict[str, Any] = {
        "format": PLUGIN_FORMAT,
        "version": PLUGIN_VERSION,
        "method": found.method,
        "source": None,
        "config": found.config,
        "shape": asdict(found.shape),
        "trained_on": [home],
        "dataset": facts.dataset or file.path.stem,
        "shots": None,
        "seed": None,
        "made_by": made_by(NUMBERS_VERSION),
        "imported": {
            "format": next(id for id in FORMATS if FORMATS[id] is kind),
            "from": file.path.name,
            "sha256": file.sha256,
            "proven": list(found.proven),
            "told": sorted(facts.given),
            "notes": [*file.notes, *found.notes],
        },
    }
    if found.templates:
        header["templates"] = list(found.templates)
    plugin = Plugin(str(file.path), "", found.tensors, header)
    config, wrong = config_of(METHODS[found.method], found.config)
    if config is not None:
        wrong = wrong + of_tensors(made(METHODS[found.method], config, plugin), found.tensors)
    if wrong:
        raise UserError(f"import: '{file.path}' makes no {found.method}: {'; '.join(wrong)}")
    return plugin


def write(plugin: Plugin, to: str | Path) -> int:
    """The file, whole or not at all; returns its size in bytes. The same plug-in is the same bytes."""
    tensors = {name: value.detach().float().contiguous() if value.is_floating_point() else value.contiguous()
               for name, value in plugin.tensors.items()}  # fmt: skip
    write_tensors(Path(to), tensors, {"plugin": canonical(plugin.header)}, "--to")
    return Path(to).stat().st_size
