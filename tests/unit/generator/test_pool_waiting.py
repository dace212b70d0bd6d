"""Who waits for a place in a full pool, in which order, how long, and what those are told who get none."""

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any

import pytest

from servicekit.errors import BackendUnavailable, InvalidRequest, Overloaded
from services.generator.pool.lease import Choice, Lease
from services.generator.pool.replica_pool import ReplicaPool
from services.generator.pool.settings import PoolSettings
from services.generator.pool.waiting import FairQueue
from tests.pool_stand import SetEngine, work
from tests.virtual_time import LoopClock, run_virtually


def pool_of(places: int, *, engines: int = 1, **settings: Any) -> ReplicaPool:
    """Replicas with so many places each."""
    return ReplicaPool(
        [SetEngine(f"set://{n}") for n in range(engines)],
        clock=LoopClock(),
        settings=PoolSettings(max_concurrent=places, **settings),
    )


def virtually(main: Coroutine[Any, Any, None]) -> None:
    """In virtual time, and never for ever."""
    run_virtually(asyncio.wait_for(main, 10_000))


def order(queue: FairQueue[str]) -> list[str]:
    """Take all, in turn."""
    taken = []
    while queue:
        waiter = next(iter(queue))
        queue.take(waiter, 0.0)
        taken.append(waiter.item)
    return taken


def test_tenants_take_turns_by_tokens() -> None:
    """A tenant with many requests waits behind another's first, and large requests count for more."""
    queue: FairQueue[str] = FairQueue({}, max_waiting=100)
    for n in range(4):
        queue.put("loud", 100, f"loud{n}", 0.0)
    queue.put("quiet", 100, "quiet0", 0.0)
    queue.put("quiet", 100, "quiet1", 0.0)
    assert order(queue) == ["loud0", "quiet0", "loud1", "quiet1", "loud2", "loud3"]


def test_weights_divide_the_turns() -> None:
    """A tenant of weight 2 gets two turns for another's one."""
    queue: FairQueue[str] = FairQueue({"big": 2.0}, max_waiting=100)
    for n in range(4):
        queue.put("big", 100, f"b{n}", 0.0)
        queue.put("one", 100, f"o{n}", 0.0)
    assert order(queue)[:6] == ["b0", "o0", "b1", "o1", "b2", "b3"]


def test_who_leaves_is_not_charged() -> None:
    """A waiter that gave up does not push back its tenant's next."""
    queue: FairQueue[str] = FairQueue({}, max_waiting=100)
    queue.put("a", 100, "a0", 0.0)
    queue.drop(queue.put("b", 10_000, "gone", 0.0), 0.0)
    queue.put("a", 100, "a1", 0.0)
    queue.put("b", 100, "b0", 0.0)
    assert order(queue) == ["a0", "b0", "a1"]


def test_settings_are_refused_by_name() -> None:
    """A weight of zero would starve a tenant."""
    with pytest.raises(InvalidRequest, match=r"pool.tenant_weights\['x'\] must be over 0, got 0"):
        PoolSettings(tenant_weights={"x": 0.0})


def test_a_waiter_gets_the_place_that_is_given_back() -> None:
    """And knows how long it waited."""

    async def main() -> None:
        pool = pool_of(1)

        async def wait() -> float:
            async with pool.lease(work(), within_s=10) as lease:
                return lease.queue_s

        async with pool.lease(work(), within_s=0):
            waiter = asyncio.ensure_future(wait())
            await asyncio.sleep(2.0)
            assert pool.waiting == 1
        assert await waiter == pytest.approx(2.0)

    virtually(main())


def test_no_place_in_time_is_overloaded_with_a_delay() -> None:
    """The caller waits as long as it may, not longer."""

    async def main() -> None:
        pool = pool_of(1)
        async with pool.lease(work(), within_s=0):
            begun_s = asyncio.get_running_loop().time()
            with pytest.raises(Overloaded) as error:
                async with pool.lease(work(), within_s=3):
                    pass
            assert asyncio.get_running_loop().time() - begun_s == pytest.approx(3.0)
            assert error.value.reason == "POOL_OVERLOADED"
            assert error.value.retry_after_s > 0
        assert pool.waiting == 0

    virtually(main())


def test_the_retry_delay_is_honest() -> None:
    """Where each place frees every second, who comes again after the delay gets a place in the time it allows."""

    async def main() -> None:
        pool = pool_of(2, max_waiting=1_000)

        async def hold(within_s: float) -> float:
            async with pool.lease(work(), within_s=within_s) as lease:
                lease.received(1)
                await asyncio.sleep(1.0)
                return lease.queue_s

        async with asyncio.TaskGroup() as group:
            for _ in range(40):
                group.create_task(hold(1_000))
            await asyncio.sleep(5.5)
            with pytest.raises(Overloaded) as error:
                await hold(2.0)
            # 28 wait, two leave a second: 14 s and its own turn, of which it would wait 2.
            assert error.value.retry_after_s == pytest.approx(12.5, rel=0.15)
            assert error.value.metadata == {"cause": "too_long"}
            await asyncio.sleep(error.value.retry_after_s * 1.1)
            assert await hold(2.0) <= 2.0

    virtually(main())


