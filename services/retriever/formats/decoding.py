"""Turns the bytes of a text into characters. Pure; used by `document.py`.

A byte-order mark decides, else the `charset` of the media type, else the one that HTML declares in its first
kilobyte, else UTF-8. Nothing is guessed: a wrong guess would be stored, cited and searched as if it were the text.
"""

import codecs
import re

from services.retriever.formats.media_types import HTML

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_DECLARED_WITHIN = 1024
_META = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]{1,40})", re.IGNORECASE)
# Python's text codecs that are no character sets of documents; some make halves of surrogate pairs.
_NO_CHARSETS = frozenset({"idna", "punycode", "undefined", "utf-7", "unicode-escape", "raw-unicode-escape"})
# What these names mean on the web (WHATWG Encoding Standard, section 4.2).
_WEB_NAMES = {"iso-8859-1": "cp1252", "latin1": "cp1252", "us-ascii": "cp1252", "ascii": "cp1252", "utf8": "utf-8"}


class UndecodableTextError(Exception):
    """The bytes are no text in the character set that holds for them; the message says which and where."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


def decode(content: bytes, *, media_type: str, charset: str) -> str:
    """The characters, without a byte-order mark.

    Raises:
        UndecodableTextError: they are none, or the character set is unknown.
    """
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return _decode(content[len(mark) :], encoding, skipped=len(mark))
    if not charset and media_type == HTML and (declared := _META.search(content[:_DECLARED_WITHIN])):
        charset = declared.group(1).decode("ascii").lower()
        # Whoever could write the declaration in ASCII did not write UTF-16.
        charset = "utf-8" if charset.startswith("utf-16") else charset
    return _decode(content, _codec(charset or "utf-8"))


def _codec(charset: str) -> str:
    name = _WEB_NAMES.get(charset, charset)
    try:
        found = codecs.lookup(name)
    except (LookupError, ValueError):
        found = None
    if found is None or not getattr(found, "_is_text_encoding", False) or found.name.replace("_", "-") in _NO_CHARSETS:
        raise UndecodableTextError(
            f"names the unknown character set {charset[:40]!r}: convert it to UTF-8", reason="UNKNOWN_CHARSET"
        )
    return found.name


def _decode(content: bytes, encoding: str, *, skipped: int = 0) -> str:
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as exc:
        place = exc.start + skipped
        if encoding == "utf-8":
            problem = (
                f"must be UTF-8, byte {place} is not: convert it, name its charset in the media type "
                "(`text/plain; charset=windows-1252`), or name a supported media type"
            )
            raise UndecodableTextError(problem, reason="NOT_UTF8") from exc
        problem = f"is no {encoding} from byte {place} on: name its true charset in the media type, or convert it"
        raise UndecodableTextError(problem, reason="WRONG_CHARSET") from exc
    except UnicodeError as exc:  # some codecs say no more than that
        raise UndecodableTextError(f"is no {encoding}: convert it to UTF-8", reason="WRONG_CHARSET") from exc
    return text
