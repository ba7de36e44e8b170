"""The report's parts as one HTML page: no script, nothing fetched, light and dark, readable on a phone."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Any

from carryover.bench.errors import printable
from carryover.bench.render.sheets import Block, Cell, Sheet

# (kind, content), kinds: title, heading, text, link, list, warning, sheet, block, figure, command
Part = tuple[str, Any]
SLOT = re.compile(r"\{(style|title|body|allowed)\}")
SPREAD = re.compile(r"(?<=\d) ± (\d+\.\d\d)$")  # a deviation, set smaller so that three numbers fit a phone


def html_page(parts: Sequence[Part]) -> str:
    """The whole page; ``parts`` hold plain text, escaped here, but for a figure's SVG: (file stem, caption, SVG)."""
    return page_of(parts[0][1], "\n".join(_part_html(kind, content) for kind, content in with_contents(parts)))


def page_of(title: str, body: str, style: str = "", allowed: str = "") -> str:
    """A page in the same dress; ``title`` is plain text, ``body`` and the further ``style`` are taken as they are;
    ``allowed``: further rules of its content security policy, such as the hash of its one script."""
    found = {"style": style, "title": escaped(title), "body": body, "allowed": f"; {allowed}" if allowed else ""}
    return SLOT.sub(lambda slot: found[slot[1]], PAGE)  # in one pass: a title may hold "{body}"


def escaped(text: str) -> str:
    """Plain text as HTML, also within quotes; what cannot be printed is shown by its code."""
    return html.escape(printable(text))


def with_contents(parts: Sequence[Part]) -> list[Part]:
    """Headings numbered, and links to them in front of the first."""
    made: list[Part] = []
    headings: list[tuple[str, str]] = []
    for kind, content in parts:
        if kind == "heading":
            headings.append((f"part-{len(headings) + 1}", content))
            content = headings[-1]
        made.append((kind, content))
    first = next((i for i, (kind, _) in enumerate(made) if kind == "heading"), len(made))
    return [*made[:first], ("contents", headings), *made[first:]] if len(headings) > 1 else made


def _part_html(kind: str, content: Any) -> str:
    match kind:
        case "title":
            return f"<h1>{escaped(content)}</h1>"
        case "heading":
            anchor, text = content
            return f'<h2 id="{anchor}">{escaped(text)}</h2>'
        case "contents":
            links = "".join(f'<li><a href="#{anchor}">{escaped(text)}</a></li>' for anchor, text in content)
            return f'<nav aria-label="Contents"><ul>{links}</ul></nav>'
        case "text":
            return f"<p>{escaped(content)}</p>"
        case "link":
            text, file = content
            return f'<p>{escaped(text)} <a href="{escaped(file)}">{escaped(file)}</a></p>'
        case "list":
            return "<ul>" + "".join(f"<li>{escaped(line)}</li>" for line in content) + "</ul>"
        case "warning":
            head, lines, causes = content
            listed = "".join(f"<li>{escaped(line)}</li>" for line in lines)
            body = f"<p><strong>{escaped(head)}</strong></p><ul>{listed}</ul><p>{escaped(causes)}</p>"
            return f'<aside class="warning" role="note" aria-label="Warning">{body}</aside>'
        case "sheet":
            return _sheet_html(content)
        case "block":
            return _block_html(content)
        case "figure":
            _, caption, figure = content
            return f"<figure>{figure}<figcaption>{escaped(caption)}.</figcaption></figure>"
        case "command":
            return f'<pre tabindex="0">{escaped(content)}</pre>'
    raise ValueError(f"unknown kind of part: {kind}")


def _cell_html(cell: Cell) -> str:
    text = SPREAD.sub(r" <small>± \1</small>", escaped(cell.text))
    text = (text, f"<strong>{text}</strong>", f"<u>{text}</u>")[cell.rank]
    return text + (f"<sup>{','.join(map(str, cell.notes))}</sup>" if cell.notes else "")


