"""Sends rows to ClickHouse from a thread of its own, so that megabytes neither wait for the event loop nor hold it up.

Part of `ClickHouseAnalyticsStore`. The asynchronous client writes 64 KiB a turn of the loop, and reads through a body
of bytes to see whether it is a query; the synchronous one hands all of it to the socket at once.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from clickhouse_connect.driver.client import Client

from servicekit.errors import InvalidRequest

T = TypeVar("T")


class Uploads:
    """Inserts through one synchronous client, connected at first use; several may run at the same time."""

    def __init__(self, connect: Callable[[], Client]) -> None:
        self._connect = connect
        self._client: Client | None = None
        self._connecting = threading.Lock()

    async def insert(self, sql: str, body: bytes, *, settings: Mapping[str, str]) -> None:
        """Send `INSERT INTO … FORMAT …` with its rows; raises what the client raises.

        Cancelled, it lets go of the thread, whose insert may still take effect.
        """
        target, found, row_format = sql.removeprefix("INSERT INTO ").rpartition(" FORMAT ")
        if not found or target == sql:
            raise InvalidRequest(f"an insert of bytes reads INSERT INTO … FORMAT …, got {sql[:80]!r}", field="sql")

        def send() -> None:
            rows: Any = memoryview(body)  # bytes would be copied behind the statement; the driver's types know no views
            self._connected().raw_insert(target, None, rows, settings=dict(settings), fmt=row_format)

        await in_thread(send)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._client is not None:
            client, self._client = self._client, None
            await in_thread(client.close)

    def _connected(self) -> Client:
        with self._connecting:
            if self._client is None:
                self._client = self._connect()
            return self._client


async def in_thread(work: Callable[[], T]) -> T:
    """What `work` returns or raises. The thread keeps no process from ending, unlike those of an executor."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    def conclude(result: T | None, error: BaseException | None) -> None:
        if outcome.done():
            return  # nobody waits any more
        if error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(result)  # type: ignore[arg-type]  # there is a result where there is no error

    def run() -> None:
        result: T | None = None
        error: BaseException | None = None
        try:
            result = work()
        except BaseException as exc:  # noqa: BLE001  # handed to who waits
            error = exc
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(conclude, result, error)

    threading.Thread(target=run, name="clickhouse-upload", daemon=True).start()
    return await outcome
