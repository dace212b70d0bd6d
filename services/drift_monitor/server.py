"""The gRPC face of the drift monitor: decode, one domain call, encode."""

from collections.abc import AsyncIterator
from typing import Any

from binnacle.drift_monitor.v1 import drift_monitor_service_pb2 as rpc
from binnacle.drift_monitor.v1 import drift_monitor_service_pb2_grpc as stubs
from servicekit.ports.clock import Clock
from servicekit.rpc.auth import current_caller
from services.drift_monitor.convert import alert_to, feed_event_to, report_to
from services.drift_monitor.convert_requests import (
    check_acknowledgement,
    cursor_from,
    heartbeat_from,
    interest_from,
    state_from,
)
from services.drift_monitor.feed import AlertFeed
from services.drift_monitor.listing import list_alerts
from services.drift_monitor.monitor import DriftMonitor
from services.drift_monitor.publishing import AlertPublisher
from services.drift_monitor.restoring import Restorer

SERVICE_NAME = rpc.DESCRIPTOR.services_by_name["DriftMonitorService"].full_name
SCOPES = dict.fromkeys(("SubscribeAlerts", "AcknowledgeAlert", "ListAlerts", "GetDriftReport"), "alerts")
LONG_LIVED = frozenset({"SubscribeAlerts"})
_ACKNOWLEDGE_TIMEOUT_S = 5.0
# Right after a start, alerts of the run before are a moment away; without the store there is nothing to wait for.
_HISTORY_TIMEOUT_S = 2.0


class DriftMonitorServicer(stubs.DriftMonitorServiceServicer):
    """Alerts of the caller's tenant, as a stream and as lists, and the report on its windows."""

    def __init__(
        self,
        monitor: DriftMonitor,
        *,
        feed: AlertFeed,
        publisher: AlertPublisher,
        restorer: Restorer,
        clock: Clock,
    ) -> None:
        self._monitor = monitor
        self._restorer = restorer
        self._feed = feed
        self._publisher = publisher
        self._clock = clock

    async def SubscribeAlerts(  # noqa: N802  # the proto names it
        self, request: rpc.SubscribeAlertsRequest, _context: Any
    ) -> AsyncIterator[rpc.SubscribeAlertsResponse]:
        """What is open now, then changes and heartbeats, until the subscriber leaves."""
        interest = interest_from(request, tenant=current_caller().tenant)
        cursor, heartbeat_s = cursor_from(request, clock=self._clock), heartbeat_from(request)
        await self._restorer.wait(timeout_s=heartbeat_s)
        events = self._feed.follow(self._monitor.book, interest, after_cursor=cursor, heartbeat_s=heartbeat_s)
        async for event in events:
            yield feed_event_to(event, now=self._clock.now())

    async def AcknowledgeAlert(  # noqa: N802  # the proto names it
        self, request: rpc.AcknowledgeAlertRequest, _context: Any
    ) -> rpc.AcknowledgeAlertResponse:
        """Returns once the acknowledgement is recorded."""
        check_acknowledgement(request)
        await self._restorer.wait(timeout_s=_HISTORY_TIMEOUT_S)
        caller = current_caller()
        alert = self._monitor.book.acknowledge(
            request.alert_id, tenant=caller.tenant, by=caller.subject, note=request.note
        )
        await self._publisher.settle(timeout_s=_ACKNOWLEDGE_TIMEOUT_S)
        return rpc.AcknowledgeAlertResponse(alert=alert_to(alert))

    async def ListAlerts(  # noqa: N802  # the proto names it
        self, request: rpc.ListAlertsRequest, _context: Any
    ) -> rpc.ListAlertsResponse:
        """One page, the latest change first."""
        await self._restorer.wait(timeout_s=_HISTORY_TIMEOUT_S)
        page, next_page_token = list_alerts(
            self._monitor.book.of_tenant(current_caller().tenant),
            state=state_from(request),
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return rpc.ListAlertsResponse(alerts=[alert_to(alert) for alert in page], next_page_token=next_page_token)

    async def GetDriftReport(  # noqa: N802  # the proto names it
        self, request: rpc.GetDriftReportRequest, _context: Any
    ) -> rpc.GetDriftReportResponse:
        """The report on the segment's newest window."""
        report = await self._monitor.report(current_caller().tenant, segment_label=request.segment)
        return report_to(report)
