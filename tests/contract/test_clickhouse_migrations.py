"""Migrations go forward over filled tables: rows survive each of them, whenever it is cut short, and views answer."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from servicekit.adapters.clickhouse.analytics_store import ClickHouseAnalyticsStore, open_analytics_store
from servicekit.errors import BackendUnavailable, NotReady
from services.analytics.config import Settings
from services.analytics.migrations import migrate, read_migrations
from services.analytics.rollups import RollupKeeper
from services.analytics.tables import VIEWS
from tests.analytics_examples import Example, examples, insert
from tests.clickhouse_process import FrontProcess, running_front

pytestmark = pytest.mark.slow

_MIGRATIONS = read_migrations(Settings().migrations_dir)
_TIME = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
_REQUESTS = 5


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontProcess]:
    """One front for the module."""
    with running_front(tmp_path_factory.mktemp("front")) as front:
        yield front


@pytest.fixture
async def store(front: FrontProcess) -> AsyncIterator[ClickHouseAnalyticsStore]:
    """A store without a schema."""
    async with open_analytics_store(front.store_url) as store:
        await store.execute("DROP DATABASE IF EXISTS binnacle SYNC")
        await store.create_database()
        yield store


class _InterruptedStore:
    """Loses its connection at one statement, as a start does that is killed."""

    def __init__(self, store: ClickHouseAnalyticsStore, *, at: str) -> None:
        self._store = store
        self._at = at

    async def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Sequence[Mapping[str, Any]]:
        return await self._store.query(sql, parameters)

    async def execute(self, sql: str) -> None:
        if sql == self._at:
            raise BackendUnavailable("killed", reason="CONNECT")
        await self._store.execute(sql)

    async def insert_bytes(self, sql: str, body: bytes, *, settings: Mapping[str, str]) -> None:
        await self._store.insert_bytes(sql, body, settings=settings)

    async def ping(self) -> None:
        await self._store.ping()


def _events(step: int) -> Sequence[Example]:
    """Events of their own for each step."""
    return [
        replace(event, event_id=f"{step}-{event.event_id}")
        for event in examples(now=_TIME, yesterday=_TIME - timedelta(days=1))
    ]


async def _stored(store: ClickHouseAnalyticsStore) -> Mapping[str, int]:
    """Rows of each topic, without copies."""
    counted = {}
    for topic, view in VIEWS.items():
        counted[topic] = (await store.query(f"SELECT count() AS n FROM {view}_raw FINAL"))[0]["n"]
    return {topic: rows for topic, rows in counted.items() if rows}


def _counted(*batches: Sequence[Example]) -> Mapping[str, int]:
    events = [event for batch in batches for event in batch]
    return {topic: sum(event.topic == topic for event in events) for topic in {event.topic for event in events}}


async def _ask_every_view(store: ClickHouseAnalyticsStore) -> None:
    rows = await store.query("SELECT name FROM system.tables WHERE database = currentDatabase() AND engine = 'View'")
    for row in rows:
        await store.query(f"SELECT * FROM {row['name']}")


async def test_rows_survive_every_migration(store: ClickHouseAnalyticsStore) -> None:
    """Rows come in before each of them; after each, all rows are there, views answer and the next rows fit."""
    batches: list[Sequence[Example]] = []
    for step, migration in enumerate(_MIGRATIONS, start=1):
        assert await migrate(store, _MIGRATIONS[:step]) == (migration.name,)
        assert await _stored(store) == _counted(*batches)
        batches.append(_events(step))
        await insert(store, batches[-1], event_time=_TIME)
        assert await _stored(store) == _counted(*batches)
        await _ask_every_view(store)
    assert await migrate(store, _MIGRATIONS) == ()
    assert await _stored(store) == _counted(*batches)
    await _check_the_newest_views(store, batches=len(batches))


async def _check_the_newest_views(store: ClickHouseAnalyticsStore, *, batches: int) -> None:
    """What was stored under the first migration is seen, and counted, as what was stored under the last."""
    keeper = RollupKeeper(store, every_s=1.0, insert_within_s=1.0)
    for rollup in keeper.rollups:
        await keeper.bring_up(rollup)
    (usage,) = await store.query("SELECT sum(requests) AS requests, sum(blocked) AS blocked FROM usage_by_minute")
    assert (usage["requests"], usage["blocked"]) == (_REQUESTS * batches, batches)
    rows = await store.query(
        "SELECT query, prompt_version, citations[1].title AS title, verdicts, outcome, count() AS n "
        "FROM interactions WHERE request_id = 'r-1' GROUP BY ALL"
    )
    assert [(row["query"], row["prompt_version"], row["title"], row["outcome"], row["n"]) for row in rows] == [
        ("question r-1", "4", "Deadlines", "ANSWERED", batches)
    ]


async def test_a_migration_that_is_cut_short_is_run_again(store: ClickHouseAnalyticsStore) -> None:
    """At whichever statement it ends, over rows that are there: the next start begins the file anew."""
    batches: list[Sequence[Example]] = []
    for step, migration in enumerate(_MIGRATIONS, start=1):
        for statement in migration.statements:
            with pytest.raises(BackendUnavailable):
                await migrate(_InterruptedStore(store, at=statement), _MIGRATIONS[:step])
        assert await migrate(store, _MIGRATIONS[:step]) == (migration.name,)
        assert await _stored(store) == _counted(*batches)
        batches.append(_events(step))
        await insert(store, batches[-1], event_time=_TIME)
    await _check_the_newest_views(store, batches=len(batches))


async def test_a_finished_migration_of_which_nobody_knows_is_run_again(store: ClickHouseAnalyticsStore) -> None:
    """A start that is killed between the last statement and its record changes nothing by starting over."""
    await migrate(store, _MIGRATIONS)
    await insert(store, _events(1), event_time=_TIME)
    columns = await _schema(store)
    await store.execute("TRUNCATE TABLE schema_migrations")
    assert len(await migrate(store, _MIGRATIONS)) == len(_MIGRATIONS)
    assert await _stored(store) == _counted(_events(1))
    assert set(await _schema(store)) ^ set(columns) == set()


async def _schema(store: ClickHouseAnalyticsStore) -> Sequence[tuple[object, ...]]:
    rows = await store.query(
        "SELECT table, name, type, default_expression, compression_codec, is_in_sorting_key FROM system.columns "
        "WHERE database = currentDatabase() ORDER BY table, position"
    )
    return [tuple(row.values()) for row in rows]


async def test_a_changed_file_is_refused_by_a_real_store(store: ClickHouseAnalyticsStore) -> None:
    """The message names the file; the tables are left as they are."""
    await migrate(store, _MIGRATIONS)
    changed = [replace(_MIGRATIONS[0], checksum="0" * 64), *_MIGRATIONS[1:]]
    with pytest.raises(NotReady, match="0001_topics was changed"):
        await migrate(store, changed)
    assert await migrate(store, _MIGRATIONS) == ()
