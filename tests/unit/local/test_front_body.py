"""Bodies for the embedded ClickHouse are files in memory: bounded, and let go with their last user."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.local.clickhouse.body import Body, BodyMemory
from services.local.clickhouse.errors import EngineError
from services.local.clickhouse.hello import hello, is_hello
from services.local.clickhouse.request import QueryRequest, read_request
from services.local.clickhouse.statement import Kind, parse


def _memory(one_bytes: int = 1 << 20, all_bytes: int = 1 << 21) -> BodyMemory:
    return BodyMemory(one_bytes=one_bytes, all_bytes=all_bytes)


def _body(data: bytes, memory: BodyMemory | None = None) -> Body:
    body = Body(memory or _memory())
    body.write(data)
    return body


def _read(query: str, data: bytes) -> QueryRequest | None:
    return read_request(method="POST", parameters={"query": query}, headers={}, body=_body(data))


@given(parts=st.lists(st.binary()))
def test_what_is_written_can_be_read_under_the_path(parts: list[bytes]) -> None:
    """To the byte, by whoever opens it in this process."""
    body = Body(_memory())
    for part in parts:
        body.write(part)
    assert Path(body.path).read_bytes() == b"".join(parts) == body.view()[:]
    assert body.size == len(b"".join(parts))


@given(data=st.binary(min_size=1), head=st.binary())
def test_what_stands_before_and_behind_is_a_body_of_its_own(data: bytes, head: bytes) -> None:
    """The first is left as it was."""
    body = _body(data)
    assert body.after(head).view()[:] == head + data
    assert body.behind(1).view()[:] == data[1:]
    assert body.view()[:] == data


def test_a_body_beyond_its_bound_is_refused() -> None:
    """Trying again does not help, so its code is another than that of a busy server."""
    body = _body(b"12345", _memory(one_bytes=8))
    with pytest.raises(EngineError, match="TOO_MANY_BYTES"):
        body.write(b"6789")


def test_all_bodies_share_one_bound() -> None:
    """What one lets go, another may take."""
    memory = _memory(one_bytes=8, all_bytes=10)
    first = _body(b"12345678", memory)
    with pytest.raises(EngineError, match="MEMORY_LIMIT_EXCEEDED"):
        _body(b"123", memory)
    assert first.size == 8
    del first
    assert _body(b"123", memory).size == 3


def test_rows_behind_a_statement_in_the_url_are_the_body_itself() -> None:
    """They are not copied, nor looked at."""
    asked = _read("INSERT INTO t (a) FORMAT Native", b"rows; SELECT 1; 'x")
    assert asked is not None
    assert asked.rows is not None
    assert (asked.statement.kind, asked.rows.view()[:]) == (Kind.INSERT_DATA, b"rows; SELECT 1; 'x")


@pytest.mark.parametrize(
    ("query", "data", "rows"),
    [
        ("INSERT INTO t FORMAT CSV 1,2", b"", b"1,2"),
        ("INSERT INTO t FORMAT CSV 1,2", b"3,4", b"1,2\n3,4"),
        ("INSERT INTO t", b"FORMAT CSV\n3,4", b"3,4"),
        ("", b"INSERT INTO t FORMAT CSV\n3,4", b"3,4"),
    ],
)
def test_a_statement_may_begin_in_the_url_and_end_in_the_body(query: str, data: bytes, rows: bytes) -> None:
    """Wherever its rows begin, they are all there."""
    asked = _read(query, data)
    assert asked is not None
    assert asked.rows is not None
    assert asked.rows.view()[:] == rows


@pytest.mark.parametrize(("query", "data"), [("", b""), (" ", b"\n"), ("", b" ")])
def test_a_request_without_a_statement_asks_nothing(query: str, data: bytes) -> None:
    """Load balancers send such."""
    assert _read(query, data) is None


def test_the_driver_is_told_what_the_engine_writes() -> None:
    """The block is in the client's revision, and says that later ones are in revision 0."""
    statement = parse(b"SELECT displayName(), version(),\n revision(), timezone()")
    assert is_hello(statement, revision=54460)
    assert not is_hello(statement, revision=0)
    assert not is_hello(parse(b"SELECT version()"), revision=54460)
    block = hello(name="n", version="26.9.2.1", timezone="UTC", revision=54460)
    assert block == (
        b"\x01\x00\x02\xff\xff\xff\xff\x00\x04\x01"
        b"\x0ddisplayName()\x06String\x00\x01n"
        b"\x09version()\x06String\x00\x0826.9.2.1"
        b"\x0arevision()\x06UInt32\x00\x00\x00\x00\x00"
        b"\x0atimezone()\x06String\x00\x03UTC"
    )
