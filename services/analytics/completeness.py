"""Reads what producers reported and what is stored, and accounts for the difference. Called by `server.py`.

Read in this order, so that nothing is taken for lost that only arrived meanwhile: what was accepted, how far the sink
had come, and then what is stored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from servicekit.events.topics import PRODUCER_REPORTED
from servicekit.ports.analytics_store import AnalyticsStore
from services.analytics import completeness_queries as queries
from services.analytics.ledger import (
    MAX_SKEW,
    SETTLE,
    SILENCE,
    Account,
    Mark,
    ProducerState,
    Span,
    Stored,
    find_shortfall,
    producer_state,
)
from services.analytics.ranges import length, of_numbers, without
from services.analytics.tables import VIEWS
from services.analytics.window import Window

# Reports do not count themselves (see `servicekit.events.ledger`).
COUNTED_TOPICS = tuple(topic for topic in VIEWS if topic != PRODUCER_REPORTED)

_NONE = datetime(1970, 1, 1, tzinfo=UTC)

Place = tuple[str, int]
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Completeness:
    """The accounts of all producers whose life touches a window, by topic and partition."""

    accounts: Sequence[Account]
    evicted: int

    @property
    def missing(self) -> int:
        """Accepted and lost, over all accounts."""
        return sum(account.missing for account in self.accounts)

    @property
    def complete(self) -> bool:
        """Nothing is missing, pending, a dead letter, unknown or still open."""
        return all(account.whole for account in self.accounts)


@dataclass(frozen=True, slots=True)
class _Producer:
    source: str
    state: ProducerState
    bounded: bool
    report_time: datetime | None
    spans: Mapping[Place, Span]


async def account_for(store: AnalyticsStore, *, topics: Sequence[str], window: Window, now: datetime) -> Completeness:
    """The accounts of `topics` for every producer whose life touches the window."""
    asked = {
        "topics": list(topics),
        "start": window.start,
        "end": window.end,
        "settled": window.end + SETTLE,
        "tail": window.start - SILENCE,
    }
    progress = {_place(row): row["caught_up"] for row in await store.query(queries.PROGRESS)}
    caught_up = [time for (topic, _), time in progress.items() if topic in topics]
    asked["proven"] = min(caught_up, default=_NONE + MAX_SKEW) - MAX_SKEW
    reports = await store.query(queries.REPORTS, asked)
    asked["since"] = _earliest(reports, window)
    producers = {
        **_unreported(await store.query(queries.SILENT, asked), now=now),
        **_reported(reports, now=min(now, _read_until(progress) or now)),
    }
    stored = _by_producer(await store.query(queries.STORED, asked))
    copies = _copies(
        await store.query(queries.COPIES, asked) if any(row["repeated"] for row in stored.values()) else []
    )
    letters = _by_producer(await store.query(queries.DEAD_LETTERS, asked))
    removed = _by_producer(await _removed(store, topics, asked))
    places: dict[str, set[Place]] = {}
    for name, topic, partition in stored:
        places.setdefault(name, set()).add((topic, partition))
    accounts = [
        _account(
            name,
            producer,
            place,
            row=stored.get((name, *place)),
            copies=copies.get((name, *place), {}),
            removed=_sequences(removed.get((name, *place))),
            dead_letters=_sequences(letters.get((name, *place))),
            caught_up=progress.get(place),
        )
        for name, producer in sorted(producers.items())
        for place in sorted(producer.spans.keys() | places.get(name, set()))
        if place[0] in topics
    ]
    gaps = await store.query(queries.GAPS, asked)
    evicted = sum(length((int(first), int(last)) for first, last in row["ranges"]) for row in gaps)
    return Completeness(accounts=accounts, evicted=evicted)


def _read_until(progress: Mapping[Place, datetime]) -> datetime | None:
    """Up to when all reports are stored: while they wait on their topic, no silence is a producer's."""
    return min((time for (topic, _), time in progress.items() if topic == PRODUCER_REPORTED), default=None)


def _earliest(reports: Sequence[Row], window: Window) -> datetime:
    """Before this nothing was stored that a report behind each opening one, or a silent producer, accounts for."""
    times = [row["opening_time"] if row["opening_time"] > _NONE else row["start_time"] for row in reports]
    return max(_NONE, min(times, default=window.start) - SETTLE - MAX_SKEW)


