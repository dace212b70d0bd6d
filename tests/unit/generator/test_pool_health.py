"""When a replica of a pool is left alone, and when it is tried again."""

import pytest

from servicekit.errors import BackendUnavailable, InvalidRequest, Overloaded
from servicekit.testing.clocks import FakeClock
from services.generator.pool.health import Health, ReplicaState
from services.generator.pool.lease import Choice
from services.generator.pool.replica_pool import ReplicaPool
from services.generator.pool.settings import PoolSettings
from tests.pool_stand import SetEngine, connect_error, generation_error, work

SETTINGS = PoolSettings()


def test_failures_in_a_row_are_reason_to_eject() -> None:
    """Five failures, or two refused connections, without a success between them."""
    failing, unreachable, mixed = Health(SETTINGS), Health(SETTINGS), Health(SETTINGS)
    for _ in range(5):
        failing.failed(generation_error(), 0.0)
        mixed.failed(generation_error(), 0.0)
        mixed.succeeded(0.0)
    for _ in range(2):
        unreachable.failed(connect_error(), 0.0)
    assert failing.is_failing(0.0)
    assert unreachable.is_failing(0.0)
    assert not mixed.is_failing(0.0)


def test_a_share_of_failures_is_reason_to_eject_while_recent() -> None:
    """Two of three fail: too many; a minute later it is forgotten."""
    health = Health(SETTINGS)
    for _ in range(6):
        health.failed(generation_error(), 0.0)
        health.failed(generation_error(), 0.0)
        health.succeeded(0.0)
    assert health.is_failing(0.0)
    assert not health.is_failing(60.0)


def test_ejections_grow_longer_up_to_a_bound() -> None:
    """1, 2, 4 seconds and so on; a probe that fails ejects again."""
    health = Health(SETTINGS)
    now_s, waits = 0.0, []
    health.eject(now_s, "X")
    for _ in range(8):
        until_s = health.ejected_until_s
        assert until_s is not None
        waits.append(until_s - now_s)
        assert health.state(until_s - 0.01) is ReplicaState.EJECTED
        assert health.state(until_s) is ReplicaState.PROBING
        now_s = until_s
        health.failed(connect_error(), now_s)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]


def test_a_first_token_heals() -> None:
    """A probe that is answered ends the ejection, and its reason is no longer told."""
    health = Health(SETTINGS)
    health.eject(0.0, "CONNECT")
    health.succeeded(1.5)
    assert health.state(1.5) is ReplicaState.HEALTHY
    assert health.last_reason == ""


def test_no_probe_while_checks_are_unanswered() -> None:
    """A replica that does not say what it serves gets no one's request."""
    health = Health(SETTINGS)
    health.eject(0.0, "CONNECT")
    health.checked(connect_error())
    assert health.state(100.0) is ReplicaState.EJECTED
    health.checked(None)
    assert health.state(100.0) is ReplicaState.PROBING


async def fail(pool: ReplicaPool, address: str, error: BackendUnavailable, *, times: int) -> None:
    """Work that fails at this replica."""
    others = frozenset(status.address for status in pool.statuses()) - {address}
    for _ in range(times):
        async with pool.lease(work(), within_s=1, avoid=others, choice=Choice.RETRY) as lease:
            assert lease.engine.address == address
            lease.failed(error)


def states(pool: ReplicaPool) -> list[str]:
    """In order."""
    return [status.state.value for status in pool.statuses()]


async def test_half_the_replicas_are_ejected_at_most() -> None:
    """With three of four failing, two are out and the third is still tried."""
    pool = ReplicaPool([SetEngine(f"set://{n}") for n in range(4)], clock=FakeClock())
    for n in range(3):
        await fail(pool, f"set://{n}", connect_error(), times=2)
    assert states(pool) == ["ejected", "ejected", "healthy", "healthy"]
    assert [status.last_error_reason for status in pool.statuses()] == ["CONNECT", "CONNECT", "CONNECT", ""]


async def test_a_single_replica_is_never_ejected() -> None:
    """Where nothing else is there, it is tried on."""
    pool = ReplicaPool([SetEngine("set://0")], clock=FakeClock())
    await fail(pool, "set://0", connect_error(), times=20)
    assert states(pool) == ["healthy"]


async def test_an_ejected_replica_is_probed_by_one_request_at_a_time() -> None:
    """After its time the next request goes there, the one after elsewhere; a first token makes it healthy."""
    clock = FakeClock()
    pool = ReplicaPool([SetEngine("set://0"), SetEngine("set://1")], clock=clock)
    await fail(pool, "set://0", generation_error(), times=5)
    assert states(pool) == ["ejected", "healthy"]
    clock.advance(1.1)
    assert states(pool) == ["probing", "healthy"]
    async with pool.lease(work(), within_s=1) as probe, pool.lease(work(), within_s=1) as other:
        assert (probe.engine.address, probe.choice) == ("set://0", Choice.PROBE)
        assert other.engine.address == "set://1"
        probe.received(1)
        assert states(pool) == ["healthy", "healthy"]


async def test_a_probe_that_is_cancelled_decides_nothing() -> None:
    """A caller that leaves says nothing about the replica."""
    clock = FakeClock()
    pool = ReplicaPool([SetEngine("set://0"), SetEngine("set://1")], clock=clock)
    await fail(pool, "set://0", generation_error(), times=5)
    clock.advance(1.1)
    async with pool.lease(work(), within_s=1):
        pass
    assert states(pool) == ["probing", "healthy"]


async def test_a_refusal_for_load_closes_a_replica_for_a_moment() -> None:
    """No failure, no ejection: its work goes elsewhere until it said to come back."""
    clock = FakeClock()
    pool = ReplicaPool([SetEngine("set://0"), SetEngine("set://1")], clock=clock)
    async with pool.lease(work(), within_s=1, avoid=frozenset({"set://1"})) as lease:
        lease.failed(Overloaded("full", retry_after_s=0.5))
    for _ in range(10):
        async with pool.lease(work(), within_s=1) as lease:
            assert lease.engine.address == "set://1"
    clock.advance(0.6)
    assert states(pool) == ["healthy", "healthy"]
    async with pool.lease(work(), within_s=1, avoid=frozenset({"set://1"})) as lease:
        assert lease.engine.address == "set://0"


async def test_a_bad_request_is_not_the_replicas_fault() -> None:
    """However often it refuses what it is asked."""
    pool = ReplicaPool([SetEngine("set://0"), SetEngine("set://1")], clock=FakeClock())
    for _ in range(20):
        async with pool.lease(work(), within_s=1) as lease:
            lease.failed(InvalidRequest("no"))
    assert states(pool) == ["healthy", "healthy"]


@pytest.mark.parametrize(("took_s", "state"), [(30.0, "ejected"), (5.0, "healthy")])
async def test_a_replica_far_slower_than_the_others_is_ejected(took_s: float, state: str) -> None:
    """More than ten times as late as the pool's middle, and more than a second."""
    clock = FakeClock()
    pool = ReplicaPool([SetEngine("set://0"), SetEngine("set://1")], clock=clock)
    for avoid, after_s in (("set://0", 1.0), ("set://1", took_s)):
        for _ in range(5):
            async with pool.lease(work(), within_s=1, avoid=frozenset({avoid})) as lease:
                clock.advance(after_s)
                lease.received(1)
    assert states(pool) == [state, "healthy"]
