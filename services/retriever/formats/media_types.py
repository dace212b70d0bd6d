"""Which kinds of documents there are, and how one that names none is recognised. Pure; used by `document.py`."""

import re
from urllib.parse import urlsplit

TEXT, MARKDOWN, HTML = "text/plain", "text/markdown", "text/html"
CSV, JSON_LINES, PDF = "text/csv", "application/x-ndjson", "application/pdf"
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
MEDIA_TYPES = (TEXT, MARKDOWN, HTML, CSV, JSON_LINES, PDF, DOCX)
# Not text: read by a process of their own, within bounds of memory and time.
BINARY_TYPES = frozenset({PDF, DOCX})
_ALIASES = {
    "text/x-markdown": MARKDOWN,
    "application/xhtml+xml": HTML,
    "application/csv": CSV,
    "application/jsonl": JSON_LINES,
    "application/jsonlines": JSON_LINES,
    "application/x-jsonlines": JSON_LINES,
    "application/x-pdf": PDF,
}
_SUFFIXES = {
    ".md": MARKDOWN,
    ".markdown": MARKDOWN,
    ".html": HTML,
    ".htm": HTML,
    ".xhtml": HTML,
    ".csv": CSV,
    ".jsonl": JSON_LINES,
    ".ndjson": JSON_LINES,
    ".pdf": PDF,
    ".docx": DOCX,
}
# What servers say when they do not know.
_NO_TYPE = frozenset({"", "application/octet-stream", "binary/octet-stream"})
_MAGIC_BYTES = 1024
_HTML_BEGIN = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html)\b", re.IGNORECASE | re.DOTALL
)
_ZIP, _WORD_PART = b"PK\x03\x04", b"word/"


def essence_of(media_type: str) -> str:
    """The media type without parameters, in its usual spelling; empty where it says nothing."""
    essence = media_type.split(";", maxsplit=1)[0].strip().lower()
    return "" if essence in _NO_TYPE else _ALIASES.get(essence, essence)


def charset_of(media_type: str) -> str:
    """The `charset` parameter, in lower case; empty where there is none."""
    for parameter in media_type.split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            return value.strip().strip("\"'").lower()
    return ""


def sniff(content: bytes, *uris: str) -> str:
    """What the bytes begin with, else what the name in one of the URIs ends with, else plain text."""
    begin = content[:_MAGIC_BYTES]
    if b"%PDF-" in begin:
        return PDF
    if begin.startswith(_ZIP) and _WORD_PART in content:
        return DOCX
    for uri in uris:
        name = _path_of(uri).rpartition("/")[2].lower()
        if (dot := name.rfind(".")) > 0 and name[dot:] in _SUFFIXES:
            return _SUFFIXES[name[dot:]]
    return HTML if _HTML_BEGIN.match(begin) else TEXT


def _path_of(uri: str) -> str:
    try:
        return urlsplit(uri).path
    except ValueError:  # a source may be no URI at all
        return uri
