"""The embedded ClickHouse stays within its bounds of memory and time, and says so in ClickHouse's words."""

import socket
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from tests.clickhouse_process import FrontProcess, running_front

pytestmark = pytest.mark.slow

_MEMORY_MB = 1280
_MIB = 1 << 20
_FOR_EVER = "SELECT sum(sipHash64(number, toString(number))) FROM numbers(100000000000)"
# Each of them wants more than the process may hold.
_GREEDY = (
    "SELECT length(groupArray(repeat('x', 1000 + number % 7))) FROM numbers(5000000)",
    "SELECT uniqExact(toString(number)) FROM numbers(30000000)",
    "SELECT number, repeat('y', 100) FROM numbers(20000000) FORMAT JSON",
    "SELECT count() FROM numbers(10000000) AS a INNER JOIN numbers(10000000) AS b ON a.number = b.number",
)


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontProcess]:
    """One narrow front for the module."""
    arguments = ("--max-memory-mb", str(_MEMORY_MB), "--threads", "4", "--max-query-s", "60")
    with running_front(tmp_path_factory.mktemp("front"), *arguments) as front:
        yield front


@pytest.fixture
def http(front: FrontProcess) -> Iterator[httpx.Client]:
    """A plain HTTP client."""
    with httpx.Client(base_url=front.http_url, timeout=120) as client:
        yield client


def _eventually(condition: Callable[[], bool], *, within_s: float = 30) -> None:
    ends = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < ends, "it did not come about in time"


def _running(http: httpx.Client, part: str) -> bool:
    """Whether a query with this text runs, other than the one that asks."""
    return part in http.post("/", content="SELECT query FROM system.processes WHERE query NOT LIKE '%processes%'").text


def test_greedy_queries_fail_and_the_process_stays_below_its_bound(front: FrontProcess, http: httpx.Client) -> None:
    """They are refused with MEMORY_LIMIT_EXCEEDED or spill to disk; what is small beside them is answered."""
    assert front.process is not None
    process = psutil.Process(front.process.pid)
    peak_bytes = 0
    with ThreadPoolExecutor(len(_GREEDY)) as pool:
        answers = [pool.submit(http.post, "/", content=sql) for sql in _GREEDY]
        while not all(answer.done() for answer in answers):
            peak_bytes = max(peak_bytes, process.memory_info().rss)
    codes = {answer.result().headers.get("X-ClickHouse-Exception-Code") for answer in answers}
    assert "241" in codes
    assert codes <= {"241", None}
    assert peak_bytes < _MEMORY_MB * _MIB
    assert http.post("/", content="SELECT 1").text == "1\n"


def test_a_result_that_is_held_whole_is_bounded(http: httpx.Client) -> None:
    """In a format that can be streamed it has no bound; in another, or waited for, it has."""
    sql = "SELECT number, toString(number) FROM numbers(8000000) FORMAT "
    assert http.post("/", content=sql + "JSON").headers["X-ClickHouse-Exception-Code"] == "396"
    waited = http.post("/", params={"wait_end_of_query": "1"}, content=sql + "TSV")
    assert waited.headers["X-ClickHouse-Exception-Code"] == "396"
    with http.stream("POST", "/", content=sql + "TSV") as answer:
        assert sum(chunk.count(b"\n") for chunk in answer.iter_bytes()) == 8_000_000


def test_what_goes_from_table_to_table_is_no_result(http: httpx.Client) -> None:
    """An insert of more than a held result may measure goes through."""
    http.post("/", content="CREATE TABLE copied (n UInt64, t String) ENGINE = MergeTree ORDER BY n").raise_for_status()
    sql = "INSERT INTO copied SELECT number, toString(number) FROM numbers(4000000)"
    assert http.post("/", content=sql).status_code == 200
    assert http.post("/", content="SELECT count() FROM copied").text == "4000000\n"


@pytest.mark.parametrize("encoding", ["identity", "deflate"])
def test_a_body_is_bounded_as_it_is_and_as_it_unpacks(http: httpx.Client, encoding: str) -> None:
    """A few kilobytes that stand for gigabytes are stopped on the way."""
    size = _MEMORY_MB * _MIB // 16 + 1
    body = bytes(size) if encoding == "identity" else zlib.compress(bytes(size))
    answer = http.post(
        "/",
        params={"query": "INSERT INTO nowhere FORMAT RawBLOB"},
        content=body,
        headers={"Content-Encoding": encoding},
    )
    assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (413, "307")


@pytest.mark.parametrize("sql", ["INSERT INTO nowhere FORMAT RawBLOB", "INSERT INTO bounded FORMAT CSV"])
def test_bodies_of_failed_inserts_are_let_go(http: httpx.Client, sql: str) -> None:
    """However many fail, and wherever, the next one has all of the memory for rows."""
    http.post("/", content="CREATE OR REPLACE TABLE bounded (n UInt8) ENGINE = MergeTree ORDER BY n").raise_for_status()
    body = b"no number\n" * (_MEMORY_MB * _MIB // 200)
    codes = [
        http.post("/", params={"query": sql}, content=body).headers["X-ClickHouse-Exception-Code"] for _try in range(4)
    ]
    assert "241" not in codes


def test_a_query_has_a_time_limit_that_it_may_set(http: httpx.Client) -> None:
    """The code is the one that drivers take for a timeout."""
    assert http.post("/", content="SELECT getSetting('max_execution_time')").text == "60\n"
    answer = http.post("/", params={"max_execution_time": "1"}, content=_FOR_EVER)
    assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (408, "159")


@pytest.mark.parametrize("form", ["TSV", "JSON"])
def test_a_reader_that_leaves_ends_its_query(front: FrontProcess, http: httpx.Client, form: str) -> None:
    """Nothing computes on for nobody, whatever the format."""
    sql = f"{_FOR_EVER} FORMAT {form}"
    with socket.create_connection(("127.0.0.1", front.port)) as leaving:
        leaving.sendall(f"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(sql)}\r\n\r\n{sql}".encode())
        _eventually(lambda: _running(http, form))
    _eventually(lambda: not _running(http, form))


def test_a_query_can_be_killed(http: httpx.Client) -> None:
    """By what it says about itself, as the engine gives it an id of its own."""
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(http.post, "/", params={"log_comment": "mine"}, content=_FOR_EVER)
        _eventually(lambda: _running(http, "sipHash64"))
        http.post("/", content="KILL QUERY WHERE endsWith(Settings['log_comment'], 'mine') ASYNC").raise_for_status()
        assert answer.result().headers["X-ClickHouse-Exception-Code"] == "394"


def test_a_clean_stop_cancels_what_outlasts_the_drain(tmp_path: Path) -> None:
    """The process ends within seconds of its drain, and leaves data that opens again."""
    with running_front(tmp_path) as front, httpx.Client(base_url=front.http_url, timeout=60) as http:
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(http.post, "/", content=_FOR_EVER)
            _eventually(lambda: _running(http, "sipHash64"))
            assert front.stop() == 0
            assert isinstance(answer.exception(), httpx.HTTPError) or answer.result().status_code >= 400
        front.start()
        assert http.post("/", content="SELECT 1").text == "1\n"
