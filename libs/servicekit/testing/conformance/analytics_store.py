"""What every analytics store must do. Inherit it in a test class that has a `store` fixture.

Run by `tests/contract/test_analytics_store.py` against ClickHouse's embedded front.
"""

import asyncio
from datetime import UTC, datetime

import pytest

from servicekit.errors import InvalidRequest, NotReady
from servicekit.ports.analytics_store import AnalyticsStore

_NOON = datetime(2026, 1, 2, 12, 0, 0, 123456, tzinfo=UTC)
_JSON_ROWS = {"input_format_skip_unknown_fields": "0"}


class AnalyticsStoreConformance:
    """Behaviour that services rely on."""

    @pytest.fixture
    async def table(self, store: AnalyticsStore) -> str:
        """A fresh table of an id, a time and a name."""
        await store.execute("DROP TABLE IF EXISTS conformance SYNC")
        await store.execute(
            "CREATE TABLE conformance (id UInt64, at DateTime64(6, 'UTC'), name String) ENGINE = MergeTree ORDER BY id"
        )
        return "conformance"

    async def test_ping_returns_when_the_store_answers(self, store: AnalyticsStore) -> None:
        """A store that is there answers its ping."""
        await store.ping()

    async def test_rows_are_mappings_by_column_name(self, store: AnalyticsStore) -> None:
        """A query's rows are read by the names that it gives its columns."""
        rows = await store.query("SELECT 1 AS one, 'two' AS two")
        assert [dict(row) for row in rows] == [{"one": 1, "two": "two"}]

    async def test_parameters_are_bound_by_the_server(self, store: AnalyticsStore) -> None:
        """A parameter is a value, whatever quotes, backslashes or braces it holds."""
        hostile = "x' OR '1'='1 \\ {a:b} -- é"
        rows = await store.query(
            "SELECT {text:String} AS text, {n:Int64} AS n, {list:Array(String)} AS list",
            {"text": hostile, "n": -5, "list": [hostile, ""]},
        )
        assert rows[0] == {"text": hostile, "n": -5, "list": [hostile, ""]}

    async def test_times_are_aware_and_in_utc(self, store: AnalyticsStore) -> None:
        """A time goes in and comes out as the same instant, to the microsecond."""
        rows = await store.query("SELECT {at:DateTime64(6, 'UTC')} AS at", {"at": _NOON})
        assert rows[0]["at"] == _NOON
        assert rows[0]["at"].tzinfo is not None

    async def test_named_tuples_are_mappings(self, store: AnalyticsStore) -> None:
        """Nested columns come back by name, inside arrays too."""
        rows = await store.query("SELECT [CAST((1, 'a'), 'Tuple(number Int32, text String)')] AS nested")
        assert rows[0]["nested"] == [{"number": 1, "text": "a"}]

    async def test_inserted_rows_are_there_when_the_insert_returns(self, store: AnalyticsStore, table: str) -> None:
        """An insert is synchronous."""
        body = b'{"id": 1, "at": "2026-01-02 12:00:00.123456", "name": "one"}\n{"id": 2, "name": "two"}\n'
        await store.insert_bytes(f"INSERT INTO {table} FORMAT JSONEachRow", body, settings=_JSON_ROWS)
        rows = await store.query(f"SELECT id, at FROM {table} ORDER BY id")
        assert [row["id"] for row in rows] == [1, 2]
        assert rows[0]["at"] == _NOON

    async def test_rows_that_do_not_parse_are_an_invalid_request(self, store: AnalyticsStore, table: str) -> None:
        """A bad row fails its batch for good and leaves nothing of it behind."""
        body = b'{"id": 1, "name": "one"}\n{"id": "no number"}\n'
        with pytest.raises(InvalidRequest):
            await store.insert_bytes(f"INSERT INTO {table} FORMAT JSONEachRow", body, settings={})
        assert await store.query(f"SELECT id FROM {table}") == []

    async def test_an_unknown_table_is_not_ready(self, store: AnalyticsStore) -> None:
        """A missing table says that migrations have not run."""
        with pytest.raises(NotReady):
            await store.query("SELECT 1 FROM no_such_table")
        with pytest.raises(NotReady):
            await store.insert_bytes("INSERT INTO no_such_table FORMAT JSONEachRow", b"{}", settings={})

    async def test_a_faulty_statement_is_an_invalid_request(self, store: AnalyticsStore) -> None:
        """A statement that does not parse is the caller's fault, and the next one works."""
        with pytest.raises(InvalidRequest):
            await store.execute("SELEC 1")
        assert await store.query("SELECT 1 AS one") == [{"one": 1}]

    async def test_queries_run_side_by_side(self, store: AnalyticsStore) -> None:
        """Many queries at once all get their own answers."""
        answers = await asyncio.gather(*(store.query("SELECT {n:UInt64} AS n", {"n": number}) for number in range(24)))
        assert [rows[0]["n"] for rows in answers] == list(range(24))
