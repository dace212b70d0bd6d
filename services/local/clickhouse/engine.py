"""The embedded ClickHouse engine (chDB) on one directory: one connection per query, durable when it returns.

Opened by `services.local.clickhouse_front`, called by `services.local.clickhouse.http` from worker threads.
"""

import fcntl
import os
import re
import tempfile
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from chdb.session import Session

from services.local.clickhouse.statement import Kind, Statement

# chDB encodes every block on its own; only these formats may be joined block by block.
STREAMED_FORMATS = frozenset(
    {"Native", "TabSeparated", "TSV", "TSVRaw", "TabSeparatedRaw", "CSV", "RowBinary", "JSONEachRow"}
)
_SETTING_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ERROR = re.compile(r"Code: (?P<code>\d+)\.")
# Settings before the caller's own: acknowledged means written, as for a server of one node.
_DEFAULT_SETTINGS = {"async_insert": "0", "wait_for_async_insert": "1", "implicit_select": "0"}


class DirectoryLockedError(OSError):
    """Another process holds the data directory."""


class EngineError(Exception):
    """An error of the engine: its code, and its text as ClickHouse's HTTP interface sends it."""

    def __init__(self, text: str, *, code: int = 0) -> None:
        super().__init__(text)
        self.text = text
        self.code = code


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

    def __init__(self, directory: Path, *, database: str) -> None:
        self._directory = directory
        self.database = database
        self._lock_file: int | None = None
        self._root: Any = None
        self.version = ""
        self.timezone = ""

    def __enter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._lock_file = _lock(self._directory / "front.lock")
        # The root connection keeps the engine alive between queries.
        self._root = _connect(str(self._directory / "data"))
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

    def run(
        self,
        statement: Statement,
        *,
        database: str | None,
        default_format: str,
        settings: Mapping[str, str],
    ) -> Generator[Chunk]:
        """The statement's result, block by block where its format allows; blocks the calling thread.

        Closing the iterator cancels the query.

        Raises:
            EngineError: the engine refused the statement, now or between two chunks.
        """
        with _translated(), self._connection(database, settings) as session:
            output = statement.format or default_format
            if statement.kind is Kind.INSERT_DATA:
                yield _insert(session, statement, self._directory)
            elif statement.kind is Kind.SELECT and output in STREAMED_FORMATS:
                yield from _stream(session, statement.text.decode(), output)
            else:
                result = session.query(statement.text.decode(), output)
                yield Chunk(
                    result.bytes(),
                    read_rows=result.storage_rows_read(),
                    read_bytes=result.storage_bytes_read(),
                    written_rows=result.rows_written(),
                    written_bytes=result.bytes_written(),
                )

    @contextmanager
    def _connection(self, database: str | None, settings: Mapping[str, str]) -> Iterator[Any]:
        session = _connect(str(self._directory / "data"))
        try:
            _use(session, database, default=self.database)
            if assignments := _assignments({**_DEFAULT_SETTINGS, **settings}):
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


def _insert(session: Any, statement: Statement, scratch: Path) -> Chunk:
    """Insert rows from a file that exists only in memory.

    Not by `send_insert`: it reports success and drops the rows when anything behind the parser fails (a
    constraint, a default, a materialized view). Not inline: that takes five times as long.
    """
    with _as_file(statement.data, scratch) as path:
        sql = b" ".join(
            (
                statement.text,
                f"FROM INFILE '{path}' COMPRESSION 'none'".encode(),
                statement.settings,
                f"FORMAT {statement.format}".encode(),
            )
        )
        result = session.query(sql.decode())
    return Chunk(b"", written_rows=result.rows_written(), written_bytes=result.bytes_written())


@contextmanager
def _as_file(data: bytes, scratch: Path) -> Iterator[str]:
    """A path under which the engine, in this process, can read `data`."""
    if hasattr(os, "memfd_create"):
        with os.fdopen(os.memfd_create("rows"), "wb") as memory:
            memory.write(data)
            memory.flush()
            yield f"/proc/self/fd/{memory.fileno()}"
        return
    with tempfile.NamedTemporaryFile(dir=scratch) as file:
        file.write(data)
        file.flush()
        yield file.name


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
            raise EngineError(f"Code: 115. DB::Exception: Unknown setting '{name}'. (UNKNOWN_SETTING)", code=115)
    return ", ".join(f"{name} = {_quote_value(value)}" for name, value in settings.items())


def _quote_value(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


@contextmanager
def _translated() -> Iterator[None]:
    """The engine's errors carry prefixes of the binding; callers get them as a server words them."""
    try:
        yield
    except UnicodeDecodeError as error:
        text = "Code: 62. DB::Exception: the query is not valid UTF-8. (SYNTAX_ERROR)"
        raise EngineError(text, code=62) from error
    except RuntimeError as error:
        text = str(error)
        match = _ERROR.search(text)
        if match is None:
            raise EngineError(f"Code: 1002. DB::Exception: {text} (UNKNOWN_EXCEPTION)", code=1002) from error
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
