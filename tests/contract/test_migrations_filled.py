"""Each migration on tables that are filled: what was stored before reads the same after, and may be run twice."""

from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime

import pytest
from google.protobuf.message import Message

from binnacle.events.v1.evaluation_scored_pb2 import EvaluationScored
from binnacle.events.v1.guardrail_decided_pb2 import GuardrailDecided
from binnacle.events.v1.interaction_completed_pb2 import InteractionCompleted
from servicekit.adapters.clickhouse.analytics_store import ClickHouseAnalyticsStore, open_analytics_store
from servicekit.events.topics import EVALUATION_SCORED, GUARDRAIL_DECIDED, INTERACTION_COMPLETED
from services.analytics.config import Settings
from services.analytics.convert import message_from_row, select_list
from services.analytics.migrations import Migration, migrate, read_migrations
from services.analytics.record_bytes import varint
from services.analytics.rollups import RollupKeeper
from services.analytics.tables import VIEWS, read_tables
from tests.clickhouse_process import FrontProcess, running_front

_ALL = read_migrations(Settings().migrations_dir)
_TABLES_FROM = 3  # the first three make the tables; what follows changes them
_NOON = datetime(2026, 11, 1, 12, 0, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontProcess]:
    """One front for the module."""
    with running_front(tmp_path_factory.mktemp("front")) as front:
        yield front


@pytest.fixture
async def store(front: FrontProcess) -> AsyncIterator[ClickHouseAnalyticsStore]:
    """An empty store."""
    async with open_analytics_store(front.store_url) as store:
        await store.execute("DROP DATABASE IF EXISTS binnacle SYNC")
        await store.create_database()
        yield store


def _events(number: int) -> Sequence[tuple[str, Message]]:
    """One of each kind that has lists and tuples in it."""
    interaction = InteractionCompleted(
        request_id=f"r{number}", tenant_id="acme", outcome=1, query="é?", answer="a", route="default", cost_microusd=5
    )
    interaction.complete_time.FromDatetime(_NOON)
    interaction.prompt.version = "3"
    interaction.attempts.add(number=1, engine="tgi", error_reason="OVERLOADED").usage.input_tokens = 7
    interaction.citations.add(marker="[1]", title="t", chunk_id="c").answer_span.end = 9
    interaction.timings.add(stage="generate", duration_us=3)
    interaction.degradations.add(rung="fewer_chunks", cause="DEADLINE")
    interaction.labels["team"] = "docs"
    decided = GuardrailDecided(request_id=f"r{number}", tenant_id="acme")
    for one in (interaction, decided):
        one.verdicts.add(detector="pii", rule="email", message="m").span.end = 4
    score = EvaluationScored(
        evaluation_id=f"s{number}", tenant_id="acme", metric="groundedness", value=0.5, inclusion_probability=1
    )
    score.interaction_time.FromDatetime(_NOON)
    return [(INTERACTION_COMPLETED, interaction), (GUARDRAIL_DECIDED, decided), (EVALUATION_SCORED, score)]


async def _insert(store: ClickHouseAnalyticsStore, number: int) -> None:
    tables = await read_tables(store)
    for topic, message in _events(number):
        envelope = b"".join(
            varint(field << 3 | 2) + varint(len(text)) + text
            for field, text in ((50001, b"t"), (50002, b"acme"), (50009, f"e{number}".encode()))
        )
        body = message.SerializeToString() + envelope
        await store.insert_bytes(tables[topic].insert_sql, varint(len(body)) + body, settings=tables[topic].settings)


async def _read(store: ClickHouseAnalyticsStore, numbers: Sequence[int]) -> list[Message]:
    """What is stored of them, as the messages that were sent."""
    found = []
    for topic, message in _events(0):
        columns, order = select_list(type(message)), "event_id"
        rows = await store.query(f"SELECT {columns} FROM {VIEWS[topic]}_raw FINAL ORDER BY {order}")
        assert len(rows) == len(numbers)
        found += [message_from_row(type(message), row) for row in rows]
    return found


def _sent(numbers: Sequence[int]) -> list[Message]:
    by_kind = zip(*(_events(number) for number in numbers), strict=True)
    return [message for kind in by_kind for _topic, message in kind]


async def _run_again(store: ClickHouseAnalyticsStore, migration: Migration) -> None:
    for statement in migration.statements:
        await store.execute(statement)


async def test_rows_survive_every_migration(store: ClickHouseAnalyticsStore) -> None:
    """Rows that were stored before each step read the same after it, after its repetition, and beside newer ones."""
    await migrate(store, _ALL[:_TABLES_FROM])
    numbers = [0]
    await _insert(store, 0)
    for count in range(_TABLES_FROM + 1, len(_ALL) + 1):
        assert await migrate(store, _ALL[:count]) == (_ALL[count - 1].name,)
        assert await _read(store, numbers) == _sent(numbers)
        await _run_again(store, _ALL[count - 1])
        numbers.append(count)
        await _insert(store, count)
        assert await _read(store, numbers) == _sent(numbers)
    for view in VIEWS.values():
        await store.query(f"SELECT * FROM {view}")


async def test_what_was_stored_before_the_rollups_is_counted(store: ClickHouseAnalyticsStore) -> None:
    """An upgrade loses no minute."""
    await migrate(store, _ALL[:_TABLES_FROM])
    await _insert(store, 0)
    await migrate(store, _ALL)
    await _insert(store, 1)
    keeper = RollupKeeper(store, every_s=5.0, insert_within_s=60.0)
    for rollup in keeper.rollups:
        await keeper.bring_up(rollup)
    assert [row["requests"] for row in await store.query("SELECT requests FROM usage_by_minute")] == [2]
    assert [row["scores"] for row in await store.query("SELECT scores FROM scores_by_minute")] == [2]


async def test_a_run_that_was_cut_short_is_run_again(store: ClickHouseAnalyticsStore) -> None:
    """A kill between two statements leaves a schema that the next start brings to its end."""
    await migrate(store, _ALL[:_TABLES_FROM])
    await _insert(store, 0)
    for migration in _ALL[_TABLES_FROM:]:
        for statement in migration.statements[: len(migration.statements) // 2]:
            await store.execute(statement)
        await migrate(store, _ALL[: migration.version])
    assert await _read(store, [0]) == _sent([0])
