"""Reads Markdown by its block structure; chunks are slices of the source. Pure; see `parsing.py`."""

import re

from markdown_it import MarkdownIt

from services.retriever.formats.parsing import Block, BlockKind, HeadingPath, ParsedDocument

_LINE_BREAK = re.compile(r"\r\n?|\n")
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_MARKS = re.compile(r"^\s{0,3}#{1,6}\s+|\s+#+\s*$|\n\s*(?:=+|-+)\s*$|[*`]")


def parse_markdown(text: str) -> ParsedDocument:
    """Headings and paragraphs, and by the line whatever has lines: lists, tables, quotes, code."""
    # Only the block rules run: what stands inside a line is kept as it is written.
    parser = MarkdownIt("commonmark").enable("table")
    parser.core.ruler.enableOnly(["normalize", "block"])
    line_starts = [0, *(match.end() for match in _LINE_BREAK.finditer(text)), len(text)]
    headings = HeadingPath()
    blocks: list[Block] = []
    position = 0
    for token in parser.parse(text):
        if token.level != 0 or token.map is None:
            continue
        start, end = (line_starts[min(line, len(line_starts) - 1)] for line in token.map)
        blocks += _block(text, position, start, BlockKind.LINES, headings.current)
        if token.type == "heading_open":
            path = headings.enter(int(token.tag[1:]), _heading_text(text[start:end]))
            blocks += _block(text, start, end, BlockKind.HEADING, path)
        else:
            kind = BlockKind.PROSE if token.type == "paragraph_open" else BlockKind.LINES
            blocks += _block(text, start, end, kind, headings.current)
        position = max(position, end)
    # What no block claims, such as link definitions, is text too.
    blocks += _block(text, position, len(text), BlockKind.LINES, headings.current)
    first = next((block for block in blocks if block.kind is BlockKind.HEADING and block.heading_path), None)
    return ParsedDocument(text, tuple(blocks), title=first.heading_path[0] if first else "")


def _block(text: str, start: int, end: int, kind: BlockKind, path: tuple[str, ...]) -> list[Block]:
    """The block without the blank space around it; none if it is all blank."""
    part = text[start:end]
    if not part.strip():
        return []
    return [Block(start + len(part) - len(part.lstrip()), start + len(part.rstrip()), kind, path)]


def _heading_text(source: str) -> str:
    return _MARKS.sub("", _LINK.sub(r"\1", source.strip("\r\n")))
