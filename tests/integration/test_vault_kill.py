"""Replicas of the vault on a real Redis, killed in the middle of their work."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from servicekit.adapters.redis.state_store import open_state_store
from servicekit.ports.clock import SystemClock
from services.guardrail.vault import Vault
from services.local import native_redis
from services.local.native_redis import NativeRedis
from services.local.native_server import running_server
from tests.integration.vault_process import KEY, LIFETIMES, OWNER

pytestmark = pytest.mark.servers
ROOT = Path(__file__).parents[2]


@pytest.fixture
def url(tmp_path: Path, unused_tcp_port_factory: Callable[[], int]) -> Iterator[str]:
    """A real server's address."""
    if reason := native_redis.obstacle():
        pytest.skip(reason)
    native = NativeRedis(tmp_path / "redis", unused_tcp_port_factory())
    with running_server(native):
        yield native.url


async def killed_after(url: str, name: str, lines: int) -> list[tuple[str, str]]:
    """What a replica gave out until it was killed, some time after so many lines."""
    paths = (ROOT, ROOT / "libs", ROOT / "protos" / "gen")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.integration.vault_process",
        url,
        name,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
        cwd=ROOT,
    )
    assert process.stdout is not None
    said: list[tuple[str, str]] = []
    async for line in process.stdout:
        value, placeholder = line.decode().split()
        said.append((value, placeholder))
        if len(said) == lines:
            process.send_signal(signal.SIGKILL)
    await process.wait()
    return said


async def test_what_went_out_before_a_kill_comes_back(url: str) -> None:
    """Three replicas work on one conversation at once and are killed: no number twice, every value exact."""
    told = await asyncio.gather(*(killed_after(url, name, lines) for name, lines in (("a", 7), ("b", 23), ("c", 40))))
    pairs = [pair for said in told for pair in said]
    assert len(pairs) >= 70
    assert len({placeholder for _, placeholder in pairs}) == len(pairs)
    async with open_state_store(url) as store:
        vault = Vault(store, [KEY], SystemClock(), lifetimes=LIFETIMES)
        back = await vault.restore(OWNER, [placeholder for _, placeholder in pairs])
    assert [one.text for one in back] == [value for value, _ in pairs]
