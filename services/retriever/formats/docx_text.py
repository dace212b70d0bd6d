"""Reads Word files (DOCX) by way of the HTML that they mean: headings, lists and tables kept.

Pure; run by `parse_worker.py`, because a file can be made to need any amount of memory and time. See `parsing.py`.
"""

import io
import zipfile
from typing import Any

import mammoth

from servicekit.errors import InvalidRequest
from services.retriever.formats.html_text import parse_html
from services.retriever.formats.parsing import ParsedDocument

MAX_UNPACKED_BYTES = 256 * 1024 * 1024
_ENCRYPTED = 0x1
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_STYLES = "p[style-name='Title'] => h1:fresh\np[style-name='Subtitle'] => p:fresh"


def parse_docx(content: bytes) -> ParsedDocument:
    """The text that the file shows.

    Raises:
        InvalidRequest: it is damaged, encrypted, or unpacks to too much.
    """
    if content.startswith(_OLE):
        raise _refusal("is encrypted, or of the old .doc format: save it as .docx without a password", "ENCRYPTED")
    _check_archive(content)
    try:
        html = mammoth.convert_to_html(
            io.BytesIO(content),
            style_map=_STYLES,
            include_embedded_style_map=False,
            convert_image=mammoth.images.img_element(_no_image),
        ).value
    except (MemoryError, RecursionError):
        raise
    except Exception as exc:  # whatever the library stumbles over, it is the file's fault
        problem = f"is a damaged Word file ({type(exc).__name__}): save it anew"
        raise _refusal(problem, "MALFORMED_DOCX") from exc
    return parse_html(f"<body>{html}</body>")


def _check_archive(content: bytes) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as exc:
        raise _refusal(f"is no Word file ({exc}): save it as .docx", "MALFORMED_DOCX") from exc
    if any(part.flag_bits & _ENCRYPTED for part in parts):
        raise _refusal("is encrypted: save it without a password", "ENCRYPTED")
    unpacked = sum(part.file_size for part in parts)
    if unpacked > MAX_UNPACKED_BYTES:
        raise _refusal(f"unpacks to {unpacked} bytes, {MAX_UNPACKED_BYTES} are the bound: split it", "PARSE_LIMIT")


def _no_image(_image: Any) -> dict[str, str]:
    return {}


def _refusal(problem: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"document.content {problem}", field="document.content", reason=reason)
