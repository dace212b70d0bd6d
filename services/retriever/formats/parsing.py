"""Reads a document into its text and the blocks that structure it. Pure; called by `indexing.py`.

Offsets count characters of `ParsedDocument.text`. For plain text and Markdown that is the decoded source itself, so
that a chunk can be found again in the file; for HTML, Word and PDF it is the text that they show, and for CSV and
JSON lines the records as they are written out.
"""

from dataclasses import dataclass
from enum import StrEnum

# Of a document once it is read: compressed and repetitive formats can unfold to any length.
MAX_TEXT_CHARS = 8 * 1024 * 1024


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
    """Blocks in order, without overlap; everything between them is blank. `title` is what the document says.

    `link_chars` of the text are the text of links, where the format tells.
    """

    text: str
    blocks: tuple[Block, ...]
    title: str = ""
    link_chars: int = 0


def clean(text: str) -> str:
    """The text without what no store holds: NUL, and halves of surrogate pairs (which become U+FFFD)."""
    text = text.replace("\0", "")
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


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
