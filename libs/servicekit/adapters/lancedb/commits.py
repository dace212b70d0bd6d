"""Commits that go again where another process committed first. Used by `tenant.py` and `rebuild.py`.

The maintenance process rewrites files of the tables that are written here; the store then refuses whichever
commit comes second, with nothing of it done.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from lancedb.table import AsyncTable

ATTEMPTS = 8
_Result = TypeVar("_Result")


def is_conflict(error: BaseException) -> bool:
    """Whether a commit was refused because of another; the library has no type for it."""
    return isinstance(error, OSError | RuntimeError) and "conflict" in str(error).lower()


async def commit(table: AsyncTable, write: Callable[[AsyncTable], Awaitable[_Result]]) -> _Result:
    """Do `write` on the newest version of the table, again after a conflict."""
    for attempt in range(1, ATTEMPTS + 1):
        await see_newest(table)
        try:
            return await write(table)
        except (OSError, RuntimeError) as exc:
            if attempt == ATTEMPTS or not is_conflict(exc):
                raise
    raise AssertionError


async def see_newest(table: AsyncTable) -> None:
    """Have this handle show what has been committed through others."""
    await table.checkout_latest()  # type: ignore[no-untyped-call]  # the library's annotation is missing
