"""Looks now and then for what the embedded broker evicted unread, and writes each find down as a gap.

Run by `supervisor.py` beside the processes; a gap is told once and stands in ClickHouse, where completeness counts it.
"""

import asyncio
import json
from collections.abc import Callable, Sequence

from confluent_kafka import KafkaException

from servicekit.errors import BinnacleError
from servicekit.ports.analytics_store import AnalyticsStore
from services.local.evictions import Eviction, find_evictions

_EVERY_S = 5.0


async def watch_evictions(bootstrap: str, store: AnalyticsStore, *, say: Callable[[str], None]) -> None:
    """Look every 5 s until cancelled; a broker or store that is away is asked again the next time."""
    known: dict[tuple[str, int, str], int] = {}
    while True:
        await asyncio.sleep(_EVERY_S)
        try:
            found = await asyncio.to_thread(find_evictions, bootstrap)
            # Not only what is higher than before: a broker that was started again counts from 0.
            fresh = [e for e in found if known.get((e.topic, e.partition, e.group)) != e.first_kept]
            if fresh:
                await _record(store, fresh)
        except (KafkaException, BinnacleError):
            continue
        for eviction in fresh:
            known[eviction.topic, eviction.partition, eviction.group] = eviction.first_kept
            say(
                f"GAP: the embedded broker evicted {eviction.lost} records of {eviction.topic}/{eviction.partition} "
                f"before {eviction.group} read them; a durable Kafka keeps them (--kafka HOST:PORT)"
            )


async def _record(store: AnalyticsStore, evictions: Sequence[Eviction]) -> None:
    rows = "\n".join(
        json.dumps(
            {
                "topic": eviction.topic,
                "partition": eviction.partition,
                "first_offset": eviction.committed,
                "last_offset": eviction.first_kept - 1,
                "cause": "evicted",
                "reporter": eviction.group,
            }
        )
        for eviction in evictions
    )
    await store.insert_bytes("INSERT INTO stream_gaps FORMAT JSONEachRow", rows.encode(), settings={})
