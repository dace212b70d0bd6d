"""What becomes of a document. Pure; made by the pipeline, told by `events.py` and `convert.py`."""

from dataclasses import dataclass
from enum import StrEnum

from servicekit.errors import InvalidRequest
from servicekit.ports.vector_store import StoredDocument
from services.retriever.ingestion.document import SubmittedDocument
from services.retriever.ingestion.quality import Flag


class Outcome(StrEnum):
    """What happened to a document."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    REFUSED = "refused"
    RETRACTED = "retracted"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class IndexResult:
    """What became of one document; revision and hash are those now current, an error only where refused."""

    document_id: str
    outcome: Outcome
    revision: int = 0
    chunk_count: int = 0
    content_hash: str = ""
    source_uri: str = ""
    content_bytes: int = 0
    error: InvalidRequest | None = None
    flags: tuple[Flag, ...] = ()
    duplicate_of: str = ""
    language: str = ""
    media_type: str = ""


def stored_as(
    document: StoredDocument,
    outcome: Outcome,
    *,
    flags: tuple[Flag, ...] = (),
    duplicate_of: str = "",
    language: str = "",
) -> IndexResult:
    """The result for a document as it is stored now."""
    return IndexResult(
        document_id=document.document_id,
        outcome=outcome,
        revision=document.revision,
        chunk_count=document.chunk_count,
        content_hash=document.content_hash,
        source_uri=document.source_uri,
        content_bytes=document.content_bytes,
        flags=flags,
        duplicate_of=duplicate_of,
        language=language,
        media_type=document.media_type,
    )


def refused(document: SubmittedDocument, error: InvalidRequest) -> IndexResult:
    """The result for a document that is not indexed."""
    return IndexResult(
        document_id=document.document_id,
        outcome=Outcome.REFUSED,
        source_uri=document.source_uri,
        content_bytes=len(document.content),
        error=error,
        media_type=document.media_type.split(";", maxsplit=1)[0].strip().lower()[:100],
    )
