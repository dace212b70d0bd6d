"""Whether the service can work: pings its dependencies, tells health clients, answers for `/healthz`.

Run by `runtime.lifecycle` as long as the service does.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from servicekit.rpc.server import RpcServer
from servicekit.runtime.stack import Dependency
from servicekit.telemetry.metrics import gauge

DEPENDENCY_UP = gauge("dependency_up", meaning="1 if the last ping succeeded, else 0.", labels=("dependency",))
FAILURES_TO_LEAVE = 2
_FIRST_RETRY_S = 0.1

log = structlog.get_logger()


@dataclass(slots=True)
class DependencyState:
    """What the last pings of one dependency said."""

    essential: bool
    ok: bool = False
    failures: int = 0
    error: str = "not asked yet"
    elapsed_ms: float = 0.0


class Readiness:
    """SERVING once every essential dependency answered; NOT_SERVING when one fails twice in a row, until it answers."""

    def __init__(
        self,
        server: RpcServer,
        dependencies: Sequence[Dependency],
        *,
        interval_s: float,
        timeout_s: float,
        on_first_ready: Callable[[], None],
    ) -> None:
        self._server = server
        self._dependencies = tuple(dependencies)
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._on_first_ready = on_first_ready
        self._draining = False
        self.states = {one.name: DependencyState(one.essential) for one in self._dependencies}
        self.first_ready = asyncio.Event()

    @property
    def ready(self) -> bool:
        """Whether calls are wanted now."""
        return self._server.serving

    async def watch(self) -> None:
        """Ping for ever: often until the first time all answer, then every interval."""
        wait_s = _FIRST_RETRY_S
        while True:
            await self.check()
            wait_s = self._interval_s if self.first_ready.is_set() else min(wait_s * 2, self._interval_s)
            await asyncio.sleep(wait_s)

    async def check(self) -> None:
        """Ping everything once, at the same time, and tell health clients if that changed anything."""
        await asyncio.gather(*(self._ping(one) for one in self._dependencies))
        if self._draining:
            return
        essential = [state for state in self.states.values() if state.essential]
        if all(state.ok for state in essential):
            await self._set(serving=True)
            if not self.first_ready.is_set():
                self.first_ready.set()
                self._on_first_ready()
        elif any(state.failures >= FAILURES_TO_LEAVE for state in essential):
            await self._set(serving=False)

    async def leave(self) -> None:
        """Say NOT_SERVING, for good."""
        self._draining = True
        await self._server.set_serving(serving=False)

    def report(self) -> dict[str, Any]:
        """The body of `/healthz`: whether calls are wanted, and each dependency's state."""
        return {
            "status": "draining" if self._draining else "serving" if self.ready else "not_serving",
            "dependencies": {
                name: {
                    "ok": state.ok,
                    "essential": state.essential,
                    "ping_ms": round(state.elapsed_ms, 2),
                    **({} if state.ok else {"error": state.error}),
                }
                for name, state in self.states.items()
            },
        }

    async def _set(self, *, serving: bool) -> None:
        if serving != self._server.serving:
            await self._server.set_serving(serving=serving)
            away = [name for name, state in self.states.items() if not state.ok]
            if self.first_ready.is_set():
                log.warning("service.serving_again" if serving else "service.not_serving", away=away)

    async def _ping(self, dependency: Dependency) -> None:
        state = self.states[dependency.name]
        started_s = time.perf_counter()
        try:
            async with asyncio.timeout(self._timeout_s):
                await dependency.ping()
        except Exception as exc:  # noqa: BLE001  # whatever a ping raises means: not now
            state.ok, state.failures = False, state.failures + 1
            state.error = f"{type(exc).__name__}: {exc}"[:300]
            if state.failures == FAILURES_TO_LEAVE:
                log.warning("dependency.away", dependency=dependency.name, error=state.error)
        else:
            state.ok, state.failures, state.error = True, 0, ""
        state.elapsed_ms = (time.perf_counter() - started_s) * 1e3
        DEPENDENCY_UP.labels(dependency.name).set(state.ok)
