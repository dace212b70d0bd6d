"""Remembers the last events by identity, to leave out copies. Pure; used by consumers beside `open_events`."""

from collections import OrderedDict
from typing import Protocol

from servicekit.errors import InvalidRequest

DEFAULT_CAPACITY = 100_000


class Identified(Protocol):
    """Anything with an identity, such as an `Event`."""

    @property
    def identity(self) -> tuple[str, str]:
        """(source, id)."""
        ...


class RecentEvents:
    """The identities of the last `capacity` events that were added, about 200 bytes each.

    A topic is at least once: a copy may follow its event at once (a producer's retry, a rebalance) or much later
    (a replay). This window finds the former; what must never count twice belongs into a store keyed by identity.
    """

    def __init__(self, capacity: int = DEFAULT_CAPACITY) -> None:
        if capacity < 1:
            raise InvalidRequest(f"capacity must be at least 1, got {capacity!r}", field="capacity")
        self._capacity = capacity
        self._identities: OrderedDict[tuple[str, str], None] = OrderedDict()

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._identities)

    def __contains__(self, event: Identified) -> bool:
        """Whether a copy of this event was added."""
        return event.identity in self._identities

    def add(self, event: Identified) -> None:
        """Remember an event, after its effect: one that fails is not yet done, and its copy is welcome."""
        self._identities[event.identity] = None
        self._identities.move_to_end(event.identity)
        if len(self._identities) > self._capacity:
            self._identities.popitem(last=False)
