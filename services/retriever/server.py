"""The gRPC face of the retriever: decode, one domain call, encode."""
# ruff: noqa: N802, ARG002  # the proto names the methods, and grpc.aio gives each a context

from typing import Any

from binnacle.retriever.v1 import retriever_service_pb2 as rpc
from binnacle.retriever.v1 import retriever_service_pb2_grpc as stubs
from servicekit.errors import InvalidRequest, NotFound
from servicekit.ports.vector_store import VectorStore
from servicekit.rpc.auth import current_caller
from services.retriever.convert import (
    document_from,
    document_info_to,
    documents_from,
    operation_to,
    report_to,
    stored_chunk_to,
)
from services.retriever.convert_documents import documents_to, index_to, page_from
from services.retriever.convert_search import answer_to, hashes_from, search_from
from services.retriever.events import RetrieverEvents
from services.retriever.index.reembedding import Reembedder
from services.retriever.ingestion.document import check_document_id
from services.retriever.ingestion.indexing import Indexer
from services.retriever.ingestion.operations import Operations
from services.retriever.ingestion.withdrawing import Withdrawer
from services.retriever.search.searching import Searcher

SERVICE_NAME = rpc.DESCRIPTOR.services_by_name["RetrieverService"].full_name
SCOPES = {
    "IndexDocuments": "ingest",
    "SubmitDocument": "ingest",
    "GetOperation": "ingest",
    "SearchChunks": "search",
    "BatchGetChunks": "search",
    "GetDocument": "search",
    "DeleteDocument": "ingest",
    "RetractDocument": "ingest",
    "ListDocuments": "search",
    "GetIndex": "search",
}
MAX_OPERATION_ID_CHARS = 64


class RetrieverServicer(stubs.RetrieverServiceServicer):
    """The tenant of every call is its credential's."""

    def __init__(
        self,
        *,
        indexer: Indexer,
        searcher: Searcher,
        store: VectorStore,
        events: RetrieverEvents,
        operations: Operations,
        reembedder: Reembedder | None = None,
    ) -> None:
        self._withdrawer = Withdrawer(indexer=indexer, store=store, events=events)
        self._indexer = indexer
        self._searcher = searcher
        self._store = store
        self._events = events
        self._operations = operations
        self._reembedder = reembedder

    async def IndexDocuments(self, request: rpc.IndexDocumentsRequest, context: Any) -> rpc.IndexDocumentsResponse:
        """Index, then tell of it, then answer."""
        tenant = current_caller().tenant
        report = await self._indexer.index(tenant, documents_from(request), path="documents[{}]")
        await self._events.publish_report(tenant, report)
        return report_to(report)

    async def SubmitDocument(self, request: rpc.SubmitDocumentRequest, context: Any) -> rpc.SubmitDocumentResponse:
        """Queue for indexing."""
        if not request.HasField("document"):
            raise InvalidRequest("document is required, got none", field="document")
        operation = await self._events.submit(current_caller().tenant, document_from(request.document))
        return rpc.SubmitDocumentResponse(operation=operation_to(operation))

    async def GetOperation(self, request: rpc.GetOperationRequest, context: Any) -> rpc.GetOperationResponse:
        """How far a submitted document is."""
        if not 1 <= len(request.operation_id) <= MAX_OPERATION_ID_CHARS:
            raise InvalidRequest(
                f"operation_id must be 1..{MAX_OPERATION_ID_CHARS} characters as SubmitDocument answered it, "
                f"got {len(request.operation_id)}",
                field="operation_id",
            )
        operation = await self._operations.get(current_caller().tenant, request.operation_id)
        return rpc.GetOperationResponse(operation=operation_to(operation))

    async def SearchChunks(self, request: rpc.SearchChunksRequest, context: Any) -> rpc.SearchChunksResponse:
        """Search; the query itself is never logged or traced, speculative or not."""
        return answer_to(await self._searcher.search(current_caller().tenant, search_from(request)))

    async def BatchGetChunks(self, request: rpc.BatchGetChunksRequest, context: Any) -> rpc.BatchGetChunksResponse:
        """Texts by content hash."""
        hashes = hashes_from(request)
        found = await self._store.get_chunks(current_caller().tenant, hashes)
        return rpc.BatchGetChunksResponse(chunks=[stored_chunk_to(one, found.get(one)) for one in hashes])

    async def GetDocument(self, request: rpc.GetDocumentRequest, context: Any) -> rpc.GetDocumentResponse:
        """One live document's state."""
        check_document_id(request.document_id, path="")
        documents = await self._store.get_documents(current_caller().tenant, [request.document_id])
        document = documents.get(request.document_id)
        if document is None or document.delete_time is not None:
            raise NotFound(f"no document {request.document_id!r}", reason="DOCUMENT_NOT_FOUND")
        return rpc.GetDocumentResponse(document=document_info_to(document))

    async def DeleteDocument(self, request: rpc.DeleteDocumentRequest, context: Any) -> rpc.DeleteDocumentResponse:
        """Erase a document, then tell of it."""
        check_document_id(request.document_id, path="")
        version = await self._withdrawer.delete(current_caller().tenant, request.document_id)
        return rpc.DeleteDocumentResponse(corpus_version=version)

    async def RetractDocument(self, request: rpc.RetractDocumentRequest, context: Any) -> rpc.RetractDocumentResponse:
        """Hide a document, then tell of it."""
        check_document_id(request.document_id, path="")
        tenant = current_caller().tenant
        revision, version = await self._withdrawer.retract(tenant, request.document_id, reason=request.reason)
        return rpc.RetractDocumentResponse(corpus_version=version, revision=revision)

    async def ListDocuments(self, request: rpc.ListDocumentsRequest, context: Any) -> rpc.ListDocumentsResponse:
        """A page of documents."""
        page = page_from(request)
        documents = await self._store.list_documents(
            current_caller().tenant,
            page_size=page.size + 1,
            after=page.after,
            include_retracted=request.include_retracted,
        )
        return documents_to(documents, size=page.size)

    async def GetIndex(self, request: rpc.GetIndexRequest, context: Any) -> rpc.GetIndexResponse:
        """The tenant's index as it stands."""
        tenant = current_caller().tenant
        rebuild = None if self._reembedder is None else self._reembedder.progress(tenant)
        return index_to(await self._store.describe(tenant), rebuild)
