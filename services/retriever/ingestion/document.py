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
from services.retriever.formats.decoding import UndecodableTextError, decode
from services.retriever.formats.media_types import BINARY_TYPES, MEDIA_TYPES, charset_of, essence_of, sniff

MAX_CONTENT_BYTES = 1024 * 1024
MAX_FETCHED_BYTES = 32 * 1024 * 1024
MAX_ID_CHARS = 256
MAX_TITLE_CHARS = 512
MAX_SOURCE_URI_CHARS = 2_048
MAX_METADATA_ENTRIES = 32
MAX_METADATA_VALUE_CHARS = 1_024
# Text has a tab, a line break, a form feed now and then; more of other control characters is no text.
MAX_CONTROL_SHARE = 0.01
_METADATA_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]{0,63}")
_CONTROL = re.compile("[\x01-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f\ufffe\uffff]")


@dataclass(frozen=True, slots=True)
class SubmittedDocument:
    """What a caller hands in; with a `fetch_uri`, its content is what was fetched from there, and empty before."""

    document_id: str
    content: bytes
    media_type: str = ""
    title: str = ""
    source_uri: str = ""
    metadata: Mapping[str, MetadataScalar] = field(default_factory=dict)
    fetch_uri: str = ""


def check_document(document: SubmittedDocument, *, path: str = "document") -> None:
    """Refuse what can never be indexed; `path` is where the document stood in the request.

    Raises:
        InvalidRequest: names the field, the value and what to do.
    """
    check_document_id(document.document_id, path=path)
    for name, value, bound in (
        ("title", document.title, MAX_TITLE_CHARS),
        ("source_uri", document.source_uri, MAX_SOURCE_URI_CHARS),
        ("fetch_uri", document.fetch_uri, MAX_SOURCE_URI_CHARS),
    ):
        if len(value) > bound:
            raise _refusal(path, name, f"must have at most {bound} characters, got {len(value)}", "TOO_LONG")
    _check_metadata(document.metadata, path)
    media_type = read_media_type(document, path=path)
    if document.content or not document.fetch_uri:
        _check_content(document, media_type, path)


def check_submission(document: SubmittedDocument, *, path: str = "document") -> None:
    """`check_document` for one that is submitted: with content, or an address to fetch it from."""
    if document.fetch_uri:
        check_fetchable(document, submitted=True, path=path)
    check_document(document, path=path)


def check_fetchable(document: SubmittedDocument, *, submitted: bool, path: str = "document") -> None:
    """Refuse to fetch where the call answers only once all is indexed, and where there is content already."""
    if not submitted:
        problem = f"{document.fetch_uri[:200]!r} is for SubmitDocument: give content here"
        raise _refusal(path, "fetch_uri", problem, "FETCH_NOT_HERE")
    if document.content:
        raise _refusal(path, "fetch_uri", "is given beside content: give one of them", "CONTENT_AND_FETCH_URI")


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


def read_media_type(document: SubmittedDocument, *, path: str = "document") -> str:
    """The media type without parameters: as given, else what content, source and address look like."""
    essence = essence_of(document.media_type)
    if not essence:
        return sniff(document.content, document.fetch_uri, document.source_uri)
    if essence not in MEDIA_TYPES:
        known, given = ", ".join(MEDIA_TYPES), document.media_type[:100]
        raise _refusal(path, "media_type", f"must be one of {known}, got {given!r}", "UNKNOWN_MEDIA_TYPE")
    return essence


def decode_content(document: SubmittedDocument, *, path: str = "document") -> str:
    """The text of a document that is text, without a byte-order mark."""
    media_type = read_media_type(document, path=path)
    try:
        return decode(document.content, media_type=media_type, charset=charset_of(document.media_type))
    except UndecodableTextError as exc:
        if b"\0" in document.content and exc.reason == "NOT_UTF8":
            raise _nul(path, document.content.index(0)) from exc
        raise _refusal(path, "content", str(exc), exc.reason) from exc


def hash_document(document: SubmittedDocument) -> str:
    """SHA-256 over all that a caller gave: content (its address, before it is fetched), media type and the rest."""
    described: dict[str, object] = {
        "media_type": read_media_type(document),
        "title": document.title,
        "source_uri": document.source_uri,
        "metadata": {name: [type(value).__name__, value] for name, value in document.metadata.items()},
    }
    if charset := charset_of(document.media_type):
        described["charset"] = charset
    if document.fetch_uri and not document.content:
        described["fetch_uri"] = document.fetch_uri
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    digest.update(b"\0")
    digest.update(document.content)
    return digest.hexdigest()


def _check_content(document: SubmittedDocument, media_type: str, path: str) -> None:
    content = document.content
    if not content:
        raise _refusal(path, "content", "is empty: give at least one byte of text", "EMPTY_DOCUMENT")
    most = MAX_FETCHED_BYTES if document.fetch_uri else MAX_CONTENT_BYTES
    if len(content) > most:
        hint = "split the document" if document.fetch_uri else "split the document, or submit a fetch_uri"
        raise _refusal(
            path, "content", f"must have at most {most} bytes, got {len(content)}: {hint}", "DOCUMENT_TOO_LARGE"
        )
    if media_type not in BINARY_TYPES:
        check_text(decode_content(document, path=path), path=path)


def check_text(text: str, *, path: str = "document") -> None:
    """Refuse what is blank, or no text at all."""
    if "\0" in text:
        raise _nul(path, text.index("\0"))
    if not text.strip():
        raise _refusal(path, "content", "holds only blank space: give some text", "EMPTY_DOCUMENT")
    control = len(_CONTROL.findall(text))
    if control > MAX_CONTROL_SHARE * len(text):
        problem = f"is binary, {control} of {len(text)} characters are control characters: extract its text"
        raise _refusal(path, "content", problem, "BINARY_CONTENT")


def _nul(path: str, position: int) -> InvalidRequest:
    problem = f"is binary, NUL stands at {position}: extract its text, or name its media type"
    return _refusal(path, "content", problem, "BINARY_CONTENT")


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
