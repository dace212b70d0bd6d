"""Which table holds which topic, and how rows get into it. Read by the sink at its start."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import cast

from google.protobuf.descriptor import Descriptor

from servicekit.errors import NotReady
from servicekit.events import topics
from servicekit.events.topics import TOPICS, message_class
from servicekit.ports.analytics_store import AnalyticsStore
from services.analytics.record_bytes import ENVELOPE_FIELDS
from services.analytics.wire_schema import ROOT, flatten

# The view of each topic; its rows are in the table of the same name with `_raw` behind it.
VIEWS: Mapping[str, str] = MappingProxyType(
    {
        topics.INTERACTION_COMPLETED: "interactions",
        topics.GUARDRAIL_DECIDED: "guardrail_decisions",
        topics.FEEDBACK_RECORDED: "feedback",
        topics.EVALUATION_SCORED: "evaluations",
        topics.DRIFT_ALERTED: "drift_alerts",
        topics.DOCUMENT_INDEXED: "documents",
        topics.PRODUCER_REPORTED: "producer_reports",
    }
)

# One block for each insert: a batch is then written whole or not at all. Duplicates within it collapse when parts are
# merged or read, as duplicates of other batches do: to look for them at each insert would take most of its time.
_INSERT_SETTINGS = {
    "optimize_on_insert": "0",
    "max_insert_block_size": "4000000",
    "min_insert_block_size_rows": "4000000",
    "min_insert_block_size_bytes": "4000000000",
}
_COMPUTED = frozenset({"DEFAULT", "MATERIALIZED", "ALIAS"})


@dataclass(frozen=True, slots=True)
class TopicTable:
    """How a topic is written: the INSERT and the settings that explain its bytes."""

    topic: str
    table: str
    insert_sql: str
    settings: Mapping[str, str]


async def read_tables(store: AnalyticsStore) -> Mapping[str, TopicTable]:
    """The tables of all topics that analytics consumes, as the store has them now.

    Raises:
        NotReady: a table is missing.
        BackendUnavailable, BackendTimeout
    """
    return {spec.name: await _read_table(store, spec.name) for spec in TOPICS.values() if "analytics" in spec.consumers}


def _descriptor(topic: str) -> Descriptor:
    # The stubs know two kinds of descriptors; both have what is read here.
    return cast("Descriptor", message_class(topic).DESCRIPTOR)


async def _read_table(store: AnalyticsStore, topic: str) -> TopicTable:
    table = f"{VIEWS[topic]}_raw"
    rows = await store.query(
        "SELECT name, default_kind FROM system.columns "
        "WHERE database = currentDatabase() AND table = {table:String} ORDER BY position",
        {"table": table},
    )
    columns = [str(row["name"]) for row in rows if row["default_kind"] not in _COMPUTED]
    if not columns:
        raise NotReady(f"table {table} is missing: run the migrations", reason="TABLE_MISSING")
    schema = flatten(_descriptor(topic), extra_fields=ENVELOPE_FIELDS)
    return TopicTable(
        topic=topic,
        table=table,
        # Without the list of columns the engine would ignore the ephemeral ones, and every time were 1970.
        insert_sql=f"INSERT INTO {table} ({', '.join(columns)}) FORMAT Protobuf",  # names of our own
        settings={
            "format_schema_source": "string",
            "format_schema": schema,
            "format_schema_message_name": ROOT,
            **_INSERT_SETTINGS,
        },
    )
