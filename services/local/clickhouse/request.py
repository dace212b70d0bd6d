"""Reads one HTTP request of ClickHouse's interface: URL parameters, headers, multipart forms, encoded bodies.

Pure; used by `services.local.clickhouse.http`.
"""

import base64
import binascii
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from mmap import mmap

from services.local.clickhouse import compression
from services.local.clickhouse.body import Body
from services.local.clickhouse.errors import refusal
from services.local.clickhouse.statement import Kind, RefusedStatementError, Statement, parse

# Parameters of the interface itself; every other one is a setting or a `param_…` of the query.
_OWN_PARAMETERS = frozenset({
    "buffer_size", "client_protocol_version", "close_session", "compress", "database", "decompress",
    "default_format", "password", "query", "query_id", "quota_key", "role", "session_check", "session_id",
    "session_timeout", "stacktrace", "user", "wait_end_of_query",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class QueryRequest:
    """One query as the client asked for it; `rows` are those of an insert, `tag` tells it from any other."""

    statement: Statement
    rows: Body | None
    database: str | None
    default_format: str
    settings: Mapping[str, str]
    query_id: str
    encoding: str | None
    waits_for_end: bool
    protocol_revision: int = 0
    tag: str = field(default_factory=lambda: uuid.uuid4().hex)


def credentials(parameters: Mapping[str, str], headers: Mapping[str, str]) -> tuple[str, str]:
    """User and password, wherever the client put them: headers of its own, basic auth or the URL."""
    if "x-clickhouse-user" in headers or "x-clickhouse-key" in headers:
        return headers.get("x-clickhouse-user", "default"), headers.get("x-clickhouse-key", "")
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            user, _, password = base64.b64decode(token, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return "", ""
        return user, password
    return parameters.get("user", "default"), parameters.get("password", "")


def read_request(
    *, method: str, parameters: Mapping[str, str], headers: Mapping[str, str], body: Body
) -> QueryRequest | None:
    """The query of a request, or None where it holds none.

    Raises:
        EngineError: the request cannot be run as it stands.
    """
    fields = dict(parameters)
    if headers.get("content-type", "").startswith("multipart/form-data"):
        fields |= _form(headers["content-type"], body.view()[:])
        body = body.fresh()
    for name in ("compress", "decompress"):
        if fields.get(name, "0") not in {"0", "", "false"}:
            raise refusal(
                f"{name}=1 (ClickHouse's own block compression) is not spoken here: use Content-Encoding and "
                "enable_http_compression=1 with gzip, deflate, zstd or lz4",
                code=48,
                name="NOT_IMPLEMENTED",
            )
    read = _read_statement(fields.get("query", "").encode(), body)
    if read is None:
        return None
    statement, rows = read
    compressed = fields.get("enable_http_compression", "1") not in {"0", "false"}
    return QueryRequest(
        statement=statement,
        rows=rows,
        database=fields.get("database") or headers.get("x-clickhouse-database"),
        default_format=fields.get("default_format") or headers.get("x-clickhouse-format") or "TabSeparated",
        settings=_settings(fields, read_only=method in {"GET", "HEAD"}),
        query_id=fields.get("query_id") or headers.get("x-clickhouse-query-id") or str(uuid.uuid4()),
        encoding=compression.negotiate(headers.get("accept-encoding", "")) if compressed else None,
        waits_for_end=fields.get("wait_end_of_query", "0") not in {"0", "false"},
        protocol_revision=_number(fields.get("client_protocol_version", "0")),
    )


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def _read_statement(query: bytes, body: Body) -> tuple[Statement, Body | None] | None:
    """The statement and its rows; it stands in the URL or in the body, or begins in one and ends in the other."""
    if body.size and (statement := _whole_insert(query)) is not None:
        return statement, body
    if query:
        body = body.after(query + b"\n" if body.size else query)
    text = body.view()
    if re.search(rb"\S", text) is None:
        return None
    statement = _parsed(text)
    return statement, body.behind(statement.rows_start) if statement.kind is Kind.INSERT_DATA else None


def _whole_insert(query: bytes) -> Statement | None:
    """An INSERT up to its FORMAT, so that the body is its rows to the byte."""
    try:
        statement = parse(query)
    except RefusedStatementError:  # what is half a statement may look like two
        return None
    return statement if statement.kind is Kind.INSERT_DATA and statement.rows_start == len(query) else None


def _parsed(text: bytes | mmap) -> Statement:
    try:
        return parse(text)
    except RefusedStatementError as error:
        raise refusal(str(error), code=62, name="SYNTAX_ERROR") from error


def _settings(fields: Mapping[str, str], *, read_only: bool) -> dict[str, str]:
    settings = {name: value for name, value in fields.items() if name not in _OWN_PARAMETERS}
    if read_only and settings.get("readonly", "0") == "0":
        settings["readonly"] = "2"  # as ClickHouse does: a GET changes nothing
    # `readonly` goes last: it forbids to change itself, and 1 forbids every other setting.
    if "readonly" in settings:
        settings["readonly"] = settings.pop("readonly")
    return settings


def _form(content_type: str, body: bytes) -> dict[str, str]:
    message = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body)
    fields: dict[str, str] = {}
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        if part.get_filename() is not None:
            raise refusal(
                f"external table {name!r}: external data is not spoken here, insert it into a table first",
                code=48,
                name="NOT_IMPLEMENTED",
            )
        if isinstance(name, str) and isinstance(content, bytes):
            fields[name] = content.decode()
    return fields
