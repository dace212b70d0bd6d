"""The file of a spool: records on disk, in order, durable once `apply` returns.

Used by `spool.py` from its one thread. SQLite in WAL mode with full synchronisation: a kill -9 or a power failure at
any instant leaves whole transactions. A lock keeps a second process away, and a file that SQLite finds corrupt is
set aside, so that a service starts without what is in it rather than not at all.
"""

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from servicekit.errors import InvalidRequest

log = structlog.get_logger()

# A predecessor that was just killed may hold the lock for an instant.
_LOCK_WITHIN_S = 3.0
_LOCK_AGAIN_S = 0.05
_SHRINK_FROM_BYTES = 16 * 1024 * 1024
_LAYOUT = 1
_SCHEMA = """
CREATE TABLE record (
    position INTEGER PRIMARY KEY, topic TEXT NOT NULL, partition INTEGER NOT NULL, producer TEXT NOT NULL,
    sequence INTEGER NOT NULL, time_ms INTEGER NOT NULL, key BLOB, headers BLOB NOT NULL, value BLOB NOT NULL,
    bytes INTEGER NOT NULL
);
CREATE INDEX record_in_order ON record (topic, partition, position, bytes);
CREATE TABLE topic (name TEXT PRIMARY KEY, partitions INTEGER NOT NULL);
"""
_COLUMNS = "position, topic, partition, producer, sequence, time_ms, key, headers, value"
_ROW_BYTES = 100  # what a record takes on disk beside its bytes

Headers = tuple[tuple[str, bytes], ...]
Lane = tuple[str, int]


