"""Clients meet the embedded ClickHouse: clickhouse-connect both ways, curl's forms, Grafana's driver by its wire."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import clickhouse_connect
import httpx
import pytest
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from tests.clickhouse_process import FrontProcess, running_front

pytestmark = pytest.mark.slow

_ROW = (
    7,
    "é",
    datetime(2026, 1, 2, 3, 4, 5, 678000, UTC),
    Decimal("1.25"),
    [1.5, 2.5],
    {"k": "v"},
    None,
    UUID("018f0000-0000-7000-8000-000000000001"),
    "low",
    (1, "t"),
)
_COLUMNS = ["id", "text", "at", "price", "scores", "labels", "missing", "uuid", "kind", "pair"]


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontProcess]:
    """One front for the module, with a password as people set one."""
    environment = {"BINNACLE_CLICKHOUSE_FRONT__PASSWORD": "secret"}
    with running_front(tmp_path_factory.mktemp("front"), **environment) as front:
        yield front


@pytest.fixture
def client(front: FrontProcess) -> Iterator[Client]:
    """clickhouse-connect as its users open it."""
    client = clickhouse_connect.get_client(host="127.0.0.1", port=front.port, password="secret", database="binnacle")
    yield client
    client.close()


@pytest.fixture
async def async_client(front: FrontProcess) -> AsyncIterator[AsyncClient]:
    """Its asynchronous form."""
    client = await clickhouse_connect.get_async_client(
        host="127.0.0.1", port=front.port, password="secret", database="binnacle"
    )
    yield client
    await client.close()


@pytest.fixture
def http(front: FrontProcess) -> Iterator[httpx.Client]:
    """A plain client with ClickHouse's own headers, as Grafana's plugin sends them."""
    headers = {"X-ClickHouse-User": "default", "X-ClickHouse-Key": "secret"}
    with httpx.Client(base_url=front.http_url, headers=headers, timeout=60) as client:
        yield client


def _create_typed(client: Client, name: str) -> str:
    client.command(
        f"CREATE OR REPLACE TABLE {name} (id UInt64, text String, at DateTime64(3, 'UTC'), price Decimal(9, 2), "
        "scores Array(Float64), labels Map(String, String), missing Nullable(Int32), uuid UUID, "
        "kind LowCardinality(String), pair Tuple(number Int32, name String)) ENGINE = MergeTree ORDER BY id"
    )
    return name


def test_the_client_knows_whom_it_talks_to(client: Client) -> None:
    """Ping, version, time zone and settings are what it asks for at its start."""
    assert client.ping()
    assert str(client.server_version)[0].isdigit()
    assert str(client.server_tz) == "UTC"
    assert client.query("SELECT getSetting('max_threads')", settings={"max_threads": 3}).first_row == (3,)


@pytest.mark.parametrize("compress", [False, "lz4", "zstd", "gzip"])
def test_every_type_comes_back_as_it_went(front: FrontProcess, client: Client, compress: Any) -> None:
    """Whatever compresses the way there and back."""
    table = _create_typed(client, f"typed_{compress}")
    compressing = clickhouse_connect.get_client(
        host="127.0.0.1", port=front.port, password="secret", database="binnacle", compress=compress, tz_mode="aware"
    )
    compressing.insert(table, [_ROW], column_names=_COLUMNS)
    row = compressing.query(f"SELECT * EXCEPT pair, tuple(pair.number, pair.name) AS pair FROM {table}").first_row
    compressing.close()
    assert row is not None
    assert tuple(row) == _ROW


def test_rows_stream_and_frames_fill(client: Client) -> None:
    """Big results block by block, and as pandas and Arrow tables."""
    sql = "SELECT number AS n, toString(number) AS text FROM numbers(300000)"
    with client.query_rows_stream(sql) as rows:
        assert sum(1 for _row in rows) == 300_000
    assert int(client.query_df(sql)["n"].sum()) == 299_999 * 150_000
    assert client.query_arrow(sql).num_rows == 300_000
    client.command("CREATE OR REPLACE TABLE framed (n UInt64, text String) ENGINE = MergeTree ORDER BY n")
    client.insert_df("framed", client.query_df(sql))
    assert client.command("SELECT uniqExact(n) FROM framed") == 300_000


def test_raw_inserts_and_raw_answers(client: Client) -> None:
    """Bytes in a format of the caller's, both ways."""
    client.command("CREATE OR REPLACE TABLE raw (n UInt64, text String) ENGINE = MergeTree ORDER BY n")
    summary = client.raw_insert("raw", ["n", "text"], b"1,one\n2,two\n", fmt="CSV")
    assert summary.written_rows == 2
    assert (
        client.raw_query("SELECT * FROM raw ORDER BY n", fmt="JSONEachRow").splitlines()[0] == b'{"n":1,"text":"one"}'
    )


def test_parameters_are_bound_by_the_server(client: Client) -> None:
    """Of every kind, quotes and time zones included."""
    parameters = {"text": "it's \\ é\n", "many": [1, 2], "at": datetime(2026, 1, 2, tzinfo=UTC)}
    sql = "SELECT {text:String}, {many:Array(UInt8)}, {at:DateTime64(3, 'UTC')} = toDateTime64('2026-01-02', 3, 'UTC')"
    assert client.query(sql, parameters=parameters).first_row == ("it's \\ é\n", [1, 2], True)


