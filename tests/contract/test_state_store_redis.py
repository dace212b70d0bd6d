"""The Redis state store keeps the contract of its port against a server that speaks the protocol in this process."""

import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import fakeredis
import pytest

from servicekit.adapters.redis.address import PASSWORD_VARIABLE, parse_address
from servicekit.adapters.redis.state_store import RedisStateStore, open_state_store
from servicekit.adapters.registry import open_state_store as open_by_scheme
from servicekit.errors import BackendUnavailable, InvalidRequest
from servicekit.testing.conformance.state_store import StateStoreConformance

SECRET = "correct horse"


class ShiftedTime:
    """The time module with its clock moved on."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def time(self) -> float:
        """Now, moved on."""
        return time.time() + self.ahead_s


@pytest.fixture
def server_time(monkeypatch: pytest.MonkeyPatch) -> ShiftedTime:
    """The clock that the server reads."""
    shifted = ShiftedTime()
    monkeypatch.setattr("fakeredis._socket._base.time", shifted)
    return shifted


@pytest.fixture
def advance(server_time: ShiftedTime) -> Callable[[float], None]:
    """Moves the server's clock."""

    def move(seconds: float) -> None:
        server_time.ahead_s += seconds

    return move


@pytest.fixture
def url(server_time: ShiftedTime) -> Iterator[str]:
    """A server's address."""
    server = fakeredis.TcpFakeServer(("127.0.0.1", 0))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"redis://127.0.0.1:{server.server_address[1]}/0?timeout_s=20"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
async def state_store(url: str) -> AsyncIterator[RedisStateStore]:
    """An empty store."""
    async with open_state_store(url) as store:
        yield store


class TestRedisStateStore(StateStoreConformance):
    """All of the port's contract."""


async def test_replicas_share_values(url: str) -> None:
    """What one opened store writes another reads, found by the URL's scheme."""
    async with open_by_scheme(url) as one, open_by_scheme(url) as other:
        assert await one.swap("k", expected=None, value=b"\x00\xff", ttl_s=9)
        assert await other.get("k") == b"\x00\xff"
        assert not await other.swap("k", expected=None, value=b"2", ttl_s=9)


async def test_a_server_that_is_away_is_unavailable(unused_tcp_port: int) -> None:
    """Every method raises BackendUnavailable that names the address."""
    async with open_state_store(f"redis://127.0.0.1:{unused_tcp_port}/0?timeout_s=0.5") as store:
        for call in (store.ping(), store.get("k"), store.put("k", b"", ttl_s=1)):
            with pytest.raises(BackendUnavailable, match=f"127.0.0.1:{unused_tcp_port}"):
                await call
        with pytest.raises(BackendUnavailable):
            await store.swap("k", expected=None, value=b"", ttl_s=1)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (f"redis://:{SECRET}@host/0", "must hold no password"),
        ("redis:///0", "must be redis://host:6379/0"),
        ("redis://host/zero", "holds no number"),
        ("redis://host/0?retries=3", "unknown options retries"),
        ("redis://host/0?timeout_s=0", "timeout_s above 0"),
        ("redis://host/0?password_file=/nowhere/at/all", "cannot be read"),
    ],
)
async def test_an_address_that_cannot_be_followed_is_refused(address: str, said: str) -> None:
    """The message says what is wrong and shows no password."""
    with pytest.raises(InvalidRequest, match=said) as refused:
        async with open_state_store(address):
            pass
    assert SECRET not in str(refused.value)


async def test_the_password_comes_from_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file wins; neither shows in what prints the address."""
    monkeypatch.setenv(PASSWORD_VARIABLE, "of the environment")
    kept = tmp_path / "redis"
    kept.write_text(f"{SECRET}\n", encoding="utf-8")
    async with open_state_store("redis://host/0") as store:
        assert _password(store) == "of the environment"
    async with open_state_store(f"redis://host/0?password_file={kept}") as store:
        assert _password(store) == SECRET
    assert SECRET not in repr(parse_address(f"redis://host/0?password_file={kept}"))


async def test_tls_trusts_the_named_authority(tmp_path: Path) -> None:
    """`rediss://` connects by TLS with certificates checked."""
    async with open_state_store(f"rediss://host/0?ca_file={tmp_path / 'ca.pem'}") as store:
        pool = store._client.connection_pool
        assert pool.connection_class.__name__ == "SSLConnection"
        assert pool.connection_kwargs["ssl_ca_certs"] == str(tmp_path / "ca.pem")


def _password(store: RedisStateStore) -> object:
    return store._client.connection_pool.connection_kwargs["password"]
