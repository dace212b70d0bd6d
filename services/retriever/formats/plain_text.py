"""Reads plain text: paragraphs between blank lines, headings where a line is underlined. Pure; see `parsing.py`."""

import re
from collections.abc import Iterator

from services.retriever.formats.parsing import Block, BlockKind, HeadingPath, ParsedDocument

_LINE_BREAK = re.compile(r"\r\n?|\n")
_UNDERLINE = re.compile(r"([=\-~^*#\"'`+.:_])\1{2,}\s*")
# Lines that are indented, or begin like an item of a list, keep their breaks.
_LISTING = re.compile(r"\s|[-*+•] |\d{1,3}[.)] |>>> |\| ")
_MAX_HEADING_CHARS = 120


def parse_plain_text(text: str) -> ParsedDocument:
    """Blocks of the text as it stands."""
    headings = HeadingPath()
    levels: dict[str, int] = {}
    blocks: list[Block] = []
    for start, end in _paragraphs(text):
        lines = _lines(text, start, end)
        position = 0
        if (mark := _underline(text, lines)) is not None:
            level = levels.setdefault(mark, len(levels) + 1)
            path = headings.enter(level, text[slice(*lines[0])])
            blocks.append(Block(lines[0][0], lines[1][1], BlockKind.HEADING, path))
            position = 2
        if position < len(lines):
            kind = _kind(text, lines[position:])
            blocks.append(Block(lines[position][0], lines[-1][1], kind, headings.current))
    first = next((block for block in blocks if block.kind is BlockKind.HEADING), None)
    return ParsedDocument(text, tuple(blocks), title=first.heading_path[0] if first else "")


def _paragraphs(text: str) -> Iterator[tuple[int, int]]:
    """Runs of lines that are not blank."""
    start: int | None = None
    end = 0
    for line_start, line_end in _split_lines(text):
        if text[line_start:line_end].strip():
            start = line_start if start is None else start
            end = line_end
        elif start is not None:
            yield start, end
            start = None
    if start is not None:
        yield start, end


def _split_lines(text: str) -> Iterator[tuple[int, int]]:
    position = 0
    for match in _LINE_BREAK.finditer(text):
        yield position, match.start()
        position = match.end()
    yield position, len(text)


def _lines(text: str, start: int, end: int) -> list[tuple[int, int]]:
    return [(start + begin, start + stop) for begin, stop in _split_lines(text[start:end])]


def _underline(text: str, lines: list[tuple[int, int]]) -> str | None:
    """The character that underlines the first line, if it does."""
    if len(lines) < 2:  # noqa: PLR2004  # a heading and its underline
        return None
    heading, rule = text[slice(*lines[0])].rstrip(), text[slice(*lines[1])].rstrip()
    match = _UNDERLINE.fullmatch(rule)
    if match is None or not heading or heading[0].isspace() or len(heading) > _MAX_HEADING_CHARS:
        return None
    return match.group(1) if abs(len(rule) - len(heading)) <= max(2, len(heading) // 4) else None


def _kind(text: str, lines: list[tuple[int, int]]) -> BlockKind:
    listed = sum(1 for start, end in lines if _LISTING.match(text, start, end))
    if listed == len(lines) and _evenly_indented(text, lines):
        return BlockKind.PROSE
    return BlockKind.LINES if 2 * listed > len(lines) else BlockKind.PROSE


def _evenly_indented(text: str, lines: list[tuple[int, int]]) -> bool:
    # A paragraph set in from the margin as a whole is prose.
    indents = {len(line) - len(line.lstrip()) for line in (text[slice(*span)] for span in lines)}
    first = text[slice(*lines[0])].lstrip()
    return len(indents) == 1 and indents != {0} and not _LISTING.match(first) and first[:1].isupper()
