"""A document as it is handed in, and the checks it must pass before any work goes into it.

Pure; made by `convert.py`, used by `indexing.py` and `submitting.py`.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from servicekit.domain.chunk import MetadataScalar
from servicekit.errors import InvalidRequest

MAX_CONTENT_BYTES = 1024 * 1024
MAX_ID_CHARS = 256
MAX_TITLE_CHARS = 512
MAX_SOURCE_URI_CHARS = 2_048
MAX_METADATA_ENTRIES = 32
MAX_METADATA_VALUE_CHARS = 1_024
# Text has a tab, a line break, a form feed now and then; more of other control characters is no text.
MAX_CONTROL_SHARE = 0.01
DEFAULT_MEDIA_TYPE = "text/plain"
MEDIA_TYPES = (DEFAULT_MEDIA_TYPE, "text/markdown", "text/html")
_METADATA_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]{0,63}")
_CONTROL = re.compile("[\x01-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f\ufffe\uffff]")


@dataclass(frozen=True, slots=True)
class SubmittedDocument:
    """What a caller hands in."""

    document_id: str
    content: bytes
    media_type: str = ""
    title: str = ""
    source_uri: str = ""
    metadata: Mapping[str, MetadataScalar] = field(default_factory=dict)


def check_document(document: SubmittedDocument, *, path: str = "document") -> None:
    """Refuse what can never be indexed; `path` is where the document stood in the request.

    Raises:
        InvalidRequest: names the field, the value and what to do.
    """
    check_document_id(document.document_id, path=path)
    for name, value, bound in (
        ("title", document.title, MAX_TITLE_CHARS),
        ("source_uri", document.source_uri, MAX_SOURCE_URI_CHARS),
    ):
        if len(value) > bound:
            raise _refusal(path, name, f"must have at most {bound} characters, got {len(value)}", "TOO_LONG")
    _check_metadata(document.metadata, path)
    read_media_type(document.media_type, path=path)
    _check_content(document.content, path)


def check_document_id(document_id: str, *, path: str = "document") -> None:
    """Refuse an id that is empty, too long, or cannot be printed."""
    if not 1 <= len(document_id) <= MAX_ID_CHARS or not document_id.isprintable():
        shown = document_id if len(document_id) <= MAX_ID_CHARS else f"{len(document_id)} characters"
        field_path = f"{path}.document_id" if path else "document_id"
        raise InvalidRequest(
            f"{field_path} must be 1..{MAX_ID_CHARS} printable characters, got {shown!r}",
            field=field_path,
            reason="INVALID_DOCUMENT_ID",
        )


def read_media_type(media_type: str, *, path: str = "document") -> str:
    """The media type without parameters; plain text where none is given."""
    essence = media_type.split(";", maxsplit=1)[0].strip().lower() or DEFAULT_MEDIA_TYPE
    if essence not in MEDIA_TYPES:
        known = ", ".join(MEDIA_TYPES)
        raise _refusal(path, "media_type", f"must be one of {known}, got {media_type[:100]!r}", "UNKNOWN_MEDIA_TYPE")
    return essence


def decode_content(content: bytes, *, path: str = "document") -> str:
    """The text, without a byte-order mark."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        problem = f"must be UTF-8, byte {exc.start} is not: convert it, or name a supported media type"
        raise _refusal(path, "content", problem, "NOT_UTF8") from exc


def hash_document(document: SubmittedDocument) -> str:
    """SHA-256 over all that a caller gave: content, media type, title, source and metadata."""
    described = {
        "media_type": read_media_type(document.media_type),
        "title": document.title,
        "source_uri": document.source_uri,
        "metadata": {name: [type(value).__name__, value] for name, value in document.metadata.items()},
    }
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    digest.update(b"\0")
    digest.update(document.content)
    return digest.hexdigest()


def _check_content(content: bytes, path: str) -> None:
    if not content:
        raise _refusal(path, "content", "is empty: give at least one byte of text", "EMPTY_DOCUMENT")
    if len(content) > MAX_CONTENT_BYTES:
        problem = f"must have at most {MAX_CONTENT_BYTES} bytes, got {len(content)}: split the document"
        raise _refusal(path, "content", problem, "DOCUMENT_TOO_LARGE")
    if b"\0" in content:
        position = content.index(0)
        raise _refusal(path, "content", f"is binary, byte {position} is NUL: extract its text", "BINARY_CONTENT")
    text = decode_content(content, path=path)
    if not text.strip():
        raise _refusal(path, "content", "holds only blank space: give some text", "EMPTY_DOCUMENT")
    control = len(_CONTROL.findall(text))
    if control > MAX_CONTROL_SHARE * len(text):
        problem = f"is binary, {control} of {len(text)} characters are control characters: extract its text"
        raise _refusal(path, "content", problem, "BINARY_CONTENT")


def _check_metadata(metadata: Mapping[str, MetadataScalar], path: str) -> None:
    if len(metadata) > MAX_METADATA_ENTRIES:
        problem = f"must have at most {MAX_METADATA_ENTRIES} entries, got {len(metadata)}"
        raise _refusal(path, "metadata", problem, "TOO_MANY_METADATA_FIELDS")
    for name, value in metadata.items():
        if not _METADATA_NAME.fullmatch(name):
            problem = f"has the name {name[:100]!r}: use 1..64 of A-Z a-z 0-9 _, not beginning with _"
            raise _refusal(path, "metadata", problem, "INVALID_METADATA")
        if isinstance(value, str) and len(value) > MAX_METADATA_VALUE_CHARS:
            problem = f"[{name}] must have at most {MAX_METADATA_VALUE_CHARS} characters, got {len(value)}"
            raise _refusal(path, "metadata", problem, "INVALID_METADATA")
        if isinstance(value, float) and not math.isfinite(value):
            raise _refusal(path, "metadata", f"[{name}] must be finite, got {value!r}", "INVALID_METADATA")


def _refusal(path: str, name: str, problem: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"{path}.{name} {problem}", field=f"{path}.{name}", reason=reason)
