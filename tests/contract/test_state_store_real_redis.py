"""The Redis state store keeps the contract of its port on a real server, a password and a restart included."""

import asyncio
import os
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from servicekit.adapters.redis.address import RedisAddress
from servicekit.adapters.redis.state_store import RedisStateStore, open_state_store
from servicekit.errors import BackendUnavailable
from servicekit.testing.conformance.state_store import StateStoreConformance
from services.local import native_redis
from services.local.native_redis import NativeRedis
from services.local.native_server import running_server

pytestmark = pytest.mark.servers

SECRET = "correct horse"
SPEED = 10.0


class _Hurried(RedisStateStore):
    """Lives so much faster, as a real server's clock is not ours to move; its keys begin with a name of its own."""

    def __init__(self, client: Redis, address: RedisAddress) -> None:
        super().__init__(client, address)
        self._name = uuid.uuid4().hex

    async def get(self, key: str) -> bytes | None:
        return await super().get(f"{self._name}:{key}")

    async def put(self, key: str, value: bytes, *, ttl_s: float) -> None:
        await super().put(f"{self._name}:{key}", value, ttl_s=ttl_s / SPEED)

    async def swap(self, key: str, *, expected: bytes | None, value: bytes | None, ttl_s: float) -> bool:
        return await super().swap(f"{self._name}:{key}", expected=expected, value=value, ttl_s=ttl_s / SPEED)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a server of our own and its password are."""
    if reason := native_redis.obstacle():
        pytest.skip(f"{reason}; or let BINNACLE_TEST_REDIS name one (redis://host:port/0) kept for tests")
    made = tmp_path_factory.mktemp("redis")
    (made / "password").write_text(SECRET, encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def own_url(folder: Path, unused_tcp_port_factory: Callable[[], int]) -> Iterator[str]:
    """The address of a server of our own, that asks for a password."""
    native = NativeRedis(folder, unused_tcp_port_factory(), SECRET)
    with running_server(native):
        yield f"{native.url}?timeout_s=20&password_file={folder / 'password'}"


@pytest.fixture
def url(request: pytest.FixtureRequest) -> str:
    """The address of a server: the one that is named, else our own."""
    return os.environ.get("BINNACLE_TEST_REDIS", "") or str(request.getfixturevalue("own_url"))


@pytest.fixture
async def state_store(url: str) -> AsyncIterator[RedisStateStore]:
    """A store that lives ten times as fast, under keys that no other test uses."""
    async with open_state_store(url) as store:
        yield _Hurried(store._client, store._address)


@pytest.fixture
def advance() -> Callable[[float], None]:
    """Waits for a tenth of the time."""
    return lambda seconds: time.sleep(seconds / SPEED)


class TestRealRedisStateStore(StateStoreConformance):
    """All of the port's contract."""


async def test_without_its_password_a_server_refuses(own_url: str) -> None:
    """The error says to correct the password and does not show one."""
    async with open_state_store(own_url.partition("?")[0]) as store:
        with pytest.raises(BackendUnavailable, match="correct the user and the password") as refused:
            await store.ping()
    assert SECRET not in str(refused.value)


async def test_a_server_that_was_away_is_found_again(folder: Path, unused_tcp_port: int) -> None:
    """Calls fail while it is down and succeed once it is up, by the same opened store."""
    native = NativeRedis(folder / "again", unused_tcp_port)
    async with open_state_store(native.url) as store:
        with running_server(native):
            await store.ping()
        with pytest.raises(BackendUnavailable):
            await store.ping()
        with running_server(native):
            assert await store.swap("k", expected=None, value=b"1", ttl_s=9)


async def test_concurrent_additions_are_all_kept(state_store: RedisStateStore) -> None:
    """Readers who add by swap, and try again where they lost, lose none of fifty additions."""

    async def add() -> None:
        while True:
            held = await state_store.get("sum")
            if await state_store.swap("sum", expected=held, value=b"%d" % (int(held or b"0") + 1), ttl_s=600):
                return

    await asyncio.gather(*(add() for _ in range(50)))
    assert await state_store.get("sum") == b"50"
