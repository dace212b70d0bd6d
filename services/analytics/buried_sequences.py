"""Writes down which sequences became dead letters, so that completeness names them as such. Used by `writing.py`."""

import json
from collections.abc import Sequence

import structlog
from aiokafka import ConsumerRecord

from servicekit.errors import InvalidRequest
from servicekit.events.codec import MAX_SEQUENCE
from servicekit.ports.analytics_store import AnalyticsStore

log = structlog.get_logger()

_INSERT = "INSERT INTO sink_dead_letters (topic, producer, partition, sequence, offset, stage) FORMAT JSONEachRow"


def buried_sequence(record: ConsumerRecord[bytes, bytes], *, stage: str) -> Sequence[bytes]:
    """The row that tells of a dead letter; none for a record that no producer numbered."""
    headers = dict(record.headers)
    producer, sequence = headers.get("ce_producer") or b"", headers.get("ce_sequence") or b""
    if not producer or not sequence.isdigit() or not 0 < int(sequence) <= MAX_SEQUENCE:
        return []
    row = {
        "topic": record.topic,
        "producer": producer.decode("utf-8", "replace"),
        "partition": record.partition,
        "sequence": int(sequence),
        "offset": record.offset,
        "stage": stage,
    }
    return [json.dumps(row).encode()]


async def store_buried(store: AnalyticsStore, rows: Sequence[bytes]) -> None:
    """Insert them; safe to repeat. What the store refuses is told and left out: it only explains dead letters.

    Raises:
        BackendUnavailable, BackendTimeout, Overloaded, NotReady: try again later.
    """
    if not rows:
        return
    try:
        await store.insert_bytes(_INSERT, b"\n".join(rows), settings={})
    except InvalidRequest as error:
        log.error("sink.buried_not_stored", rows=len(rows), error=error.message[:300])  # noqa: TRY400  # no bug of ours
