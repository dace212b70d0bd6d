"""Writes records (rows of a table, values of a JSON stream) as text in which each stands by itself.

Pure; used by `csv_text.py` and `json_lines.py`.
"""

from collections.abc import Iterable, Sequence

from servicekit.errors import InvalidRequest
from services.retriever.formats.parsing import MAX_TEXT_CHARS, Block, BlockKind, ParsedDocument, clean

# A record longer than this has a line for each of its fields, so that it is cut between them.
MAX_LINE_CHARS = 600


def write_records(records: Iterable[Sequence[tuple[str, str]]]) -> ParsedDocument:
    """A paragraph for each record, `name: value; name: value`; empty values are left out, and records without any.

    Raises:
        InvalidRequest: the text becomes too long, because long names stand in every record.
    """
    parts: list[str] = []
    blocks: list[Block] = []
    length = 0
    for record in records:
        fields = [_field(name, value) for name, value in record if value.strip()]
        if not fields:
            continue
        text = clean("; ".join(fields))
        if len(text) > MAX_LINE_CHARS:
            text = clean("\n".join(fields))
        if blocks:
            parts.append("\n\n")
            length += 2
        parts.append(text)
        blocks.append(Block(length, length + len(text), BlockKind.LINES))
        length += len(text)
        if length > MAX_TEXT_CHARS:
            raise InvalidRequest(
                f"document.content has more than {MAX_TEXT_CHARS} characters once its names are written out: split it",
                field="document.content",
                reason="PARSE_LIMIT",
            )
    return ParsedDocument("".join(parts), tuple(blocks))


def _field(name: str, value: str) -> str:
    value = " ".join(value.split())
    name = " ".join(name.split())
    return f"{name}: {value}" if name else value
