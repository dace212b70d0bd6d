"""What every state store must do; inherited by the contract test of each adapter, which supplies it."""

import asyncio
from collections.abc import Callable

from servicekit.ports.state_store import StateStore

_TTL_S = 60.0


class StateStoreConformance:
    """Subclasses provide the fixtures `state_store` and `advance` (moves the store's clock by seconds)."""

    async def test_absent_key_is_none(self, state_store: StateStore) -> None:
        """A key never written has no value."""
        assert await state_store.get("never") is None

    async def test_put_overwrites(self, state_store: StateStore) -> None:
        """The last value put is the one got."""
        await state_store.put("k", b"1", ttl_s=_TTL_S)
        await state_store.put("k", b"2", ttl_s=_TTL_S)
        assert await state_store.get("k") == b"2"

    async def test_empty_value_is_not_absence(self, state_store: StateStore) -> None:
        """Empty bytes are a value."""
        await state_store.put("k", b"", ttl_s=_TTL_S)
        assert await state_store.get("k") == b""
        assert not await state_store.swap("k", expected=None, value=b"x", ttl_s=_TTL_S)

    async def test_value_expires(self, state_store: StateStore, advance: Callable[[float], None]) -> None:
        """A value is gone after its time to live and not before."""
        await state_store.put("k", b"1", ttl_s=10)
        advance(9.5)
        assert await state_store.get("k") == b"1"
        advance(1.0)
        assert await state_store.get("k") is None

    async def test_swap_renews_the_time_to_live(
        self, state_store: StateStore, advance: Callable[[float], None]
    ) -> None:
        """A swapped value lives from its swap."""
        await state_store.put("k", b"1", ttl_s=10)
        advance(6)
        assert await state_store.swap("k", expected=b"1", value=b"2", ttl_s=10)
        advance(6)
        assert await state_store.get("k") == b"2"

    async def test_swap_creates_only_when_absent(self, state_store: StateStore) -> None:
        """Swapping absence for a value succeeds once."""
        assert await state_store.swap("k", expected=None, value=b"1", ttl_s=_TTL_S)
        assert not await state_store.swap("k", expected=None, value=b"2", ttl_s=_TTL_S)
        assert await state_store.get("k") == b"1"

    async def test_swap_refuses_a_changed_value(self, state_store: StateStore) -> None:
        """A stale expectation changes nothing."""
        await state_store.put("k", b"1", ttl_s=_TTL_S)
        assert not await state_store.swap("k", expected=b"0", value=b"2", ttl_s=_TTL_S)
        assert await state_store.get("k") == b"1"

    async def test_swap_deletes(self, state_store: StateStore) -> None:
        """Swapping a value for absence deletes it."""
        await state_store.put("k", b"1", ttl_s=_TTL_S)
        assert await state_store.swap("k", expected=b"1", value=None, ttl_s=_TTL_S)
        assert await state_store.get("k") is None

    async def test_one_of_many_concurrent_claims_wins(self, state_store: StateStore) -> None:
        """Of concurrent creations of one key exactly one succeeds."""
        claims = [state_store.swap("k", expected=None, value=b"%d" % n, ttl_s=_TTL_S) for n in range(20)]
        assert sum(await asyncio.gather(*claims)) == 1

    async def test_ping_answers(self, state_store: StateStore) -> None:
        """An open store answers a ping."""
        await state_store.ping()
