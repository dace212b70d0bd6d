"""Protobuf ↔ the retriever's domain types: documents, chunks, results, events. Searches: `convert_search.py`."""

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from binnacle.events.v1 import document_indexed_pb2, document_submitted_pb2
from binnacle.retriever.v1 import retriever_service_pb2 as rpc
from binnacle.type.v1 import chunk_pb2
from servicekit.domain.chunk import Chunk
from servicekit.errors import InvalidRequest
from servicekit.ports.vector_store import StoredChunk, StoredDocument
from servicekit.rpc.metadata import metadata_from_proto, metadata_to_proto
from services.retriever.ingestion.document import SubmittedDocument
from services.retriever.ingestion.indexing import IndexReport
from services.retriever.ingestion.operations import Operation
from services.retriever.ingestion.progress import Stage
from services.retriever.ingestion.quality import Flag
from services.retriever.ingestion.results import IndexResult, Outcome

MAX_DOCUMENTS = 256
MAX_REQUEST_BYTES = 4 * 1024 * 1024

_RPC_OUTCOMES = {
    Outcome.CREATED: rpc.INDEX_OUTCOME_CREATED,
    Outcome.UPDATED: rpc.INDEX_OUTCOME_UPDATED,
    Outcome.UNCHANGED: rpc.INDEX_OUTCOME_UNCHANGED,
    Outcome.REFUSED: rpc.INDEX_OUTCOME_REFUSED,
}
_FLAGS = {
    Flag.EXACT_DUPLICATE: rpc.QUALITY_FLAG_EXACT_DUPLICATE,
    Flag.NEAR_DUPLICATE: rpc.QUALITY_FLAG_NEAR_DUPLICATE,
    Flag.BOILERPLATE: rpc.QUALITY_FLAG_BOILERPLATE,
    Flag.GUARDED: rpc.QUALITY_FLAG_GUARDED,
    Flag.UNEXPECTED_LANGUAGE: rpc.QUALITY_FLAG_UNEXPECTED_LANGUAGE,
}
_STAGES = {
    Stage.FETCHING: rpc.OPERATION_STAGE_FETCHING,
    Stage.PREPARING: rpc.OPERATION_STAGE_PREPARING,
    Stage.GUARDING: rpc.OPERATION_STAGE_GUARDING,
    Stage.EMBEDDING: rpc.OPERATION_STAGE_EMBEDDING,
    Stage.WRITING: rpc.OPERATION_STAGE_WRITING,
}
_EVENT_OUTCOMES = {
    Outcome.CREATED: document_indexed_pb2.DOCUMENT_OUTCOME_CREATED,
    Outcome.UPDATED: document_indexed_pb2.DOCUMENT_OUTCOME_UPDATED,
    Outcome.UNCHANGED: document_indexed_pb2.DOCUMENT_OUTCOME_UNCHANGED,
    Outcome.REFUSED: document_indexed_pb2.DOCUMENT_OUTCOME_REFUSED,
    Outcome.DELETED: document_indexed_pb2.DOCUMENT_OUTCOME_DELETED,
    Outcome.RETRACTED: document_indexed_pb2.DOCUMENT_OUTCOME_RETRACTED,
}


def documents_from(request: rpc.IndexDocumentsRequest) -> list[SubmittedDocument]:
    """The documents of a request; each is checked when it is indexed.

    Raises:
        InvalidRequest: none, too many, or too much of them.
    """
    count = len(request.documents)
    if not 1 <= count <= MAX_DOCUMENTS:
        raise InvalidRequest(f"documents must be 1..{MAX_DOCUMENTS}, got {count}", field="documents")
    total = sum(len(document.content) for document in request.documents)
    if total > MAX_REQUEST_BYTES:
        raise InvalidRequest(
            f"documents must have at most {MAX_REQUEST_BYTES} bytes of content together, got {total}: send fewer",
            field="documents",
            reason="REQUEST_TOO_LARGE",
        )
    return [document_from(document) for document in request.documents]


def document_from(message: rpc.Document) -> SubmittedDocument:
    """One document as it was handed in."""
    return SubmittedDocument(
        document_id=message.document_id,
        content=message.content,
        media_type=message.media_type,
        title=message.title,
        source_uri=message.source_uri,
        metadata=metadata_from_proto(message.metadata),
        fetch_uri=message.fetch_uri,
    )


def chunk_to(chunk: Chunk) -> chunk_pb2.Chunk:
    """A chunk with its text."""
    message = chunk_pb2.Chunk(
        chunk_id=chunk.chunk_id,
        document_id=chunk.document_id,
        revision=chunk.revision,
        content_hash=chunk.content_hash,
        text=chunk.text,
        title=chunk.title,
        source_uri=chunk.source_uri,
        heading_path=chunk.heading_path,
        ordinal=chunk.ordinal,
        token_count=chunk.token_count,
        metadata=metadata_to_proto(chunk.metadata),
    )
    message.span.start, message.span.end = chunk.start, chunk.end
    return message


