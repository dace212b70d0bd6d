"""Withdraws documents: retracted ones are hidden and kept, deleted ones erased; either is told of. Used by `server.py`.

A crash may come between the hiding and the telling. A call that is repeated therefore tells again, as the same event,
before it answers that there is nothing left to do.
"""

from servicekit.errors import InvalidRequest, NotFound, NotReady
from servicekit.ports.vector_store import DocumentReader, StoredDocument
from services.retriever.events import RetrieverEvents
from services.retriever.ingestion.indexing import Indexer

MAX_REASON_CHARS = 512


class Withdrawer:
    """Retracts and deletes."""

    def __init__(self, *, indexer: Indexer, store: DocumentReader, events: RetrieverEvents) -> None:
        self._indexer = indexer
        self._store = store
        self._events = events

    async def retract(self, tenant: str, document_id: str, *, reason: str) -> tuple[int, int]:
        """Hide a document, then tell of it; returns the revision that was current and the corpus version after it.

        Raises:
            InvalidRequest: the reason is too long.
            NotFound: there is no such document, or it is deleted.
            NotReady: it is retracted already; that has been told again, with this call's reason.
            BackendUnavailable: the store or the bus is away; the document may be hidden, and repeating is safe.
        """
        if len(reason) > MAX_REASON_CHARS:
            raise InvalidRequest(
                f"reason must have at most {MAX_REASON_CHARS} characters, got {len(reason)}", field="reason"
            )
        try:
            document, version = await self._indexer.retract(tenant, document_id)
        except NotReady:
            held = await self._held(tenant, document_id)
            if held is not None and held.retract_time is not None:
                version = (await self._store.describe(tenant)).version
                await self._events.publish_retracted(tenant, held, corpus_version=version, reason=reason)
            raise
        await self._events.publish_retracted(tenant, document, corpus_version=version, reason=reason)
        return document.revision, version

    async def delete(self, tenant: str, document_id: str) -> int:
        """Erase a document, then tell of it; returns the corpus version after it.

        Raises:
            NotFound: there is no such document; or it is deleted already, and that has been told again.
            BackendUnavailable: the store or the bus is away; the document may be gone, and repeating is safe.
        """
        try:
            document, version = await self._indexer.delete(tenant, document_id)
        except NotFound:
            held = await self._held(tenant, document_id)
            if held is not None and held.delete_time is not None:
                version = (await self._store.describe(tenant)).version
                await self._events.publish_deleted(tenant, held, corpus_version=version)
            raise
        await self._events.publish_deleted(tenant, document, corpus_version=version)
        return version

    async def _held(self, tenant: str, document_id: str) -> StoredDocument | None:
        return (await self._store.get_documents(tenant, [document_id])).get(document_id)
