"""Handles a batch of records: in order per key, several keys at once, retried until done or rejected.

Used by every event-bus adapter between its fetch and its commit, so that all mean the same by "handled".
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import structlog
from opentelemetry.trace import SpanKind

from servicekit.events import metrics
from servicekit.events.dead_letter_cap import DeadLetterCap, DeadLetterCapReached
from servicekit.events.dead_letters import REPLAY_STAGE, DeadLetter, Record, bury, parse_record, restore
from servicekit.ports.clock import Clock, SystemClock
from servicekit.ports.event_bus import RejectedEvent, Subscription
from servicekit.telemetry.tracing import span

log = structlog.get_logger()

Partition = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pause before attempt n + 1: `initial_s` doubled n - 1 times, at most `max_s`."""

    initial_s: float = 0.1
    max_s: float = 30.0

    def pause_s(self, attempt: int) -> float:
        """Seconds to wait after failed attempt `attempt`, counted from 1."""
        return min(self.max_s, self.initial_s * 2.0 ** min(attempt - 1, 32))


def _always(_partition: Partition) -> bool:
    return True


class Lanes:
    """Runs one subscription's handler over batches, of its topic and of its group's replay topic.

    `send_dead_letter` puts one where it belongs, and returns when it is safe there. `owns` says whether a
    partition is still assigned to this consumer: records of one that is not are left to its new owner. Once `cap`
    has tripped nothing more is handled, whatever is resumed: the caller commits what was, and fetches no more.
    """

    def __init__(
        self,
        subscription: Subscription,
        *,
        send_dead_letter: Callable[[DeadLetter], Awaitable[None]],
        backoff: Backoff | None = None,
        owns: Callable[[Partition], bool] = _always,
        cap: DeadLetterCap | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._subscription = subscription
        self._send_dead_letter = send_dead_letter
        self._backoff = backoff or Backoff()
        self._owns = owns
        self._cap = cap or DeadLetterCap(subscription.dead_letter_limits)
        self._clock = clock or SystemClock()
        self._pausing = asyncio.Event()
        self._told_stopped = False
        metrics.STOPPED.labels(subscription.topic, subscription.group).set(int(self.stopped))

    async def process(self, records: Sequence[Record]) -> Mapping[Partition, int]:
        """Handle what can be handled; the offset of the first record not handled, by partition.

        Returns when every record is handled or rejected, or soon after `pause`: what is in a handler is
        finished, what waits for a retry or was not begun is left.
        """
        handled: set[tuple[Partition, int]] = set()
        lanes = iter(_by_key(records))

        async def work() -> None:
            for lane in lanes:
                for record in lane:
                    if not await self._handle(record):
                        break
                    handled.add(((record.topic, record.partition), record.offset))

        async with asyncio.TaskGroup() as workers:
            for _ in range(min(self._subscription.concurrency, len(records))):
                workers.create_task(work())
        return _next_offsets(records, handled)

    def pause(self) -> None:
        """Begin nothing more; a retry in waiting is given up."""
        self._pausing.set()

    def resume(self) -> None:
        """Take up work again."""
        self._pausing.clear()

    @property
    def paused(self) -> bool:
        """Whether nothing more is begun."""
        return self._pausing.is_set()

    @property
    def stopped(self) -> bool:
        """Whether too many dead letters ended all work."""
        return self._cap.trip is not None

    async def _handle(self, record: Record) -> bool:
        """Whether the record is done with: handled, or buried."""
        attempt = 0
        while not self.paused and not self.stopped and self._owns((record.topic, record.partition)):
            attempt += 1
            try:
                await self._attempt(record)
            except DeadLetterCapReached as reached:
                self._tell_stopped(record, reached)
            except Exception as exc:  # noqa: BLE001  # whatever a handler raises, the offset stays uncommitted
                await self._wait_to_retry(record, attempt, exc)
            else:
                return True
        return False

    async def _attempt(self, record: Record) -> None:
        subscription = self._subscription
        try:
            if record.topic != subscription.topic:
                record = restore(record, topic=subscription.topic, group=subscription.group)
            event = parse_record(record)
            with span(
                f"process {subscription.topic}",
                kind=SpanKind.CONSUMER,
                attributes={
                    "messaging.destination.name": subscription.topic,
                    "messaging.consumer.group.name": subscription.group,
                },
                traceparent=event.envelope.traceparent,
            ):
                await subscription.handle(event)
        except RejectedEvent as rejection:
            await self._reject(record, rejection)
        else:
            self._cap.accept()
            metrics.CONSUMED.labels(subscription.topic, subscription.group).inc()

    async def _reject(self, record: Record, rejection: RejectedEvent) -> None:
        subscription = self._subscription
        if subscription.dead_letter and rejection.stage != REPLAY_STAGE:
            if record.origin is None:  # a replay only goes back to where it came from
                place = record.topic, record.partition, record.offset
                self._cap.refuse(f"{rejection} (stage {rejection.stage})", place=place)
            await self._send_dead_letter(bury(record, rejection, group=subscription.group, now=self._clock.now()))
        metrics.REJECTED.labels(subscription.topic, subscription.group, rejection.stage).inc()
        log.warning(
            "event.rejected",
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            group=subscription.group,
            stage=rejection.stage,
            error=str(rejection),
            dead_letter=subscription.dead_letter,
        )

    def _tell_stopped(self, record: Record, reached: DeadLetterCapReached) -> None:
        if self._told_stopped:
            return
        self._told_stopped, subscription = True, self._subscription
        metrics.STOPPED.labels(subscription.topic, subscription.group).set(1)
        log.error(
            "event.consumer_stopped",
            topic=subscription.topic,
            group=subscription.group,
            partition=record.partition,
            offset=record.offset,
            why=str(reached),
            remedy="find what refuses them (`binnacle dlq list`), mend it and restart: nothing behind was committed",
        )

    async def _wait_to_retry(self, record: Record, attempt: int, exc: Exception) -> None:
        pause_s = self._backoff.pause_s(attempt)
        group = self._subscription.group
        metrics.RETRIES.labels(self._subscription.topic, group).inc()
        log.warning(
            "event.retried",
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            group=group,
            attempt=attempt,
            retry_in_s=pause_s,
            error=repr(exc),
            exc_info=exc if attempt == 1 else None,
        )
        try:
            async with asyncio.timeout(pause_s):
                await self._pausing.wait()
        except TimeoutError:
            return


def _by_key(records: Iterable[Record]) -> list[list[Record]]:
    """Records of one key in their order; records without a key follow each other by partition."""
    lanes: dict[tuple[str, int, bytes | None], list[Record]] = {}
    for record in records:
        lanes.setdefault((record.topic, record.partition, record.key), []).append(record)
    return list(lanes.values())


def _next_offsets(records: Iterable[Record], handled: set[tuple[Partition, int]]) -> dict[Partition, int]:
    """By partition the offset up to which, without exception, everything of this batch is handled."""
    positions: dict[Partition, int] = {}
    stuck: set[Partition] = set()
    for record in sorted(records, key=lambda one: one.offset):
        partition = (record.topic, record.partition)
        positions.setdefault(partition, record.offset)
        if (partition, record.offset) not in handled:
            stuck.add(partition)
        elif partition not in stuck:
            positions[partition] = record.offset + 1
    return positions
