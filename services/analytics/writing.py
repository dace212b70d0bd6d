"""Writes a batch into its table; finds the row that spoils a batch and makes it a dead letter.

Called by the sink, which decides when to try again.
"""

import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict

import structlog
from aiokafka import ConsumerRecord

from servicekit.errors import InvalidRequest, NotReady
from servicekit.events.dead_letters import DeadLetter, bury
from servicekit.ports.analytics_store import AnalyticsStore
from servicekit.ports.event_bus import RejectedEvent
from services.analytics.batching import Batch
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

    `max_refused_in_a_row` caps what one fault can drain into dead letters: where nothing at all is accepted,
    the table or the schema is wrong, not the events.
    """

    def __init__(
        self, store: AnalyticsStore, *, group: str, send_dead_letter: SendDeadLetter, max_refused_in_a_row: int = 20
    ) -> None:
        self._store = store
        self._group = group
        self._send_dead_letter = send_dead_letter
        self._max_refused_in_a_row = max_refused_in_a_row
        self._refused_in_a_row = 0

    async def write(self, batch: Batch, table: TopicTable) -> None:
        """Everything of the batch is stored, or a dead letter, when it returns; safe to repeat.

        Raises:
            BackendUnavailable, BackendTimeout, Overloaded, NotReady: try again later.
        """
        for record, rejection in batch.rejected:
            await self._bury(batch, record, rejection)
        await self._note_gaps(batch)
        await self._insert(batch, table, slice(0, len(batch.rows)))

    async def _note_gaps(self, batch: Batch) -> None:
        if batch.gaps:
            body = b"".join(
                json.dumps({**asdict(gap), "cause": "lost_unread", "reporter": self._group}).encode() + b"\n"
                for gap in batch.gaps
            )
            await self._store.insert_bytes(_INSERT_GAPS, body, settings={})

    async def _insert(self, batch: Batch, table: TopicTable, part: slice) -> None:
        rows = batch.rows[part]
        if not rows:
            return
        try:
            await self._store.insert_bytes(table.insert_sql, b"".join(rows), settings=table.settings)
        except InvalidRequest as error:
            if len(rows) == 1:
                await self._refuse(batch, batch.records[part.start], error)
                return
            log.warning("sink.batch_refused", topic=table.topic, rows=len(rows), error=error.message[:300])
        else:
            self._refused_in_a_row = 0
            ROWS.labels(topic=table.topic).inc(len(rows))
            return
        middle = part.start + len(rows) // 2
        await self._insert(batch, table, slice(part.start, middle))
        await self._insert(batch, table, slice(middle, part.stop))

    async def _refuse(self, batch: Batch, record: ConsumerRecord[bytes, bytes], error: InvalidRequest) -> None:
        if _place(record) in batch.buried:
            return
        self._refused_in_a_row += 1
        if self._refused_in_a_row > self._max_refused_in_a_row:
            raise NotReady(
                f"{self._refused_in_a_row} rows in a row were refused: the table does not fit its topic, "
                f"last error {error.message[:300]}",
                reason="TABLE_MISFIT",
            ) from error
        rejection = RejectedEvent(error.message, stage="apply")
        rejection.__cause__ = error
        await self._bury(batch, record, rejection)

    async def _bury(self, batch: Batch, record: ConsumerRecord[bytes, bytes], rejection: RejectedEvent) -> None:
        if _place(record) in batch.buried:
            return
        await self._send_dead_letter(bury(original(record), rejection, group=self._group))
        batch.buried.add(_place(record))
        DEAD_LETTERS.labels(topic=record.topic, stage=rejection.stage).inc()
        log.warning(
            "sink.dead_letter",
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            stage=rejection.stage,
            error=str(rejection)[:300],
        )


def _place(record: ConsumerRecord[bytes, bytes]) -> tuple[int, int]:
    return record.partition, record.offset
