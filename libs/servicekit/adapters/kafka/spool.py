"""The spool: events on this process's disk until Kafka has them. Bounded, in order per partition, group-committed.

Filled by `publisher.py` when Kafka is away or slow, emptied by `draining.py`; `spool_file.py` holds the bytes.

One thread owns the file. Whatever waits for it when it begins a transaction goes into that transaction, so that a
hundred publishes cost one synchronisation of the disk. Positions are given out here, on the event loop, in the order
of the calls; counts and sizes are kept here too, so that nobody waits to learn whether a partition is spooled.
"""

import asyncio
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from servicekit.adapters.kafka.spool_file import Inventory, Lane, SpooledRecord, SpoolFile
from servicekit.events import metrics

log = structlog.get_logger()

# Less room than this counts as full: a service that says it can take events can take a usual one.
_ROOM_BYTES = 256 * 1024
# A disk that failed is tried again after this long, by the next event.
_DISK_AGAIN_S = 1.0
_MAX_GROUP = 1_000
READ_EVENTS, _READ_BYTES = 500, 1024 * 1024
_CLOSE_S = 10.0


@dataclass(frozen=True, slots=True)
class _Work:
    """What the thread is to do: change the file (several at once), or call `read` between two changes."""

    appended: Sequence[tuple[int, SpooledRecord]] = ()
    removed: Sequence[int] = ()
    read: Callable[[], Any] | None = None
    outcome: Future[Any] = field(default_factory=Future)


