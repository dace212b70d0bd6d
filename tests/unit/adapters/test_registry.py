"""The adapter registry: schemes choose adapters, anything else is refused with what is valid."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from servicekit.adapters import registry
from servicekit.adapters.memory.event_bus import MemoryEventBus
from servicekit.domain.identity import new_identity
from servicekit.errors import InvalidRequest
from servicekit.ports.clock import SystemClock

_OPENERS = {
    "vector_store": registry.open_vector_store,
    "embedder": registry.open_embedder,
    "engine": registry.open_engine,
    "analytics_store": registry.open_analytics_store,
    "reranker": registry.open_reranker,
    "state_store": registry.open_state_store,
}


async def test_scheme_chooses_the_adapter() -> None:
    """`memory://` opens the memory bus."""
    identity = new_identity("gateway", start_time=datetime.now(UTC))
    async with registry.open_event_bus("memory://", identity=identity, clock=SystemClock()) as bus:
        assert isinstance(bus, MemoryEventBus)


@pytest.mark.parametrize("port", sorted(_OPENERS))
@pytest.mark.parametrize("url", ["carrier-pigeon://coop", "", "127.0.0.1:9092", "://"])
def test_unknown_scheme_is_refused_with_the_valid_ones(port: str, url: str) -> None:
    """The refusal names the setting, what it got, and every scheme of that port."""
    opener: Callable[[str], Any] = _OPENERS[port]
    with pytest.raises(InvalidRequest) as refusal:
        opener(url)
    assert refusal.value.field == f"{port}_url"
    assert repr(url) in refusal.value.message
    for scheme in registry.ADAPTERS[port]:
        assert f"{scheme}://" in refusal.value.message


def test_every_port_has_an_adapter() -> None:
    """No port is without a way to open it."""
    assert set(registry.ADAPTERS) == {"event_bus", *_OPENERS}
    assert all(registry.ADAPTERS.values())