def test_a_full_queue_sheds_the_last_of_the_loudest_tenant() -> None:
    """A tenant that fills the queue cannot keep another out of it, nor push out anyone but itself."""

    async def main() -> None:
        pool = pool_of(1, max_waiting=3)
        ended: dict[str, str] = {}

        async def wait(name: str, tenant: str) -> None:
            try:
                async with pool.lease(work(tenant), within_s=100):
                    ended[name] = "placed"
            except Overloaded as error:
                ended[name] = error.metadata["cause"]

        async with asyncio.TaskGroup() as group, pool.lease(work(), within_s=0):
            for n in range(3):
                group.create_task(wait(f"loud{n}", "loud"))
            await asyncio.sleep(0.1)
            group.create_task(wait("quiet", "quiet"))
            await asyncio.sleep(0.1)
            group.create_task(wait("loud3", "loud"))
            await asyncio.sleep(0.1)
        assert ended == {"loud0": "placed", "loud1": "placed", "quiet": "placed", "loud2": "shed", "loud3": "full"}

    virtually(main())


def test_a_cancelled_waiter_leaves_no_trace() -> None:
    """Nor does one whose place came at the very moment it was cancelled: the place goes on to the next."""

    async def main() -> None:
        pool = pool_of(1)
        stack = AsyncExitStack()
        await stack.enter_async_context(pool.lease(work(), within_s=0))

        async def wait() -> str:
            async with pool.lease(work(), within_s=100):
                return "placed"

        first, second = asyncio.ensure_future(wait()), asyncio.ensure_future(wait())
        await asyncio.sleep(1)
        await stack.aclose()
        first.cancel()
        assert await second == "placed"
        assert first.cancelled() or first.exception() is None
        assert pool.waiting == 0
        assert pool.statuses()[0].outstanding_tokens == 0

    virtually(main())


def test_a_retry_waits_for_another_replica_and_lets_others_pass() -> None:
    """Who avoids the only free replica does not hold up those who may go there."""

    async def main() -> None:
        pool = pool_of(1, engines=2)
        async with AsyncExitStack() as stack:
            held: list[Lease] = [
                await stack.enter_async_context(pool.lease(work(), within_s=0, avoid=frozenset({"set://1"})))
            ]
            busy = held[0].engine.address
            free = "set://1"

            async def retry() -> str:
                async with pool.lease(work(), within_s=100, avoid=frozenset({free}), choice=Choice.RETRY) as lease:
                    return lease.engine.address

            waiter = asyncio.ensure_future(retry())
            await asyncio.sleep(0.1)
            async with pool.lease(work(), within_s=1) as lease:
                assert lease.engine.address == free
                assert lease.queue_s == 0
        assert await waiter == busy

    virtually(main())


def test_waiters_are_served_when_a_closed_replica_opens_again() -> None:
    """Without any other event: the pool looks again by itself."""

    async def main() -> None:
        pool = pool_of(5)
        async with pool.lease(work(), within_s=0) as lease:
            lease.failed(Overloaded("full", retry_after_s=1.5))
        async with pool.lease(work(), within_s=10) as lease:
            assert lease.queue_s == pytest.approx(1.5, abs=0.01)

    virtually(main())


def test_a_hedge_never_waits_and_is_rationed() -> None:
    """It goes to another replica or nowhere, and one in ten requests at most is hedged for long."""

    async def main() -> None:
        pool = pool_of(100, engines=2, hedging=True)
        hedged, refused = 0, set()
        for _ in range(200):
            async with pool.lease(work(), within_s=1) as lease:
                try:
                    own = frozenset({lease.engine.address})
                    async with pool.lease(work(), within_s=1, avoid=own, choice=Choice.HEDGE) as other:
                        assert other.engine.address not in own
                        hedged += 1
                except Overloaded as error:
                    refused.add(error.metadata["cause"])
        assert 15 <= hedged <= 25
        assert refused == {"hedge"}

    virtually(main())


def test_hedging_begins_past_the_95th_percentile_of_first_tokens() -> None:
    """None until enough came, and none ever where hedging is off."""

    async def main() -> None:
        on, off = pool_of(10, hedging=True), pool_of(10)
        for pool in (on, off):
            for n in range(100):
                assert n >= 50 or pool.hedge_after_s() is None
                async with pool.lease(work(), within_s=1) as lease:
                    await asyncio.sleep(n / 100)
                    lease.received(1)
        assert on.hedge_after_s() == pytest.approx(0.95)
        assert off.hedge_after_s() is None

    virtually(main())


def test_a_pool_without_replicas_is_unavailable() -> None:
    """Not overloaded: waiting would not help."""

    async def main() -> None:
        with pytest.raises(BackendUnavailable) as error:
            async with ReplicaPool(clock=LoopClock()).lease(work(), within_s=1):
                pass
        assert error.value.reason == "NO_REPLICA"

    virtually(main())
