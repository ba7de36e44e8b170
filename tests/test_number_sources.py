"""A change of a file that decides numbers is noticed, so that somebody decides whether stored results are old.

Methods' own files and ``methods/base.py`` are hashed into each run's key. Of the suite's own code the keys hold only
``NUMBERS_VERSION`` and ``FEATURES_VERSION``: hashing it too would throw away weeks of runs for a renamed variable.
Beside the two, ``number_sources.json`` holds a hash of each file that decides numbers, comments and docstrings apart.
Where one has changed: raise the version if any bit of a number changes (of a feature: FEATURES_VERSION), then write the
hashes anew:

    python -m tests.test_number_sources
"""

import ast
import hashlib
import io
import json
import tokenize
from pathlib import Path

from carryover.bench.features.store import FEATURES_VERSION
from carryover.bench.plan.runs import NUMBERS_VERSION

ROOT = Path(__file__).resolve().parent.parent
RECORDED = Path(__file__).with_name("number_sources.json")

DECIDE: dict[str, tuple[str, ...]] = {  # whole files, or what of them is named
    "bench/backbones/attention.py": (),
    "bench/backbones/loading.py": (),
    "bench/backbones/class_tokens.py": (),
    "bench/engine/evaluator.py": (),
    "bench/engine/one_run.py": (),
    "bench/features/store.py": (),
    "bench/features/decoding.py": (),
    "bench/features/pixels.py": (),
    "bench/backbones/text_tower.py": (),
    "bench/seeds.py": (),
    "bench/backbones/text_pass.py": (),
    "bench/engine/trainer.py": (),
    "bench/features/transforms.py": (),
    "bench/engine/session.py": (
        "fewshot",
        "test_split",
        "inputs",
        "support",
        "shape_of",
        "make",
    ),
    "bench/engine/few_shot.py": ("at_most", "augments", "view_count"),
    "datasets/fewshot.py": (),
    "datasets/images.py": (),
    "datasets/templates.py": (),
}
DO_NOT = {  # what the files above import, and why a change of it needs no new version
    "bench/backbones/archs.py": "weights and activation are in each key",
    "bench/host/claims.py": "which process does what",
    "bench/engine/record_draft.py": "what a record says beside its numbers",
    "bench/host/out_of_memory.py": "what a text pass may keep is in each record",
    "bench/errors.py": "says what went wrong",
    "bench/plan/runs.py": "settings and options are in each key",
    "bench/plugins/format.py": "says what a plug-in is; its tensors are written and read by the store",
    "bench/backbones/probe.py": "asks whether runs side by side have the bits that they have alone",
    "bench/host/processes.py": "where things run",
    "bench/host/environment.py": "says where a run was made",
    "bench/records/store.py": "writes and reads bytes; tests hold that they come back",
    "datasets/base.py": "the pictures of a split are in each key",
    "datasets/manifests.py": "the pictures it gives are in each key",
    "methods/base.py": "hashed into each key",
    "datasets/micro/checkpoint.py": "the weights it gives are in each key",
    "datasets/__init__.py": "the pictures it gives are in each key",
    "methods/__init__.py": "methods are hashed into each key",
}


def essence(text: str, names: tuple[str, ...] = ()) -> str:
    """The code without comments, docstrings and blank lines; of the named functions alone, where some are named. The
    same in every version of Python."""
    tree, lines = ast.parse(text), text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    wanted = set(range(len(lines))) if not names else set()
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name in names:
            wanted |= set(range(node.lineno - 1, node.end_lineno))
            found.add(node.name)
    assert found == set(names), f"not there any more: {set(names) - found}"
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            wanted -= set(range(node.body[0].lineno - 1, node.body[0].end_lineno))
    return "\n".join(lines[i].rstrip() for i in sorted(wanted) if lines[i].strip())


def sources() -> dict[str, str]:
    texts = {path: essence((ROOT / path).read_text(encoding="utf-8"), names) for path, names in DECIDE.items()}
    return {path: hashlib.sha256(text.encode()).hexdigest()[:16] for path, text in texts.items()}


def state() -> dict:
    return {"numbers": NUMBERS_VERSION, "features": FEATURES_VERSION, "sources": sources()}


def test_files_that_decide_numbers_are_those_that_the_versions_were_last_weighed_against():
    recorded, found = json.loads(RECORDED.read_text()), state()
    changed = [path for path, value in found["sources"].items() if recorded["sources"].get(path) != value]
    assert found == recorded, f"{changed} decide numbers and have changed, or a version has. {__doc__}"


def test_everything_that_these_files_import_is_named_as_deciding_or_with_a_reason_why_not():
    met = set()
    for path in DECIDE:
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            for name in names:
                file = name.replace(".", "/")
                met |= {each for each in (f"{file}.py", f"{file}/__init__.py") if (ROOT / each).is_file()}
    empty = {"bench/__init__.py", "datasets/micro/__init__.py"}
    assert met - empty - {*DECIDE} <= {*DO_NOT}, "say of each whether a change of it can change numbers"


def test_comments_docstrings_and_blank_lines_are_no_change_and_everything_else_is():
    code = 'def f(x):\n    """Says."""\n    return x + 1  # one\n'
    alike = 'def f(x):\n\n    """Says more.\n\n    At length."""\n    # before\n    return x + 1\n'
    assert essence(code) == essence(alike) == "def f(x):\n    return x + 1"
    kept = 'def f(x):\n    return "# no comment"\n'
    assert "# no comment" in essence(kept)
    for old, new in (("1", "2"), ('"""Says."""', "y = 1"), ("return x", "if x:\n        return x")):
        assert essence(code.replace(old, new)) != essence(code)
    both = code + "\n\ndef g():\n    return 2\n"
    assert essence(both, ("g",)) == "def g():\n    return 2"


if __name__ == "__main__":
    RECORDED.write_text(json.dumps(state(), indent=1) + "\n")
