"""Batches into the embedded ClickHouse are whole for every reader, and for whoever comes after a kill."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from services.analytics.record_bytes import varint
from tests.clickhouse_process import FrontProcess, running_front

pytestmark = pytest.mark.slow

_ROWS = 2000
_BATCHES = 12
_COLUMNS = "batch UInt64, number UInt64, text String"
_READERS = 8
_PARAMETERS = {
    "query": "INSERT INTO events (batch, number, text) FORMAT Protobuf",
    "format_schema_source": "string",
    "format_schema": 'syntax = "proto3"; message Event { uint64 batch = 1; uint64 number = 2; string text = 3; }',
    "format_schema_message_name": "Event",
    # As the sink inserts: one block a batch.
    "max_insert_block_size": "4000000",
    "min_insert_block_size_rows": "4000000",
    "min_insert_block_size_bytes": "4000000000",
}
_WHOLE = "SELECT count(), countIf(rows != {rows:UInt64}) FROM (SELECT count() AS rows FROM events GROUP BY batch)"


@pytest.fixture
def front(tmp_path: Path) -> Iterator[FrontProcess]:
    """A front of its own, with an empty table that a view copies from."""
    with running_front(tmp_path) as front:
        with httpx.Client(base_url=front.http_url) as http:
            for sql in (
                f"CREATE TABLE events ({_COLUMNS}) ENGINE = ReplacingMergeTree ORDER BY (batch, number)",
                "CREATE TABLE copies (batch UInt64, number UInt64) ENGINE = MergeTree ORDER BY batch",
                "CREATE MATERIALIZED VIEW copying TO copies AS SELECT batch, number FROM events",
            ):
                http.post("/", content=sql).raise_for_status()
        yield front


def _batch(batch: int) -> bytes:
    rows = (b"\x08" + varint(batch) + b"\x10" + varint(number) + b"\x1a\x64" + b"x" * 100 for number in range(_ROWS))
    return b"".join(varint(len(row)) + row for row in rows)


def _insert(http: httpx.Client, batch: int) -> None:
    http.post("/", params=_PARAMETERS, content=_batch(batch)).raise_for_status()


def _whole_and_half(http: httpx.Client) -> tuple[int, int]:
    answer = http.post("/", params={"param_rows": str(_ROWS)}, content=_WHOLE)
    answer.raise_for_status()
    groups, halves = answer.text.split()
    return int(groups) - int(halves), int(halves)


def test_readers_beside_a_writer_never_fail_and_see_no_half_batch(front: FrontProcess) -> None:
    """Every query has a connection of the engine for itself, and a batch appears at once."""
    written = threading.Event()

    def read(_number: int) -> list[tuple[int, int]]:
        seen = []
        with httpx.Client(base_url=front.http_url, timeout=60) as http:
            while not written.is_set():
                seen.append(_whole_and_half(http))
        return seen

    with ThreadPoolExecutor(_READERS) as pool, httpx.Client(base_url=front.http_url, timeout=60) as http:
        reading = [pool.submit(read, number) for number in range(_READERS)]
        try:
            for batch in range(_BATCHES):
                _insert(http, batch)
        finally:
            written.set()
        seen = [reader.result() for reader in reading]
        assert _whole_and_half(http) == (_BATCHES, 0)
        assert http.post("/", content="SELECT count() FROM copies").text == f"{_BATCHES * _ROWS}\n"
    assert all(half == 0 for reader in seen for _whole, half in reader)
    assert all(reader == sorted(reader) for reader in seen)
    assert min(len(reader) for reader in seen) > 1


def test_a_kill_amid_batches_loses_none_and_halves_none(front: FrontProcess) -> None:
    """What was acknowledged is there after the next start, each batch whole; a repeat collapses."""
    acknowledged = 0
    with ThreadPoolExecutor(1) as pool, httpx.Client(base_url=front.http_url, timeout=60) as http:
        killing = None
        try:
            for batch in range(1000):
                _insert(http, batch)
                acknowledged += 1
                if acknowledged == 5:
                    killing = pool.submit(front.kill)
        except httpx.TransportError:
            pass
        assert killing is not None
        killing.result()
    front.start()
    with httpx.Client(base_url=front.http_url, timeout=60) as http:
        whole, half = _whole_and_half(http)
        assert half == 0
        assert acknowledged <= whole <= acknowledged + 1
        _insert(http, whole - 1)
        assert http.post("/", content="SELECT count() FROM events FINAL").text == f"{whole * _ROWS}\n"
    assert front.stop() == 0
