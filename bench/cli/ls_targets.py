"""What ``ls targets`` and ``ls archs NAME`` show: on which backbones a base's plug-ins go as they are, on which through
a port. Told by sizes alone, so no weights are downloaded."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

import open_clip

from carryover.bench.backbones import arch_files, names
from carryover.bench.backbones.sizes import Sizes, sizes_of
from carryover.bench.cli import target_rows
from carryover.bench.cli.registries import discover
from carryover.bench.cli.target_rows import ASTERISK, QUICK, Row, grouped
from carryover.bench.render.terminal import Table, aside, say
from carryover.methods.asks import begins
from carryover.methods.base import METHODS
from carryover.methods.catalogue import Registered, is_empty, ordered

HEADS = ("W / D", "text tower", "as they are", "through a port alone")
LEGEND = (
    "W, D, V: widths of the text tower, of the joint space and of the image tower. Of a text tower: its kind, and how "
    "many tokens it reads."
)
NEEDS = f"{ASTERISK} needs the package transformers (pip install transformers)."


def list_arch(args: argparse.Namespace, name: str) -> None:
    """The targets of one arch, and why a plug-in does not go in as it is."""
    arch = arch_files.find_arch(name)
    discover(args.plugin_dir)
    shown = Table(
        "target", *HEADS[:3], "not, as these differ", HEADS[3], title=f"{arch.id}: plug-ins of {arch.base.label}"
    )
    base, rows = sizes_of(arch.base, args.hub_cache), list(target_rows.of_arch(arch, args.hub_cache))
    for row in rows:
        shown.row(row.names, row.size, row.text, row.plugged, row.why, row.ported)
    shown.show()
    say("\n".join(notes(base, rows)))


def list_targets(args: argparse.Namespace) -> None:
    """All tags of the installed open_clip as targets of one base."""
    discover(args.plugin_dir)
    base = arch_files.find_arch(args.arch).base
    if args.backbone:
        base = names.tower_of(args.backbone, args.arch, cache_dir=args.hub_cache)
    say("reading the sizes of open_clip's models, without weights: about half a minute", to=aside)
    sizes = sizes_of(base, args.hub_cache)
    rows = list(target_rows.of_open_clip(sizes))
    if args.markdown:
        print("\n".join(markdown(sizes, rows)))
        return
    shown = Table("tags", *HEADS, title=f"open_clip's tags as targets for plug-ins of {base.label}")
    for row in rows:
        shown.row(row.names, row.size, row.text, row.plugged, row.ported)
    shown.show()
    say("\n".join([*counted(base.label, rows), *notes(sizes, rows)]))


def markdown(base: Sizes, rows: list[Row]) -> list[str]:
    """The table of docs/targets.md."""
    lines = [*counted(f"`{base.label}`", rows), "", *(f"- {escaped(line)}" for line in notes(base, rows)), ""]
    lines += ["| " + " | ".join(("Tags", *(head[0].upper() + head[1:] for head in HEADS))) + " |", "|---" * 5 + "|"]
    for row in rows:
        cells = (row.names, row.size, row.text, row.plugged, row.ported)
        lines.append(f"| {' | '.join(map(escaped, cells))} |")
    return lines


def escaped(text: str) -> str:
    return text.replace(ASTERISK, rf"\{ASTERISK}").replace("|", r"\|")


def counted(base: str, rows: Iterable[Row]) -> list[str]:
    """How many tags there are, and how many of them can be no target of any choice."""
    rows, others = list(rows), target_rows.other_names()
    every, none = len(open_clip.list_pretrained()), sum(row.tags for row in rows if not row.possible)
    stays = [METHODS[id].name for id in ordered() if is_empty(id)]
    free = [METHODS[id].name for id in ordered() if not Registered().learns(id) and not is_empty(id)]
    return [
        f"Plug-ins of {base}, open_clip {open_clip.__version__}: {every} tags, of which {len(others)} are read right "
        f"under their '{QUICK}' name alone, and stand there. Of the other {every - len(others)}, {none} can be no "
        f"target of any choice. {', '.join(free)} learn nothing that is carried, so they run on all; what "
        f"{', '.join(stays)} learns stays in its towers."
    ]


def notes(base: Sizes, rows: Iterable[Row]) -> list[str]:
    """What the table's words mean; which port carries which methods where sizes do not matter."""
    lines = [f"Ports, and the methods that they carry: {'; '.join(target_rows.of_ports(base))}.", LEGEND]
    for why, ids in grouped(ordered(), lambda id: begins(METHODS[id], METHODS[id].Config(), base)):
        if why:
            lines.append(f"Not trained on this base: {', '.join(METHODS[id].name for id in ids)}, as {why}.")
    return [*lines, NEEDS] if any(ASTERISK in row.text for row in rows) else lines
