"""The embedded ClickHouse tells reads from inserts and finds where inline data begins."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.local.clickhouse.statement import Kind, RefusedStatementError, Statement, parse


@pytest.mark.parametrize(
    ("sql", "kind", "name"),
    [
        ("SELECT 1", Kind.SELECT, None),
        ("  select 1 FORMAT Native", Kind.SELECT, "Native"),
        ("SELECT 1 FORMAT JSON;", Kind.SELECT, "JSON"),
        ("SELECT 1 FORMAT JSONEachRow SETTINGS max_threads = 1", Kind.SELECT, "JSONEachRow"),
        ("SELECT format FROM t", Kind.SELECT, None),
        ("SELECT 'FORMAT Native'", Kind.SELECT, None),
        ("SELECT * FROM format(JSONEachRow, '{}')", Kind.SELECT, None),
        ("SELECT 1 -- FORMAT Native", Kind.SELECT, None),
        ("/* note */ WITH 1 AS x SELECT x FORMAT CSV", Kind.SELECT, "CSV"),
        ("(SELECT 1) UNION ALL (SELECT 2)", Kind.SELECT, None),
        ("SHOW TABLES FORMAT TSV", Kind.READ, "TSV"),
        ("DESCRIBE TABLE t", Kind.READ, None),
        ("CREATE TABLE t (x Int8) ENGINE = Memory", Kind.OTHER, None),
        ("INSERT INTO t SELECT 1", Kind.OTHER, None),
        ("INSERT INTO t VALUES (1, 'FORMAT CSV')", Kind.OTHER, None),
        ("INSERT INTO t (format) FORMAT Values (1)", Kind.OTHER, None),
        ("", Kind.OTHER, None),
    ],
)
def test_a_statement_is_classified_by_what_it_says(sql: str, kind: Kind, name: str | None) -> None:
    """Quotes, comments and parentheses hide what only looks like a clause."""
    statement = parse(sql.encode())
    assert (statement.kind, statement.format) == (kind, name)


@pytest.mark.parametrize(
    ("raw", "data"),
    [
        (b"INSERT INTO t FORMAT CSV\n1,2\n", b"1,2\n"),
        (b"INSERT INTO t FORMAT CSV\r\n1,2\n", b"1,2\n"),
        (b"INSERT INTO t FORMAT CSV 1,2", b"1,2"),
        (b"INSERT INTO t FORMAT CSV;\n1,2", b"1,2"),
        (b"INSERT INTO t (a, `FORMAT`) SETTINGS s = 'FORMAT x' FORMAT CSV\n\n1", b"\n1"),
        (b"INSERT INTO t FORMAT CSV", b""),
    ],
)
def test_inline_data_begins_behind_the_format(raw: bytes, data: bytes) -> None:
    """One line break belongs to the statement, the rest to the data."""
    statement = parse(raw)
    assert statement.kind is Kind.INSERT_DATA
    assert statement.format == "CSV"
    assert raw[statement.rows_start :] == data
    assert not statement.text.upper().endswith(b"FORMAT CSV")


@given(st.binary())
def test_rows_begin_at_their_first_byte(data: bytes) -> None:
    """Rows are never looked into, whatever they are."""
    head = b"INSERT INTO t (a, b) FORMAT Native\n"
    assert parse(head + data) == Statement(Kind.INSERT_DATA, b"INSERT INTO t (a, b)", "Native", b"", len(head))


def test_settings_of_an_insert_stand_apart() -> None:
    """They come behind the source of the rows, which the engine is given in between."""
    statement = parse(b"INSERT INTO t (settings) SETTINGS a = 'SETTINGS', b = 1 FORMAT CSV\n1")
    assert (statement.text, statement.settings) == (b"INSERT INTO t (settings)", b"SETTINGS a = 'SETTINGS', b = 1")


@given(st.binary(max_size=200))
def test_no_input_breaks_the_parser(raw: bytes) -> None:
    """Rubbish is classified or refused, and never anything else."""
    with contextlib.suppress(RefusedStatementError):
        parse(raw)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1; SELECT 2",
        "DROP TABLE a; DROP TABLE b;",
        "INSERT INTO t FROM INFILE '/etc/passwd' FORMAT LineAsString",
        "SELECT 1 INTO OUTFILE 'x' FORMAT CSV",
    ],
)
def test_what_a_server_does_not_take_is_refused(sql: str) -> None:
    """One request is one statement, and files of the machine are out of reach."""
    with pytest.raises(RefusedStatementError):
        parse(sql.encode())
