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
    TIMEOUT_EXCEEDED = 159
    UNKNOWN_USER = 192
    WRONG_PASSWORD = 193
    REQUIRED_PASSWORD = 194
    TOO_MANY_SIMULTANEOUS_QUERIES = 202
    SOCKET_TIMEOUT = 209
    NETWORK_ERROR = 210
    MEMORY_LIMIT_EXCEEDED = 241
    TOO_MANY_PARTS = 252
    ACCESS_DENIED = 497
    AUTHENTICATION_FAILED = 516


_NOT_READY = frozenset({Code.NO_SUCH_COLUMN_IN_TABLE, Code.UNKNOWN_TABLE, Code.UNKNOWN_DATABASE})
_TIMED_OUT = frozenset({Code.TIMEOUT_EXCEEDED, Code.SOCKET_TIMEOUT})
_OVERLOADED = frozenset({Code.TOO_MANY_SIMULTANEOUS_QUERIES, Code.MEMORY_LIMIT_EXCEEDED, Code.TOO_MANY_PARTS})
_REFUSED = frozenset(
    {
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
    if code in _REFUSED:
        return BackendUnavailable(f"{_BACKEND} refuses this client: {text}", reason=reason)
    return InvalidRequest(f"{_BACKEND} refuses the statement or its rows: {text}", reason=reason)


def _reason(error: Exception, code: int) -> str:
    name = getattr(error, "name", None)
    return f"CLICKHOUSE_{name}" if name else f"CLICKHOUSE_{code}"
