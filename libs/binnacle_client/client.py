"""The asynchronous client: one method for each thing a product, an analyst or an operator does.

Sits on the services' gRPC stubs; errors are `servicekit.errors`, so that callers need to know no status codes.
"""

import math
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from typing import Any, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from binnacle.analytics.v1 import analytics_service_pb2 as analytics
from binnacle.analytics.v1.analytics_service_pb2_grpc import AnalyticsServiceStub
from binnacle.drift_monitor.v1 import drift_monitor_service_pb2 as drift
from binnacle.drift_monitor.v1.drift_monitor_service_pb2_grpc import DriftMonitorServiceStub
from binnacle.gateway.v1 import gateway_service_pb2 as gateway
from binnacle.gateway.v1.gateway_service_pb2_grpc import GatewayServiceStub
from binnacle.retriever.v1 import retriever_service_pb2 as retriever
from binnacle.retriever.v1.retriever_service_pb2_grpc import RetrieverServiceStub
from binnacle_client import convert
from binnacle_client.answers import (
    AffectedAnswer,
    AffectedAnswers,
    Answer,
    AnswerEvent,
    Completeness,
    DocumentInput,
    DocumentState,
    DriftAlert,
    FoundChunk,
    IndexedDocument,
    Operation,
    QuestionOptions,
    UsageRow,
)
from binnacle_client.connection import SERVICES, Connection
from servicekit.rpc.client import open_channel
from servicekit.rpc.deadline import Budget, within
from servicekit.rpc.status import to_error

_DEFAULT_TIMEOUT_S = 60.0
_PAGE = 500