def _reported(reports: Sequence[Row], *, now: datetime) -> Mapping[str, _Producer]:
    by_producer: dict[str, dict[datetime, Row]] = {}
    for row in reports:
        by_producer.setdefault(str(row["producer"]), {})[row["report_time"]] = row
    return {name: _producer(by_time, now=now) for name, by_time in by_producer.items()}


def _producer(by_time: Mapping[datetime, Row], *, now: datetime) -> _Producer:
    any_row = next(iter(by_time.values()))
    opening, account, newest, proven = (
        _marks(by_time.get(any_row[name])) for name in ("opening_time", "account_time", "newest_time", "proven_time")
    )
    bounded = any_row["closing_time"] > _NONE
    return _Producer(
        source=str(any_row["source"]),
        state=producer_state(closed=bounded or bool(any_row["ended"]), heard=any_row["newest_time"], now=now),
        bounded=bounded,
        report_time=any_row["account_time"],
        spans={
            place: Span(
                after=opening[place].accepted if place in opening else 0,
                closing=mark,
                newest=newest.get(place),
                proven=proven.get(place),
                bounded=bounded,
            )
            for place, mark in account.items()
        },
    )


def _marks(row: Row | None) -> Mapping[Place, Mark]:
    if row is None:
        return {}
    return {
        _place(mark): Mark(
            time=row["report_time"],
            accepted=int(mark["accepted"]),
            abandoned=[int(one) for one in mark["abandoned"]],
            spooled=[(int(span["first"]), int(span["last"])) for span in mark["spooled"]],
        )
        for mark in row["marks"]
    }


def _unreported(rows: Sequence[Row], *, now: datetime) -> Mapping[str, _Producer]:
    return {
        str(row["producer"]): _Producer(
            source=str(row["source"]),
            state=producer_state(closed=False, heard=row["heard"], now=now),
            bounded=False,
            report_time=None,
            spans={},
        )
        for row in rows
    }


async def _removed(store: AnalyticsStore, topics: Sequence[str], asked: Mapping[str, Any]) -> Sequence[Row]:
    """Sequences that arrived and whose event is in its topic's table no more.

    Nearly always the first question has no answer; what it finds are mostly events that were published twice, whose
    rows have become one.
    """
    tables = {topic: f"{VIEWS[topic]}_raw" for topic in topics}
    suspects = queries.not_under_their_number(tables)
    suspected = sorted({str(row["topic"]) for row in await store.query(suspects, asked)})
    return [
        {**row, "topic": topic}
        for topic in suspected
        for row in await store.query(queries.gone(topic, tables[topic], suspects=suspects), asked)
    ]


def _account(  # what is known of one account
    name: str,
    producer: _Producer,
    place: Place,
    *,
    row: Row | None,
    copies: Mapping[int, int],
    removed: Sequence[int],
    dead_letters: Sequence[int],
    caught_up: datetime | None,
) -> Account:
    span = producer.spans.get(place, Span(bounded=producer.bounded))
    runs = [(int(first), int(last)) for first, last in row["runs"]] if row else []
    lacking = of_numbers(int(number) for number in row["lacking"]) if row else []
    stored = Stored.of(without(runs, [*lacking, *of_numbers(removed)]), span=span, copies=copies)
    return Account(
        topic=place[0],
        partition=place[1],
        source=producer.source,
        producer=name,
        state=producer.state,
        span=span,
        stored=stored,
        shortfall=find_shortfall(span, stored, dead_letters=dead_letters, caught_up=caught_up),
        report_time=producer.report_time,
    )


def _sequences(row: Row | None) -> Sequence[int]:
    return [int(one) for one in row["sequences"]] if row else []


def _copies(rows: Sequence[Row]) -> Mapping[tuple[str, str, int], Mapping[int, int]]:
    """By place and sequence, how many copies there are."""
    found: dict[tuple[str, str, int], dict[int, int]] = {}
    for row in rows:
        found.setdefault((str(row["producer"]), *_place(row)), {})[int(row["sequence"])] = int(row["copies"])
    return found


def _by_producer(rows: Sequence[Row]) -> Mapping[tuple[str, str, int], Row]:
    return {(str(row["producer"]), *_place(row)): row for row in rows}


def _place(row: Row) -> Place:
    return str(row["topic"]), int(row["partition"])
