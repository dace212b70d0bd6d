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
        failure = await self._send(event)
        if afterwards is not None:
            try:
                await afterwards(failure is None)
            except BinnacleError as error:
                log.warning("publication.aftermath_failed", topic=event.topic, reason=error.reason)
        if failure is not None:
            raise failure

    async def _send(self, event: OutgoingEvent) -> BackendUnavailable | None:
        try:
            async with asyncio.timeout(self._ack_timeout_s):
                await self._publisher.publish(event)
        except (BinnacleError, TimeoutError) as error:
            reason = getattr(error, "reason", "TIMEOUT")
            log.error("event.not_recorded", topic=event.topic, event_id=event.id, reason=reason)  # noqa: TRY400  # the cause is the reason; no stack helps
            failure = not_recorded()
            failure.__cause__ = error
            return failure
        return None


def not_recorded() -> BackendUnavailable:
    """The error of an event that the bus did not acknowledge."""
    return BackendUnavailable(
        "the record was not acknowledged by the event bus in time; try again", reason="EVENT_NOT_RECORDED"
    )
