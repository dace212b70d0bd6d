"""Reads just enough of a SQL statement to run it: is it a read, an insert with data, or something else?

Pure; used by `request.py` to find where the rows of an INSERT begin and to find the output format.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from mmap import mmap

_TOKEN = re.compile(
    rb"""(?P<skip>\s+|--[^\n]*|\#![^\n]*|\#\s[^\n]*|/\*.*?(?:\*/|\Z))
    |(?P<string>'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.|"")*"|`(?:[^`\\]|\\.|``)*`)
    |(?P<heredoc>\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)
    |(?P<word>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<number>[0-9][0-9A-Za-z_.]*)
    |(?P<mark>.)""",
    re.DOTALL | re.VERBOSE,
)
_SELECT_WORDS = frozenset({b"SELECT", b"WITH", b"FROM"})
_READ_WORDS = frozenset({b"SHOW", b"DESCRIBE", b"DESC", b"EXISTS", b"EXPLAIN", b"CHECK"})
_OPENING, _CLOSING = b"([{", b")]}"


class Kind(StrEnum):
    """What a statement asks of the engine."""

    SELECT = "select"
    READ = "read"
    INSERT_DATA = "insert_data"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement ready to run.

    `format` is the input format of an INSERT_DATA, the explicit output format of a SELECT or READ, or None.
    The rows of an INSERT_DATA begin at `rows_start`; its `text` ends before its SETTINGS, which stand in `settings`.
    """

    kind: Kind
    text: bytes
    format: str | None = None
    settings: bytes = b""
    rows_start: int = 0


class RefusedStatementError(ValueError):
    """A statement that ClickHouse's HTTP interface does not take."""


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: bytes
    start: int
    end: int
    depth: int

    def is_word(self, word: bytes) -> bool:
        return self.kind == "word" and self.text.upper() == word


def parse(raw: bytes | mmap) -> Statement:
    """Classify one statement, which its rows may follow; they are not looked at.

    Raises:
        RefusedStatementError: a second statement follows, or it names a file of this machine.
    """
    tokens = _tokens(raw)
    first = next(tokens, None)
    while first is not None and first.text == b"(":
        first = next(tokens, None)
    if first is None:
        return Statement(Kind.OTHER, raw[:])
    if first.is_word(b"INSERT"):
        return _parse_insert(raw, tokens)
    return _parse_query(raw, first, tokens)


def _parse_insert(raw: bytes | mmap, tokens: Iterator[_Token]) -> Statement:
    previous: _Token | None = None
    settings_start: int | None = None
    for token in tokens:
        if token.depth == 0:
            _refuse_files(token)
            if token.is_word(b"VALUES"):
                break
            if token.is_word(b"SETTINGS"):
                settings_start = token.start
        if previous is not None and previous.is_word(b"FORMAT") and token.kind == "word":
            name = token.text.decode()
            if name.upper() == "VALUES":
                break
            head_end = previous.start if settings_start is None else settings_start
            return Statement(
                Kind.INSERT_DATA,
                raw[:head_end].strip(),
                name,
                raw[head_end : previous.start].strip(),
                _rows_start(raw, token.end),
            )
        previous = token if token.depth == 0 else None
    return Statement(Kind.OTHER, raw[:])


def _refuse_files(token: _Token) -> None:
    if token.is_word(b"INFILE") or token.is_word(b"OUTFILE"):
        raise RefusedStatementError(f"{token.text.decode()} names a file of the server: send or receive rows instead")


def _rows_start(raw: bytes | mmap, position: int) -> int:
    """Rows begin after the format name's line, or after the blanks where there is no line break."""
    while position < len(raw) and raw[position : position + 1] in (b" ", b"\t", b"\f", b";"):
        position += 1
    if raw[position : position + 2] == b"\r\n":
        return position + 2
    return position + 1 if raw[position : position + 1] == b"\n" else position


def _parse_query(raw: bytes | mmap, first: _Token, tokens: Iterator[_Token]) -> Statement:
    outer = [first]
    end = len(raw)
    for token in tokens:
        if token.text == b";" and token.kind == "mark":
            end = token.start
            if next(tokens, None) is not None:
                raise RefusedStatementError("Multi-statements are not allowed: send one per request")
            break
        if token.depth == 0:
            _refuse_files(token)
            outer.append(token)
    word = first.text.upper()
    if word not in _SELECT_WORDS | _READ_WORDS:
        return Statement(Kind.OTHER, raw[:end])
    kind = Kind.SELECT if word in _SELECT_WORDS else Kind.READ
    return Statement(kind, raw[:end], _output_format(outer))


def _output_format(outer: list[_Token]) -> str | None:
    """The name after the last FORMAT that ends the query or stands before its SETTINGS."""
    for position in range(len(outer) - 2, 0, -1):
        word, name = outer[position : position + 2]
        rest = outer[position + 2 : position + 3]
        if word.is_word(b"FORMAT") and name.kind == "word" and (not rest or rest[0].is_word(b"SETTINGS")):
            return name.text.decode()
    return None


def _tokens(raw: bytes | mmap) -> Iterator[_Token]:
    depth = 0
    for match in _TOKEN.finditer(raw):
        kind = match.lastgroup or "mark"
        if kind == "tag":
            kind = "heredoc"
        if kind == "skip":
            continue
        text = match.group()
        if kind == "mark" and text in _CLOSING:
            depth -= 1
        yield _Token(kind, text, match.start(), match.end(), depth)
        if kind == "mark" and text in _OPENING:
            depth += 1
