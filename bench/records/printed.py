"""Numbers that others printed: the paper (`results/paper`), and open_clip (`results/published`)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd

from carryover.bench.backbones.archs import ARCHS
from carryover.bench.host.identity import parse_json
from carryover.bench.host.paths import PRINTED

PUBLISHED = PRINTED / "published" / "openclip_zeroshot.csv"
OPEN_CLIP = "open_clip's results (its 80 prompts)"


def read_published() -> pd.DataFrame:
    """open_clip's zero-shot accuracies in percent, indexed by dataset id; a column for each backbone's label."""
    return pd.read_csv(PUBLISHED, index_col="dataset")


def published_for(arch: str) -> dict[tuple[str, str], float]:
    """{(dataset, role): open_clip's accuracy} of the arch's declared weights, over the sets that can be compared."""
    if arch not in PAPER_TABLES:
        return {}
    table = read_published()
    table = table[table["compared"] == "yes"]
    labels = {role: replace(tower, weights="").label for role, tower in ARCHS[arch].towers.items()}
    return {
        (dataset, role): float(table.loc[dataset, label])
        for dataset in table.index
        for role, label in labels.items()
        if label in table.columns
    }


def stored_path(folder: Path, dataset: str, role: str) -> Path:
    """Where the accuracy of open_clip's own prompts is kept under `results/<arch>`."""
    return Path(folder) / "known" / f"{dataset}-{role}.json"


def read_stored(path: Path) -> dict | None:
    """A file of `known/`; None where it is not there or not whole, for it can be made again."""
    try:
        stored = parse_json(path.read_text(encoding="utf-8"))
        whole = isinstance(stored["identity"], dict) and all(
            isinstance(stored[key], kind)
            for key, kind in {"name": (str,), "backbone": (str,), "accuracy": (int, float)}.items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return stored if whole else None


PAPER_FOLDER = PRINTED / "paper"
PAPER_TABLES = {"vit-b16": "table2_vit_b16.csv", "vit-l14": "table8_vit_l14.csv"}
PAPER_METHODS = {  # as it names them
    "zs-clip": "ZS-CLIP",
    "linear-probe": "Linear Probe",
    "clip-adapter": "CLIP-Adapter",
    "tip-adapter-f": "Tip-Adapter-F",
    "coop": "CoOp",
    "cocoop": "CoCoOp",
    "kgcoop": "KgCoOp",
    "contcoop": "ContCoOp",
}
PAPER_COLUMNS = ("paper_base", "paper_new", "paper_h")


def read_paper(arch: str) -> pd.DataFrame | None:
    """The paper's Table 2 (vit-b16) or 8 (vit-l14): dataset, method (ids), base, new, h in percent; else None."""
    return pd.read_csv(PAPER_FOLDER / PAPER_TABLES[arch]) if arch in PAPER_TABLES else None
