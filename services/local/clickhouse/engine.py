"""The embedded ClickHouse engine (chDB) on one directory: one connection per query, durable when it returns.

Opened by `services.local.clickhouse_front`, called by `services.local.clickhouse.http` from worker threads.
"""

import fcntl
import os
import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from chdb.session import Session

from services.local.clickhouse.body import Body
from services.local.clickhouse.errors import EngineError, refusal
from services.local.clickhouse.limits import Limits
from services.local.clickhouse.request import QueryRequest
from services.local.clickhouse.statement import Kind, Statement

# chDB encodes every block on its own; only these formats may be joined block by block.
STREAMED_FORMATS = frozenset(
    {"Native", "TabSeparated", "TSV", "TSVRaw", "TabSeparatedRaw", "CSV", "RowBinary", "JSONEachRow"}
)
_SETTING_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ERROR = re.compile(r"Code: (?P<code>\d+)\.")
_PIECE_BYTES = 1 << 20
# Settings before the caller's own: acknowledged means written, as for a server of one node.
_DEFAULT_SETTINGS = {"async_insert": "0", "wait_for_async_insert": "1", "implicit_select": "0"}


class DirectoryLockedError(OSError):
    """Another process holds the data directory."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a result and what the engine counted for it."""

    data: bytes
    read_rows: int = 0
    read_bytes: int = 0
    written_rows: int = 0
    written_bytes: int = 0


class Engine:
    """chDB on `directory`, which this process alone may hold while it is open."""

    def __init__(self, directory: Path, *, database: str, limits: Limits) -> None:
        self._directory = directory
        self._limits = limits
        self._place = f"{directory / 'data'}?{limits.engine_parameters}"
        self.database = database
        self._lock_file: int | None = None
        self._root: Any = None
        self.version = ""
        self.timezone = ""

    def __enter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._lock_file = _lock(self._directory / "front.lock")
        # The root connection keeps the engine alive between queries.
        self._root = _connect(self._place)
        # The default database is an Overlay, which refuses refreshable views.
        self._root.query(f"CREATE DATABASE IF NOT EXISTS {quote_name(self.database)} ENGINE = Atomic")
        row = self._root.query("SELECT version(), timezone()", "TSV").bytes().decode()
        self.version, self.timezone = row.strip().split("\t")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._root is not None:
            self._root.close()
        if self._lock_file is not None:
            os.close(self._lock_file)

    def run(self, request: QueryRequest) -> Generator[Chunk]:
        """The statement's result, block by block where its format allows; blocks the calling thread.

        Closing the iterator cancels the query, as `cancel` does from another thread.

        Raises:
            EngineError: the engine refused the statement, now or between two chunks.
        """
        statement = request.statement
        output = statement.format or request.default_format
        streamed = statement.kind is Kind.SELECT and output in STREAMED_FORMATS
        settings = self._settings(request, is_held=not streamed or request.waits_for_end)
        with _translated(), self._connection(request.database, settings) as session:
            if request.rows is not None:
                with closing(request.rows):
                    yield _insert(session, statement, request.rows)
            elif streamed:
                yield from _stream(session, statement.text.decode(), output)
            else:
                yield from _whole(session.query(statement.text.decode(), output))

    def cancel(self, request: QueryRequest) -> None:
        """End the request's query if it runs; its own thread sees QUERY_WAS_CANCELLED."""
        # The engine gives a query an id of its own, so it is found by what `run` set. The tag is hexadecimal.
        self._tell(f"KILL QUERY WHERE startsWith(Settings['log_comment'], '{request.tag}') ASYNC")

    def release_memory(self) -> None:
        """Give the pages that the allocator keeps for later back to the machine."""
        self._tell("SYSTEM JEMALLOC PURGE")

    def _tell(self, sql: str) -> None:
        with suppress(RuntimeError):  # while memory is short it may be refused as any other statement
            self._root.query(sql, "Null")

    def _settings(self, request: QueryRequest, *, is_held: bool) -> dict[str, str]:
        asked = dict(request.settings)
        comment = f"{request.tag} {asked.pop('log_comment', '')}".strip()
        reads = request.statement.kind in {Kind.SELECT, Kind.READ}
        bounds = self._limits.settings(reads=reads, is_held=is_held)
        # The request's own go last: a `readonly` at their end forbids what comes after it.
        return {**_DEFAULT_SETTINGS, **bounds, "log_comment": comment, **asked}

    @contextmanager
    def _connection(self, database: str | None, settings: Mapping[str, str]) -> Iterator[Any]:
        session = _connect(self._place)
        try:
            _use(session, database, default=self.database)
            if assignments := _assignments(settings):
                session.query(f"SET {assignments}")
            yield session
        finally:
            session.close()


