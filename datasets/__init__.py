"""Datasets by id. Micro sets are rendered, the others read from a data root in CoOp's layout or a folder of yours.

This folder shares its name with a package that many people have installed; nothing here imports that one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from carryover.bench.errors import UserError, quoted, unknown
from carryover.datasets import coop_format, fgvc, folder, imagenet, micro
from carryover.datasets.base import Dataset

PAPER_ORDER = (
    "imagenet",
    "caltech101",
    "oxford_pets",
    "stanford_cars",
    "flowers102",
    "food101",
    "fgvc_aircraft",
    "sun397",
    "dtd",
    "eurosat",
    "ucf101",
)
PAPER_OOD = imagenet.OOD


def ids() -> list[str]:
    """All that have a name of their own, in the order of the tables; any ``folder:PATH`` is one more."""
    return [*PAPER_ORDER, *PAPER_OOD, *micro.IDS, *micro.OOD_IDS]


def default(kind: str | Sequence[str]) -> list[str]:
    """The datasets of the main suite: "micro", "paper" or an arch's own list as the command line would give it."""
    if not isinstance(kind, str):
        return list(dict.fromkeys(map(identify, kind)))
    return list(micro.IDS) if kind == "micro" else list(PAPER_ORDER)


def ood(kind: str | Sequence[str]) -> list[str]:
    """The test-only sets, out of distribution for the first of ``default(kind)``: "micro" or "paper"."""
    return list(micro.OOD_IDS) if kind == "micro" else list(PAPER_OOD)


def identify(given: str) -> str:
    """The id of a dataset as the command line gives it. Raises UserError for one that is not known."""
    if given.startswith(folder.PREFIX):
        return folder.identify(given)
    if given not in ids():
        raise unknown("dataset", given, [*ids(), "folder:PATH"])
    return given


def order(id: str) -> int:
    """Position in the tables; folders and unknown ids last."""
    return ids().index(id) if id in ids() else len(ids())


def load(
    id: str, data_root: str = "", *, make_split: bool = False, folders: Mapping[str, str] | None = None
) -> Dataset:
    """Read a dataset's lists; pictures are decoded later.

    id          one of ``ids()``, or the ``folder:NAME`` of one of ``folders`` {id: path}
    make_split  make a split where the published split file is missing

    Raises UserError for an unknown id, data that is missing or damaged, and a single class.
    """
    data = read(id, data_root, make_split, folders or {})
    if len(data.classnames) < 2:
        raise UserError(
            f"{id}: one class alone ({quoted(data.classnames[0])}) is no task, for every answer is right; expected two "
            "or more"
        )
    return data


def read(id: str, data_root: str, make_split: bool, folders: Mapping[str, str]) -> Dataset:
    if id in (*micro.IDS, *micro.OOD_IDS):
        return micro.load(id)
    if id in coop_format.LAYOUTS:
        return coop_format.load(id, data_root, make_split)
    if id in fgvc.IDS:
        return fgvc.load(id, data_root)
    if id in imagenet.IDS:
        return imagenet.load(id, data_root)
    if id in folders:
        return folder.load(id, folders[id])
    raise unknown("dataset", id, [*ids(), *folders])
