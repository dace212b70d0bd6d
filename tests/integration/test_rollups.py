"""Minutes of usage and scores on a real store: counted from collapsed rows, whatever was stored twice or late."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from servicekit.adapters.clickhouse.analytics_store import ClickHouseAnalyticsStore, open_analytics_store
from services.analytics.config import Settings
from services.analytics.migrations import migrate, read_migrations
from services.analytics.rollups import RollupKeeper
from tests.clickhouse_process import FrontProcess, running_front

pytestmark = pytest.mark.slow

_NOON = datetime(2026, 11, 1, 12, 0, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontProcess]:
    """One front for the module."""
    with running_front(tmp_path_factory.mktemp("front")) as front:
        yield front


@pytest.fixture
async def store(front: FrontProcess) -> AsyncIterator[ClickHouseAnalyticsStore]:
    """An empty, migrated store."""
    async with open_analytics_store(front.store_url) as store:
        await store.execute("DROP DATABASE IF EXISTS binnacle SYNC")
        await store.create_database()
        await migrate(store, read_migrations(Settings().migrations_dir))
        yield store


def _keeper(store: ClickHouseAnalyticsStore, *, insert_within_s: float = 60.0) -> RollupKeeper:
    return RollupKeeper(store, every_s=5.0, insert_within_s=insert_within_s)


async def _bring_up(keeper: RollupKeeper) -> int:
    return sum([await keeper.bring_up(rollup) for rollup in keeper.rollups])


async def _insert(
    store: ClickHouseAnalyticsStore,
    *names: str,
    at: datetime = _NOON,
    offset: int = 0,
    route: str = "default",
    outcome: int = 1,
) -> None:
    """Interactions as the sink would leave them; the name is the event's identity."""
    rows = ", ".join(
        f"('r-{name}', '{at:%Y-%m-%d %H:%M:%S}', '{route}', 'large', {outcome}, (100, 10, 5, false), 7, 2000, 300,"
        f" 't', {offset}, 'acme', 'gateway', '{name}')"
        for name in names
    )
    await store.execute(
        "INSERT INTO interactions_raw (request_id, complete_time, route, model, outcome, usage, cost_microusd,"
        " duration_us, time_to_first_token_us, kafka_topic, kafka_offset, tenant, event_source, raw_event_id)"
        f" VALUES {rows}"
    )


async def _usage(store: ClickHouseAnalyticsStore) -> list[dict[str, object]]:
    return [dict(row) for row in await store.query("SELECT * FROM usage_by_minute ORDER BY minute, route")]


async def test_copies_change_no_figure(store: ClickHouseAnalyticsStore) -> None:
    """A batch that is stored again, and a copy at another offset, leave every sum as it was."""
    keeper = _keeper(store)
    await _insert(store, "a", "b", "c")
    assert await _bring_up(keeper) == 1
    once = await _usage(store)
    await _insert(store, "a", "b", "c")
    await _insert(store, "b", offset=9)
    await _bring_up(keeper)
    assert await _usage(store) == once
    (row,) = once
    assert (row["requests"], row["input_tokens"], row["cost_microusd"]) == (3, 300, 21)
    assert (row["latency_p50_us"], row["time_to_first_token_p95_us"]) == (2000, 300)


async def test_late_rows_enter_their_minute(store: ClickHouseAnalyticsStore) -> None:
    """What is stored hours late counts in the minute in which it happened, beside what was there."""
    keeper = _keeper(store)
    await _insert(store, "a", at=_NOON)
    await _insert(store, "b", at=_NOON + timedelta(hours=5))
    await _bring_up(keeper)
    await _insert(store, "c", at=_NOON, outcome=4)
    assert await _bring_up(keeper) == 1
    assert [(row["minute"], row["requests"], row["errors"]) for row in await _usage(store)] == [
        (_NOON.replace(second=0), 2, 1),
        (_NOON.replace(second=0) + timedelta(hours=5), 1, 0),
    ]


async def test_a_quiet_minute_is_counted_once_more_and_then_left(store: ClickHouseAnalyticsStore) -> None:
    """While an insert may still be running a minute is watched; after that it is settled, also for another process."""
    await _insert(store, "a")
    eager = _keeper(store, insert_within_s=-15)  # every insert is taken to be over at once
    assert await _bring_up(eager) == 1
    assert await _bring_up(eager) == 0
    assert await _bring_up(_keeper(store)) == 0
    patient = _keeper(store)
    await _insert(store, "b")
    assert [await _bring_up(patient) for _ in range(3)] == [1, 0, 0]
    assert await _bring_up(_keeper(store)) == 1  # not settled: whoever starts anew counts it again
    assert (await _usage(store))[0]["requests"] == 2


async def test_rows_seen_after_their_touch_are_counted_when_the_minute_settles(
    store: ClickHouseAnalyticsStore,
) -> None:
    """A touch that was seen before its rows costs some lateness and no count."""
    await store.execute("INSERT INTO rollup_touches VALUES ('usage', '2026-11-01 12:00:00', now64(3))")
    keeper = _keeper(store)
    await _bring_up(keeper)
    await store.execute("DROP VIEW interactions_to_touches")
    await _insert(store, "a")
    assert await _bring_up(keeper) == 0
    assert await _bring_up(_keeper(store, insert_within_s=-15)) == 1
    assert (await _usage(store))[0]["requests"] == 1


async def test_a_group_that_is_no_more_is_not_left_behind(store: ClickHouseAnalyticsStore) -> None:
    """The newer version of a minute replaces all of the older one, also where its rows have other groups."""
    keeper = _keeper(store)
    await _insert(store, "a", route="old")
    await _bring_up(keeper)
    await _insert(store, "a", route="new")
    await _bring_up(keeper)
    assert [(row["route"], row["requests"]) for row in await _usage(store)] == [("new", 1)]


async def test_minutes_can_be_put_together_from_their_states(store: ClickHouseAnalyticsStore) -> None:
    """Quantiles of an hour come from the states of its minutes, not from quantiles of quantiles."""
    for minute in range(3):
        await _insert(store, f"a{minute}", at=_NOON + timedelta(minutes=minute))
    await _bring_up(_keeper(store))
    rows = await store.query(
        "SELECT sum(requests) AS requests, quantilesTDigestMerge(0.5, 0.95, 0.99)(latency_us) AS latency "
        "FROM usage_minutes FINAL"
    )
    assert (rows[0]["requests"], list(rows[0]["latency"])) == (3, [2000, 2000, 2000])


async def test_scores_are_weighed_by_how_probable_it_was_to_score(store: ClickHouseAnalyticsStore) -> None:
    """An answer that one in four was chosen of stands for four; offline runs and unmeasured answers count for none."""
    rows = [("s1", "0.5", 1.0, ""), ("s2", "1.0", 0.25, ""), ("s3", "NULL", 1.0, ""), ("s4", "0.0", 1.0, "run-1")]
    for name, value, probability, run in rows * 2:
        await store.execute(
            "INSERT INTO evaluations_raw (evaluation_id, interaction_time, metric, metric_version, value,"
            " inclusion_probability, run_id, route, model, prompt_version, kafka_topic, tenant, event_source,"
            f" raw_event_id) VALUES ('{name}', '2026-11-01 12:00:30', 'groundedness', '1', {value}, {probability},"
            f" '{run}', 'default', 'large', '3', 't', 'acme', 'evaluator', '{name}')"
        )
    await _bring_up(_keeper(store))
    (row,) = await store.query("SELECT * FROM scores_by_minute")
    assert (row["scores"], row["unmeasured"], row["mean"]) == (2, 1, pytest.approx(4.5 / 5))
