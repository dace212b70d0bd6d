"""Migration 0004 on tables that are filled: what was there is accounted for, and reports of both kinds are taken."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from binnacle.events.v1.producer_reported_pb2 import ProducerReported
from servicekit.adapters.clickhouse.analytics_store import ClickHouseAnalyticsStore, open_analytics_store
from servicekit.events.topics import FEEDBACK_RECORDED, PRODUCER_REPORTED
from services.analytics.completeness import COUNTED_TOPICS, account_for
from services.analytics.config import Settings
from services.analytics.migrations import migrate, read_migrations
from services.analytics.record_bytes import varint
from services.analytics.tables import read_tables
from services.analytics.window import Window
from tests.clickhouse_process import running_front

_NOW = datetime.now(UTC)
_BEFORE = [migration for migration in read_migrations(Settings().migrations_dir) if migration.version < 4]


@pytest.fixture
async def filled(tmp_path: Path) -> AsyncIterator[ClickHouseAnalyticsStore]:
    """A store of the schema before, with a report and two of its three events."""
    with running_front(tmp_path / "front") as front:
        async with open_analytics_store(front.store_url) as store:
            await store.create_database()
            await migrate(store, _BEFORE)
            await store.execute(
                "INSERT INTO producer_reports_raw (producer, source, report_time, marks, event_id) VALUES "
                f"('old', 'gateway', {_sql(_NOW)}, [('{FEEDBACK_RECORDED}', 0, 4, [2])], 'r')"
            )
            for sequence in (1, 3):
                await store.execute(
                    "INSERT INTO feedback_raw (tenant, kafka_topic, event_source, event_producer, event_sequence, "
                    "kafka_offset, event_id) VALUES "
                    f"('acme', '{FEEDBACK_RECORDED}', 'gateway', 'old', {sequence}, {sequence}, 'e{sequence}')"
                )
            yield store


def _sql(moment: datetime) -> str:
    return f"'{moment:%Y-%m-%d %H:%M:%S.%f}'"


async def _insert_report(store: ClickHouseAnalyticsStore, report: ProducerReported) -> None:
    """As the sink does: the message's own bytes."""
    table = (await read_tables(store))[PRODUCER_REPORTED]
    envelope = b"".join(
        varint(number << 3 | 2) + varint(len(text)) + text
        for number, text in ((50001, PRODUCER_REPORTED.encode()), (50009, report.producer.encode()))
    )
    body = report.SerializeToString() + envelope
    await store.insert_bytes(table.insert_sql, varint(len(body)) + body, settings=table.settings)


async def test_reports_from_before_and_after_are_read_alike(filled: ClickHouseAnalyticsStore) -> None:
    """An old report has nothing spooled; a new one keeps its ranges; events from before are stored as they were."""
    await migrate(filled, read_migrations(Settings().migrations_dir))
    report = ProducerReported(producer="new", source="gateway")
    report.report_time.FromDatetime(_NOW)
    mark = report.marks.add(topic=FEEDBACK_RECORDED, partition=1, accepted=9, abandoned=[1, 300])
    mark.spooled.add(first=4, last=6)
    mark.spooled.add(first=8, last=8)
    report.marks.add(topic=FEEDBACK_RECORDED, partition=2, accepted=1)
    await _insert_report(filled, report)
    for partition in (0, 1, 2):
        await filled.execute(
            "INSERT INTO sink_progress (topic, partition, next_offset, caught_up_time) VALUES "
            f"('{FEEDBACK_RECORDED}', {partition}, 9, {_sql(_NOW + timedelta(minutes=1))})"
        )
    window = Window(_NOW - timedelta(hours=1), _NOW + timedelta(minutes=1))
    found = await account_for(filled, topics=COUNTED_TOPICS, window=window, now=_NOW)
    assert {
        (account.producer, account.partition): (account.shortfall.missing, account.shortfall.pending)
        for account in found.accounts
    } == {
        ("new", 1): (((2, 3), (7, 7), (9, 9)), ((4, 6), (8, 8))),
        ("new", 2): (((1, 1),), ()),
        ("old", 0): (((4, 4),), ()),
    }


async def test_each_statement_can_be_repeated(filled: ClickHouseAnalyticsStore) -> None:
    """A run that was cut short is simply run again."""
    (migration,) = [one for one in read_migrations(Settings().migrations_dir) if one.version == 4]
    for _ in range(2):
        for statement in migration.statements:
            await filled.execute(statement)
    rows = await filled.query(f"SELECT count() AS n FROM event_ledger WHERE topic = '{FEEDBACK_RECORDED}'")
    assert rows[0]["n"] == 2
