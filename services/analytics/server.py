"""The gRPC face of analytics: decode, one domain call, encode."""

from typing import Any

from binnacle.analytics.v1 import analytics_service_pb2 as pb
from binnacle.analytics.v1 import analytics_service_pb2_grpc as stubs
from servicekit.errors import InvalidRequest
from servicekit.ports.analytics_store import AnalyticsStore
from servicekit.ports.clock import Clock
from servicekit.rpc.auth import current_caller
from services.analytics import convert
from services.analytics.affected import AffectedQuery, AffectedReader, make_long_window
from services.analytics.completeness import COUNTED_TOPICS, account_for
from services.analytics.interactions import InteractionReader
from services.analytics.usage import count_usage
from services.analytics.window import Page, Tenancy, make_window, read_page_token

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["AnalyticsService"].full_name
SCOPES = {
    "GetInteraction": "analytics",
    "ListInteractions": "analytics",
    "GetUsage": "analytics",
    "GetCompleteness": "analytics",
    "ListAffectedAnswers": "analytics",
}
_MAX_ID_CHARS = 256
_MAX_PAGE, _DEFAULT_PAGE, _AFFECTED_PAGE = 500, 50, 100


class AnalyticsServicer(stubs.AnalyticsServiceServicer):
    """Answers from ClickHouse, for the caller's tenant; the scope admin sees all tenants."""

    def __init__(self, store: AnalyticsStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._affected = AffectedReader(store)
        self._interactions = InteractionReader(store, convert.make_columns())

    async def GetInteraction(  # noqa: N802  # the proto names it
        self,
        request: pb.GetInteractionRequest,
        context: Any,  # noqa: ARG002  # the signature of every method
    ) -> pb.GetInteractionResponse:
        """One interaction with its verdicts, scores and feedback."""
        request_id = _text(request.request_id, "request_id")
        if not request_id:
            raise InvalidRequest("request_id must name an interaction, got ''", field="request_id")
        return convert.dossier_to(await self._interactions.get(request_id, tenancy=_tenancy()))

    async def ListInteractions(  # noqa: N802  # the proto names it
        self,
        request: pb.ListInteractionsRequest,
        context: Any,  # noqa: ARG002  # the signature of every method
    ) -> pb.ListInteractionsResponse:
        """Interactions, newest first."""
        size = _page_size(request.page_size, default=_DEFAULT_PAGE)
        rows, following = await self._interactions.list_page(self._page(request), size=size, tenancy=_tenancy())
        return convert.interactions_to(rows, following.token() if following else "")

    async def GetUsage(  # noqa: N802  # the proto names it
        self,
        request: pb.GetUsageRequest,
        context: Any,  # noqa: ARG002  # the signature of every method
    ) -> pb.GetUsageResponse:
        """Requests, tokens and cost by group."""
        window = make_window(
            convert.time_from(request, "start_time"),
            convert.time_from(request, "end_time"),
            now=self._clock.now(),
        )
        figures = await count_usage(self._store, groups=convert.groups_from(request), window=window, tenancy=_tenancy())
        return convert.usage_to(figures)

    async def GetCompleteness(  # noqa: N802  # the proto names it
        self,
        request: pb.GetCompletenessRequest,
        context: Any,  # noqa: ARG002  # the signature of every method
    ) -> pb.GetCompletenessResponse:
        """What was accepted, stored, doubled and missing; the same for every tenant, since it holds no data."""
        if request.topic and request.topic not in COUNTED_TOPICS:
            raise InvalidRequest(
                f"topic must be empty or one of {', '.join(COUNTED_TOPICS)}, got {request.topic[:80]!r}",
                field="topic",
            )
        now = self._clock.now()
        window = make_window(convert.time_from(request, "start_time"), convert.time_from(request, "end_time"), now=now)
        topics = (request.topic,) if request.topic else COUNTED_TOPICS
        return convert.completeness_to(await account_for(self._store, topics=topics, window=window, now=now))

    async def ListAffectedAnswers(  # noqa: N802  # the proto names it
        self,
        request: pb.ListAffectedAnswersRequest,
        context: Any,  # noqa: ARG002  # the signature of every method
    ) -> pb.ListAffectedAnswersResponse:
        """Answers that a document went into; the caller's tenant alone, since ids of documents are a tenant's own."""
        document_id = _text(request.document_id, "document_id")
        if not document_id:
            raise InvalidRequest("document_id must name a document, got ''", field="document_id")
        asked = AffectedQuery(
            document_id=document_id,
            revision=request.revision,
            include_uncited=request.include_uncited,
            window=make_long_window(
                convert.time_from(request, "start_time"), convert.time_from(request, "end_time"), now=self._clock.now()
            ),
        )
        page = asked.resumed(request.page_token) if request.page_token else asked
        found = await self._affected.list_page(
            page, size=_page_size(request.page_size, default=_AFFECTED_PAGE), tenant=current_caller().tenant
        )
        token = found.following.token() if found.following else ""
        return convert.affected_to(found.answers, total=found.total, next_page_token=token)

    def _page(self, request: pb.ListInteractionsRequest) -> Page:
        asked = Page(
            window=make_window(
                convert.time_from(request, "start_time"),
                convert.time_from(request, "end_time"),
                now=self._clock.now(),
            ),
            route=_text(request.route, "route"),
            conversation_id=_text(request.conversation_id, "conversation_id"),
        )
        if not request.page_token:
            return asked
        page = read_page_token(request.page_token)
        if (page.route, page.conversation_id) != (asked.route, asked.conversation_id):
            raise InvalidRequest(
                "page_token belongs to a list with other filters: repeat the request's route and conversation_id",
                field="page_token",
            )
        return page


def _tenancy() -> Tenancy:
    caller = current_caller()
    return Tenancy(None if caller.may("admin") else caller.tenant)


def _page_size(asked: int, *, default: int) -> int:
    size = asked or default
    if not 1 <= size <= _MAX_PAGE:
        raise InvalidRequest(f"page_size must be 1..{_MAX_PAGE} or 0, got {size}", field="page_size")
    return size


def _text(value: str, name: str) -> str:
    if len(value) > _MAX_ID_CHARS:
        raise InvalidRequest(f"{name} must have at most {_MAX_ID_CHARS} characters, got {len(value)}", field=name)
    return value
