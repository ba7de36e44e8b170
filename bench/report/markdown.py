"""Parts of a report as Markdown; `render/templates/parts.html` has the same kinds as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from carryover.bench.render.gallery import gallery_markdown
from carryover.bench.render.html_page import Part
from carryover.bench.render.sheets import (
    block_markdown,
    cell_markdown,
    escape_markdown,
    grid_markdown,
    sheet_markdown,
)


def markdown_page(parts: Sequence[Part]) -> str:
    return "\n\n".join(part_markdown(*part) for part in parts) + "\n"


def part_markdown(kind: str, content: Any) -> str:
    match kind:
        case "title" | "heading" | "subheading":
            level = {"title": "# ", "heading": "## ", "subheading": "### "}[kind]
            return level + escape_markdown(content)
        case "text":
            return escape_markdown(content)
        case "verdict":
            return f"**{escape_markdown(content)}**"
        case "link":
            text, file = content
            return f"{escape_markdown(text)} [{escape_markdown(file)}]({file})"
        case "list":
            return "\n".join(f"- {escape_markdown(line)}" for line in content)
        case "warning":
            head, lines, causes = content
            listed = [f"> - {escape_markdown(line)}" for line in lines]
            return "\n".join([f"> **{escape_markdown(head)}**", ">", *listed, ">", f"> {escape_markdown(causes)}"])
        case "sheet":
            return sheet_markdown(content).strip("\n")
        case "block":
            title = f"### {cell_markdown(content.title)}\n\n" if content.title.text else ""
            return title + block_markdown(content)
        case "grid":
            return grid_markdown(content)
        case "files":
            return " · ".join(f"[{escape_markdown(text)}]({file})" for text, file in content)
        case "figure":
            stem, caption, _ = content
            return f"![{escape_markdown(caption)}](figures/{stem}.svg)"
        case "gallery":
            return gallery_markdown(content)
        case "command":  # indented, not fenced: no text can close it
            return "\n".join("    " + line for line in content.splitlines())
    raise ValueError(f"unknown kind of part: {kind}")