def _block_html(block: Block) -> str:
    head = "".join(f'<th scope="col">{escaped(name)}</th>' for name in block.header)
    rows = ""
    for first, *others in block.rows:
        cells = "".join(f"<td>{_cell_html(cell)}</td>" for cell in others)
        rows += f'<tr><th scope="row">{_cell_html(first)}</th>{cells}</tr>\n'
    kind = "textual" if block.textual else "numeric"
    title = f"<h3>{_cell_html(block.title)}</h3>" if block.title.text else ""
    label = escaped(block.title.text or ", ".join(block.header))
    table = f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>\n{rows}</tbody></table>'
    scroll = f'<div class="scroll" tabindex="0" role="region" aria-label="{label}">{table}</div>'
    return f"<section>{title}{scroll}</section>"


def _sheet_html(sheet: Sheet) -> str:
    notes = "".join(f"<li>{escaped(text)}</li>" for text in sheet.remarks)
    notes += "".join(f"<li><sup>{n}</sup> {escaped(text)}</li>" for n, text in enumerate(sheet.footnotes, 1))
    blocks = "\n".join(map(_block_html, sheet.blocks))
    columns = max((len(block.header) for block in sheet.blocks), default=0)
    wide = " whole" if columns > 6 else " wide" if columns > 4 else ""
    return f'<div class="blocks{wide}">{blocks}</div>\n<ul class="notes">{notes}</ul>'


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'{allowed}">
<title>{title}</title>
<style>
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #5b6168; --line: #d9dde2; --page: #fff; --box: #f6f7f9;
  --warn: #a14a00; --warned: #fff5e8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8eb; --soft: #a3abb4; --line: #3a4048; --page: #16181b; --box: #1f2226;
    --warn: #f2a65a; --warned: #2a2118; }
}
body { margin: 0 auto; max-width: 74rem; padding: 1rem clamp(.8rem, 3vw, 2rem) 4rem; background: var(--page);
  color: var(--ink); font: 1rem/1.55 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; line-height: 1.2; }
h2 { margin: 2.5rem 0 .6rem; padding-top: .6rem; border-top: 1px solid var(--line); font-size: 1.25rem; }
h3 { margin: .8rem 0 .3rem; font-size: 1rem; }
p { max-width: 46rem; }
a { color: inherit; }
.warning { margin: 1rem 0 1.5rem; padding: .2rem 1.1rem; border: 1px solid var(--warn); border-left-width: .5rem;
  border-radius: 6px; background: var(--warned); }
.warning ul { padding-left: 1.2rem; }
.blocks { display: grid; gap: .4rem 1.6rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); }
.blocks.wide { grid-template-columns: repeat(auto-fit, minmax(min(100%, 34rem), 1fr)); }
.blocks.whole { grid-template-columns: 1fr; }
section { min-width: 0; }
.numeric th:first-child { position: sticky; left: 0; background: var(--box); }
.scroll, pre { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; background: var(--box); }
pre { padding: .7rem .9rem; font-size: .85rem; overflow-wrap: normal; }
table { width: 100%; border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: left; vertical-align: top; overflow-wrap: normal; }
th { font-weight: 500; }
thead th { color: var(--soft); border-bottom: 1px solid var(--line); }
.numeric :is(td, tbody th) { white-space: nowrap; }
.blocks table { font-size: .8rem; }
.blocks :is(td, th) { padding: .25rem .35rem; }
@media (max-width: 30rem) { .blocks table { font-size: .76rem; } .blocks :is(td, th) { padding: .25rem .25rem; } }
small { color: var(--soft); font-size: .78em; font-weight: 400; }
.numeric :is(td, th:not(:first-child)) { text-align: right; }
.textual td { min-width: 9rem; overflow-wrap: anywhere; }
sup { line-height: 0; font-size: .7em; }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; padding: 0; list-style: none; font-size: .9rem; }
a { color: inherit; }
.notes, figcaption { color: var(--soft); font-size: .85rem; }
figure { margin: 1rem 0; max-width: 38rem; }
figure svg { width: 100%; height: auto; }
{style}</style>
</head>
<body>
{body}
</body>
</html>
"""
