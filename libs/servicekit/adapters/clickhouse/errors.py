"""What went wrong in ClickHouse, said once in Binnacle's words. Used by `analytics_store.py` beside this file.

Numbers and names are those of ClickHouse's `ErrorCodes.cpp`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import aiohttp
from clickhouse_connect.driver.exceptions import ClickHouseError, Error

from servicekit.errors import (
    BackendTimeout,
    BackendUnavailable,
    BinnacleError,
    InvalidRequest,
    NotReady,
    Overloaded,
)

_BACKEND = "clickhouse"
_RETRY_AFTER_S = 1.0


class Code(IntEnum):
    """The server's error codes that are told apart here."""

    NO_SUCH_COLUMN_IN_TABLE = 16
    UNKNOWN_TABLE = 60
    UNKNOWN_DATABASE = 81
    CANNOT_READ_FROM_FILE_DESCRIPTOR = 74
    CANNOT_WRITE_TO_FILE_DESCRIPTOR = 75
    CANNOT_OPEN_FILE = 76
    TIMEOUT_EXCEEDED = 159
    READONLY = 164
    CANNOT_ALLOCATE_MEMORY = 173
    UNKNOWN_USER = 192
    WRONG_PASSWORD = 193
    REQUIRED_PASSWORD = 194
    QUOTA_EXCEEDED = 201
    TOO_MANY_SIMULTANEOUS_QUERIES = 202
    NO_FREE_CONNECTION = 203
    SOCKET_TIMEOUT = 209
    NETWORK_ERROR = 210
    TABLE_IS_DROPPED = 218
    NO_ZOOKEEPER = 225
    ABORTED = 236
    MEMORY_LIMIT_EXCEEDED = 241
    TABLE_IS_READ_ONLY = 242
    NOT_ENOUGH_SPACE = 243
    UNEXPECTED_ZOOKEEPER_ERROR = 244
    TOO_MANY_PARTS = 252
    NO_ACTIVE_REPLICAS = 254
    ALL_CONNECTION_TRIES_FAILED = 279
    TOO_FEW_LIVE_REPLICAS = 285
    UNSATISFIED_QUORUM_FOR_PREVIOUS_WRITE = 286
    UNKNOWN_STATUS_OF_INSERT = 319
    QUERY_WAS_CANCELLED = 394
    SYSTEM_ERROR = 425
    CANNOT_SCHEDULE_TASK = 439
    ACCESS_DENIED = 497
    S3_ERROR = 499
    AUTHENTICATION_FAILED = 516
    KEEPER_EXCEPTION = 999


_NOT_READY = frozenset({Code.NO_SUCH_COLUMN_IN_TABLE, Code.UNKNOWN_TABLE, Code.UNKNOWN_DATABASE})
_TIMED_OUT = frozenset({Code.TIMEOUT_EXCEEDED, Code.SOCKET_TIMEOUT})
_OVERLOADED = frozenset(
    {
        Code.QUOTA_EXCEEDED,
        Code.TOO_MANY_SIMULTANEOUS_QUERIES,
        Code.NO_FREE_CONNECTION,
        Code.CANNOT_ALLOCATE_MEMORY,
        Code.MEMORY_LIMIT_EXCEEDED,
        Code.TOO_MANY_PARTS,
        Code.CANNOT_SCHEDULE_TASK,
    }
)
# The server's own trouble, of disk, Keeper or replicas: says nothing against the rows, which must not be given up.
_AILING = frozenset(
    {
        Code.CANNOT_READ_FROM_FILE_DESCRIPTOR,
        Code.CANNOT_WRITE_TO_FILE_DESCRIPTOR,
        Code.CANNOT_OPEN_FILE,
        Code.TABLE_IS_DROPPED,
        Code.NO_ZOOKEEPER,
        Code.ABORTED,
        Code.TABLE_IS_READ_ONLY,
        Code.NOT_ENOUGH_SPACE,
        Code.UNEXPECTED_ZOOKEEPER_ERROR,
        Code.NO_ACTIVE_REPLICAS,
        Code.ALL_CONNECTION_TRIES_FAILED,
        Code.TOO_FEW_LIVE_REPLICAS,
        Code.UNSATISFIED_QUORUM_FOR_PREVIOUS_WRITE,
        Code.UNKNOWN_STATUS_OF_INSERT,
        Code.QUERY_WAS_CANCELLED,
        Code.SYSTEM_ERROR,
        Code.S3_ERROR,
        Code.KEEPER_EXCEPTION,
    }
)
_REFUSED = frozenset(
    {
        Code.READONLY,
        Code.UNKNOWN_USER,
        Code.WRONG_PASSWORD,
        Code.REQUIRED_PASSWORD,
        Code.NETWORK_ERROR,
        Code.ACCESS_DENIED,
        Code.AUTHENTICATION_FAILED,
    }
)


@contextmanager
def normalised() -> Iterator[None]:
    """Raise ours from theirs.

    Raises:
        BackendTimeout, BackendUnavailable, Overloaded: trying again may help.
        NotReady: the database, a table or a column is missing; migrations have not run.
        InvalidRequest: the statement or its rows can never succeed as they stand.
    """
    try:
        yield
    except TimeoutError as error:
        raise BackendTimeout(f"{_BACKEND} did not answer in time", reason="TIMEOUT") from error
    except (ClickHouseError, aiohttp.ClientError, OSError) as error:
        raise _translate(error) from error


def _translate(error: Exception) -> BinnacleError:
    code = error.code if isinstance(error, Error) else None
    text = str(error)
    if code is None:
        if "timeout" in text.lower() or isinstance(error.__cause__, TimeoutError):
            return BackendTimeout(f"{_BACKEND} did not answer in time: {text}", reason="TIMEOUT")
        return BackendUnavailable(f"{_BACKEND} cannot be reached: {text}", reason="CONNECT")
    return _from_code(code, text, reason=_reason(error, code))


def _from_code(code: int, text: str, *, reason: str) -> BinnacleError:
    if code in _NOT_READY:
        return NotReady(f"{_BACKEND} lacks what was asked for; run the migrations: {text}", reason=reason)
    if code in _TIMED_OUT:
        return BackendTimeout(f"{_BACKEND} took too long: {text}", reason=reason)
    if code in _OVERLOADED:
        return Overloaded(f"{_BACKEND} has too much to do: {text}", retry_after_s=_RETRY_AFTER_S, reason=reason)
    if code in _AILING:
        return BackendUnavailable(f"{_BACKEND} is not well: {text}", reason=reason)
    if code in _REFUSED:
        return BackendUnavailable(f"{_BACKEND} refuses this client: {text}", reason=reason)
    return InvalidRequest(f"{_BACKEND} refuses the statement or its rows: {text}", reason=reason)


def _reason(error: Exception, code: int) -> str:
    name = getattr(error, "name", None)
    return f"CLICKHOUSE_{name}" if name else f"CLICKHOUSE_{code}"
