"""Holds a tenant's new writes back for a moment, so that its index can be switched under a steady load.

Writes pass through `embedders.py`; `reembedding.py` closes the gate for the last few chunks.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

# How long writes under way are waited for before the gate opens again.
MAX_WAIT_S = 30.0


class _Gate:
    def __init__(self) -> None:
        self.running = 0
        self.opened, self.idle = asyncio.Event(), asyncio.Event()
        self.opened.set()
        self.idle.set()


class WriteGate:
    """Many writes, or one switch, of a tenant at a time."""

    def __init__(self) -> None:
        self._gates: WeakValueDictionary[str, _Gate] = WeakValueDictionary()

    @asynccontextmanager
    async def writing(self, tenant: str) -> AsyncIterator[None]:
        """A write, once no switch is being made."""
        gate = self._of(tenant)
        while not gate.opened.is_set():
            await gate.opened.wait()
        gate.running += 1
        gate.idle.clear()
        try:
            yield
        finally:
            gate.running -= 1
            if not gate.running:
                gate.idle.set()

    @asynccontextmanager
    async def still(self, tenant: str) -> AsyncIterator[None]:
        """A time without writes; those that come wait for its end.

        Raises:
            TimeoutError: writes under way did not end in time.
        """
        gate = self._of(tenant)
        gate.opened.clear()
        try:
            async with asyncio.timeout(MAX_WAIT_S):
                await gate.idle.wait()
            yield
        finally:
            gate.opened.set()

    def _of(self, tenant: str) -> _Gate:
        return self._gates.setdefault(tenant, _Gate())
