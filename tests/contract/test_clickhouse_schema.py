"""The tables hold what the protos say: a column for each field, a name for each enum number, and messages come back."""

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.message import Message

from binnacle.drift_monitor.v1 import drift_monitor_service_pb2 as drift
from binnacle.events.v1 import document_indexed_pb2, feedback_recorded_pb2
from binnacle.events.v1 import interaction_completed_pb2 as interaction
from binnacle.events.v1.interaction_completed_pb2 import InteractionCompleted
from binnacle.type.v1 import generation_pb2, verdict_pb2
from servicekit.adapters.clickhouse.analytics_store import ClickHouseAnalyticsStore, open_analytics_store
from servicekit.errors import InvalidRequest
from servicekit.events.topics import (
    DOCUMENT_INDEXED,
    DRIFT_ALERTED,
    EVALUATION_SCORED,
    FEEDBACK_RECORDED,
    GUARDRAIL_DECIDED,
    INTERACTION_COMPLETED,
    TOPICS,
    message_class,
)
from services.analytics.config import Settings
from services.analytics.convert import message_from_row, select_list
from services.analytics.migrations import migrate, read_migrations
from services.analytics.record_bytes import varint
from services.analytics.tables import VIEWS, read_tables
from tests.clickhouse_process import FrontProcess, running_front

_TENANT_FIELD = "tenant_id"  # the column `tenant` holds the credential's tenant instead
_ENUMS: Mapping[tuple[str, str], Any] = {
    ("interactions", "outcome"): interaction.InteractionOutcome,
    ("interactions", "finish_reason"): generation_pb2.FinishReason,
    ("interactions", "cache_status"): interaction.CacheStatus,
    ("guardrail_decisions", "surface"): verdict_pb2.Surface,
    ("guardrail_decisions", "action"): verdict_pb2.Action,
    ("guardrail_verdicts", "verdict.surface"): verdict_pb2.Surface,
    ("guardrail_verdicts", "verdict.action"): verdict_pb2.Action,
    ("feedback", "kind"): feedback_recorded_pb2.FeedbackType,
    ("drift_alerts", "alert.state"): drift.AlertState,
    ("drift_alerts", "alert.severity"): drift.Severity,
    ("documents", "outcome"): document_indexed_pb2.DocumentOutcome,
}


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontProcess]:
    """One front for the module."""
    with running_front(tmp_path_factory.mktemp("front")) as front:
        yield front


@pytest.fixture
async def store(front: FrontProcess) -> AsyncIterator[ClickHouseAnalyticsStore]:
    """A migrated store."""
    async with open_analytics_store(front.store_url) as store:
        await migrate(store, read_migrations(Settings().migrations_dir))
        yield store


@pytest.mark.parametrize("topic", sorted(VIEWS))
async def test_every_field_has_its_column(store: ClickHouseAnalyticsStore, topic: str) -> None:
    """A field that a proto gains and no migration adds would be lost without a word."""
    rows = await store.query(
        "SELECT name FROM system.columns WHERE database = currentDatabase() AND table = {table:String}",
        {"table": f"{VIEWS[topic]}_raw"},
    )
    columns = {row["name"] for row in rows}
    fields = {field.name for field in message_class(topic).DESCRIPTOR.fields}
    assert fields - columns == {_TENANT_FIELD} & fields


def test_every_consumed_topic_has_a_table() -> None:
    """The registry and the schema agree on what analytics stores."""
    assert set(VIEWS) == {spec.name for spec in TOPICS.values() if "analytics" in spec.consumers}


def test_views_name_every_enum_number() -> None:
    """Each list of names in the views is the enum's, in full and in order."""
    found = {}
    for view in _views():  # a later migration's replaces an earlier one's
        for column, numbers, names in re.findall(r"transform\(([\w.]+), \[([\d, ]+)\], \[([^\]]+)\]", view):
            named = dict(zip(map(int, numbers.split(",")), re.findall(r"'(\w+)'", names), strict=True))
            found[view.split()[0], column] = named
    assert found == {place: _short_names(enum.DESCRIPTOR) for place, enum in _ENUMS.items()}


def _views() -> list[str]:
    """The text of each view, from its name on, as the migrations make them one after the other."""
    files = sorted(Settings().migrations_dir.glob("*.sql"))
    return [view for path in files for view in path.read_text().split("CREATE OR REPLACE VIEW ")[1:]]


