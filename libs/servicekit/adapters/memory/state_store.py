"""A state store in this process's memory, bounded. Chosen by `memory://`; lost when the process ends."""

from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from servicekit.ports.clock import Clock, SystemClock

DEFAULT_MAX_BYTES = 64 * 1024 * 1024
_OVERHEAD_BYTES = 200


@dataclass(frozen=True, slots=True)
class _Entry:
    value: bytes
    expires_s: float


@dataclass(slots=True)
class _Share:
    """What one owner keeps, least recently used first."""

    entries: OrderedDict[str, _Entry] = field(default_factory=OrderedDict)
    used_bytes: int = 0


class MemoryStateStore:
    """When `max_bytes` (keys, values and overhead) is exceeded, whoever holds the most loses what it used longest ago.

    A holder is a kind and a tenant, the first two parts of a key. So nobody's flood costs another anything: a holder
    of no more than an equal part of the bound loses nothing at all.
    """

    def __init__(self, *, clock: Clock | None = None, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self._clock = clock or SystemClock()
        self._max_bytes = max_bytes
        self._shares: dict[str, _Share] = {}
        self._used_bytes = 0

    async def get(self, key: str) -> bytes | None:
        """The value, or None if absent."""
        return self._live(key)

    async def put(self, key: str, value: bytes, *, ttl_s: float) -> None:
        """Write the value whatever was there; it lives `ttl_s` seconds from now."""
        self._write(key, value, ttl_s)

    async def swap(self, key: str, *, expected: bytes | None, value: bytes | None, ttl_s: float) -> bool:
        """Atomically replace `expected` by `value`; False, with nothing changed, if it holds else."""
        if self._live(key) != expected:
            return False
        if value is None:
            self._drop(key)
        else:
            self._write(key, value, ttl_s)
        return True

    async def ping(self) -> None:
        """Memory always answers."""

    def _live(self, key: str) -> bytes | None:
        share = self._shares.get(_owner(key))
        entry = share.entries.get(key) if share is not None else None
        if share is None or entry is None:
            return None
        if entry.expires_s <= self._clock.monotonic_s():
            self._drop(key)
            return None
        share.entries.move_to_end(key)
        return entry.value

    def _write(self, key: str, value: bytes, ttl_s: float) -> None:
        self._drop(key)
        size = _size(key, value)
        if size > self._max_bytes:
            return
        share = self._shares.setdefault(_owner(key), _Share())
        share.entries[key] = _Entry(value, self._clock.monotonic_s() + ttl_s)
        share.used_bytes += size
        self._used_bytes += size
        while self._used_bytes > self._max_bytes:
            largest = max(self._shares.values(), key=lambda one: one.used_bytes)
            self._drop(next(iter(largest.entries)))

    def _drop(self, key: str) -> None:
        owner = _owner(key)
        share = self._shares.get(owner)
        entry = share.entries.pop(key, None) if share is not None else None
        if share is None or entry is None:
            return
        size = _size(key, entry.value)
        share.used_bytes -= size
        self._used_bytes -= size
        if not share.entries:
            del self._shares[owner]


def _owner(key: str) -> str:
    """`kind:tenant` of `kind:tenant:rest`; keys that are not made so have one owner together."""
    parts = key.split(":", 2)
    return f"{parts[0]}:{parts[1]}" if len(parts) > 2 else ""  # noqa: PLR2004  # three parts, as the port says


def _size(key: str, value: bytes) -> int:
    return len(key) + len(value) + _OVERHEAD_BYTES


@asynccontextmanager
async def open_state_store(url: str = "memory://", *, clock: Clock | None = None) -> AsyncIterator[MemoryStateStore]:
    """Open an empty store; its content ends with it."""
    del url  # memory:// says all there is
    yield MemoryStateStore(clock=clock)
