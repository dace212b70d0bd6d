"""Reads one HTTP request of ClickHouse's interface: URL parameters, headers, multipart forms, encoded bodies.

Pure; used by `services.local.clickhouse.http`.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from email.parser import BytesParser
from email.policy import HTTP

from services.local.clickhouse import compression
from services.local.clickhouse.engine import EngineError
from services.local.clickhouse.statement import RefusedStatementError, Statement, parse

# Parameters of the interface itself; every other one is a setting or a `param_…` of the query.
_OWN_PARAMETERS = frozenset({
    "buffer_size", "client_protocol_version", "close_session", "compress", "database", "decompress",
    "default_format", "password", "query", "query_id", "quota_key", "role", "session_check", "session_id",
    "session_timeout", "stacktrace", "user", "wait_end_of_query",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class QueryRequest:
    """One query as the client asked for it."""

    statement: Statement
    database: str | None
    default_format: str
    settings: Mapping[str, str]
    query_id: str | None
    encoding: str | None
    waits_for_end: bool


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
    *, method: str, parameters: Mapping[str, str], headers: Mapping[str, str], body: bytes
) -> QueryRequest | None:
    """The query of a request, or None where it holds none.

    Raises:
        EngineError: the request cannot be run as it stands.
    """
    body = _decoded(body, headers.get("content-encoding", ""))
    fields = dict(parameters)
    if headers.get("content-type", "").startswith("multipart/form-data"):
        fields |= _form(headers["content-type"], body)
        body = b""
    for name in ("compress", "decompress"):
        if fields.get(name, "0") not in {"0", "", "false"}:
            raise EngineError(
                f"Code: 48. DB::Exception: {name}=1 (ClickHouse's own block compression) is not spoken here: "
                "use Content-Encoding and enable_http_compression=1 with gzip, deflate, zstd or lz4. "
                "(NOT_IMPLEMENTED)",
                code=48,
            )
    query = fields.get("query", "").encode()
    raw = query + b"\n" + body if query and body else query or body
    if not raw.strip():
        return None
    compressed = fields.get("enable_http_compression", "1") not in {"0", "false"}
    return QueryRequest(
        statement=_statement(raw),
        database=fields.get("database") or headers.get("x-clickhouse-database"),
        default_format=fields.get("default_format") or headers.get("x-clickhouse-format") or "TabSeparated",
        settings=_settings(fields, read_only=method in {"GET", "HEAD"}),
        query_id=fields.get("query_id") or headers.get("x-clickhouse-query-id"),
        encoding=compression.negotiate(headers.get("accept-encoding", "")) if compressed else None,
        waits_for_end=fields.get("wait_end_of_query", "0") not in {"0", "false"},
    )


def _decoded(body: bytes, encoding: str) -> bytes:
    try:
        return compression.decompress(body, encoding)
    except compression.UnknownEncodingError as error:
        raise EngineError(f"Code: 89. DB::Exception: {error}. (UNKNOWN_COMPRESSION_METHOD)", code=89) from error


def _statement(raw: bytes) -> Statement:
    try:
        return parse(raw)
    except RefusedStatementError as error:
        raise EngineError(f"Code: 62. DB::Exception: {error}. (SYNTAX_ERROR)", code=62) from error


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
            raise EngineError(
                f"Code: 48. DB::Exception: external table {name!r}: external data is not spoken here, "
                "insert it into a table first. (NOT_IMPLEMENTED)",
                code=48,
            )
        if isinstance(name, str) and isinstance(content, bytes):
            fields[name] = content.decode()
    return fields
