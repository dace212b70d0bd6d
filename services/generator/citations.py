"""Finds the citation markers of an answer and the chunks they point to.

Pure; called by `generating.py` on the whole answer.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from servicekit.domain.chunk import Citation
from servicekit.domain.prompt import ContextChunk

_MARKER = re.compile(r"\[(\d{1,4}(?:\s*,\s*\d{1,4})*)\]")
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Citations:
    """Resolved markers in order of appearance, and those that name no chunk, each once."""

    resolved: tuple[Citation, ...]
    invalid: tuple[str, ...]


def find_citations(answer: str, context: Sequence[ContextChunk]) -> Citations:
    """Resolve `[1]`, `[1, 2]` and `[1][2]`; a group gives one citation a number, all with the group's span.

    Markers in Markdown code are text. A bracket right behind a word is a marker only if it names a chunk:
    `six[1]` cites, `items[0]` is an index.
    """
    chunks = {item.number: item.scored.chunk for item in context}
    resolved: list[Citation] = []
    invalid: dict[str, None] = {}
    for match in _markers(answer):
        numbers = [int(number) for number in match[1].split(",")]
        indexes = match.start() > 0 and (answer[match.start() - 1].isalnum() or answer[match.start() - 1] in "_)")
        if indexes and not all(number in chunks for number in numbers):
            continue
        for number in numbers:
            if number in chunks:
                resolved.append(Citation(match[0], match.start(), match.end(), chunks[number]))
            else:
                invalid[match[0]] = None
    return Citations(tuple(resolved), tuple(invalid))


def _markers(answer: str) -> Iterator[re.Match[str]]:
    code = [match.span() for match in _CODE.finditer(answer)] if "`" in answer else []
    for match in _MARKER.finditer(answer):
        if not any(start <= match.start() < end for start, end in code):
            yield match
