"""The memory state store keeps the contract of its port, and its own bound."""

from collections.abc import Callable

import pytest

from servicekit.adapters.memory.state_store import MemoryStateStore
from servicekit.testing.clocks import FakeClock
from servicekit.testing.conformance.state_store import StateStoreConformance


@pytest.fixture
def clock() -> FakeClock:
    """A clock that moves when told."""
    return FakeClock()


@pytest.fixture
def advance(clock: FakeClock) -> Callable[[float], None]:
    """Moves the clock of the store."""
    return clock.advance


@pytest.fixture
def state_store(clock: FakeClock) -> MemoryStateStore:
    """An empty store."""
    return MemoryStateStore(clock=clock)


class TestMemoryStateStore(StateStoreConformance):
    """All of the port's contract."""


async def test_least_recently_used_goes_first() -> None:
    """Past its bound the store evicts what was used longest ago."""
    store = MemoryStateStore(max_bytes=3 * 400)
    for key in ("a", "b", "c"):
        await store.put(key, b"x" * 150, ttl_s=60)
    await store.get("a")
    await store.put("d", b"x" * 150, ttl_s=60)
    assert await store.get("b") is None
    assert await store.get("a") is not None
    assert await store.get("d") is not None


async def test_a_value_larger_than_the_bound_is_not_kept() -> None:
    """A single value past the bound leaves the store empty rather than over it."""
    store = MemoryStateStore(max_bytes=1000)
    await store.put("big", b"x" * 2000, ttl_s=60)
    assert await store.get("big") is None
