"""Publishes records in tasks that outlive the RPCs they came from; drained before the bus closes.

Started by `answering.py` and `feedback.py`; `drain` is awaited by the runtime at stop.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from servicekit.errors import BackendUnavailable, BinnacleError
from servicekit.ports.event_bus import EventPublisher, OutgoingEvent

log = structlog.get_logger()

Afterwards = Callable[[bool], Awaitable[None]]


class Publishing:
    """Owns the publications in flight: grpc.aio cancels a handler at its deadline, never these."""

    def __init__(self, publisher: EventPublisher, *, ack_timeout_s: float) -> None:
        self._publisher = publisher
        self._ack_timeout_s = ack_timeout_s
        self._in_flight: set[asyncio.Task[None]] = set()

    def begin(self, event: OutgoingEvent, *, afterwards: Afterwards | None = None) -> asyncio.Task[None]:
        """Start to publish without waiting; `afterwards` runs next, told whether the event was acknowledged.

        The task ends with BackendUnavailable (EVENT_NOT_RECORDED) if it was not; the event may still arrive.
        """
        task = asyncio.get_running_loop().create_task(self._publish(event, afterwards))
        self._in_flight.add(task)
        task.add_done_callback(self._forget)
        return task

    async def drain(self) -> None:
        """Return once nothing is in flight; each publication is bounded by its own timeout."""
        while self._in_flight:
            await asyncio.wait(self._in_flight)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._in_flight.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved here, for publications whose request has gone away

    async def _publish(self, event: OutgoingEvent, afterwards: Afterwards | None) -> None:
        acknowledged = False
        try:
            await self._send(event)
            acknowledged = True
        finally:  # whatever went wrong, or else what the request holds (its idempotency key) stays held
            if afterwards is not None:
                await _follow(event, afterwards, acknowledged=acknowledged)

    async def _send(self, event: OutgoingEvent) -> None:
        try:
            async with asyncio.timeout(self._ack_timeout_s):
                await self._publisher.publish(event)
        except (BinnacleError, TimeoutError) as error:
            _log_failure(event, getattr(error, "reason", "TIMEOUT"))
            raise not_recorded() from error
        except Exception as error:
            _log_failure(event, type(error).__name__)
            raise


async def _follow(event: OutgoingEvent, afterwards: Afterwards, *, acknowledged: bool) -> None:
    try:
        await afterwards(acknowledged)
    except BinnacleError as error:
        log.warning("publication.aftermath_failed", topic=event.topic, reason=error.reason)


def _log_failure(event: OutgoingEvent, reason: str) -> None:
    log.error("event.not_recorded", topic=event.topic, event_id=event.id, reason=reason)


def not_recorded() -> BackendUnavailable:
    """The error of an event that the bus did not acknowledge."""
    return BackendUnavailable(
        "the record was not acknowledged by the event bus in time; try again", reason="EVENT_NOT_RECORDED"
    )
