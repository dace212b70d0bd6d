"""Reads CSV: each row as `column: value; column: value`, so that a row stands by itself. Pure; see `parsing.py`."""

import csv
import io
from collections.abc import Iterator, Sequence

from servicekit.errors import InvalidRequest
from services.retriever.formats.parsing import ParsedDocument
from services.retriever.formats.records import write_records

_DELIMITERS = ",;\t|"
_SAMPLE_ROWS = 20
_MAX_FIELD_CHARS = 1024 * 1024
_MAX_NAME_CHARS = 200


def parse_csv(text: str) -> ParsedDocument:
    """The first row names the columns, unless it holds a number or a blank; then the values stand without names.

    Raises:
        InvalidRequest: a quoted field does not end, or is longer than a megabyte.
    """
    csv.field_size_limit(_MAX_FIELD_CHARS)
    try:
        return write_records(_records(csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text))))
    except csv.Error as exc:
        raise InvalidRequest(
            f"document.content is no CSV ({exc}): quote its fields properly, or hand it in as text/plain",
            field="document.content",
            reason="MALFORMED_CSV",
        ) from exc


def _records(rows: Iterator[list[str]]) -> Iterator[Sequence[tuple[str, str]]]:
    first = next((row for row in rows if any(cell.strip() for cell in row)), [])
    names: list[str] = []
    if _is_header(first):
        names = [name[:_MAX_NAME_CHARS] for name in first]
    else:
        yield [("", cell) for cell in first]
    any_row = False
    for row in rows:
        padded = names + [""] * (len(row) - len(names))
        any_row = True
        yield list(zip(padded, row, strict=False))
    if names and not any_row:
        yield [("", cell) for cell in names]


def _delimiter(text: str) -> str:
    """The one that parts the first rows into the same number of columns, the most of them; a comma in doubt."""
    best, most = ",", 1
    for delimiter in _DELIMITERS:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        widths = [len(row) for row, _ in zip(_lenient(rows), range(_SAMPLE_ROWS), strict=False) if row]
        if widths and min(widths) == max(widths) > most:
            best, most = delimiter, widths[0]
    return best


def _lenient(rows: Iterator[list[str]]) -> Iterator[list[str]]:
    try:
        yield from rows
    except csv.Error:
        return


def _is_header(row: Sequence[str]) -> bool:
    return bool(row) and all(cell.strip() and not _is_number(cell) for cell in row)


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", ".", 1))
    except ValueError:
        return False
    return True
