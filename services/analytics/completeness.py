"""Reads what producers reported and what is stored, and accounts for the difference. Called by `server.py`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from servicekit.events.topics import PRODUCER_REPORTED
from servicekit.ports.analytics_store import AnalyticsStore
from services.analytics.ledger import (
    Account,
    Mark,
    ProducerState,
    Stored,
    length,
    missing_ranges,
    producer_state,
    union_length,
    unreported,
)
from services.analytics.tables import VIEWS
from services.analytics.window import Window

# Reports do not count themselves (see `servicekit.events.ledger`).
COUNTED_TOPICS = tuple(topic for topic in VIEWS if topic != PRODUCER_REPORTED)

# Whoever reported, or of whom something was stored, in the window; and then their newest report and newest event,
# also those behind the window: a window of the past must not take a process that lives on for one that went silent.
_HEARD_OF = """
SELECT producer
FROM producer_reports_raw
WHERE report_time >= {start:DateTime64(6, 'UTC')} AND report_time < {end:DateTime64(6, 'UTC')}
UNION DISTINCT
SELECT producer
FROM event_ledger
WHERE producer != '' AND topic IN {topics:Array(String)}
    AND stored_time >= {start:DateTime64(3, 'UTC')} AND stored_time < {end:DateTime64(3, 'UTC')}
"""
_REPORTS = f"""
SELECT
    producer, any(source) AS source, max(report_time) AS heard, max(final) AS final,
    argMax(marks, report_time) AS marks
FROM producer_reports_raw FINAL
WHERE producer IN ({_HEARD_OF})
GROUP BY producer
"""  # noqa: S608  # both texts are constants; values are bound by the server
_SEEN = f"""
SELECT producer, any(source) AS source, max(stored_time) AS heard
FROM event_ledger
WHERE topic IN {{topics:Array(String)}} AND producer IN ({_HEARD_OF})
GROUP BY producer
"""  # noqa: S608  # as above
_STORED = """
SELECT
    topic, partition, producer, count() AS count, max(sequence) AS last, sum(copies - 1) AS duplicates,
    groupArrayIf((previous + 1, sequence - 1), sequence > previous + 1) AS holes
FROM
(
    SELECT
        topic, partition, producer, sequence, copies,
        lagInFrame(sequence, 1, toInt64(0)) OVER (
            PARTITION BY topic, partition, producer ORDER BY sequence
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS previous
    FROM
    (
        SELECT topic, partition, producer, sequence, uniqExact(offset) AS copies
        FROM event_ledger
        WHERE topic IN {topics:Array(String)} AND producer IN {producers:Array(String)}
        GROUP BY topic, partition, producer, sequence
    )
)
GROUP BY topic, partition, producer
"""
_GAPS = """
SELECT topic, partition, groupArray((first_offset, last_offset)) AS ranges
FROM stream_gaps FINAL
WHERE topic IN {topics:Array(String)}
    AND notice_time >= {start:DateTime64(3, 'UTC')} AND notice_time < {end:DateTime64(3, 'UTC')}
GROUP BY topic, partition
"""

Place = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Completeness:
    """The accounts of all producers heard of in a window, by topic and partition."""

    accounts: Sequence[Account]
    evicted: int

    @property
    def missing(self) -> int:
        """Accepted and not stored, over all accounts."""
        return sum(account.missing for account in self.accounts)

    @property
    def complete(self) -> bool:
        """Nothing is missing, unknown or still open."""
        return not self.missing and all(account.state is ProducerState.CLOSED for account in self.accounts)


@dataclass(frozen=True, slots=True)
class _Producer:
    source: str
    state: ProducerState
    report_time: datetime | None
    marks: Mapping[Place, Mark]


async def account_for(store: AnalyticsStore, *, topics: Sequence[str], window: Window, now: datetime) -> Completeness:
    """The accounts of `topics` for every producer that reported, or of which anything was stored, in the window."""
    span = {"start": window.start, "end": window.end}
    producers = await _producers(store, topics=topics, span=span, now=now)
    rows = await store.query(_STORED, {"topics": list(topics), "producers": list(producers)})
    stored: dict[str, dict[Place, Stored]] = {}
    for row in rows:
        place = str(row["topic"]), int(row["partition"])
        stored.setdefault(str(row["producer"]), {})[place] = _stored(row)
    gaps = await store.query(_GAPS, {"topics": list(topics), **span})
    return Completeness(
        accounts=[
            account
            for name, producer in sorted(producers.items())
            for account in _accounts(name, producer, stored.get(name, {}), topics=topics)
        ],
        evicted=sum(union_length((int(first), int(last)) for first, last in row["ranges"]) for row in gaps),
    )


async def _producers(
    store: AnalyticsStore, *, topics: Sequence[str], span: Mapping[str, datetime], now: datetime
) -> Mapping[str, _Producer]:
    found = {
        str(row["producer"]): _Producer(
            source=str(row["source"]),
            state=producer_state(final=False, heard=row["heard"], now=now),
            report_time=None,
            marks={},
        )
        for row in await store.query(_SEEN, {"topics": list(topics), **span})
    }
    for row in await store.query(_REPORTS, {"topics": list(topics), **span}):
        found[str(row["producer"])] = _Producer(
            source=str(row["source"]),
            state=producer_state(final=bool(row["final"]), heard=row["heard"], now=now),
            report_time=row["heard"],
            marks={
                (str(mark["topic"]), int(mark["partition"])): Mark(
                    accepted=int(mark["accepted"]), abandoned=frozenset(mark["abandoned"])
                )
                for mark in row["marks"]
            },
        )
    return found


def _accounts(
    name: str, producer: _Producer, stored: Mapping[Place, Stored], *, topics: Sequence[str]
) -> Sequence[Account]:
    places = sorted(place for place in producer.marks.keys() | stored.keys() if place[0] in topics)
    return [
        _account(name, producer, place, producer.marks.get(place, Mark(0)), stored.get(place, Stored()))
        for place in places
    ]


def _account(name: str, producer: _Producer, place: Place, mark: Mark, stored: Stored) -> Account:
    ranges = missing_ranges(mark, stored)
    return Account(
        topic=place[0],
        partition=place[1],
        source=producer.source,
        producer=name,
        state=producer.state,
        accepted=mark.accepted,
        stored=stored.count,
        duplicates=stored.duplicates,
        missing=length(ranges),
        missing_ranges=ranges,
        unreported=unreported(mark, stored),
        report_time=producer.report_time,
    )


def _stored(row: Mapping[str, Any]) -> Stored:
    return Stored(
        count=int(row["count"]),
        last=int(row["last"]),
        duplicates=int(row["duplicates"]),
        holes=[(int(first), int(last)) for first, last in row["holes"]],
    )
