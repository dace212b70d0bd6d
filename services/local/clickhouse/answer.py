"""Shapes the engine's chunks and errors into the responses that ClickHouse's HTTP clients parse.

Called by `services.local.clickhouse.http`; error numbers and the in-stream exception block are ClickHouse's.
"""

import json
import secrets
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from functools import partial

from starlette.responses import Response, StreamingResponse

from services.local.clickhouse import compression
from services.local.clickhouse.engine import Chunk, Engine
from services.local.clickhouse.errors import EngineError
from services.local.clickhouse.hello import hello, is_hello
from services.local.clickhouse.request import QueryRequest
from services.local.clickhouse.statement import Kind
from services.local.clickhouse.worker import QueryRunner

_DISPLAY_NAME = "binnacle-embedded"
_CONTENT_TYPES = {
    "CSV": "text/csv; charset=UTF-8; header=absent",
    "CSVWithNames": "text/csv; charset=UTF-8; header=present",
    "CSVWithNamesAndTypes": "text/csv; charset=UTF-8; header=present",
    "JSON": "application/json; charset=UTF-8",
    "JSONCompact": "application/json; charset=UTF-8",
    "JSONEachRow": "application/x-ndjson; charset=UTF-8",
    "JSONCompactEachRow": "application/x-ndjson; charset=UTF-8",
    "Native": "application/octet-stream",
    "Parquet": "application/vnd.apache.parquet",
    "Arrow": "application/vnd.apache.arrow.file",
    "ArrowStream": "application/vnd.apache.arrow.stream",
    "RowBinary": "application/octet-stream",
    "RowBinaryWithNamesAndTypes": "application/octet-stream",
    "TabSeparated": "text/tab-separated-values; charset=UTF-8",
}
_STATUS_OF_CODE = {
    **dict.fromkeys((6, 26, 27, 33, 36, 38, 41, 42, 43, 53, 62, 70, 72, 117, 130, 386, 395, 456, 457), 400),
    **dict.fromkeys((46, 47, 50, 56, 60, 73, 81, 89, 115, 16), 404),
    48: 501,
    159: 408,
    164: 403,
    202: 503,
    291: 403,
    307: 413,
    497: 403,
    516: 403,
}


async def answer(engine: Engine, runner: QueryRunner, request: QueryRequest) -> Response:
    """Runs the query; the response starts with the first chunk, so that an early error has its own status.

    Raises:
        EngineError: before the first chunk.
    """
    started_ns = time.monotonic_ns()
    revision = request.protocol_revision
    if is_hello(request.statement, revision=revision):
        block = hello(name=_DISPLAY_NAME, version=engine.version, timezone=engine.timezone, revision=revision)
        chunks = _replayed([Chunk(block, read_rows=1, read_bytes=1)])
    else:
        chunks = _opened(engine, runner, request)
    if request.waits_for_end:
        whole = [chunk async for chunk in chunks]
        chunks = _replayed(whole)
        first = _summed(whole)
    else:
        first = await anext(chunks, Chunk(b""))
        chunks = _continued(first, chunks)
    tag = secrets.token_hex(8)
    headers = _headers(engine, request, tag) | {"X-ClickHouse-Summary": _summary(first, started_ns)}
    body = _body(chunks, tag=tag, encoding=request.encoding)
    return StreamingResponse(body, headers=headers)


def error_response(error: EngineError, *, query_id: str | None = None) -> Response:
    """The error as ClickHouse words it: text body, status of its kind, code in a header."""
    return Response(
        error.text.rstrip() + "\n",
        status_code=_STATUS_OF_CODE.get(error.code, 500),
        headers={
            "Content-Type": "text/plain; charset=UTF-8",
            "X-ClickHouse-Exception-Code": str(error.code),
            "X-ClickHouse-Query-Id": query_id or str(uuid.uuid4()),
        },
    )


def _headers(engine: Engine, request: QueryRequest, tag: str) -> dict[str, str]:
    output = request.statement.format or request.default_format
    if request.statement.kind is Kind.INSERT_DATA:
        output = "TabSeparated"
    headers = {
        "Content-Type": _CONTENT_TYPES.get(output, "text/plain; charset=UTF-8"),
        "X-ClickHouse-Query-Id": request.query_id,
        "X-ClickHouse-Format": output,
        "X-ClickHouse-Timezone": engine.timezone,
        "X-ClickHouse-Server-Display-Name": _DISPLAY_NAME,
        "X-ClickHouse-Exception-Tag": tag,
    }
    if request.encoding:
        headers |= {"Content-Encoding": request.encoding, "Vary": "Accept-Encoding"}
    return headers


def _summary(counted: Chunk, started_ns: int) -> str:
    figures = {
        "read_rows": counted.read_rows,
        "read_bytes": counted.read_bytes,
        "written_rows": counted.written_rows,
        "written_bytes": counted.written_bytes,
        "total_rows_to_read": 0,
        "result_rows": counted.written_rows,
        "result_bytes": counted.written_bytes or len(counted.data),
        "elapsed_ns": time.monotonic_ns() - started_ns,
    }
    return json.dumps({name: str(figure) for name, figure in figures.items()}, separators=(",", ":"))


async def _opened(engine: Engine, runner: QueryRunner, request: QueryRequest) -> AsyncGenerator[Chunk]:
    # As on a server, a client that leaves ends what it reads and not what it writes.
    reads = request.statement.kind in {Kind.SELECT, Kind.READ}
    query, cancel = partial(engine.run, request), partial(engine.cancel, request)
    async with runner.run(query, cancel=cancel, goes_on=not reads) as chunks:
        async for chunk in chunks:
            yield chunk


async def _continued(first: Chunk, rest: AsyncGenerator[Chunk]) -> AsyncGenerator[Chunk]:
    try:
        yield first
        async for chunk in rest:
            yield chunk
    finally:
        await rest.aclose()


async def _replayed(chunks: list[Chunk]) -> AsyncGenerator[Chunk]:
    for chunk in chunks:
        yield chunk


def _summed(chunks: list[Chunk]) -> Chunk:
    """What was counted; every piece of a result that came in one counts the same."""
    return Chunk(
        b"",
        read_rows=max((chunk.read_rows for chunk in chunks), default=0),
        read_bytes=max((chunk.read_bytes for chunk in chunks), default=0),
        written_rows=max((chunk.written_rows for chunk in chunks), default=0),
        written_bytes=max((chunk.written_bytes for chunk in chunks), default=0),
    )


async def _body(chunks: AsyncGenerator[Chunk], *, tag: str, encoding: str | None) -> AsyncIterator[bytes]:
    compressor = compression.open_compressor(encoding) if encoding else None
    try:
        async for chunk in chunks:
            if chunk.data:
                yield compressor.compress(chunk.data) if compressor else chunk.data
    except EngineError as error:
        block = _exception_block(error, tag)
        yield compressor.compress(block) if compressor else block
    finally:
        await chunks.aclose()
    if compressor:
        yield compressor.finish()


def _exception_block(error: EngineError, tag: str) -> bytes:
    """What a server appends when a query fails after its response began; drivers look for the tag."""
    message = (error.text.rstrip() + "\n").encode()
    marker = f"{tag}\r\n__exception__\r\n".encode()
    return f"__exception__\r\n{tag}\r\n".encode() + message + f"{len(message)} ".encode() + marker