async def test_the_asynchronous_client_does_the_same(async_client: AsyncClient) -> None:
    """Many at once on one client, errors with their code, streams."""
    results = await asyncio.gather(*(async_client.query("SELECT {n:UInt8}", parameters={"n": n}) for n in range(20)))
    assert [result.result_rows[0][0] for result in results] == list(range(20))
    with pytest.raises(DatabaseError) as caught:
        await async_client.query("SELECT 1 FROM nowhere")
    assert (caught.value.code, caught.value.name) == (60, "UNKNOWN_TABLE")
    await async_client.command("CREATE OR REPLACE TABLE a (n UInt64) ENGINE = MergeTree ORDER BY n")
    await async_client.insert("a", [[n] for n in range(10_000)], column_names=["n"])
    assert await async_client.command("SELECT count() FROM a") == 10_000


def test_threads_share_a_client_without_sessions(front: FrontProcess) -> None:
    """As web servers use it."""
    client = clickhouse_connect.get_client(
        host="127.0.0.1", port=front.port, password="secret", autogenerate_session_id=False
    )
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: client.command(f"SELECT {n} + sleep(0.02)"), range(40)))
    client.close()
    assert answers == list(range(40))


def test_what_migrations_and_operators_do_works(client: Client) -> None:
    """Columns and times to live change, rows go, parts merge, a view refreshes itself; the catalogue tells of it."""
    client.command("CREATE OR REPLACE TABLE d (n UInt64, text String, at DateTime) ENGINE = MergeTree ORDER BY n")
    client.command("INSERT INTO d SELECT number, toString(number), now() FROM numbers(100)")
    for sql in (
        "ALTER TABLE d ADD COLUMN IF NOT EXISTS length UInt64 DEFAULT length(text)",
        "ALTER TABLE d MODIFY COLUMN text String CODEC(ZSTD(3))",
        "ALTER TABLE d MODIFY COLUMN text String TTL at + INTERVAL 1 DAY",
        "ALTER TABLE d MODIFY TTL at + INTERVAL 2 DAY",
        "ALTER TABLE d ADD INDEX IF NOT EXISTS by_text text TYPE bloom_filter GRANULARITY 1",
        "ALTER TABLE d MATERIALIZE INDEX by_text SETTINGS mutations_sync = 1",
        "DELETE FROM d WHERE n < 10",
        "ALTER TABLE d DELETE WHERE n < 20 SETTINGS mutations_sync = 1",
        "ALTER TABLE d UPDATE text = 'changed' WHERE n = 20 SETTINGS mutations_sync = 1",
        "OPTIMIZE TABLE d FINAL",
        "CREATE MATERIALIZED VIEW refreshed REFRESH EVERY 1 HOUR ENGINE = MergeTree ORDER BY n AS SELECT n FROM d",
        "SYSTEM WAIT VIEW refreshed",
        "KILL MUTATION WHERE database = 'nowhere'",
    ):
        client.command(sql)
    assert client.query("SELECT count(), min(n), sum(length) > 0, any(text) FROM d WHERE n <= 20").first_row == (
        1,
        20,
        True,
        "changed",
    )
    assert client.command("SELECT count() FROM refreshed") == 80
    assert client.query("SELECT count() FROM system.mutations WHERE table = 'd' AND NOT is_done").first_row == (0,)
    assert "d" in client.query("SHOW TABLES").result_columns[0]
    assert client.command("EXISTS TABLE d") == 1


def test_curl_sends_forms_and_reads_what_it_asked_for(http: httpx.Client) -> None:
    """A GET with everything in the URL, a POST with the statement as its body, a compressed insert."""
    answer = http.get("/", params={"query": "SELECT {n:UInt8} AS n FORMAT JSON", "param_n": "5"})
    assert answer.json()["data"] == [{"n": 5}]
    assert http.head("/ping").status_code == 200
    http.post("/", content="CREATE OR REPLACE TABLE curl (n UInt64) ENGINE = MergeTree ORDER BY n").raise_for_status()
    http.post(
        "/",
        params={"query": "INSERT INTO curl FORMAT TSV"},
        content=gzip.compress(b"1\n2\n"),
        headers={"Content-Encoding": "gzip"},
    ).raise_for_status()
    assert http.post("/", content="SELECT sum(n) FROM curl").text == "3\n"
    refused = http.post("/", content="SELECT 1", headers={"X-ClickHouse-Key": "wrong"})
    assert (refused.status_code, refused.headers["X-ClickHouse-Exception-Code"]) == (403, "516")


def test_grafanas_driver_reads_the_revision_that_the_engine_writes(http: httpx.Client) -> None:
    """clickhouse-go asks who is there in its own revision, and then reads Native blocks in the one it was told: 0."""
    asked = {
        "default_format": "Native",
        "client_protocol_version": "54460",
        "database": "binnacle",
        "max_execution_time": "60",
        "enable_http_compression": "1",
    }
    headers = {"Accept-Encoding": "gzip"}
    hello = http.post(
        "/", params=asked, headers=headers, content="SELECT displayName(), version(), revision(), timezone()"
    )
    assert hello.headers["Content-Encoding"] == "gzip"
    assert hello.content.startswith(b"\x01\x00\x02\xff\xff\xff\xff\x00\x04\x01\x0ddisplayName()\x06String\x00")
    assert b"\x0arevision()\x06UInt32\x00" + bytes(4) in hello.content
    assert (
        http.post("/", params=asked, headers=headers, content="SELECT 1 AS x").content == b"\x01\x01\x01x\x05UInt8\x01"
    )
    failed = http.post("/", params=asked, headers=headers, content="SELECT 1 FROM nowhere")
    assert failed.headers["X-ClickHouse-Exception-Code"] == "60"
