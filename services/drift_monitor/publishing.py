"""Publishes each change of an alert, in order, until the bus has acknowledged it; a tombstone ends a resolved one.

Fed by the book of alerts through `bootstrap.py`, run as a background task, emptied at drain.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field

import structlog

from servicekit.domain.ids import derive_id
from servicekit.errors import BackendTimeout, BackendUnavailable
from servicekit.events.topics import DRIFT_ALERTED
from servicekit.ports.event_bus import EventPublisher, OutgoingEvent
from services.drift_monitor.alerts import Alert
from services.drift_monitor.convert import alerted_to

log = structlog.get_logger()


@dataclass(slots=True)
class _Pending:
    event: OutgoingEvent
    done: asyncio.Event = field(default_factory=asyncio.Event)


class AlertPublisher:
    """An ordered outbox. What is lost with the process is raised again by the windows rebuilt at the next start."""

    def __init__(self, publisher: EventPublisher, *, retry_s: float = 1.0) -> None:
        self._publisher = publisher
        self._retry_s = retry_s
        self._pending: deque[_Pending] = deque()
        self._arrived = asyncio.Event()
        self._turn = asyncio.Lock()

    def put(self, alert: Alert) -> None:
        """Take a change for publishing; returns at once."""
        self._pending.append(_Pending(_event_of(alert)))
        if not alert.is_open:
            self._pending.append(_Pending(_tombstone_of(alert)))
        self._arrived.set()

    async def run(self) -> None:
        """Publish what arrives, trying again while the bus is away; ends only by cancellation."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            if not await self._publish_pending():
                await asyncio.sleep(self._retry_s)
                self._arrived.set()

    async def drain(self) -> None:
        """Publish what is left, once; what the bus refuses now is logged and left to the next start."""
        if not await self._publish_pending():
            log.warning("alerts.left_unpublished", events=len(self._pending))

    async def settle(self, *, timeout_s: float) -> None:
        """Return once everything put so far is acknowledged.

        Raises:
            BackendUnavailable: not in time (reason EVENT_NOT_RECORDED); it is still tried.
        """
        if not self._pending:
            return
        last = self._pending[-1]
        try:
            async with asyncio.timeout(timeout_s):
                await last.done.wait()
        except TimeoutError as exc:
            raise BackendUnavailable(
                f"the change was not acknowledged within {timeout_s} s; it is still being tried",
                reason="EVENT_NOT_RECORDED",
            ) from exc

    async def _publish_pending(self) -> bool:
        async with self._turn:
            while self._pending:
                head = self._pending[0]
                try:
                    await self._publisher.publish(head.event)
                except (BackendUnavailable, BackendTimeout) as error:
                    log.warning("alert.not_published", alert_key=head.event.key, error=error.message)
                    return False
                self._pending.popleft()
                head.done.set()
        return True


def _event_of(alert: Alert) -> OutgoingEvent:
    """Its id names the state (and who acknowledged), so that the same change is the same event."""
    identity = derive_id("drift-alerted", alert.alert_id, alert.state, alert.acknowledged_by, alert.acknowledge_note)
    return OutgoingEvent(
        topic=DRIFT_ALERTED,
        key=alert.alert_key,
        id=identity,
        tenant=alert.segment.tenant,
        message=alerted_to(alert),
    )


def _tombstone_of(alert: Alert) -> OutgoingEvent:
    return OutgoingEvent(
        topic=DRIFT_ALERTED,
        key=alert.alert_key,
        id=derive_id("drift-alert-tombstone", alert.alert_id),
        tenant=alert.segment.tenant,
        message=alerted_to(alert),
        tombstone=True,
    )
