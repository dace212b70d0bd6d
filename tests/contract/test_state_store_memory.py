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


async def test_a_flood_of_one_tenant_leaves_anothers_values() -> None:
    """However much one tenant writes, and in however many kinds, another keeps its older claims and can make new."""
    store = MemoryStateStore(max_bytes=100 * 300)
    for number in range(10):
        assert await store.swap(f"idempotency:acme:{number}", expected=None, value=b"f" * 50, ttl_s=60)
    for number in range(1_000):
        await store.put(f"idempotency:flood:{number}", b"f" * 50, ttl_s=60)
        await store.put(f"conversation:flood:{number}", b"f" * 50, ttl_s=60)
    assert await store.swap("idempotency:acme:new", expected=None, value=b"f" * 50, ttl_s=60)
    held = [*range(10), "new"]
    assert [await store.get(f"idempotency:acme:{name}") for name in held] == [b"f" * 50] * len(held)
    assert await store.get("idempotency:flood:999") is not None
    assert await store.get("idempotency:flood:0") is None


async def test_a_value_past_the_bound_costs_no_others() -> None:
    """A value that can never fit evicts nothing, and replaces what was under its key."""
    store = MemoryStateStore(max_bytes=1000)
    await store.put("a", b"x", ttl_s=60)
    await store.put("big", b"x", ttl_s=60)
    await store.put("big", b"x" * 2000, ttl_s=60)
    assert await store.get("big") is None
    assert await store.get("a") == b"x"
