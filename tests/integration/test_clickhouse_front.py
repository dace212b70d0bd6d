"""The embedded ClickHouse as its clients meet it: a real process, real HTTP, data on a real disk."""

import gzip
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import clickhouse_connect
import httpx
import lz4.frame  # type: ignore[import-untyped]  # ships no stubs
import pytest
from backports import zstd
from clickhouse_connect.driver.exceptions import DatabaseError, StreamFailureError

from tests.clickhouse_process import FrontProcess, running_front

pytestmark = pytest.mark.slow

_PROTO = 'syntax = "proto3"; message Event { uint64 id = 1; string name = 2; }'
_PROTO_SETTINGS = {
    "format_schema_source": "string",
    "format_schema": _PROTO,
    "format_schema_message_name": "Event",
}


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontProcess]:
    """One front for the module."""
    with running_front(tmp_path_factory.mktemp("front")) as front:
        yield front


@pytest.fixture
def http(front: FrontProcess) -> Iterator[httpx.Client]:
    """A plain HTTP client, as curl is one."""
    with httpx.Client(base_url=front.http_url, timeout=30) as client:
        yield client


@pytest.fixture
def table(http: httpx.Client) -> str:
    """A fresh table of an id and a name."""
    for sql in (
        "DROP TABLE IF EXISTS t SYNC",
        "CREATE TABLE t (id UInt64, name String) ENGINE = MergeTree ORDER BY id",
    ):
        assert http.post("/", content=sql).status_code == 200
    return "t"


def test_ping_and_the_bare_root_say_ok(http: httpx.Client) -> None:
    """Load balancers and Grafana's check find what they look for."""
    assert [http.get(path).text for path in ("/ping", "/", "/replicas_status")] == ["Ok.\n"] * 3


def test_a_web_page_gets_nothing_without_a_password(http: httpx.Client) -> None:
    """Neither a page's own request nor a foreign name for this machine reaches the data."""
    assert "ACCESS_DENIED" in http.post("/", content="SELECT 1", headers={"origin": "http://evil.example"}).text
    assert http.post("/", content="SELECT 1", headers={"host": "evil.example"}).status_code == 400
    assert http.post("/", content="SELECT 1", headers={"host": "localhost:1"}).text == "1\n"


def test_a_query_comes_by_url_or_by_body(http: httpx.Client) -> None:
    """The query may stand in the URL, in the body, or begin in one and go on in the other."""
    assert http.get("/", params={"query": "SELECT 1"}).text == "1\n"
    assert http.post("/", content="SELECT 1").text == "1\n"
    assert http.post("/", params={"query": "SELECT"}, content="2").text == "2\n"


def test_formats_and_headers(http: httpx.Client) -> None:
    """The FORMAT clause goes before default_format, and the headers say what came."""
    answer = http.post("/", params={"default_format": "CSV", "query_id": "mine"}, content="SELECT 1, 'a'")
    assert answer.text == '1,"a"\n'
    assert answer.headers["X-ClickHouse-Format"] == "CSV"
    assert answer.headers["X-ClickHouse-Query-Id"] == "mine"
    assert answer.headers["X-ClickHouse-Timezone"] == "UTC"
    assert answer.headers["Content-Type"].startswith("text/csv")
    assert json.loads(answer.headers["X-ClickHouse-Summary"])["read_rows"] == "1"
    rows = http.post("/", params={"default_format": "CSV"}, content="SELECT 1 AS x FORMAT JSONEachRow")
    assert rows.json() == {"x": 1}


def test_parameters_and_settings_hold_for_one_query(http: httpx.Client) -> None:
    """Nothing that a request sets is there for the next one."""
    params = {"param_text": "it's\\\\", "max_block_size": "17"}
    sql = "SELECT {text:String}, getSetting('max_block_size')"
    assert http.post("/", params=params, content=sql).text == "it\\'s\\\\\t17\n"
    assert http.post("/", content="SELECT getSetting('max_block_size')").text != "17\n"
    assert http.post("/", content="SELECT {text:String}").headers["X-ClickHouse-Exception-Code"] == "456"


