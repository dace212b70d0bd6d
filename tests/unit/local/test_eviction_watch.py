"""Each eviction is told and written down once, and a broker that was started again is watched like the first."""

import asyncio
from collections.abc import Sequence

import pytest

from services.local import eviction_watch
from services.local.evictions import Eviction
from tests.unit.analytics.analytics_fakes import RecordingStore


async def test_a_reborn_brokers_evictions_are_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its offsets begin at 0 again, below those that were told before; what stays as it is is told once."""
    first, reborn = (Eviction("t.v1", 0, "analytics", 0, kept) for kept in (900, 40))
    looks = iter([[first], [first], [reborn], [reborn]])
    told: list[str] = []
    over = asyncio.Event()
    loop = asyncio.get_running_loop()

    def find(_bootstrap: str) -> Sequence[Eviction]:
        found = next(looks, None)
        if found is None:
            loop.call_soon_threadsafe(over.set)
        return found or []

    monkeypatch.setattr(eviction_watch, "find_evictions", find)
    monkeypatch.setattr(eviction_watch, "_EVERY_S", 0.0)
    store = RecordingStore()
    watching = asyncio.create_task(eviction_watch.watch_evictions("broker", store, say=told.append))
    async with asyncio.timeout(5):
        await over.wait()
    watching.cancel()
    await asyncio.wait({watching})
    assert [("900" in line, "40" in line) for line in told] == [(True, False), (False, True)]
    assert len(store.inserts) == 2