def quote_name(name: str) -> str:
    """An identifier, quoted for SQL."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def _connect(path: str) -> Any:
    return Session(path)  # type: ignore[no-untyped-call]  # the package is untyped


def _use(session: Any, database: str | None, *, default: str) -> None:
    if database:
        session.query(f"USE {quote_name(database)}")
        return
    with suppress(RuntimeError):  # somebody may have dropped it, and comes to create it again
        session.query(f"USE {quote_name(default)}")


def _insert(session: Any, statement: Statement, rows: Body) -> Chunk:
    """Insert rows from a file that exists only in memory.

    Not by `send_insert`: it reports success and drops the rows when anything behind the parser fails (a
    constraint, a default, a materialized view). Not inline: that takes five times as long.
    """
    sql = b" ".join(
        (
            statement.text,
            f"FROM INFILE '{rows.path}' COMPRESSION 'none'".encode(),
            statement.settings,
            f"FORMAT {statement.format}".encode(),
        )
    )
    result = session.query(sql.decode())
    return Chunk(b"", written_rows=result.rows_written(), written_bytes=result.bytes_written())


def _whole(result: Any) -> Iterator[Chunk]:
    """A result that the engine holds in one piece, without a second copy of all of it."""
    counted = Chunk(
        b"",
        read_rows=result.storage_rows_read(),
        read_bytes=result.storage_bytes_read(),
        written_rows=result.rows_written(),
        written_bytes=result.bytes_written(),
    )
    if not result.size():
        yield counted
        return
    view = result.get_memview().view()
    for start in range(0, len(view), _PIECE_BYTES):
        yield replace(counted, data=bytes(view[start : start + _PIECE_BYTES]))


def _stream(session: Any, sql: str, output: str) -> Iterator[Chunk]:
    result = session.send_query(sql, output)
    try:
        for block in result:
            yield Chunk(block.bytes(), read_rows=block.storage_rows_read(), read_bytes=block.storage_bytes_read())
    finally:
        with suppress(RuntimeError):
            result.close()


def _assignments(settings: Mapping[str, str]) -> str:
    for name in settings:
        if not _SETTING_NAME.fullmatch(name):
            raise refusal(f"Unknown setting '{name}'", code=115, name="UNKNOWN_SETTING")
    return ", ".join(f"{name} = {_quote_value(value)}" for name, value in settings.items())


def _quote_value(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


@contextmanager
def _translated() -> Iterator[None]:
    """The engine's errors carry prefixes of the binding; callers get them as a server words them."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise refusal("the query is not valid UTF-8", code=62, name="SYNTAX_ERROR") from error
    except RuntimeError as error:
        text = str(error)
        match = _ERROR.search(text)
        if match is None:
            raise refusal(text, code=1002, name="UNKNOWN_EXCEPTION") from error
        raise EngineError(text[match.start() :], code=int(match["code"])) from error


def _lock(path: Path) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.pread(handle, 32, 0).decode().strip() or "unknown"
        os.close(handle)
        raise DirectoryLockedError(
            f"{path.parent} is in use by process {owner}: stop it, or choose another --data directory"
        ) from error
    os.ftruncate(handle, 0)
    os.pwrite(handle, str(os.getpid()).encode(), 0)
    return handle