def stored_chunk_to(content_hash: str, stored: StoredChunk | None) -> rpc.StoredChunk:
    """What is known under a content hash."""
    if stored is None:
        return rpc.StoredChunk(content_hash=content_hash, unknown=rpc.Unknown())
    if stored.chunk is not None:
        return rpc.StoredChunk(content_hash=content_hash, chunk=chunk_to(stored.chunk))
    tombstone = rpc.Tombstone()
    if stored.erase_time is not None:
        tombstone.erase_time.CopyFrom(timestamp(stored.erase_time))
    return rpc.StoredChunk(content_hash=content_hash, tombstone=tombstone)


def document_info_to(document: StoredDocument) -> rpc.DocumentInfo:
    """The state of a document that is not deleted."""
    return rpc.DocumentInfo(
        document_id=document.document_id,
        revision=document.revision,
        title=document.title,
        source_uri=document.source_uri,
        content_hash=document.content_hash,
        chunk_count=document.chunk_count,
        metadata=metadata_to_proto(document.metadata),
        index_time=timestamp(document.index_time),
        retract_time=timestamp(document.retract_time) if document.retract_time else None,
        media_type=document.media_type,
    )


def report_to(report: IndexReport) -> rpc.IndexDocumentsResponse:
    """The response of IndexDocuments."""
    return rpc.IndexDocumentsResponse(
        results=[result_to(result) for result in report.results], corpus_version=report.corpus_version
    )


def result_to(result: IndexResult) -> rpc.IndexResult:
    """What became of one document."""
    return rpc.IndexResult(
        document_id=result.document_id,
        outcome=_RPC_OUTCOMES[result.outcome],
        revision=result.revision,
        chunk_count=result.chunk_count,
        content_hash=result.content_hash,
        error_reason=result.error.reason if result.error else "",
        error_message=result.error.message if result.error else "",
        flags=[_FLAGS[flag] for flag in result.flags],
        duplicate_of=result.duplicate_of,
        language=result.language,
    )


def operation_to(operation: Operation) -> rpc.Operation:
    """An operation as it stands."""
    message = rpc.Operation(
        operation_id=operation.operation_id,
        state=rpc.OPERATION_STATE_PENDING,
        create_time=timestamp(operation.create_time),
    )
    if operation.result is not None:
        message.state = rpc.OPERATION_STATE_DONE
        message.result.CopyFrom(result_to(operation.result))
    elif operation.stage is not None:
        message.stage = _STAGES[operation.stage]
    message.chunks_done, message.chunks_total = operation.chunks_done, operation.chunks_total
    return message


def submitted_to(
    document: SubmittedDocument, *, tenant: str, operation: Operation
) -> document_submitted_pb2.DocumentSubmitted:
    """The event that asks for a document to be indexed."""
    return document_submitted_pb2.DocumentSubmitted(
        operation_id=operation.operation_id,
        submit_time=timestamp(operation.create_time),
        tenant_id=tenant,
        document_id=document.document_id,
        title=document.title,
        media_type=document.media_type,
        content=document.content,
        source_uri=document.source_uri,
        metadata=metadata_to_proto(document.metadata),
        fetch_uri=document.fetch_uri,
    )


def submitted_from(message: document_submitted_pb2.DocumentSubmitted) -> SubmittedDocument:
    """The document of such an event."""
    return SubmittedDocument(
        document_id=message.document_id,
        content=message.content,
        media_type=message.media_type,
        title=message.title,
        source_uri=message.source_uri,
        metadata=metadata_from_proto(message.metadata),
        fetch_uri=message.fetch_uri,
    )


def indexed_to(
    result: IndexResult, *, tenant: str, corpus_version: int, embedding_model: str, at: datetime
) -> document_indexed_pb2.DocumentIndexed:
    """The event that tells what became of a document."""
    return document_indexed_pb2.DocumentIndexed(
        document_id=result.document_id,
        index_time=timestamp(at),
        tenant_id=tenant,
        outcome=_EVENT_OUTCOMES[result.outcome],
        revision=result.revision,
        content_hash=result.content_hash,
        chunk_count=result.chunk_count,
        corpus_version=corpus_version,
        embedding_model=embedding_model,
        error_reason=result.error.reason if result.error else "",
        source_uri=result.source_uri,
        content_bytes=result.content_bytes,
        flags=[flag.upper() for flag in result.flags],
        duplicate_of=result.duplicate_of,
        language=result.language,
        media_type=result.media_type,
    )


def timestamp(moment: datetime) -> Timestamp:
    """A moment as a message."""
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp
