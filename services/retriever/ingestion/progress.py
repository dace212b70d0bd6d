"""How far the work on a document is. Declared here, told by `indexing.py`, kept by `operations.py`."""

from enum import StrEnum
from typing import Protocol


class Stage(StrEnum):
    """What is being done, in this order."""

    FETCHING = "fetching"
    PREPARING = "preparing"
    GUARDING = "guarding"
    EMBEDDING = "embedding"
    WRITING = "writing"


class Progress(Protocol):
    """Who is told how far it is; to be told must never fail, nor take long."""

    async def enter(self, stage: Stage) -> None:
        """A stage begins."""
        ...

    async def count(self, done: int, total: int) -> None:
        """So many chunks are embedded, of so many."""
        ...


class NoProgress:
    """Nobody waits."""

    async def enter(self, stage: Stage) -> None:
        """Tell no one."""

    async def count(self, done: int, total: int) -> None:
        """Tell no one."""
