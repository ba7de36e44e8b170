"""The commands: what each is for, and the module that is imported when it is called.

Such a module holds the command's help and its ``main(args)``; what takes long to import, it imports in there.

FLAGS      the flags of ``bench.cli.flags`` that the command reads
EXAMPLES   (what stands behind ``run_all.py``, what that does), two or more
WORDS      its further words as (metavar, help); empty for a command that takes none
NOTE       a paragraph for the head of its help, where there is one
NEEDS      the flags that it cannot do without, as its usage line shows them, where there are any
HELP       what a flag means for this command, where that is not what ``bench.cli.flags`` says
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

from carryover.bench.errors import unknown
from carryover.bench.host.paths import CHECKOUT

COMMANDS = {  # name: one line, module
    "run": ("train, carry over, evaluate, report (the default)", "run"),
    "ls": ("list methods, ports, datasets or archs", "ls"),
    "doctor": ("check machine, weights, data and disk before a long run, and name all that is wrong", "doctor"),
    "prepare": ("download, verify and arrange datasets; with --check only look at what is there", "prepare"),
    "report": ("make tables, figures and the report again from stored records alone", "report"),
    "check": (
        "compare tables, figures and report with the stored predictions, and what is stored with itself",
        "check",
    ),
    "evaluate": ("check that a plug-in file fits a backbone, and measure it there on a dataset", "evaluate"),
    "classify": ("say what a plug-in finds in pictures: names and probabilities", "classify"),
    "import": ("make a plug-in file of a checkpoint, cache, adapter or head that other code wrote", "importing"),
    "port": ("carry a plug-in file over to another backbone, through a map fitted on unlabelled pictures", "port"),
    "map": ("fit a map between two backbones once, for every plug-in of the pair", "map"),
    "export": (
        "copy plug-ins of finished runs to files for elsewhere, each with a card of what was measured",
        "export",
    ),
    "compare": ("put results that someone else has beside the stored ones, with the same statistics", "compare"),
    "merge": ("join other results folders into --out, then report; refuses conflicts by name", "merge"),
    "leaderboard": ("one HTML page over several groups' results folders, to be published", "leaderboard"),
}


def named(word: str) -> str:
    """The command that a word of any case means. Raises UserError for none."""
    if word.lower() not in COMMANDS:
        raise unknown("command", word, COMMANDS)
    return word.lower()


def module_of(command: str) -> ModuleType:
    return importlib.import_module(f"carryover.bench.cli.{COMMANDS[command][1]}")


def program() -> str:
    """What the user called: ``run_all.py`` or ``carryover``."""
    called = Path(sys.argv[0]) if sys.argv else Path()
    if called.stem in ("run_all", "carryover"):
        return "run_all.py" if called.stem == "run_all" else "carryover"
    by_module = called.name == "__main__.py" and called.parent.name == "carryover"
    return "run_all.py" if CHECKOUT and not by_module else "carryover"


def command_line(words: str) -> str:
    return f"python run_all.py {words}" if program() == "run_all.py" else f"carryover {words}"
