"""The analytics store: SQL in the ClickHouse dialect, and inserts of protobuf bytes.

Implemented by `adapters.clickhouse` (the same client for a ClickHouse cluster and the embedded front).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class AnalyticsStore(Protocol):
    """Reads and writes of one database."""

    async def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Sequence[Mapping[str, Any]]:
        """Rows as mappings by column name; parameters bind server-side as `{name:Type}`.

        Raises:
            BackendUnavailable, BackendTimeout, NotReady (unknown table: migrations have not run).
        """
        ...

    async def execute(self, sql: str) -> None:
        """One statement without a result (DDL, ALTER)."""
        ...

    async def insert_bytes(self, sql: str, body: bytes, *, settings: Mapping[str, str]) -> None:
        """A synchronous INSERT … FORMAT … whose rows are `body`; durable when it returns."""
        ...

    async def ping(self) -> None:
        """Return if the store answers now, else raise BackendUnavailable."""
        ...
