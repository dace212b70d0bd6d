"""Reads a document into its text and the blocks that structure it. Pure; called by `indexing.py`.

Offsets count characters of `ParsedDocument.text`. For plain text and Markdown that is the decoded source itself, so
that a chunk can be found again in the file; for HTML it is the text that the markup shows.
"""

from dataclasses import dataclass
from enum import StrEnum


class BlockKind(StrEnum):
    """How a block may be cut."""

    PROSE = "prose"  # between sentences
    LINES = "lines"  # between lines: lists, tables, code
    HEADING = "heading"  # not at all, and never apart from what follows it


@dataclass(frozen=True, slots=True)
class Block:
    """Characters `start` to `end` of the text, under these headings, outermost first."""

    start: int
    end: int
    kind: BlockKind
    heading_path: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ParsedDocument:
    """Blocks in order, without overlap; everything between them is blank. `title` is what the document says."""

    text: str
    blocks: tuple[Block, ...]
    title: str = ""


class HeadingPath:
    """The headings above the current place, kept while reading from top to bottom."""

    MAX_HEADING_CHARS = 200

    def __init__(self) -> None:
        self._open: list[tuple[int, str]] = []

    def enter(self, level: int, heading: str) -> tuple[str, ...]:
        """Begin a section: closes those of the same or a deeper level."""
        self._open = [(depth, name) for depth, name in self._open if depth < level]
        name = " ".join(heading.split())[: self.MAX_HEADING_CHARS]
        if name:
            self._open.append((level, name))
        return self.current

    @property
    def current(self) -> tuple[str, ...]:
        """Outermost first."""
        return tuple(name for _, name in self._open)
