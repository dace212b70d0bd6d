"""The analytics store on ClickHouse over HTTP, for a cluster and for the embedded front alike.

Opened through `servicekit.adapters.registry`; implements `servicekit.ports.analytics_store`.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from math import ceil
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import clickhouse_connect
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.client import Client

from servicekit.adapters.clickhouse.errors import normalised
from servicekit.adapters.clickhouse.uploads import Uploads
from servicekit.errors import BackendUnavailable, InvalidRequest

_DEFAULT_PORT = 8123
_CONNECT_TIMEOUT_S = 5
_PING_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Target:
    """Where the store is and as whom to ask; read from `clickhouse://user:password@host:port/database`."""

    host: str
    port: int
    database: str
    user: str = "default"
    password: str = field(default="", repr=False)
    secure: bool = False

    @classmethod
    def from_url(cls, url: str) -> "Target":
        """Parse the URL; `?secure=1` asks for TLS.

        Raises:
            InvalidRequest: no host, no database, or a port that is no number.
        """
        parts = urlsplit(url)
        database = parts.path.strip("/")
        if not parts.hostname or not database or "/" in database:
            shown = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
            raise InvalidRequest(
                f"analytics_store_url must read clickhouse://host:port/database, got {shown!r}",
                field="analytics_store_url",
            )
        return cls(
            host=parts.hostname,
            port=_port(parts),
            database=database,
            user=unquote(parts.username or "default"),
            password=unquote(parts.password or ""),
            secure="secure=1" in parts.query.split("&"),
        )


class ClickHouseAnalyticsStore:
    """One database of one ClickHouse; connects at first use, so that a service can start before it."""

    def __init__(self, target: Target, *, timeout_s: float) -> None:
        self._target = target
        self._timeout_s = timeout_s
        self._client: AsyncClient | None = None
        self._uploads = Uploads(self._connect_for_uploads)
        self._connecting = asyncio.Lock()

    async def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Sequence[Mapping[str, Any]]:
        """Rows as mappings by column name: times aware in UTC, named tuples as mappings.

        Raises:
            BackendUnavailable, BackendTimeout, Overloaded, NotReady, InvalidRequest
        """
        with normalised():
            async with asyncio.timeout(self._timeout_s):
                client = await self._connected()
                result = await client.query(sql, parameters=dict(parameters or {}))
                return list(result.named_results())

    async def execute(self, sql: str) -> None:
        """One statement without a result.

        Raises:
            BackendUnavailable, BackendTimeout, Overloaded, NotReady, InvalidRequest
        """
        with normalised():
            async with asyncio.timeout(self._timeout_s):
                await (await self._connected()).command(sql)

    async def insert_bytes(self, sql: str, body: bytes, *, settings: Mapping[str, str]) -> None:
        """Insert rows that are bytes already; written when it returns, whatever the server's defaults.

        Raises:
            InvalidRequest: the rows do not parse; none, or with small blocks a part, was written.
            BackendUnavailable, BackendTimeout, Overloaded, NotReady: they may have been written.
        """
        synchronous = {"async_insert": "0", **settings}
        with normalised():
            async with asyncio.timeout(self._timeout_s):
                await self._uploads.insert(sql, body, settings=synchronous)

    async def ping(self) -> None:
        """Return if the store answers now.

        Raises:
            BackendUnavailable, BackendTimeout
        """
        with normalised():
            async with asyncio.timeout(_PING_TIMEOUT_S):
                answered = await (await self._connected()).ping()
        if not answered:
            raise BackendUnavailable("clickhouse does not answer its ping", reason="CONNECT")

    async def create_database(self) -> None:
        """Make the store's database where it is not there yet; needed once, before the migrations.

        Raises:
            BackendUnavailable, BackendTimeout
        """
        with normalised():
            async with asyncio.timeout(self._timeout_s):
                client = await self._connect(database="default")
                try:
                    name = self._target.database.replace("`", "\\`")
                    await client.command(f"CREATE DATABASE IF NOT EXISTS `{name}` ENGINE = Atomic")
                finally:
                    await client.close()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._uploads.aclose()
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def _connected(self) -> AsyncClient:
        if self._client is None:
            async with self._connecting:
                if self._client is None:
                    self._client = await self._connect(database=self._target.database)
        return self._client

    async def _connect(self, *, database: str) -> AsyncClient:
        return await clickhouse_connect.get_async_client(**self._options(database))

    def _connect_for_uploads(self) -> Client:
        return clickhouse_connect.get_client(**self._options(self._target.database))

    def _options(self, database: str) -> dict[str, Any]:
        return {
            "host": self._target.host,
            "port": self._target.port,
            "username": self._target.user,
            "password": self._target.password,
            "database": database,
            "secure": self._target.secure,
            "connect_timeout": _CONNECT_TIMEOUT_S,
            "send_receive_timeout": self._timeout_s,
            "autogenerate_session_id": False,  # a session would let one query run at a time
            "query_retries": 0,  # retrying is the caller's, who knows its deadline
            "compress": False,
            "settings": {"max_execution_time": ceil(self._timeout_s)},  # what nobody waits for any more ends
            "tz_mode": "aware",
        }


@asynccontextmanager
async def open_analytics_store(url: str, *, timeout_s: float = 30.0) -> AsyncIterator[ClickHouseAnalyticsStore]:
    """The store at `clickhouse://user:password@host:port/database`; each call takes at most `timeout_s`."""
    store = ClickHouseAnalyticsStore(Target.from_url(url), timeout_s=timeout_s)
    try:
        yield store
    finally:
        await store.aclose()


def _port(parts: SplitResult) -> int:
    try:
        return parts.port or _DEFAULT_PORT
    except ValueError as error:
        raise InvalidRequest(
            f"analytics_store_url needs a port of 1..65535: {error}", field="analytics_store_url"
        ) from error