@dataclass(frozen=True, slots=True)
class SpooledRecord:
    """One numbered record as it goes to Kafka; `time_ms` since 1970 is when it was published."""

    topic: str
    partition: int
    producer: str
    sequence: int
    time_ms: int
    key: bytes | None
    headers: Headers
    value: bytes

    @property
    def size_bytes(self) -> int:
        """What it counts against the spool's bound."""
        head = sum(len(name) + len(value) for name, value in self.headers)
        return len(self.value) + len(self.key or b"") + head + _ROW_BYTES


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a file held when it was opened.

    `events` counts by partition; `partitions` is how many of them topics had when Kafka last told.
    """

    events: dict[Lane, int]
    size_bytes: int
    last_position: int
    partitions: dict[str, int]


class SpoolFile:
    """One open file and its lock; not thread-safe."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None
        self._connection: sqlite3.Connection | None = None

    def open(self) -> Inventory:
        """Take the lock and open the file, made if absent; what is in it.

        Raises:
            InvalidRequest: another process has it, or the folder cannot be written.
        """
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = _lock(self.path)
            self._connection = _open_or_set_aside(self.path)
            return self._inventory()
        except (OSError, sqlite3.Error) as exc:
            self.close()
            raise InvalidRequest(
                f"the spool {self.path} cannot be opened: {exc}; give the service a state_dir that it can write to",
                field="state_dir",
                reason="SPOOL_UNUSABLE",
            ) from exc
        except InvalidRequest:
            self.close()
            raise

    def close(self) -> None:
        """Close the file and let go of the lock."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def apply(self, appended: Iterable[tuple[int, SpooledRecord]], removed: Iterable[int]) -> None:
        """Add records at their positions and take others out, all or nothing, durably.

        Raises:
            sqlite3.Error: nothing was changed.
        """
        rows = ((position, *_row(record)) for position, record in appended)
        with self._open() as transaction:
            transaction.executemany("INSERT INTO record VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
            transaction.executemany("DELETE FROM record WHERE position = ?", ((one,) for one in removed))

    def read(self, lane: Lane, *, max_events: int, max_bytes: int) -> Sequence[tuple[int, SpooledRecord]]:
        """The oldest records of a partition with their positions, at least one if there is any."""
        found: list[tuple[int, SpooledRecord]] = []
        sum_bytes = 0
        query = f"SELECT {_COLUMNS} FROM record WHERE topic = ? AND partition = ? ORDER BY position LIMIT ?"  # noqa: S608  # columns are a constant
        for position, *fields in self._open().execute(query, (*lane, max_events)):
            record = _record(*fields)
            sum_bytes += record.size_bytes
            if found and sum_bytes > max_bytes:
                break
            found.append((position, record))
        return found

    def remember_partitions(self, topic: str, partitions: int) -> None:
        """Keep what Kafka told, for a start while it is away."""
        with self._open() as transaction:
            transaction.execute("INSERT OR REPLACE INTO topic VALUES (?, ?)", (topic, partitions))

    def shrink(self) -> None:
        """Give the room of an empty file back to the disk, if it is much."""
        pages = self._open().execute("PRAGMA page_count").fetchone()[0]
        if pages * self._open().execute("PRAGMA page_size").fetchone()[0] >= _SHRINK_FROM_BYTES:
            self._open().execute("VACUUM")
            self._open().execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _inventory(self) -> Inventory:
        query = "SELECT topic, partition, count(*), sum(bytes) FROM record GROUP BY topic, partition"
        lanes = self._open().execute(query).fetchall()
        return Inventory(
            events={(topic, partition): events for topic, partition, events, _ in lanes},
            size_bytes=sum(size for *_, size in lanes),
            last_position=self._open().execute("SELECT coalesce(max(position), 0) FROM record").fetchone()[0],
            partitions=dict(self._open().execute("SELECT name, partitions FROM topic")),
        )

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            raise sqlite3.ProgrammingError(f"the spool {self.path} is closed")
        return self._connection


def _lock(path: Path) -> int:
    """An exclusive lock that ends with the process, however it ends."""
    lock_path = path.with_suffix(".lock")
    handle = os.open(lock_path, os.O_RDWR | os.O_CREAT, 0o600)
    give_up_s = time.monotonic() + _LOCK_WITHIN_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= give_up_s:
                os.close(handle)
                raise InvalidRequest(
                    f"the spool {path} is in use by another process, which holds {lock_path}: stop that process, or "
                    "give each replica a state_dir of its own",
                    field="state_dir",
                    reason="SPOOL_IN_USE",
                ) from None
            time.sleep(_LOCK_AGAIN_S)
        else:
            return handle


def _open_or_set_aside(path: Path) -> sqlite3.Connection:
    try:
        return _connect(path)
    except sqlite3.OperationalError:
        raise  # the disk or the permissions, not the content
    except sqlite3.DatabaseError as exc:
        aside = path.with_name(f"{path.name}.corrupt-{time.time_ns()}")
        for suffix in ("", "-wal", "-shm"):
            part = Path(f"{path}{suffix}")
            if part.exists():
                part.rename(f"{aside}{suffix}")
        log.error(  # noqa: TRY400  # the error says it all
            "spool.corrupt_set_aside",
            path=str(path),
            set_aside=str(aside),
            error=str(exc),
            remedy="the events in it are not sent; recover them with: sqlite3 FILE .recover",
        )
        return _connect(path)


def _connect(path: Path) -> sqlite3.Connection:
    """Open, check and prepare the file; it is the process's alone.

    Raises:
        sqlite3.DatabaseError: it is corrupt, or no spool.
    """
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # it holds what the topics hold, and outlives the process
    connection = sqlite3.connect(path, isolation_level="IMMEDIATE", check_same_thread=False)
    try:
        _prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if problem != "ok":
        raise sqlite3.DatabaseError(problem)
    layout = connection.execute("PRAGMA user_version").fetchone()[0]
    if layout == 0:
        connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {_LAYOUT}; COMMIT;")
    elif layout != _LAYOUT:
        raise sqlite3.DatabaseError(f"the spool's layout is {layout}, this version reads {_LAYOUT}")


def _row(record: SpooledRecord) -> tuple[object, ...]:
    """The columns behind the position."""
    return (
        record.topic,
        record.partition,
        record.producer,
        record.sequence,
        record.time_ms,
        record.key,
        _pack(record.headers),
        record.value,
        record.size_bytes,
    )


def _record(*fields: Any) -> SpooledRecord:
    topic, partition, producer, sequence, time_ms, key, headers, value = fields
    return SpooledRecord(topic, partition, producer, sequence, time_ms, key, _unpack(headers), value)


def _pack(headers: Headers) -> bytes:
    """Names and values, each behind its length."""
    parts = (part for name, value in headers for part in (name.encode(), value))
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def _unpack(packed: bytes) -> Headers:
    parts: list[bytes] = []
    at = 0
    while at < len(packed):
        end = at + 4 + int.from_bytes(packed[at : at + 4], "big")
        parts.append(packed[at + 4 : end])
        at = end
    return tuple((name.decode(), value) for name, value in zip(parts[::2], parts[1::2], strict=True))
