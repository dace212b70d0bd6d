"""What the retriever consumes (documents handed in) and publishes (documents to index, what became of them).

An offset is committed after the document is indexed and that has been told, so a crash repeats and never loses.
"""

import asyncio
from datetime import datetime

import structlog

from binnacle.events.v1.document_indexed_pb2 import DocumentIndexed
from binnacle.events.v1.document_submitted_pb2 import DocumentSubmitted
from servicekit.domain.envelope import ReceivedEvent
from servicekit.domain.ids import derive_id
from servicekit.errors import InvalidRequest
from servicekit.events.codec import decode, read_time
from servicekit.events.topics import DOCUMENT_INDEXED, DOCUMENT_SUBMITTED
from servicekit.ports.clock import Clock
from servicekit.ports.event_bus import EventPublisher, OutgoingEvent, RejectedEvent, Subscription
from servicekit.ports.vector_store import StoredDocument
from services.retriever.convert import indexed_to, submitted_from, submitted_to
from services.retriever.ingestion.document import SubmittedDocument, check_document_id, check_submission
from services.retriever.ingestion.indexing import Indexer, IndexReport
from services.retriever.ingestion.operations import Operation, Operations, operation_id_of
from services.retriever.ingestion.results import IndexResult, Outcome, stored_as
from services.retriever.ingestion.submission import EventPlace

GROUP = "retriever"
# Each waits for the embedder most of the time; more would only hold more texts in memory.
CONCURRENCY = 16

log = structlog.get_logger()


