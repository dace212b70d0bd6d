"""Publishes decisions behind the calls that made them: a call waits for a place in the queue, not for the bus.

Used by `checking.py` through `submit`; `bootstrap.py` runs `run` as a background task and `drain` at the end.

While Kafka is away the bus takes decisions to its spool on disk, and this queue stays short. Only when the spool takes
nothing either do decisions wait here, `capacity` of them; then each check waits for a place, as long as it is allowed
to, and fails UNAVAILABLE / EVENT_NOT_RECORDED: no judgement is given that would leave no trace. A clean stop
publishes what waits (or spools it, or counts and logs the loss); a kill -9 loses what the bus had not yet accepted:
usually the decisions of the last milliseconds.
"""

import asyncio
from contextvars import Context, copy_context
from dataclasses import dataclass, field

import structlog

from servicekit.errors import BackendTimeout, BackendUnavailable
from servicekit.ports.event_bus import EventPublisher, OutgoingEvent
from services.guardrail.metrics import DECISIONS_LOST, DECISIONS_PENDING

log = structlog.get_logger()

_AT_ONCE = 64
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0


@dataclass(frozen=True, slots=True)
class _Pending:
    event: OutgoingEvent
    context: Context = field(default_factory=copy_context)  # the call's trace goes with the event


class DecisionPublisher:
    """Holds every decision until the bus has it: acknowledged, or spooled."""

    def __init__(self, publisher: EventPublisher, *, capacity: int) -> None:
        self._publisher = publisher
        self._capacity = capacity
        self._places = asyncio.Semaphore(capacity)
        self._pending: dict[str, _Pending] = {}
        self._queue: asyncio.Queue[_Pending] = asyncio.Queue()

    @property
    def pending(self) -> int:
        """Decisions that the bus does not have yet."""
        return len(self._pending)

    async def submit(self, event: OutgoingEvent, *, wait_s: float) -> None:
        """Take the event in; the same event again, while it is held, is the same event.

        Raises:
            BackendUnavailable: the queue was full for `wait_s` seconds (reason EVENT_NOT_RECORDED).
        """
        if event.id in self._pending:
            return
        try:
            async with asyncio.timeout(wait_s):
                await self._places.acquire()
        except TimeoutError as exc:
            raise BackendUnavailable(
                f"{self._capacity} decisions wait for the event bus and no place became free; try again later",
                reason="EVENT_NOT_RECORDED",
            ) from exc
        if event.id in self._pending:
            self._places.release()
            return
        waiting = _Pending(event)
        self._pending[event.id] = waiting
        self._queue.put_nowait(waiting)
        DECISIONS_PENDING.set(len(self._pending))

    async def run(self) -> None:
        """Publish until cancelled; what was in hand stays pending, for `drain`."""
        at_once = asyncio.Semaphore(_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            while True:
                waiting = await self._queue.get()
                await at_once.acquire()
                task = group.create_task(self._send(waiting), context=waiting.context)
                task.add_done_callback(lambda _: at_once.release())

    async def drain(self, *, within_s: float = 12.0) -> None:
        """Publish what is still pending, once `run` has ended; what remains after `within_s` is lost, and said so."""
        try:
            async with asyncio.timeout(within_s), asyncio.TaskGroup() as group:
                for waiting in tuple(self._pending.values()):
                    group.create_task(self._send(waiting), context=waiting.context)
        except TimeoutError:
            DECISIONS_LOST.inc(len(self._pending))
            log.error(  # noqa: TRY400  # the timeout says nothing more
                "decisions.lost", events=len(self._pending), cause="the event bus did not acknowledge in time"
            )

    async def _send(self, waiting: _Pending) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                await self._publisher.publish(waiting.event)
            except (BackendUnavailable, BackendTimeout) as exc:
                log.warning("decision.publish_retried", reason=exc.reason, pause_s=pause_s)
                await asyncio.sleep(pause_s)
                pause_s = min(_LONGEST_PAUSE_S, pause_s * 2)
            except Exception:
                DECISIONS_LOST.inc()
                log.exception("decision.refused", event_id=waiting.event.id)
                break
            else:
                break
        self._pending.pop(waiting.event.id, None)
        self._places.release()
        DECISIONS_PENDING.set(len(self._pending))
