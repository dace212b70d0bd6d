"""Asks one engine, and another if the first cannot answer.

Used by `replica_pool.py` for what any replica can tell.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from servicekit.errors import BackendTimeout, BackendUnavailable
from servicekit.ports.engine import Engine

T = TypeVar("T")

_TRIES = 2


async def first_of(engines: Sequence[Engine], ask: Callable[[Engine], Awaitable[T]], *, pool: str) -> T:
    """The answer of the first that gives one, of two at most.

    Raises:
        BackendUnavailable, BackendTimeout: as the last one said; NO_REPLICA where there is none.
    """
    error: BackendUnavailable | BackendTimeout = BackendUnavailable(
        f"pool {pool!r} has no replica", reason="NO_REPLICA"
    )
    for engine in engines[:_TRIES]:
        try:
            return await ask(engine)
        except (BackendUnavailable, BackendTimeout) as exc:
            error = exc
    raise error
