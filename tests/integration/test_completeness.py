"""Whether a window is whole, asked of real tables: what lacks and what is there twice is named exactly."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime

import pytest

from servicekit.adapters.clickhouse.analytics_store import ClickHouseAnalyticsStore, open_analytics_store
from servicekit.events.topics import FEEDBACK_RECORDED, PRODUCER_REPORTED
from services.analytics.completeness import COUNTED_TOPICS, Completeness, account_for
from services.analytics.config import Settings
from services.analytics.ledger import ProducerState
from services.analytics.migrations import migrate, read_migrations
from services.analytics.window import Window
from tests.clickhouse_process import FrontProcess, running_front

pytestmark = pytest.mark.slow

_NOW = datetime(2026, 5, 1, 18, tzinfo=UTC)
_WINDOW = Window(datetime(2026, 5, 1, 14, tzinfo=UTC), datetime(2026, 5, 1, 15, tzinfo=UTC))
_TABLES = ("feedback_raw", "event_ledger", "producer_reports_raw", "sink_progress", "sink_dead_letters")


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontProcess]:
    """One front for the module, its schema made once."""
    with running_front(tmp_path_factory.mktemp("front")) as front:
        asyncio.run(_prepare(front))
        yield front


async def _prepare(front: FrontProcess) -> None:
    async with open_analytics_store(front.store_url) as store:
        await store.create_database()
        await migrate(store, read_migrations(Settings().migrations_dir))


@pytest.fixture
async def store(front: FrontProcess) -> AsyncIterator[ClickHouseAnalyticsStore]:
    """A store with a schema and no rows."""
    async with open_analytics_store(front.store_url) as store:
        for table in _TABLES:
            await store.execute(f"TRUNCATE TABLE {table}")
        yield store


def _sql(moment: datetime) -> str:
    return f"'{moment:%Y-%m-%d %H:%M:%S.%f}'"


def _clock(text: str) -> datetime:
    return datetime.fromisoformat(f"{_NOW:%Y-%m-%d}T{text}+00:00")


async def _report(
    store: ClickHouseAnalyticsStore,
    time: str,
    accepted: int,
    *,
    producer: str = "p",
    abandoned: Sequence[int] = (),
    spooled: Sequence[tuple[int, int]] = (),
    final: bool = False,
) -> None:
    marks = f"[('{FEEDBACK_RECORDED}', 0, {accepted}, {list(abandoned)}, {list(spooled)})]"
    await store.execute(
        "INSERT INTO producer_reports_raw (producer, source, report_time, start_time, final, marks, event_id) VALUES "
        f"('{producer}', 'gateway', {_sql(_clock(time))}, {_sql(_clock('12:00:00'))}, {final}, {marks}, '{time}')"
    )


async def _store_events(
    store: ClickHouseAnalyticsStore, *sequences: int, producer: str = "p", time: str = "14:30:00", prefix: str = "e"
) -> None:
    rows = ", ".join(
        f"('{prefix}{one}', 'acme', '{FEEDBACK_RECORDED}', 'gateway', '{producer}', {one}, {one + 100}, "
        f"'{prefix}{one}', {_sql(_clock(time))})"
        for one in sequences
    )
    await store.execute(
        "INSERT INTO feedback_raw (feedback_id, tenant, kafka_topic, event_source, event_producer, event_sequence, "
        f"kafka_offset, event_id, stored_time) VALUES {rows}"
    )


async def _caught_up(store: ClickHouseAnalyticsStore, time: str = "17:59:59") -> None:
    for topic in (FEEDBACK_RECORDED, PRODUCER_REPORTED):
        await store.execute(
            "INSERT INTO sink_progress (topic, partition, next_offset, caught_up_time) VALUES "
            f"('{topic}', 0, 1, {_sql(_clock(time))})"
        )


async def _asked(store: ClickHouseAnalyticsStore, window: Window = _WINDOW, now: datetime = _NOW) -> Completeness:
    return await account_for(store, topics=COUNTED_TOPICS, window=window, now=now)


async def test_a_window_is_whole_when_a_report_behind_it_covers_what_is_stored(store: ClickHouseAnalyticsStore) -> None:
    """The producer lives on, and yet 14:00 to 15:00 is answered, of exactly the sequences between its reports."""
    await _report(store, "13:59:55", 3)
    await _report(store, "14:30:00", 5)
    await _report(store, "15:00:05", 6)  # too early to cover a send of 14:59:59
    await _report(store, "15:00:15", 7)
    await _report(store, "17:59:55", 9)
    await _store_events(store, *range(1, 10))
    await _caught_up(store)
    found = await _asked(store)
    (account,) = found.accounts
    assert found.complete
    assert account.state is ProducerState.CLOSED
    assert (account.span.after, account.span.accepted) == (3, 7)
    assert (account.stored.count, account.stored.beyond) == (4, 0)
    assert account.report_time == _clock("15:00:15")


async def test_a_row_removed_from_its_table_is_missing_by_its_sequence(store: ClickHouseAnalyticsStore) -> None:
    """The ledger on the side still has the sequence; the account asks the table itself."""
    await _report(store, "15:00:15", 9)
    await _store_events(store, *range(1, 10))
    await _caught_up(store)
    await store.execute("ALTER TABLE feedback_raw DELETE WHERE event_sequence = 5 SETTINGS mutations_sync = 2")
    (account,) = (await _asked(store)).accounts
    assert account.shortfall.missing == ((5, 5),)
    await store.execute("DELETE FROM feedback_raw WHERE event_id = 'e7' SETTINGS lightweight_deletes_sync = 2")
    (account,) = (await _asked(store)).accounts
    assert account.shortfall.missing == ((5, 5), (7, 7))
    assert account.stored.count == 7


@pytest.mark.parametrize(
    "copied",
    ["*", "* REPLACE (kafka_offset + 1000 AS kafka_offset)"],
    ids=["as it is", "at another offset"],
)
async def test_a_copy_inserted_into_the_table_is_a_duplicate_by_its_sequence(
    store: ClickHouseAnalyticsStore, copied: str
) -> None:
    """It is named also once the table has merged it away, and changes no count."""
    await _report(store, "15:00:15", 9)
    await _store_events(store, *range(1, 10))
    await _caught_up(store)
    await store.execute(f"INSERT INTO feedback_raw SELECT {copied} FROM feedback_raw WHERE event_sequence = 4")
    for _ in range(2):
        found = await _asked(store)
        (account,) = found.accounts
        assert (account.stored.duplicates, account.stored.doubled) == (1, ((4, 4),))
        assert (account.stored.count, found.complete) == (9, True)
        assert (await store.query("SELECT count() AS n FROM feedback"))[0]["n"] == 9
        for table in ("feedback_raw", "event_ledger"):
            await store.execute(f"OPTIMIZE TABLE {table} FINAL")


async def test_a_batch_that_the_sink_repeats_is_no_duplicate(store: ClickHouseAnalyticsStore) -> None:
    """After a crash between insert and commit the same offsets are stored again, later."""
    await _report(store, "15:00:15", 3)
    await _store_events(store, 1, 2, 3)
    await _store_events(store, 1, 2, 3, time="14:30:07")
    await _caught_up(store)
    (account,) = (await _asked(store)).accounts
    assert (account.stored.count, account.stored.duplicates) == (3, 0)


async def test_an_event_published_twice_is_there_under_both_numbers(store: ClickHouseAnalyticsStore) -> None:
    """Its rows collapse into one, and the sequence whose row is gone is not missing: the event is there."""
    await _report(store, "15:00:15", 2)
    for sequence in (1, 2):
        await store.execute(
            "INSERT INTO feedback_raw (tenant, kafka_topic, event_source, event_producer, event_sequence, "
            f"kafka_offset, event_id, stored_time) VALUES ('acme', '{FEEDBACK_RECORDED}', 'gateway', 'p', {sequence}, "
            f"{sequence}, 'same', {_sql(_clock('14:30:00'))})"
        )
    await _caught_up(store)
    await store.execute("OPTIMIZE TABLE feedback_raw FINAL")
    (account,) = (await _asked(store)).accounts
    assert (account.stored.count, account.missing) == (2, 0)
    await store.execute("ALTER TABLE feedback_raw DELETE WHERE event_id = 'same' SETTINGS mutations_sync = 2")
    (account,) = (await _asked(store)).accounts
    assert account.shortfall.missing == ((1, 2),)


async def test_what_waits_in_a_spool_or_on_the_topic_is_pending(store: ClickHouseAnalyticsStore) -> None:
    """Only what Kafka had, and the sink has read past, can be lost; a newer report clears the spool."""
    await _report(store, "15:00:15", 9, abandoned=[2], spooled=[(6, 7)])
    await _store_events(store, 1, 3, 4)
    await _caught_up(store, "15:00:10")
    (account,) = (await _asked(store)).accounts
    assert (account.shortfall.missing, account.shortfall.pending) == ((), ((5, 9),))
    await _caught_up(store, "15:00:20")
    (account,) = (await _asked(store)).accounts
    assert (account.shortfall.missing, account.shortfall.pending) == (((5, 5), (8, 9)), ((6, 7),))
    await _report(store, "15:10:00", 12, abandoned=[2])
    await _caught_up(store, "15:10:05")
    (account,) = (await _asked(store)).accounts
    assert (account.shortfall.missing, account.shortfall.pending) == (((5, 9),), ())


async def test_a_dead_letter_explains_a_hole_until_it_is_replayed(store: ClickHouseAnalyticsStore) -> None:
    """It is named as such and not as lost; once it is stored it is like any other."""
    await _report(store, "15:00:15", 3)
    await _store_events(store, 1, 3)
    await _caught_up(store)
    await store.execute(
        "INSERT INTO sink_dead_letters (topic, producer, partition, sequence, offset, stage) VALUES "
        f"('{FEEDBACK_RECORDED}', 'p', 0, 2, 102, 'apply')"
    )
    found = await _asked(store)
    assert found.accounts[0].shortfall.dead_lettered == ((2, 2),)
    assert (found.missing, found.complete) == (0, False)
    await _store_events(store, 2)
    assert (await _asked(store)).complete


async def test_a_producer_that_fell_silent_leaves_an_unknown_tail(store: ClickHouseAnalyticsStore) -> None:
    """In the window in which it did so, and in none that begins more than a minute later."""
    await _report(store, "14:10:00", 3)
    await _store_events(store, 1, 2, 3, 4)
    await _caught_up(store)
    found = await _asked(store)
    (account,) = found.accounts
    assert (account.state, account.unknown_tail, found.complete) == (ProducerState.CLOSED_UNCLEAN, True, False)
    assert (account.missing, account.stored.beyond) == (0, 1)
    later = Window(_clock("14:20:00"), _clock("15:00:00"))
    assert not (await _asked(store, later)).accounts


async def test_silence_is_not_judged_while_reports_are_unread(store: ClickHouseAnalyticsStore) -> None:
    """A sink that lags, or is away, makes no producer look dead."""
    await _report(store, "14:10:00", 3)
    await _store_events(store, 1, 2, 3)
    await _caught_up(store, "14:10:30")
    (account,) = (await _asked(store)).accounts
    assert account.state is ProducerState.OPEN


async def test_a_clean_stop_closes_a_window_at_once(store: ClickHouseAnalyticsStore) -> None:
    """Whoever said that nothing follows needs no report behind the window; before its time it does not count."""
    await _report(store, "14:10:00", 2, final=True)
    await _report(store, "13:00:00", 1, producer="gone", final=True)
    await _store_events(store, 1, 2)
    await _caught_up(store)
    found = await _asked(store)
    assert [(account.producer, account.state) for account in found.accounts] == [("p", ProducerState.CLOSED)]
    assert found.complete


async def test_a_producer_without_a_report_is_known_by_what_is_stored(store: ClickHouseAnalyticsStore) -> None:
    """It died within its first seconds: nothing is promised, its tail is unknown."""
    await _store_events(store, 1, 2, producer="brief")
    (account,) = (await _asked(store)).accounts
    assert (account.producer, account.state, account.missing) == ("brief", ProducerState.CLOSED_UNCLEAN, 0)
    assert (account.span.accepted, account.stored.count, account.stored.beyond) == (0, 2, 2)
    (account,) = (await _asked(store, now=_clock("14:30:30"))).accounts
    assert account.state is ProducerState.OPEN


async def test_sequences_beyond_one_run_are_accounted_for(store: ClickHouseAnalyticsStore) -> None:
    """Holes at the edges of the runs of 65,536, within them and across them are found exactly."""
    await _report(store, "15:00:15", 200_001)
    await store.execute(
        "INSERT INTO feedback_raw (tenant, kafka_topic, event_source, event_producer, event_sequence, kafka_offset, "
        f"event_id, stored_time) SELECT 'acme', '{FEEDBACK_RECORDED}', 'gateway', 'p', number, number, "
        f"toString(number), {_sql(_clock('14:30:00'))} FROM numbers(1, 200000) WHERE number NOT IN (1, 65535, 65536, "
        "70000, 70001) AND NOT (number BETWEEN 131000 AND 196700)"
    )
    await _caught_up(store)
    (account,) = (await _asked(store)).accounts
    assert account.shortfall.missing == (
        (1, 1),
        (65_535, 65_536),
        (70_000, 70_001),
        (131_000, 196_700),
        (200_001, 200_001),
    )