class Spool:
    """An open spool; all methods are called on one event loop.

    `max_bytes` bounds keys, headers and values with 100 bytes a record; the file may be somewhat larger.
    """

    def __init__(self, file: SpoolFile, found: Inventory, *, max_bytes: int) -> None:
        self._file = file
        self._max_bytes = max_bytes
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
        self._changed = asyncio.Event()
        self._events = dict(found.events)
        self._bytes = found.size_bytes
        self._next_position = found.last_position + 1
        self._partitions = dict(found.partitions)
        self._failing = False
        self._disk_again_s = 0.0
        self._filled_at_s = time.monotonic()
        self._drained = 0
        self._tell_sizes()

    def start(self) -> None:
        """Start the thread; `close` ends it."""
        self._thread.start()

    @property
    def ok(self) -> bool:
        """Whether it takes a usual event now."""
        return not self._failing and self._bytes + _ROOM_BYTES <= self._max_bytes

    def holds(self, lane: Lane) -> bool:
        """Whether something of this partition is spooled, or about to be."""
        return lane in self._events

    def lanes(self) -> Sequence[Lane]:
        """The partitions of which something is spooled."""
        return tuple(self._events)

    def takes(self, size_bytes: int) -> bool:
        """Whether there is room for so much, and a disk that works or is due to be tried again."""
        return self._bytes + size_bytes <= self._max_bytes and self._disk_is_due

    @property
    def _disk_is_due(self) -> bool:
        return not self._failing or time.monotonic() >= self._disk_again_s

    def refuse(self) -> None:
        """Count an event that `takes` did not allow."""
        metrics.SPOOL_REFUSALS.labels("full" if self._disk_is_due else "disk").inc()

    def append(self, records: Sequence[SpooledRecord]) -> tuple[range, asyncio.Future[None]]:
        """Put records of one partition behind all others; their positions, and the time when they are durable.

        The future raises sqlite3.Error if the disk does not take them; then none of them is there.
        """
        if not self._events:
            self._filled_at_s, self._drained = time.monotonic(), 0
            log.warning("kafka.spooling", topic=records[0].topic, path=str(self._file.path))
        positions = range(self._next_position, self._next_position + len(records))
        self._next_position = positions.stop
        self._count(records, 1)
        if self._failing:
            self._disk_again_s = time.monotonic() + _DISK_AGAIN_S
        outcome = self._submit(_Work(appended=list(zip(positions, records, strict=True))))
        outcome.add_done_callback(lambda done: self._conclude_append(records, done))
        return positions, outcome

    def _conclude_append(self, records: Sequence[SpooledRecord], outcome: asyncio.Future[None]) -> None:
        error = None if outcome.cancelled() else outcome.exception()
        if error is None:
            metrics.SPOOLED.labels(records[0].topic).inc(len(records))
            self._failing = False
            return
        self._count(records, -1)
        metrics.SPOOL_REFUSALS.labels("disk").inc(len(records))
        if not self._failing:
            log.error(
                "kafka.spool_failed",
                path=str(self._file.path),
                error=repr(error),
                remedy="until the disk takes writes again, what Kafka does not acknowledge fails EVENT_NOT_RECORDED",
            )
        self._failing, self._disk_again_s = True, time.monotonic() + _DISK_AGAIN_S

    async def read(self, lane: Lane, *, max_events: int = READ_EVENTS) -> Sequence[tuple[int, SpooledRecord]]:
        """The oldest records of a partition with their positions: what was appended before, unless it was removed.

        Raises:
            sqlite3.Error: the file cannot be read.
        """

        def read() -> Sequence[tuple[int, SpooledRecord]]:
            return self._file.read(lane, max_events=max_events, max_bytes=_READ_BYTES)

        found: Sequence[tuple[int, SpooledRecord]] = await self._submit(_Work(read=read))
        return found

    def remove(self, records: Sequence[tuple[int, SpooledRecord]]) -> None:
        """Take out records of one partition: Kafka has them.

        Done later; what a crash leaves of it is sent twice.
        """
        self._count([record for _, record in records], -1)
        self._drained += len(records)
        metrics.DRAINED.labels(records[0][1].topic).inc(len(records))
        self._submit(_Work(removed=[position for position, _ in records]))
        if not self._events:
            elapsed_s = round(time.monotonic() - self._filled_at_s, 3)
            log.info("kafka.spool_drained", events=self._drained, elapsed_s=elapsed_s)
            self._submit(_Work(read=self._file.shrink))

    def partitions(self, topic: str) -> int | None:
        """How many partitions the topic had when Kafka last told; None if it never did."""
        return self._partitions.get(topic)

    def remember_partitions(self, topic: str, partitions: int) -> None:
        """Keep what Kafka told, for a start while it is away."""
        if self._partitions.get(topic) != partitions:
            self._partitions[topic] = partitions
            self._submit(_Work(read=lambda: self._file.remember_partitions(topic, partitions)))

    async def changed(self) -> None:
        """Return when something was put in or taken out."""
        await self._changed.wait()

    async def close(self) -> None:
        """Finish what was submitted, and close the file."""
        self._work.put(None)
        await asyncio.to_thread(self._thread.join, _CLOSE_S)
        if self._thread.is_alive():
            log.error("kafka.spool_left_behind", path=str(self._file.path), within_s=_CLOSE_S)

    def _count(self, records: Sequence[SpooledRecord], sign: int) -> None:
        lane = (records[0].topic, records[0].partition)
        self._bytes += sign * sum(one.size_bytes for one in records)
        self._events[lane] = self._events.get(lane, 0) + sign * len(records)
        if not self._events[lane]:
            del self._events[lane]
        self._tell_sizes()
        self._changed.set()
        self._changed = asyncio.Event()

    def _tell_sizes(self) -> None:
        metrics.SPOOL_EVENTS.set(sum(self._events.values()))
        metrics.SPOOL_BYTES.set(self._bytes)

    def _submit(self, work: _Work) -> asyncio.Future[Any]:
        outcome = asyncio.wrap_future(work.outcome)
        outcome.add_done_callback(lambda done: done.cancelled() or done.exception())  # retrieved, if nobody awaits it
        self._work.put(work)
        return outcome

    def _run(self) -> None:
        """The thread: one transaction for all changes that wait, reads between them."""
        try:
            left_over: list[int] = []  # removals that failed; done with the next change
            while (first := self._work.get()) is not None:
                group = [first]
                while group[-1].read is None and len(group) < _MAX_GROUP and not self._work.empty():
                    one = self._work.get()
                    if one is None:
                        self._work.put(None)
                        break
                    group.append(one)
                left_over = self._change([one for one in group if one.read is None], left_over)
                if group[-1].read is not None:
                    _settle(group[-1:], group[-1].read)
        finally:
            self._file.close()

    def _change(self, group: Sequence[_Work], left_over: list[int]) -> list[int]:
        if not group:
            return left_over
        removed = left_over + [position for one in group for position in one.removed]

        def apply() -> None:
            self._file.apply([row for one in group for row in one.appended], removed)

        return [] if _settle(group, apply) else removed


def _settle(group: Sequence[_Work], action: Callable[[], Any]) -> bool:
    """Do it and tell all who wait; whether it succeeded."""
    result: Any = None
    error: Exception | None = None
    try:
        result = action()
    except Exception as exc:  # noqa: BLE001  # whoever waits decides
        error = exc
    for one in group:
        with suppress(InvalidStateError):  # nobody waits any more
            if error is None:
                one.outcome.set_result(result)
            else:
                one.outcome.set_exception(error)
    return error is None


@asynccontextmanager
async def open_spool(folder: Path, *, service: str, max_bytes: int) -> AsyncIterator[Spool]:
    """Open the spool of a service in a folder that outlives the process; made if absent.

    Raises:
        InvalidRequest: another process has it open, or the folder cannot be written.
    """
    file = SpoolFile(folder / f"{service}.sqlite3")
    spool = Spool(file, await asyncio.to_thread(file.open), max_bytes=max_bytes)
    spool.start()
    if spool.lanes():
        log.warning("kafka.spool_found", path=str(file.path), partitions=len(spool.lanes()))
    try:
        yield spool
    finally:
        await spool.close()
