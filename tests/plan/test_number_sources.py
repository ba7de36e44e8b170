"""A change of code that decides numbers is noticed, so that somebody decides whether stored results are old.

A method, with all that it reaches in method files, is hashed into each run's key. Of the suite's own code the keys hold
only ``NUMBERS_VERSION`` and ``FEATURES_VERSION``: hashing it too would throw away weeks of runs for a renamed variable.
Beside the two, ``number_sources.json`` holds a hash of each definition that decides numbers, by its own name: a
definition that is reformatted, commented or moved to another module of the list, and a module that is renamed, are no
change (``bench.host.source_identity``). Where one has changed: raise the version if any bit of a number changes (of a
feature: FEATURES_VERSION), then write the hashes anew:

    PYTHONPATH=src python tests/plan/test_number_sources.py
"""

import json
from pathlib import Path

import pytest

from carryover.bench.features.store import FEATURES_VERSION
from carryover.bench.host.source_files import Source, on_disk
from carryover.bench.host.source_identity import ON_DISK, Library
from carryover.bench.plan.runs import NUMBERS_VERSION

RECORDED = Path(__file__).with_name("number_sources.json")

DECIDE: dict[str, tuple[str, ...]] = {  # whole modules, or what of them is named
    "carryover.bench.backbones.attention": (),
    "carryover.bench.backbones.places": (),
    "carryover.bench.backbones.loading": (),
    "carryover.datasets.micro.words": (),
    "carryover.bench.backbones.configs": (),
    "carryover.bench.backbones.weight_checks": (),
    "carryover.bench.backbones.class_tokens": (),
    "carryover.bench.backbones.bins": (),
    "carryover.bench.backbones.packed": (),
    "carryover.bench.engine.evaluator": (),
    "carryover.bench.engine.carried": (),
    "carryover.bench.engine.one_run": (),
    "carryover.bench.engine.port_runs": (),
    "carryover.bench.engine.run_anchors": (),
    "carryover.bench.ports.checks": (),
    "carryover.bench.training.refresh": (),
    "carryover.bench.features.store": (),
    "carryover.bench.features.decoding": (),
    "carryover.bench.features.pixels": (),
    "carryover.bench.backbones.text_tower": (),
    "carryover.bench.seeds": (),
    "carryover.bench.backbones.text_pass": (),
    "carryover.bench.backbones.products": (),
    "carryover.bench.backbones.whole_pass": (),
    "carryover.bench.backbones.text_parts": (),
    "carryover.bench.backbones.layout": (),
    "carryover.bench.training.chosen": (),
    "carryover.bench.training.generators": (),
    "carryover.bench.training.resident": (),
    "carryover.bench.training.trainer": (),
    "carryover.bench.features.transforms": (),
    "carryover.methods.parts.schedule": (),
    "carryover.methods.parts.optimizer": (),
    "carryover.bench.engine.loaded": ("Loaded.fewshot", "Loaded.test_split", "Loaded.shape_of"),
    "carryover.bench.engine.run_inputs": (),
    "carryover.bench.engine.few_shot": ("at_most", "augments", "view_count"),
    "carryover.datasets.fewshot": (),
    "carryover.datasets.images": (),
    "carryover.datasets.templates": (),
}
DO_NOT = {  # what the modules above import, and why a change of it needs no new version
    "carryover.bench.backbones.archs": "weights and activation are in each key",
    "carryover": "holds a version",
    "carryover.bench.host.tensor_files": "writes and reads bytes; tests hold that they come back",
    "carryover.bench.host.identity": "hashes what it is given",
    "carryover.bench.host.paths": "weights are in each key",
    "carryover.bench.engine.plugin_header": "says what a plug-in is; its tensors are written and read by the store",
    "carryover.bench.backbones.probe": "asks whether runs side by side have the bits that they have alone",
    "carryover.bench.host.claims": "which process does what",
    "carryover.bench.host.processor": "its mode of MKL changes last bits alone, and is in each record",
    "carryover.bench.engine.record_draft": "what a record says beside its numbers",
    "carryover.bench.stats.learning_curves": "marks a finished run by its learning curve",
    "carryover.bench.host.out_of_memory": "what a text pass may keep is in each record",
    "carryover.bench.errors": "says what went wrong",
    "carryover.bench.backbones.sizes": "says where a plug-in cannot go",
    "carryover.methods.asks": "the same",
    "carryover.bench.plan.runs": "settings and options are in each key",
    "carryover.bench.host.processes": "where things run",
    "carryover.bench.host.spawning": "starts processes; what they do stands elsewhere",
    "carryover.bench.host.device": "says where a run was made",
    "carryover.bench.engine.session": "holds the parts that are named above",
    "carryover.bench.engine.options": "where things lie and are done; precision is in each key",
    "carryover.datasets.base": "the pictures of a split are in each key",
    "carryover.datasets.formats": "the pictures that it finds are in each key",
    "carryover.datasets.manifests": "the pictures it gives are in each key",
    "carryover.datasets.withheld": "gives back the labels that were put there",
    "carryover.methods.base": "hashed into each key",
    "carryover.methods.train_config": "hashed into each key",
    "carryover.datasets.micro": "hands on names of its parts",
    "carryover.datasets.micro.checkpoint": "the weights it gives are in each key",
    "carryover.datasets": "the pictures it gives are in each key",
    "carryover.methods": "methods are hashed into each key",
    "carryover.bench.ports.anchors": "hashed into the keys of ported runs, with what their port reaches",
    "carryover.bench.ports.base": "the same",
    "carryover.bench.ports.frozen": "the same",
    "carryover.bench.ports.words": "the nouns it gives are in each key",
}