@pytest.mark.parametrize(
    ("sql", "status", "code", "name"),
    [
        ("SELECT * FROM nowhere", 404, "60", "UNKNOWN_TABLE"),
        ("SELEC 1", 400, "62", "SYNTAX_ERROR"),
        ("SELECT nothing", 404, "47", "UNKNOWN_IDENTIFIER"),
        ("SELECT throwIf(1)", 400, "395", "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO"),
        ("SELECT 1; SELECT 2", 400, "62", "SYNTAX_ERROR"),
        (b"SELECT '\xff' AS \xff", 400, "62", "SYNTAX_ERROR"),
    ],
)
def test_errors_are_clickhouses_own(http: httpx.Client, sql: str | bytes, status: int, code: str, name: str) -> None:
    """Status, code and text are what a driver parses; the next query works."""
    answer = http.post("/", content=sql)
    assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (status, code)
    assert answer.text.startswith(f"Code: {code}. DB::Exception: ")
    assert f"({name})" in answer.text
    assert http.post("/", content="SELECT 1").text == "1\n"


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"no_such_setting": "1"}, "115"),
        ({"a b": "1"}, "115"),
        ({"database": "nowhere"}, "81"),
        ({"compress": "1"}, "48"),
    ],
)
def test_parameters_that_mean_nothing_are_refused(http: httpx.Client, params: dict[str, str], code: str) -> None:
    """A misspelt setting is an error and is not passed over."""
    answer = http.post("/", params=params, content="SELECT 1")
    assert answer.headers["X-ClickHouse-Exception-Code"] == code


@pytest.mark.parametrize("level", ["1", "2"])
def test_a_read_only_query_is_answered_and_changes_nothing(http: httpx.Client, level: str) -> None:
    """Dashboards ask so, whatever else is set beside it."""
    params = {"readonly": level, "max_block_size": "17", "log_comment": "panel"}
    assert http.post("/", params=params, content="SELECT getSetting('max_block_size')").text == "17\n"
    refused = http.post("/", params=params, content="CREATE TABLE by_reader (x Int8) ENGINE = Memory")
    assert refused.headers["X-ClickHouse-Exception-Code"] == "164"


def test_a_get_changes_nothing(http: httpx.Client) -> None:
    """GET is read-only, as on a server."""
    answer = http.get("/", params={"query": "CREATE TABLE by_get (x Int8) ENGINE = Memory"})
    assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (403, "164")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd", "lz4"])
def test_answers_are_compressed_as_the_client_asks(http: httpx.Client, encoding: str) -> None:
    """What is asked for in Accept-Encoding is what comes."""
    with http.stream(
        "POST", "/", content="SELECT number FROM numbers(100000)", headers={"Accept-Encoding": encoding}
    ) as answer:
        assert answer.headers["Content-Encoding"] == encoding
        raw = b"".join(answer.iter_raw())
    decoders = {"zstd": zstd.decompress, "lz4": lz4.frame.decompress, "gzip": gzip.decompress}
    if encoding in decoders:
        assert decoders[encoding](raw).count(b"\n") == 100_000


@pytest.mark.parametrize(
    ("encoding", "encode"), [("gzip", gzip.compress), ("zstd", zstd.compress), ("lz4", lz4.frame.compress)]
)
def test_inserts_may_be_compressed_in_several_frames(
    http: httpx.Client, table: str, encoding: str, encode: object
) -> None:
    """Every frame of a body is stored."""
    assert callable(encode)
    body = b"".join(encode(f"{number},n{number}\n".encode()) for number in range(3))
    answer = http.post(
        "/",
        params={"query": f"INSERT INTO {table} FORMAT CSV"},
        content=body,
        headers={"Content-Encoding": encoding},
    )
    assert answer.status_code == 200, answer.text
    assert json.loads(answer.headers["X-ClickHouse-Summary"])["written_rows"] == "3"
    assert http.post("/", content=f"SELECT count() FROM {table}").text == "3\n"