class RetrieverEvents:
    """The handler of submitted documents, and everything that is published."""

    def __init__(
        self,
        *,
        indexer: Indexer,
        operations: Operations,
        publisher: EventPublisher,
        clock: Clock,
        embedding_model: str,
    ) -> None:
        self._indexer = indexer
        self._operations = operations
        self._publisher = publisher
        self._clock = clock
        self._embedding_model = embedding_model

    def subscriptions(self) -> tuple[Subscription, ...]:
        """What this service consumes."""
        return (Subscription(topic=DOCUMENT_SUBMITTED, group=GROUP, handle=self.on_submitted, concurrency=CONCURRENCY),)

    async def submit(self, tenant: str, document: SubmittedDocument) -> Operation:
        """Queue a document; returns once the bus has acknowledged it.

        Raises:
            InvalidRequest: it could never be indexed.
            BackendUnavailable: the bus did not acknowledge in time; submitting again is safe.
        """
        check_submission(document)
        operation_id = operation_id_of(tenant, document)
        operation = await self._operations.begin(tenant, operation_id, submit_time=self._clock.now())
        await self._publisher.publish(
            OutgoingEvent(
                topic=DOCUMENT_SUBMITTED,
                key=document.document_id,
                id=derive_id(DOCUMENT_SUBMITTED, operation_id, operation.create_time.isoformat()),
                tenant=tenant,
                message=submitted_to(document, tenant=tenant, operation=operation),
            )
        )
        return operation

    async def on_submitted(self, event: ReceivedEvent) -> None:
        """Index one document and tell what became of it; the tenant is the envelope's.

        Raises:
            RejectedEvent: it does not decode, names no document to report on, or a time that no calendar has.
            BackendUnavailable, Overloaded: store, embedder or bus are away; the event is tried again.
        """
        message = decode(event, DocumentSubmitted)
        tenant = event.envelope.tenant
        stated = message.HasField("submit_time")
        submitted = read_time(message.submit_time, field="submit_time") if stated else event.time
        try:
            check_document_id(message.document_id, path="")
            document = submitted_from(message)
        except InvalidRequest as exc:
            raise RejectedEvent(exc.message, stage="validate") from exc
        operation_id = message.operation_id or derive_id("operation", tenant, event.envelope.id)
        report = await self._indexer.index(
            tenant,
            [document],
            path="document",
            place=EventPlace(event.partition, event.offset, submitted),
            progress=self._operations.follow(tenant, operation_id, submit_time=submitted),
        )
        await self.publish_report(tenant, report, operation_id=operation_id)
        await self._operations.finish(tenant, operation_id, report.results[0], submit_time=submitted)
        _log_report(report, submitted=True)

    async def publish_report(self, tenant: str, report: IndexReport, *, operation_id: str = "") -> None:
        """Tell what became of each document, all sends at once.

        An unchanged document is told of too, by an event of its own: if the first send was lost after the revision
        was stored, this one tells of the revision; otherwise it must not take the place of what the first one said.

        Raises:
            BackendUnavailable: not everything was acknowledged in time.
        """
        results = [one for one in report.results if one.outcome is not Outcome.REFUSED or operation_id]
        sends = [self._publish_result(tenant, result, report, operation_id) for result in results]
        for outcome in await asyncio.gather(*sends, return_exceptions=True):
            if outcome is not None:
                raise outcome

    async def publish_deleted(self, tenant: str, document: StoredDocument, *, corpus_version: int) -> None:
        """Tell that a document is gone; the same event each time."""
        result = stored_as(document, Outcome.DELETED)
        await self._publish(tenant, result, self._told(tenant, result, corpus_version, at=document.delete_time))

    async def publish_retracted(
        self, tenant: str, document: StoredDocument, *, corpus_version: int, reason: str
    ) -> None:
        """Tell that a document is hidden, and why; the same event each time."""
        result = stored_as(document, Outcome.RETRACTED)
        message = self._told(tenant, result, corpus_version, at=document.retract_time)
        message.retract_reason = reason
        await self._publish(tenant, result, message)

    async def _publish_result(self, tenant: str, result: IndexResult, report: IndexReport, operation_id: str) -> None:
        message = self._told(tenant, result, report.corpus_version)
        message.embedding_model = report.embedding_model or self._embedding_model
        message.operation_id = operation_id
        message.duration_us = round(report.elapsed_s * 1e6)
        await self._publish(tenant, result, message, operation_id)

    def _told(
        self, tenant: str, result: IndexResult, corpus_version: int, *, at: datetime | None = None
    ) -> DocumentIndexed:
        return indexed_to(
            result,
            tenant=tenant,
            corpus_version=corpus_version,
            embedding_model=self._embedding_model,
            at=at or self._clock.now(),
        )

    async def _publish(
        self, tenant: str, result: IndexResult, message: DocumentIndexed, operation_id: str = ""
    ) -> None:
        await self._publisher.publish(
            OutgoingEvent(
                topic=DOCUMENT_INDEXED,
                key=result.document_id,
                id=_indexed_id(tenant, result, operation_id),
                tenant=tenant,
                message=message,
            )
        )


def _indexed_id(tenant: str, result: IndexResult, operation_id: str) -> str:
    """One event a revision, and one each for its being found unchanged, retracted, deleted; one a refused operation."""
    if result.outcome is Outcome.REFUSED:
        return derive_id(DOCUMENT_INDEXED, tenant, result.document_id, "refused", operation_id)
    stages = {Outcome.DELETED: "deleted", Outcome.RETRACTED: "retracted", Outcome.UNCHANGED: "unchanged"}
    stage = stages.get(result.outcome, "indexed")
    return derive_id(DOCUMENT_INDEXED, tenant, result.document_id, str(result.revision), stage)


def _log_report(report: IndexReport, *, submitted: bool) -> None:
    outcomes = [result.outcome for result in report.results]
    log.info(
        "documents.indexed",
        submitted=submitted,
        documents=len(outcomes),
        refused=outcomes.count(Outcome.REFUSED),
        unchanged=outcomes.count(Outcome.UNCHANGED),
        chunks=sum(result.chunk_count for result in report.results),
        corpus_version=report.corpus_version,
        elapsed_ms=round(report.elapsed_s * 1000),
    )
