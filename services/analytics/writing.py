"""Writes a batch into its table; finds the row that spoils a batch and makes it a dead letter.

Called by the sink, which decides when to try again. A batch is settled from its first record to its last: what was
stored or buried is not tried again, so that an outage in the middle of a bisection repeats nothing.
"""

import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from itertools import chain

import structlog
from aiokafka import ConsumerRecord

from servicekit.errors import InvalidRequest
from servicekit.events.dead_letter_cap import DeadLetterCap
from servicekit.events.dead_letters import DeadLetter, bury
from servicekit.ports.analytics_store import AnalyticsStore
from servicekit.ports.clock import Clock, SystemClock
from servicekit.ports.event_bus import DeadLetterLimits, RejectedEvent
from services.analytics.batching import Batch
from services.analytics.buried_sequences import buried_sequence, store_buried
from services.analytics.metrics import DEAD_LETTERS, ROWS
from services.analytics.record_bytes import original
from services.analytics.tables import TopicTable

log = structlog.get_logger()

_INSERT_GAPS = (
    "INSERT INTO stream_gaps (topic, partition, first_offset, last_offset, cause, reporter) FORMAT JSONEachRow"
)

SendDeadLetter = Callable[[DeadLetter], Awaitable[None]]


class BatchWriter:
    """Inserts synchronously; a row that the engine refuses is bisected out of its batch.

    `limits` caps, topic by topic, what one fault can drain into dead letters: where much is refused, the table or the
    schema is wrong, not the events.
    """

    def __init__(
        self,
        store: AnalyticsStore,
        *,
        group: str,
        send_dead_letter: SendDeadLetter,
        limits: DeadLetterLimits | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._store = store
        self._group = group
        self._send_dead_letter = send_dead_letter
        self._limits = limits or DeadLetterLimits()
        self._clock = clock or SystemClock()
        self._caps: dict[str, DeadLetterCap] = {}

    async def write(self, batch: Batch, table: TopicTable) -> None:
        """Everything of the batch is stored, or a dead letter, when it returns; safe to repeat.

        Raises:
            BackendUnavailable, BackendTimeout, Overloaded, NotReady: try again later.
            DeadLetterCapReached: too much of the topic is refused; the batch must not be committed.
        """
        await self._note_gaps(batch)
        if batch.rows_settled < len(batch.rows):
            await self._insert(batch, table, slice(batch.rows_settled, len(batch.rows)))
        await self._settle(batch, up_to=len(batch.rows))
        await store_buried(self._store, batch.buried)
        batch.buried.clear()

    async def _note_gaps(self, batch: Batch) -> None:
        if batch.gaps:
            body = b"".join(
                json.dumps({**asdict(gap), "cause": "lost_unread", "reporter": self._group}).encode() + b"\n"
                for gap in batch.gaps
            )
            await self._store.insert_bytes(_INSERT_GAPS, body, settings={})

    async def _insert(self, batch: Batch, table: TopicTable, part: slice) -> None:
        """Store a part of the rows, at least one."""
        if (error := await self._refusal(batch, table, part)) is None:
            await self._settle(batch, up_to=part.stop)
        elif part.stop - part.start == 1:
            await self._refuse(batch, part.start, error)
        else:
            await self._bisect(batch, table, part)

    async def _bisect(self, batch: Batch, table: TopicTable, part: slice) -> None:
        """Store a part that was refused whole: where its left half is good, the right one needs no trial."""
        while part.stop - part.start > 1:
            middle = part.start + (part.stop - part.start) // 2
            left, right = slice(part.start, middle), slice(middle, part.stop)
            if (error := await self._refusal(batch, table, left)) is None:
                await self._settle(batch, up_to=middle)
                part = right
                continue
            if middle - part.start == 1:
                await self._refuse(batch, part.start, error)
            else:
                await self._bisect(batch, table, left)
            return await self._insert(batch, table, right)
        return await self._insert(batch, table, part)

    async def _refusal(self, batch: Batch, table: TopicTable, part: slice) -> InvalidRequest | None:
        """Insert a part; the error if the engine refuses its rows."""
        rows = batch.rows[part]
        try:
            body = b"".join(chain.from_iterable(rows))
            await self._store.insert_bytes(table.insert_sql, body, settings=table.settings)
        except InvalidRequest as error:
            log.debug("sink.batch_refused", topic=table.topic, rows=len(rows), error=error.message[:300])
            return error
        ROWS.labels(topic=table.topic).inc(len(rows))
        return None

    async def _refuse(self, batch: Batch, row: int, error: InvalidRequest) -> None:
        await self._settle(batch, up_to=row)
        rejection = RejectedEvent(error.message, stage="apply")
        rejection.__cause__ = error
        await self._bury(batch, batch.records[row], rejection)
        batch.rows_settled = row + 1

    async def _settle(self, batch: Batch, *, up_to: int) -> None:
        """Rows before `up_to` are stored; what was rejected between them becomes dead letters, in the topic's order."""
        cap = self._cap(batch.topic)
        while batch.rejected and batch.rejected[0].behind_rows <= up_to:
            cap.accept(batch.rejected[0].behind_rows - batch.rows_settled)
            batch.rows_settled = batch.rejected[0].behind_rows
            await self._bury(batch, batch.rejected[0].record, batch.rejected[0].rejection)
            batch.rejected.popleft()
        cap.accept(up_to - batch.rows_settled)
        batch.rows_settled = up_to

    async def _bury(self, batch: Batch, record: ConsumerRecord[bytes, bytes], rejection: RejectedEvent) -> None:
        place = record.partition, record.offset
        origin = batch.replayed.get(place)
        if origin is None:  # a replay only goes back to where it came from
            self._cap(batch.topic).refuse(f"{rejection} (stage {rejection.stage})", place=place)
        letter = bury(replace(original(record), origin=origin), rejection, group=self._group, now=self._clock.now())
        await self._send_dead_letter(letter)
        batch.buried.extend(buried_sequence(record, stage=rejection.stage))
        DEAD_LETTERS.labels(topic=record.topic, stage=rejection.stage).inc()
        log.warning(
            "sink.dead_letter",
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            stage=rejection.stage,
            error=str(rejection)[:300],
        )

    def _cap(self, topic: str) -> DeadLetterCap:
        return self._caps.setdefault(topic, DeadLetterCap(self._limits))
