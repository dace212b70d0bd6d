"""What a running service holds open: entered in order, pinged for readiness, closed in reverse.

Given to `services.*.bootstrap.build`; owned by `runtime.lifecycle`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog

from servicekit.domain.identity import ServiceIdentity
from servicekit.ports.clock import Clock
from servicekit.rpc.auth import Authenticator
from servicekit.rpc.tokens import TokenMinter

_CLOSE_S = 10.0

T = TypeVar("T")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Dependency:
    """Something that can be asked whether it answers. Without an essential one the service is NOT_SERVING."""

    name: str
    ping: Callable[[], Awaitable[None]]
    essential: bool


class Stack:
    """The adapters of one service, and what they are built with."""

    def __init__(
        self,
        *,
        identity: ServiceIdentity,
        clock: Clock,
        authenticator: Authenticator,
        minter: TokenMinter | None,
    ) -> None:
        self.identity = identity
        self.clock = clock
        self.authenticator = authenticator
        self.minter = minter
        self.dependencies: list[Dependency] = []
        self._open: list[tuple[str, AbstractAsyncContextManager[Any]]] = []

    async def enter(
        self,
        name: str,
        context_manager: AbstractAsyncContextManager[T],
        *,
        ping: Callable[[T], Awaitable[None]] | None = None,
        essential: bool = True,
    ) -> T:
        """Open an adapter and own it; `ping` (given the opened adapter) raises while it cannot work."""
        opened = await context_manager.__aenter__()
        self._open.append((name, context_manager))
        if ping is not None:
            check = ping
            self.dependencies.append(Dependency(name, lambda: check(opened), essential))
        return opened

    async def close(self) -> None:
        """Close everything in reverse, each within 10 s; what fails to close is logged, and the rest still is."""
        while self._open:
            name, context_manager = self._open.pop()
            try:
                async with asyncio.timeout(_CLOSE_S):
                    await context_manager.__aexit__(None, None, None)
            except Exception:
                log.exception("adapter.close_failed", adapter=name)