def test_protobuf_rows_are_inserted_with_a_schema_of_their_own(http: httpx.Client, table: str) -> None:
    """The schema comes with the request, the rows are length-prefixed messages; a bad one stores none."""
    good = b"\x08\x01\x12\x03one"
    body = bytes([len(good)]) + good + b"\x02\x08\x02"
    params = {"query": f"INSERT INTO {table} FORMAT Protobuf", **_PROTO_SETTINGS}
    assert http.post("/", params=params, content=body).status_code == 200
    assert http.post("/", content=f"SELECT * FROM {table} ORDER BY id").text == "1\tone\n2\t\n"
    assert http.post("/", params=params, content=body + b"\x09\x08").status_code >= 400
    assert http.post("/", content=f"SELECT count() FROM {table}").text == "2\n"


@pytest.mark.parametrize(
    "columns",
    ["id UInt64, CONSTRAINT small CHECK id < 10", "id UInt64, twice UInt64 DEFAULT if(throwIf(id >= 10), 0, id * 2)"],
)
def test_rows_that_fail_behind_the_parser_are_an_error(http: httpx.Client, columns: str) -> None:
    """A constraint or a default that refuses a row refuses the insert aloud, and leaves nothing of it."""
    http.post("/", content=f"CREATE OR REPLACE TABLE strict ({columns}) ENGINE = MergeTree ORDER BY id")
    sql = "INSERT INTO strict (id) SETTINGS max_insert_threads = 1 FORMAT CSV\n"
    assert http.post("/", content=sql + "1\n10\n").status_code >= 400
    assert http.post("/", content="SELECT count() FROM strict").text == "0\n"
    assert http.post("/", content=sql + "1\n9\n").status_code == 200
    assert http.post("/", content="SELECT count() FROM strict").text == "2\n"


def test_a_materialized_view_that_fails_is_an_error(http: httpx.Client, table: str) -> None:
    """Rows that one of the tables refused are not acknowledged."""
    for sql in (
        "DROP VIEW IF EXISTS failing SYNC",
        "CREATE OR REPLACE TABLE target (id UInt8) ENGINE = MergeTree ORDER BY id",
        f"CREATE MATERIALIZED VIEW failing TO target AS SELECT throwIf(id = 7) AS id FROM {table}",
    ):
        assert http.post("/", content=sql).status_code == 200
    assert http.post("/", content=f"INSERT INTO {table} (id) FORMAT CSV\n7\n").status_code >= 400
    assert http.post("/", content=f"INSERT INTO {table} (id) FORMAT CSV\n8\n").status_code == 200
    http.post("/", content="DROP VIEW failing SYNC")


def test_clickhouse_connect_works_unchanged(front: FrontProcess) -> None:
    """Inserts of many blocks, typed reads, streams that fail midway, and long parameters."""
    client = clickhouse_connect.get_client(host="127.0.0.1", port=front.port, database="binnacle")
    client.command(
        "CREATE OR REPLACE TABLE c (id UInt64, tags Array(String), at Nullable(DateTime64(6))) "
        "ENGINE = MergeTree ORDER BY id"
    )
    client.insert("c", [[number, ["a", "é"], None] for number in range(150_000)], column_names=["id", "tags", "at"])
    assert client.query("SELECT count(), uniqExact(id) FROM c").result_rows == [(150_000, 150_000)]
    assert client.query("SELECT * FROM c LIMIT 0").column_names == ("id", "tags", "at")
    assert client.query("SELECT {t:String} AS t", parameters={"t": "x" * 100_000}).first_row[0] == "x" * 100_000
    with pytest.raises(DatabaseError) as caught:
        client.query("SELECT 1 FROM nowhere")
    assert (caught.value.code, caught.value.name) == (60, "UNKNOWN_TABLE")
    with (
        pytest.raises(StreamFailureError, match="FUNCTION_THROW_IF"),
        client.query_row_block_stream("SELECT throwIf(number = 900000) FROM numbers(1000000)") as blocks,
    ):
        for _block in blocks:
            pass
    assert client.query("SELECT 1").first_row == (1,)
    client.close()


