"""Runs of base64, hexadecimal or binary digits that hide text, read. Pure; used by `disguises.py`."""

import base64
import binascii
import unicodedata
from collections.abc import Callable, Iterator
from typing import TypeGuard

from servicekit.domain.verdict import Span
from services.guardrail.linear import LinearPattern, LinearSet
from services.guardrail.reading.edits import Edit

# Lines of an encoded text may be wrapped; a line end joins two runs, a blank only separates them.
_BASE64 = r"[A-Za-z0-9+/_-]{12,}(?:\r?\n[ \t]*[A-Za-z0-9+/_-]{4,})*={0,2}"
_HEX = r"(?:(?:0x|\\x)?[0-9a-fA-F]{2}[ :,;-]{0,2}){8,}"
_BINARY = r"(?:[01]{8}[ ,;-]{0,2}){4,}"
_PATTERNS = (LinearPattern(_BINARY), LinearPattern(_HEX), LinearPattern(_BASE64))
_ANY = LinearSet((_BINARY, _HEX, _BASE64))
_MAX_RUNS = 500
"""In one text and of one kind, the longest first: a hidden order needs room."""
_WORD_SHARE, _LETTER_SHARE = 0.6, 0.5
_NO_TEXT = frozenset({"Cc", "Cn", "Co", "Cs"})
_SHORT_BYTES = 24
"""Up to this many, chance makes text of other scripts, and nothing behind a glued front is believed."""
_GROUP = 4
_BYTE_BITS = 8


def encoding_edits(text: str) -> Iterator[Edit]:
    """Every run that decodes to what reads as text; edits of one kind do not overlap, those of several may."""
    readers: tuple[Callable[[str], str | None], ...] = (_from_binary, _from_hex, _from_base64)
    for kind in _ANY.matching(text):
        runs = sorted(_PATTERNS[kind].spans(text), key=lambda run: run.start - run.end)[:_MAX_RUNS]
        for run in runs:
            edit = _read(text, run, readers[kind])
            if edit is not None:
                yield edit


def _read(text: str, run: Span, reader: Callable[[str], str | None]) -> Edit | None:
    """The run's text; of base64 also where up to three characters, or a path, are glued to its front."""
    written = text[run.start : run.end]
    read = reader(written)
    if read is not None:
        return Edit(run, read)
    if reader is _from_base64 and not (written.isalpha() and written[1:].islower()):
        for start in (*(written.rfind(sign) + 1 for sign in "/_-"), *range(1, _GROUP)):
            if 0 < start < len(written) and _is_long(read := reader(written[start:])):
                return Edit(Span(run.start + start, run.end), read)
    return None


def _is_long(read: str | None) -> TypeGuard[str]:
    return read is not None and len(read) > _SHORT_BYTES


def _from_base64(written: str) -> str | None:
    plain = "".join(written.replace("-", "+").replace("_", "/").rstrip("=").split())
    if plain.islower() or plain.isupper() or plain.isdigit():
        return None
    whole = len(plain) - (len(plain) % _GROUP == 1)
    padded = plain[:whole] + "=" * (-whole % _GROUP)
    try:
        return _as_text(base64.b64decode(padded, validate=True))
    except binascii.Error:
        return None


def _from_hex(written: str) -> str | None:
    digits = "".join(char for char in written.replace("0x", "").replace("\\x", "") if char.isalnum())
    return _as_text(bytes.fromhex(digits[: len(digits) // 2 * 2]))


def _from_binary(written: str) -> str | None:
    bits = "".join(char for char in written if char in "01")
    whole = len(bits) // _BYTE_BITS * _BYTE_BITS
    return _as_text(int(bits[:whole], 2).to_bytes(whole // _BYTE_BITS, "big"))


def _as_text(data: bytes) -> str | None:
    """Decoded, where all of it is UTF-8 and printable, and most of it words."""
    try:
        text = data.rstrip(b"\x00").decode()
    except UnicodeDecodeError as error:
        if error.start < len(data) - _GROUP:
            return None
        text = data[: error.start].decode()
    if not text or not (text.isascii() or len(data) > _SHORT_BYTES):
        return None
    if any(unicodedata.category(char) in _NO_TEXT and char not in "\t\r\n" for char in text):
        return None
    letters = sum(map(str.isalpha, text))
    words = sum(char.isalnum() or char.isspace() for char in text)
    return text if letters >= _LETTER_SHARE * len(text) and words >= _WORD_SHARE * len(text) else None