class Binnacle:
    """A connection to every service that a caller may ask; opened by `open_client`."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._stack = AsyncExitStack()
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def __aenter__(self) -> Self:
        """Connect lazily; nothing is sent yet."""
        await self._stack.__aenter__()
        for service in SERVICES:
            self._channels[service] = await self._stack.enter_async_context(
                open_channel(self.connection.target(service), audience=service, api_key=self.connection.api_key)
            )
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Close all channels."""
        await self._stack.aclose()

    async def ask(
        self, text: str, options: QuestionOptions | None = None, *, timeout_s: float = _DEFAULT_TIMEOUT_S
    ) -> Answer:
        """The whole answer to a question."""
        request = gateway.AnswerQuestionRequest(question=convert.question_to_proto(text, options or QuestionOptions()))
        with _errors("gateway"):
            response = await GatewayServiceStub(self._channels["gateway"]).AnswerQuestion(request, timeout=timeout_s)
        return convert.answer_from_proto(response.answer)

    async def stream(
        self, text: str, options: QuestionOptions | None = None, *, timeout_s: float = _DEFAULT_TIMEOUT_S
    ) -> AsyncIterator[AnswerEvent]:
        """Pieces of the answer as they are released; the last event is the whole `Answer`."""
        request = gateway.StreamAnswerRequest(question=convert.question_to_proto(text, options or QuestionOptions()))
        with _errors("gateway"):
            async for message in GatewayServiceStub(self._channels["gateway"]).StreamAnswer(request, timeout=timeout_s):
                event = convert.event_from_proto(message)
                if event is not None:
                    yield event

    async def rate(self, request_id: str, *, rating: int, author: str = "", comment: str = "") -> str:
        """Rate an answer from 1 to 5; returns the feedback's id."""
        return await self._record(convert.feedback_to_proto(request_id, author, comment, rating=rating))

    async def thumb(self, request_id: str, *, up: bool, author: str = "", comment: str = "") -> str:
        """Thumb up or down; returns the feedback's id."""
        return await self._record(convert.feedback_to_proto(request_id, author, comment, thumbs_up=up))

    async def correct(self, request_id: str, *, correction: str, author: str = "", comment: str = "") -> str:
        """Say what the answer should have been; returns the feedback's id."""
        return await self._record(convert.feedback_to_proto(request_id, author, comment, correction=correction))

    async def label(self, request_id: str, *, label: str, author: str = "", comment: str = "") -> str:
        """Put an answer into a category; returns the feedback's id."""
        return await self._record(convert.feedback_to_proto(request_id, author, comment, label=label))

    async def _record(self, request: gateway.RecordFeedbackRequest) -> str:
        with _errors("gateway"):
            response = await GatewayServiceStub(self._channels["gateway"]).RecordFeedback(request, timeout=10)
        return response.feedback_id

    async def index(self, documents: Iterable[DocumentInput], *, timeout_s: float = 300) -> Sequence[IndexedDocument]:
        """Index documents (at most 256 and 4 MiB a call) and return when they can be searched."""
        request = retriever.IndexDocumentsRequest(
            documents=[convert.document_to_proto(document) for document in documents]
        )
        with _errors("retriever"):
            response = await RetrieverServiceStub(self._channels["retriever"]).IndexDocuments(
                request, timeout=timeout_s
            )
        return [convert.indexed_from_proto(result) for result in response.results]

    async def submit(self, document: DocumentInput) -> str:
        """Queue a document for indexing; returns the operation to follow once the event is acknowledged."""
        request = retriever.SubmitDocumentRequest(document=convert.document_to_proto(document))
        with _errors("retriever"):
            response = await RetrieverServiceStub(self._channels["retriever"]).SubmitDocument(request, timeout=30)
        return response.operation.operation_id

    async def operation(self, operation_id: str) -> Operation:
        """How far a submitted document is; known for a day."""
        request = retriever.GetOperationRequest(operation_id=operation_id)
        with _errors("retriever"):
            response = await RetrieverServiceStub(self._channels["retriever"]).GetOperation(request, timeout=10)
        return convert.operation_from_proto(response.operation)

    async def search(self, query: str, *, top_k: int = 8, mode: str = "hybrid") -> Sequence[FoundChunk]:
        """Chunks for a query, best first; `mode` is dense, sparse or hybrid."""
        request = retriever.SearchChunksRequest(
            query=query, top_k=top_k, mode=retriever.SearchMode.Value(f"SEARCH_MODE_{mode.upper()}")
        )
        with _errors("retriever"):
            response = await RetrieverServiceStub(self._channels["retriever"]).SearchChunks(request, timeout=30)
        return [convert.found_from_proto(chunk) for chunk in response.chunks]

    async def documents(self, *, include_retracted: bool = False) -> AsyncIterator[DocumentState]:
        """Every document in the order of ids, page by page; retracted ones only where asked for."""
        token = ""
        while True:
            request = retriever.ListDocumentsRequest(
                page_size=_PAGE, page_token=token, include_retracted=include_retracted
            )
            with _errors("retriever"):
                page = await RetrieverServiceStub(self._channels["retriever"]).ListDocuments(request, timeout=30)
            for document in page.documents:
                yield convert.document_state_from_proto(document)
            token = page.next_page_token
            if not token:
                return

    async def retract(self, document_id: str, *, reason: str = "") -> int:
        """Hide a document from searches at once, its texts kept; returns the revision that was current."""
        request = retriever.RetractDocumentRequest(document_id=document_id, reason=reason)
        with _errors("retriever"):
            response = await RetrieverServiceStub(self._channels["retriever"]).RetractDocument(request, timeout=30)
        return response.revision

    async def delete(self, document_id: str) -> None:
        """Erase a document with all its revisions; its content hashes answer with tombstones."""
        request = retriever.DeleteDocumentRequest(document_id=document_id)
        with _errors("retriever"):
            await RetrieverServiceStub(self._channels["retriever"]).DeleteDocument(request, timeout=30)

    async def affected_answers(
        self,
        document_id: str,
        *,
        revision: int = 0,
        start: datetime | None = None,
        end: datetime | None = None,
        include_uncited: bool = False,
        limit: int = 100,
    ) -> AffectedAnswers:
        """The newest `limit` answers that cite a document (or had it in their prompt), and how many there are."""
        request = analytics.ListAffectedAnswersRequest(
            document_id=document_id,
            revision=revision,
            start_time=convert.to_timestamp(start),
            end_time=convert.to_timestamp(end),
            include_uncited=include_uncited,
        )
        answers: list[AffectedAnswer] = []
        while True:
            request.page_size = max(1, min(_PAGE, limit - len(answers)))
            with _errors("analytics"):
                page = await AnalyticsServiceStub(self._channels["analytics"]).ListAffectedAnswers(request, timeout=60)
            answers += map(convert.affected_from_proto, page.answers)
            request.page_token = page.next_page_token
            if not page.next_page_token or len(answers) >= limit:
                return AffectedAnswers(page.total, tuple(answers[:limit]))

    async def alerts(self, *, after_cursor: int = 0) -> AsyncIterator[DriftAlert]:
        """What is firing now, then every change, until cancelled."""
        request = drift.SubscribeAlertsRequest(after_cursor=after_cursor)
        with _errors("drift_monitor"):
            stub = DriftMonitorServiceStub(self._channels["drift_monitor"])
            with within(Budget.from_remaining(math.inf)):  # a subscription has no deadline
                call = stub.SubscribeAlerts(request)
            async for message in call:
                if message.HasField("alert"):
                    yield convert.alert_from_proto(message.alert)

    async def list_alerts(self, *, limit: int = 50) -> Sequence[DriftAlert]:
        """Alerts, newest first."""
        with _errors("drift_monitor"):
            response = await DriftMonitorServiceStub(self._channels["drift_monitor"]).ListAlerts(
                drift.ListAlertsRequest(page_size=limit), timeout=10
            )
        return [convert.alert_from_proto(alert) for alert in response.alerts]

    async def acknowledge_alert(self, alert_id: str, *, note: str = "") -> DriftAlert:
        """Say that somebody looks after an alert."""
        with _errors("drift_monitor"):
            response = await DriftMonitorServiceStub(self._channels["drift_monitor"]).AcknowledgeAlert(
                drift.AcknowledgeAlertRequest(alert_id=alert_id, note=note), timeout=10
            )
        return convert.alert_from_proto(response.alert)

    async def usage(
        self, *, group_by: Sequence[str] = ("model",), start: datetime | None = None, end: datetime | None = None
    ) -> Sequence[UsageRow]:
        """Requests, tokens and cost by group (tenant, model, prompt, route, project, hour, day)."""
        request = analytics.GetUsageRequest(
            start_time=convert.to_timestamp(start),
            end_time=convert.to_timestamp(end),
            group_by=[analytics.UsageGroup.Value(f"USAGE_GROUP_{name.upper()}") for name in group_by],
        )
        with _errors("analytics"):
            response = await AnalyticsServiceStub(self._channels["analytics"]).GetUsage(request, timeout=30)
        return [convert.usage_from_proto(row) for row in response.rows]

    async def completeness(
        self, *, topic: str = "", start: datetime | None = None, end: datetime | None = None
    ) -> Completeness:
        """Whether everything that was accepted is stored; of the last 24 hours unless told otherwise."""
        request = analytics.GetCompletenessRequest(
            topic=topic, start_time=convert.to_timestamp(start), end_time=convert.to_timestamp(end)
        )
        with _errors("analytics"):
            response = await AnalyticsServiceStub(self._channels["analytics"]).GetCompleteness(request, timeout=30)
        return convert.completeness_from_proto(response)

    async def health(self, service: str, *, timeout_s: float = 2.0) -> str:
        """`serving`, `not_serving` or `unreachable`."""
        name = f"binnacle.{service}.v1.{service.title().replace('_', '')}Service"
        request = health_pb2.HealthCheckRequest(service=name)
        try:
            stub: Any = health_pb2_grpc.HealthStub(self._channels[service])
            response = await stub.Check(request, timeout=timeout_s)
        except grpc.aio.AioRpcError:
            return "unreachable"
        return health_pb2.HealthCheckResponse.ServingStatus.Name(response.status).lower()


@asynccontextmanager
async def open_client(connection: Connection) -> AsyncIterator[Binnacle]:
    """Open a client; its channels are closed at the end."""
    async with Binnacle(connection) as client:
        yield client


class _errors:  # noqa: N801  # reads as the block it opens
    """Turns a gRPC error of one service into Binnacle's own."""

    def __init__(self, service: str) -> None:
        self._service = service

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: object, _traceback: object) -> None:
        if isinstance(error, grpc.aio.AioRpcError):
            raise to_error(error, backend=self._service, keep_unauthenticated=True) from error
