"""An analytics store that remembers what it was told and fails on demand."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any


class RecordingStore:
    """Answers queries by `answers` (first key that the statement holds); `refuse` may raise for an insert's rows."""

    def __init__(
        self,
        *,
        answers: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
        refuse: Callable[[bytes], None] | None = None,
    ) -> None:
        self.answers = dict(answers or {})
        self.refuse = refuse
        self.statements: list[str] = []
        self.inserts: list[tuple[str, bytes]] = []

    async def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Sequence[Mapping[str, Any]]:
        """The first fitting answer."""
        self.statements.append(sql)
        return next((rows for key, rows in self.answers.items() if key in sql), [])

    async def execute(self, sql: str) -> None:
        """Remember the statement."""
        self.statements.append(sql)

    async def insert_bytes(self, sql: str, body: bytes, *, settings: Mapping[str, str]) -> None:
        """Remember the rows, unless they are refused."""
        if self.refuse is not None:
            self.refuse(body)
        self.inserts.append((sql, body))

    async def ping(self) -> None:
        """Always there."""
