"""A folder that the hub's own client can send as it is: plug-ins, their cards, and a page for people with the numbers
of the cards. Nothing is sent from here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from carryover.bench.errors import UserError, printable
from carryover.bench.host.files import write_text
from carryover.bench.host.identity import parse_json
from carryover.bench.plugins.hub import START, check_repository

PAGE, LIBRARY = "README.md", "library_name: carryover"
ATTRIBUTES = ".gitattributes"  # the hub's own, in a folder that was fetched from there


def check_folder(to: str, repository: str, names: Sequence[str]) -> Path:
    """Raises UserError for a repository of another form, and for a folder that holds more than what will be written:
    the client sends all of it. ``names``: of the files that will be."""
    check_repository(repository)
    folder = Path(to)
    if folder.suffix == ".safetensors" or folder.is_file():
        raise UserError(f"--to {to}: expected a folder, which --push fills for {repository}")
    if not folder.is_dir():
        return folder
    mine = {*names, PAGE, ATTRIBUTES}
    if others := sorted(path.name for path in folder.iterdir() if path.name not in mine):
        raise UserError(
            f"--to {to}: it also holds '{others[0]}', which would be sent to {repository} too; choose an empty folder"
        )
    page = folder / PAGE
    if page.is_file() and LIBRARY not in page.read_text(encoding="utf-8", errors="replace"):
        raise UserError(f"--to {to}: its {PAGE} is none of this suite's, and would be replaced; choose an empty folder")
    return folder


def write(folder: Path, repository: str, paths: Sequence[Path]) -> None:
    """The page, from the cards beside the plug-ins."""
    cards = [parse_json(path.with_suffix(".json").read_text(encoding="utf-8")) for path in paths]
    write_text(folder / PAGE, page(repository, cards), "--to")


def page(repository: str, cards: Sequence[dict[str, Any]]) -> str:
    runs = [card["run"] for card in cards]
    words = [*(run["method"] for run in runs), *(run["dataset"] for run in runs)]
    tags = ["carryover", "clip", *dict.fromkeys(word for word in words if word)]
    first = cards[0]
    home: dict[str, Any] = next(iter(first["measured"].values()), {})
    what = "Small plug-ins" if len(cards) > 1 else f"A small plug-in ({cell(first['what'])})"
    address = f"{START}{repository}/{first['file']}"
    lines = [
        "---",
        LIBRARY,
        "tags:",
        *(f"- {json.dumps(tag)}" for tag in tags),
        "---",
        "",
        f"# {repository}",
        "",
        f"{what} for CLIP models, trained on `{coded(home.get('backbone'))}`, in the format `carryover-plugin` of the "
        "benchmark suite Carryover: safetensors, no code.",
        "",
        "```bash",
        f"carryover classify --plugin '{address}' FOLDER",
        f"carryover evaluate --plugin '{address}' --backbone NAME --dataset DATASET",
        "```",
        "",
        "## Measured",
        "",
        "Top-1 accuracy in percent on test images that it was not trained on.",
        "",
        "| File | What | Backbone | Accuracy | Images |",
        "|---|---|---|---|---|",
        *(row for card in cards for row in rows(card)),
        "",
        *(f"- {cell(card['what'])}: {cell(mark)}" for card in cards for mark in card["marks"]),
        "",
        "## sha256",
        "",
        "```",
        *(f"{card['sha256']}  {card['file']}" for card in cards),
        "```",
        "",
    ]
    return "\n".join(lines)


def rows(card: dict[str, Any]) -> list[str]:
    found = []
    for role, one in card["measured"].items():
        backbone = f"`{coded(one['backbone'])}` ({'trained on it' if role == 'base' else cell(role)})"
        number = "–" if one["accuracy"] is None else f"{one['accuracy']:.2f}"
        found.append(f"| `{coded(card['file'])}` | {cell(card['what'])} | {backbone} | {number} | {one['count']} |")
    return found


def cell(text: Any) -> str:
    """Text of a table's cell: one line, no mark-up."""
    line = " ".join(printable(str(text)).split())
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>()#+!|~" else c for c in line)


def coded(text: Any) -> str:
    """Text between backticks."""
    return " ".join(printable(str(text)).split()).replace("`", "'").replace("|", "/")