def _short_names(enum: EnumDescriptor) -> dict[int, str]:
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return {value.number: value.name.removeprefix(prefix) for value in enum.values}


def _filled(message: Message, *, seed: int = 1) -> None:
    """Set every field, nested ones too, to a value of its own."""
    for field in message.DESCRIPTOR.fields:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            getattr(message, field.name)["key é"] = f"value {seed}"
        elif field.message_type is not None:
            target = getattr(message, field.name)
            _filled(target.add() if field.is_repeated else target, seed=seed + field.number)
        else:
            value = _value(field, seed + field.number)
            if field.is_repeated:
                getattr(message, field.name).append(value)
            else:
                setattr(message, field.name, value)


def _value(field: Any, seed: int) -> object:
    if field.type == field.TYPE_BYTES:
        return bytes([255, 0, seed % 256])
    by_kind = {
        field.CPPTYPE_STRING: f"é{seed}",
        field.CPPTYPE_BOOL: True,
        field.CPPTYPE_DOUBLE: seed / 4,
        field.CPPTYPE_ENUM: 99,
    }
    return by_kind.get(field.cpp_type, seed)


async def _insert(store: ClickHouseAnalyticsStore, topic: str, message: Message, *, tenant: str) -> None:
    table = (await read_tables(store))[topic]
    envelope = b"".join(
        varint(number << 3 | 2) + varint(len(text)) + text
        for number, text in ((50001, b"t"), (50002, tenant.encode()), (50009, b"id"))
    )
    body = message.SerializeToString() + envelope
    await store.insert_bytes(table.insert_sql, varint(len(body)) + body, settings=table.settings)


@pytest.mark.parametrize(
    ("topic", "time"),
    [
        (GUARDRAIL_DECIDED, "decide_time"),
        (FEEDBACK_RECORDED, "record_time"),
        (EVALUATION_SCORED, "score_time"),
        (DRIFT_ALERTED, "change_time"),
        (DOCUMENT_INDEXED, "index_time"),
    ],
)
async def test_an_event_told_again_later_counts_once(store: ClickHouseAnalyticsStore, topic: str, time: str) -> None:
    """What is done again after a crash or a caller's retry has the same event id and another time: one row is seen."""
    for month in (1, 2):
        message = message_class(topic)()
        getattr(message, time).FromDatetime(datetime(2026, month, 1, tzinfo=UTC))
        await _insert(store, topic, message, tenant="again")
    rows = await store.query(f"SELECT count() AS n FROM {VIEWS[topic]}_raw FINAL WHERE tenant = 'again'")
    assert rows[0]["n"] == 1


async def test_a_message_comes_back_as_it_was_sent(store: ClickHouseAnalyticsStore) -> None:
    """Every field of the largest event survives its way through bytes, columns and back; unknown enums as well."""
    message = InteractionCompleted()
    _filled(message)
    for stamp in (message.accept_time, message.complete_time):
        stamp.GetCurrentTime()
        stamp.nanos -= stamp.nanos % 1000
    message.ClearField("sampling")
    message.sampling.temperature = 0.0
    message.sampling.stop.append("x")
    await _insert(store, INTERACTION_COMPLETED, message, tenant=message.tenant_id)
    rows = await store.query(f"SELECT {select_list(InteractionCompleted)} FROM interactions_raw FINAL")
    assert message_from_row(InteractionCompleted, rows[0]) == message


async def test_a_cut_off_message_cannot_swallow_its_envelope(store: ClickHouseAnalyticsStore) -> None:
    """Bytes that promise more than they hold eat into what follows: the row is refused, never stored blank."""
    table = (await read_tables(store))[INTERACTION_COMPLETED]
    envelope = b"".join(
        varint(number << 3 | 2) + varint(len(text)) + text for number, text in ((50001, b"topic"), (50009, b"id"))
    )
    first_field = len(varint(50001 << 3 | 2)) + 1 + len(b"topic")
    body = b"\x0a" + varint(first_field) + envelope
    with pytest.raises(InvalidRequest):
        await store.insert_bytes(table.insert_sql, varint(len(body)) + body, settings=table.settings)