def test_many_clients_at_once(http: httpx.Client, table: str) -> None:
    """Queries and inserts side by side all get their own answers."""

    def work(number: int) -> str:
        http.post("/", content=f"INSERT INTO {table} VALUES ({number}, 'n')").raise_for_status()
        return http.post("/", content=f"SELECT {number}, sleep(0.01)").text.split("\t")[0]

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(work, range(64))) == [str(number) for number in range(64)]
    assert http.post("/", content=f"SELECT count() FROM {table}").text == "64\n"


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    """SIGKILL in the middle of inserts: every acknowledged row is there after the next start, and reads go on."""
    with running_front(tmp_path) as front:
        acknowledged = 0
        with httpx.Client(base_url=front.http_url) as http:
            http.post("/", content="CREATE TABLE t (id UInt64) ENGINE = MergeTree ORDER BY id").raise_for_status()
            with ThreadPoolExecutor(1) as pool:
                killer = None
                try:
                    for number in range(100_000):
                        http.post("/", content=f"INSERT INTO t VALUES ({number})").raise_for_status()
                        acknowledged += 1
                        if acknowledged == 50:
                            killer = pool.submit(front.kill)
                except httpx.HTTPError:
                    pass
            assert killer is not None
        front.start()
        with httpx.Client(base_url=front.http_url) as http:
            stored = int(http.post("/", content="SELECT uniqExact(id) FROM t").text)
        assert acknowledged <= stored <= acknowledged + 1
        assert front.stop() == 0


def test_a_second_process_on_the_directory_is_refused(front: FrontProcess) -> None:
    """The error names the directory, the process that holds it and what to do."""
    command = [sys.executable, "-m", "services.local.clickhouse_front", "--port", "0", "--data", str(front.data)]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert refused.returncode == 2
    assert front.process is not None
    assert f"in use by process {front.process.pid}" in refused.stderr


def test_sigterm_lets_a_running_query_finish(tmp_path: Path) -> None:
    """A clean stop answers what was asked before it."""
    with running_front(tmp_path) as front, httpx.Client(base_url=front.http_url, timeout=30) as http:
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(http.post, "/", content="SELECT sleep(1), 'done' SETTINGS max_block_size = 1")
            while "sleep(1)" not in http.post("/", content="SELECT query FROM system.processes").text:
                pass
            assert front.process is not None
            front.process.send_signal(signal.SIGTERM)
            assert answer.result().text == "0\tdone\n"
        assert front.stop() == 0


def test_a_password_is_asked_for_where_one_is_set(tmp_path: Path) -> None:
    """Basic authentication, ClickHouse's headers and the URL are accepted; anything else is refused."""
    environment = {
        "BINNACLE_CLICKHOUSE_FRONT__USER": "ops",
        "BINNACLE_CLICKHOUSE_FRONT__PASSWORD": "s:ecret",
    }
    with running_front(tmp_path, **environment) as front, httpx.Client(base_url=front.http_url) as http:
        assert http.post("/", content="SELECT 1").status_code == 403
        assert http.post("/", content="SELECT 1", auth=("ops", "wrong")).headers["X-ClickHouse-Exception-Code"] == "516"
        assert http.post("/", content="SELECT 1", auth=("ops", "s:ecret")).text == "1\n"
        headers = {"X-ClickHouse-User": "ops", "X-ClickHouse-Key": "s:ecret"}
        assert http.post("/", content="SELECT 1", headers=headers).text == "1\n"
        assert http.post("/", params={"user": "ops", "password": "s:ecret"}, content="SELECT 1").text == "1\n"
        assert http.get("/ping").text == "Ok.\n"
