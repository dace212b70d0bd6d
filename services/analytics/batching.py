"""Collects a topic's rows until they are worth an insert, and knows which offsets they reach.

Pure; filled and emptied by the sink.
"""

from collections import deque
from dataclasses import dataclass, field

from aiokafka import ConsumerRecord, TopicPartition

from servicekit.events.dead_letters import Origin
from servicekit.ports.event_bus import RejectedEvent
from services.analytics.record_bytes import Row

# About what the envelope adds to a row.
_ENVELOPE_BYTES = 200


@dataclass(frozen=True, slots=True)
class Limits:
    """When a batch is full; whichever comes first."""

    max_rows: int = 50_000
    max_bytes: int = 64 * 1024 * 1024
    max_age_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Gap:
    """Offsets of a partition, both included, that were gone before they were read."""

    topic: str
    partition: int
    first_offset: int
    last_offset: int


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that will be a dead letter, behind that many rows of its batch."""

    record: ConsumerRecord[bytes, bytes]
    rejection: RejectedEvent
    behind_rows: int


@dataclass(slots=True)
class Batch:
    """Rows of one topic with the records they were made of, and what to commit once they are safe.

    `epoch` counts assignments: a batch of an earlier one must not be committed. `rows_settled` rows are stored or
    dead letters already, and what was rejected among them is gone from `rejected`, so that another attempt at the
    batch goes on behind them. `replayed` are the origins of replayed records by partition and offset.
    """

    topic: str
    epoch: int
    started_s: float
    rows: list[Row] = field(default_factory=list)
    records: list[ConsumerRecord[bytes, bytes]] = field(default_factory=list)
    rejected: deque[Rejected] = field(default_factory=deque)
    replayed: dict[tuple[int, int], Origin] = field(default_factory=dict)
    gaps: list[Gap] = field(default_factory=list)
    next_offsets: dict[TopicPartition, int] = field(default_factory=dict)
    rows_settled: int = 0
    buried: list[bytes] = field(default_factory=list)
    size_bytes: int = 0

    def add(self, record: ConsumerRecord[bytes, bytes], row: Row) -> None:
        """Take a record; an empty row is none."""
        if row:
            self.rows.append(row)
            self.records.append(record)
            self.size_bytes += len(record.value or b"") + _ENVELOPE_BYTES

    def reject(self, record: ConsumerRecord[bytes, bytes], rejection: RejectedEvent) -> None:
        """Take a record that will be a dead letter."""
        self.rejected.append(Rejected(record, rejection, len(self.rows)))
        self.size_bytes += len(record.value or b"")

    def is_due(self, limits: Limits, *, now_s: float) -> bool:
        """Whether it is full, or old enough not to wait any longer."""
        return (
            len(self.rows) >= limits.max_rows
            or self.size_bytes >= limits.max_bytes
            or now_s - self.started_s >= limits.max_age_s
        )

    def reach(self, partition: TopicPartition, next_offset: int) -> None:
        """Everything of a partition before that offset is in hand: taken, rejected, or nothing to store."""
        self.next_offsets[partition] = next_offset
