"""A state store in this process's memory, bounded. Chosen by `memory://`; lost when the process ends."""

from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from servicekit.ports.clock import Clock, SystemClock

DEFAULT_MAX_BYTES = 64 * 1024 * 1024
_OVERHEAD_BYTES = 200


@dataclass(frozen=True, slots=True)
class _Entry:
    value: bytes
    expires_s: float


class MemoryStateStore:
    """Least recently used values go first when `max_bytes` (keys, values and overhead) is exceeded."""

    def __init__(self, *, clock: Clock | None = None, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self._clock = clock or SystemClock()
        self._max_bytes = max_bytes
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
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
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.expires_s <= self._clock.monotonic_s():
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry.value

    def _write(self, key: str, value: bytes, ttl_s: float) -> None:
        self._drop(key)
        self._entries[key] = _Entry(value, self._clock.monotonic_s() + ttl_s)
        self._used_bytes += _size(key, value)
        while self._used_bytes > self._max_bytes:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._used_bytes -= _size(key, entry.value)


def _size(key: str, value: bytes) -> int:
    return len(key) + len(value) + _OVERHEAD_BYTES


@asynccontextmanager
async def open_state_store(url: str = "memory://", *, clock: Clock | None = None) -> AsyncIterator[MemoryStateStore]:
    """Open an empty store; its content ends with it."""
    del url  # memory:// says all there is
    yield MemoryStateStore(clock=clock)
