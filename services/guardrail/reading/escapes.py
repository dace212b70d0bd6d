r"""Characters written as escapes, read: `&#105;`, `\u0069`, `\x69`, `%69`. Pure; used by `disguises.py`."""

import html
import re
from collections.abc import Iterator

from servicekit.domain.verdict import Span
from services.guardrail.linear import LinearPattern
from services.guardrail.reading.edits import Edit

_ENTITY = LinearPattern(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});")
_BACKSLASHED = LinearPattern(r"(?:\\u[0-9a-fA-F]{4}|\\u\{[0-9a-fA-F]{1,6}\}|\\U[0-9a-fA-F]{8}|\\x[0-9a-fA-F]{2})+")
_ONE_BACKSLASHED = re.compile(
    r"\\(?:u\{([^}]*)\}|u(.{4})|U(.{8})|x(.{2}))"
)  # each alternative of a fixed length or class
_PERCENT_RUN = LinearPattern(r"(?:%[0-9A-Fa-f]{2})+")
# Letters and digits are never written so in an honest address (RFC 3986, 2.3): they need no escape.
_NEEDLESS_PERCENT = LinearPattern(r"%(?:3[0-9]|[46][1-9A-Fa-f]|[57][0-9Aa])")
_MANY_PERCENT = LinearPattern(r"%[0-9A-Fa-f]{2}[^\s%]{0,40}%[0-9A-Fa-f]{2}[^\s%]{0,40}%[0-9A-Fa-f]{2}")
_HIGHEST = 0x10FFFF
_SURROGATES = range(0xD800, 0xE000)


def escape_edits(text: str) -> Iterator[Edit]:
    """Every escape that stands for characters; each edit is of one escape, or of the bytes of a run of them."""
    if "&" in text:
        yield from _entities(text)
    if "\\" in text:
        yield from _backslashed(text)
    if "%" in text and (_NEEDLESS_PERCENT.first(text) or _MANY_PERCENT.first(text)):
        yield from _percents(text)


def _entities(text: str) -> Iterator[Edit]:
    for span in _ENTITY.spans(text):
        written = text[span.start : span.end]
        read = html.unescape(written)
        if read != written:
            yield Edit(span, read)


def _backslashed(text: str) -> Iterator[Edit]:
    for run in _BACKSLASHED.spans(text):
        waiting = Span(run.start, run.start)
        high = 0
        for match in _ONE_BACKSLASHED.finditer(text, run.start, run.end):
            point = int(next(filter(None, match.groups())), 16)
            place = Span(*match.span())
            if high and 0xDC00 <= point <= 0xDFFF:  # noqa: PLR2004  # the second of a pair of surrogates
                point = 0x10000 + ((high - 0xD800) << 10) + point - 0xDC00
                place = Span(waiting.start, place.end)
            high, waiting = (point, place) if 0xD800 <= point < 0xDC00 else (0, place)  # noqa: PLR2004  # the first
            if not high and point <= _HIGHEST and point not in _SURROGATES:
                yield Edit(place, chr(point))


def _percents(text: str) -> Iterator[Edit]:
    for run in _PERCENT_RUN.spans(text):
        data = bytes.fromhex(text[run.start : run.end].replace("%", ""))
        try:
            read = data.decode()
        except UnicodeDecodeError:
            continue
        if len(read) == len(data):
            yield from (Edit(Span(run.start + 3 * i, run.start + 3 * i + 3), char) for i, char in enumerate(read))
        else:
            yield Edit(run, read)