def definitions(library: Library = ON_DISK, decide: dict[str, tuple[str, ...]] = DECIDE) -> dict[str, str]:
    """Hashes by the name of the definition, several where several modules have one of that name; the modules' other
    statements have no name."""
    found: dict[str, list[str]] = {}
    for module, names in decide.items():
        for name, value in library.hashes(module, names).items():
            found.setdefault(name, []).append(value[:16])
    return {name: " ".join(sorted(found[name])) for name in sorted(found)}


def state() -> dict:
    return {"numbers": NUMBERS_VERSION, "features": FEATURES_VERSION, "definitions": definitions()}


def test_definitions_that_decide_numbers_are_those_that_the_versions_were_last_weighed_against():
    recorded, found = json.loads(RECORDED.read_text()), state()
    before, now = recorded["definitions"], found["definitions"]
    changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    assert found == recorded, f"{changed} decide numbers and have changed, or a version has. {__doc__}"


def test_everything_that_these_modules_import_is_named_as_deciding_or_with_a_reason_why_not():
    met = {}
    for module in DECIDE:
        met |= ON_DISK.imports(on_disk(module))
    full = {name for name, source in met.items() if source.defined or source.statements}
    assert full - {*DECIDE} <= {*DO_NOT}, "say of each whether a change of it can change numbers"
    assert {*DO_NOT} <= {*met}, "no longer imported by what decides: take it out of the list"


ONE, TWO = "carryover.bench.one", "carryover.bench.two"
CODE = {
    ONE: f'from {TWO} import g\n\n\ndef f(x):\n    """Says."""\n    return g(x) + 1  # one\n\n\nN = 3\n',
    TWO: "import torch\n\n\ndef g(x):\n    return torch.exp(x)\n",
}


def found_in(texts: dict[str, str]) -> dict[str, str]:
    sources = {name: Source(name, text) for name, text in texts.items()}
    return definitions(Library(sources.get), {name: () for name in texts})


@pytest.mark.parametrize(
    "texts",
    [
        {
            **CODE,
            ONE: CODE[ONE].replace("Says.", "Says more.").replace("# one", "# two"),
        },
        {**CODE, ONE: "from carryover.bench import two\nN = 3\ndef f(x): return (two.g(x)\n  + 1)\n"},
        {
            "carryover.bench.rooms.first": CODE[ONE],
            TWO: CODE[TWO],
        },
        {
            ONE: CODE[ONE].replace("N = 3\n", ""),
            TWO: CODE[TWO] + "N = 3\n",
        },
        {**CODE, TWO: "from torch import exp\n\ndef g(x: int) -> int:\n    return exp(x)\n"},
    ],
    ids=["commented", "laid out and imported otherwise", "renamed module", "moved definition", "annotated"],
)
def test_what_changes_no_number_is_no_change(texts):
    assert found_in(texts) == found_in(CODE)


@pytest.mark.parametrize(
    "module, old, new, changed",
    [
        ("one", "+ 1", "+ 2", "f"),
        ("one", "+ 1", "- 1", "f"),
        ("one", "+ 1", "+ 1.0", "f"),
        ("one", "g(x)", "N", "f"),
        ("one", "N = 3", "N = 4", "N"),
        ("one", "N = 3", "N = 3\nN += 1", "N"),
        ("one", "N = 3", "N = 3\nf.x = 1", ""),
        ("two", "import torch", "import numpy as torch", "g"),
        ("two", "def g(x)", "@cache\ndef g(x)", "g"),
    ],
)
def test_what_can_change_a_number_is_a_change_of_that_definition(module, old, new, changed):
    before = found_in(CODE)
    after = found_in({**CODE, f"carryover.bench.{module}": CODE[f"carryover.bench.{module}"].replace(old, new)})
    assert {name for name in {*before, *after} if before.get(name) != after.get(name)} == {changed}


def test_of_a_module_of_which_methods_are_named_these_alone_count():
    text = "class A:\n    def f(self):\n        return 1\n\n    def g(self):\n        return 2\n"
    library = Library({"carryover.bench.a": Source("carryover.bench.a", text)}.get)
    assert [*library.hashes("carryover.bench.a", ("A.f",))] == ["A.f"]
    other = Library({"carryover.bench.a": Source("carryover.bench.a", text.replace("2", "3"))}.get)
    assert other.hashes("carryover.bench.a", ("A.f",)) == library.hashes("carryover.bench.a", ("A.f",))
    with pytest.raises(AssertionError, match="not in carryover.bench.a any more"):
        library.hashes("carryover.bench.a", ("A.h",))


if __name__ == "__main__":
    RECORDED.write_text(json.dumps(state(), indent=1) + "\n")
