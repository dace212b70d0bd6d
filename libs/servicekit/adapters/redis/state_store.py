"""A state store in Redis, shared by replicas. Chosen by `redis://` and `rediss://`; see `address.py` for the options.

Keys and values are Redis strings as they are. Redis' own bound (`maxmemory`) is the operator's: with an eviction
policy that takes any key, one tenant's flood can cost another its values.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from servicekit.adapters.redis.address import RedisAddress, connection_pool, parse_address
from servicekit.errors import BackendUnavailable
from servicekit.ports.clock import Clock

Result = TypeVar("Result")

# One step on the server, so that nothing comes between the look and the write. Arguments: whether a value is
# expected, which, whether one is written, which, and its time to live in milliseconds.
_SWAP = """
local held = redis.call('GET', KEYS[1])
if ARGV[1] == '1' then
  if held ~= ARGV[2] then return 0 end
elseif held then
  return 0
end
if ARGV[3] == '1' then
  redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[5])
else
  redis.call('DEL', KEYS[1])
end
return 1
"""


class RedisStateStore:
    """Every call is bounded by the address' `timeout_s`. A swap that raises may have been done all the same."""

    def __init__(self, client: Redis, address: RedisAddress) -> None:
        self._client = client
        self._address = address
        self._swap: Any = client.register_script(_SWAP)

    async def get(self, key: str) -> bytes | None:
        """The value, or None if absent."""
        return await self._bounded(self._client.get(key))  # type: ignore[arg-type]  # bytes: nothing is decoded

    async def put(self, key: str, value: bytes, *, ttl_s: float) -> None:
        """Write the value whatever was there; it lives `ttl_s` seconds from now."""
        await self._bounded(self._client.set(key, value, px=_milliseconds(ttl_s)))

    async def swap(self, key: str, *, expected: bytes | None, value: bytes | None, ttl_s: float) -> bool:
        """Atomically replace `expected` by `value`; False, with nothing changed, if it holds else."""
        arguments = [*_given(expected), *_given(value), _milliseconds(ttl_s)]
        return bool(await self._bounded(self._swap(keys=[key], args=arguments)))

    async def ping(self) -> None:
        """Return if Redis answers now."""
        await self._bounded(self._client.ping())

    async def _bounded(self, call: Awaitable[Result]) -> Result:
        try:
            async with asyncio.timeout(self._address.timeout_s):
                return await call
        except (AuthenticationError, NoPermissionError) as exc:
            raise BackendUnavailable(
                f"Redis at {self._address} refuses our credential ({type(exc).__name__}): correct the user and the "
                "password",
                reason="STATE_STORE_REFUSED",
            ) from exc
        except (RedisError, OSError) as exc:  # a timeout is an OSError
            raise BackendUnavailable(
                f"Redis at {self._address} does not answer ({type(exc).__name__})", reason="STATE_STORE_UNAVAILABLE"
            ) from exc


def _given(value: bytes | None) -> tuple[bytes, bytes]:
    return (b"0", b"") if value is None else (b"1", value)


def _milliseconds(ttl_s: float) -> int:
    return max(1, round(ttl_s * 1000))


@asynccontextmanager
async def open_state_store(url: str, *, clock: Clock | None = None) -> AsyncIterator[RedisStateStore]:
    """The store at the URL; connections are made when the first call needs one.

    Raises:
        InvalidRequest: the URL cannot be followed.
    """
    del clock  # Redis keeps its own time
    address = parse_address(url)
    pool = await asyncio.to_thread(connection_pool, address)
    client = Redis.from_pool(pool)
    try:
        yield RedisStateStore(client, address)
    finally:
        await client.aclose()
