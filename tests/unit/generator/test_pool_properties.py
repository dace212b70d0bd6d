"""Whatever happens in whatever order, a pool loses no place, no token and no waiter, and starves no tenant."""

import asyncio
import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from servicekit.errors import BinnacleError, Overloaded
from services.generator.pool.lease import Choice
from services.generator.pool.replica_pool import ReplicaPool
from services.generator.pool.settings import PoolSettings
from services.generator.pool.waiting import FairQueue
from tests.pool_stand import SetEngine, connect_error, generation_error, work
from tests.virtual_time import LoopClock, run_virtually

ENDS = ("finish", "fail", "refuse", "unreachable", "cancel", "stay_silent", "raise")

ERRORS = {
    "fail": generation_error(),
    "unreachable": connect_error(),
    "refuse": Overloaded("full", retry_after_s=0.3),
}

step = st.tuples(
    st.sampled_from("abc"),
    st.sampled_from(ENDS),
    st.integers(0, 20),  # tenths of a second until it comes
    st.integers(0, 30),  # tenths of a second that it holds its place
    st.sampled_from((0.0, 0.5, 5.0)),  # how long it would wait
    st.booleans(),  # avoids a replica
)


async def play(pool: ReplicaPool, steps: list[tuple[str, str, int, int, float, bool]]) -> Counter[str]:
    """All of it at once; counts how it ended."""
    ends: Counter[str] = Counter()

    async def one(tenant: str, end: str, after: int, holds: int, within_s: float, *, avoids: bool) -> None:
        await asyncio.sleep(after / 10)
        avoid = frozenset({"set://0"}) if avoids else frozenset()
        choice = Choice.RETRY if avoids else None
        try:
            async with pool.lease(work(tenant), within_s=within_s, avoid=avoid, choice=choice) as lease:
                await asyncio.sleep(holds / 20)
                if end not in ("stay_silent", "unreachable"):
                    lease.received(1)
                await asyncio.sleep(holds / 20)
                if end == "raise":
                    raise generation_error()
                if error := ERRORS.get(end):
                    lease.failed(error)
                else:
                    lease.received(80)
                ends["placed"] += 1
        except Overloaded:
            ends["overloaded"] += 1
        except BinnacleError:
            ends["placed"] += 1

    async with asyncio.TaskGroup() as group:
        for tenant, end, after, holds, within_s, avoids in steps:
            task = group.create_task(one(tenant, end, after, holds, within_s, avoids=avoids))
            if end == "cancel":
                asyncio.get_running_loop().call_later((after + holds / 2) / 10, task.cancel)
    return ends


@settings(max_examples=150, deadline=None)
@given(st.lists(step, max_size=40), st.integers(1, 3), st.integers(1, 3), st.integers(0, 5))
def test_nothing_leaks(
    steps: list[tuple[str, str, int, int, float, bool]], replicas: int, places: int, waiting: int
) -> None:
    """Afterwards no place is held, no token awaited, nobody waits, and everyone was told something."""

    async def main() -> None:
        pool = ReplicaPool(
            [SetEngine(f"set://{n}") for n in range(replicas)],
            clock=LoopClock(),
            settings=PoolSettings(max_concurrent=places, max_waiting=waiting),
            chance=random.Random(1),
        )
        ends = await asyncio.wait_for(play(pool, steps), 100)
        cancelled = sum(end == "cancel" for _, end, *_ in steps)
        assert len(steps) - cancelled <= ends["placed"] + ends["overloaded"] <= len(steps)
        assert pool.waiting == 0
        assert [status.outstanding_tokens for status in pool.statuses()] == [0] * replicas
        assert [(one.leases, one.backlog.waiting) for one in pool._members] == [(0, 0)] * replicas
        # And every place can be had again, once no one is left alone any more.
        await asyncio.sleep(200)
        for _ in range(replicas):
            async with pool.lease(work(), within_s=1) as lease:
                lease.received(1)

    run_virtually(main())


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 1_000), st.booleans()), min_size=1, max_size=120),
    st.fixed_dictionaries({"a": st.sampled_from((0.5, 1.0, 4.0))}),
)
def test_no_tenant_starves(offers: list[tuple[str, int, bool]], weights: dict[str, float]) -> None:
    """While a tenant has work waiting, no other gets more ahead of it than their weights and one request allow."""
    queue: FairQueue[int] = FairQueue(weights, max_waiting=1_000)
    served: Counter[str] = Counter()
    largest = max(tokens for _, tokens, _ in offers) / min([1.0, *weights.values()])
    behind: dict[str, Counter[str]] = {}
    for number, (tenant, tokens, turn) in enumerate(offers):
        if not any(waiter.tenant == tenant for waiter in queue):
            behind[tenant] = Counter(served)
        queue.put(tenant, tokens, number, 0.0)
        if turn:
            waiter = next(iter(queue))
            queue.take(waiter, 0.0)
            served[waiter.tenant] += waiter.tokens
        backlogged = {waiter.tenant for waiter in queue}
        for one in backlogged:
            since = behind[one]
            mine = (served[one] - since[one]) / weights.get(one, 1.0)
            for other in served.keys() - {one}:
                theirs = (served[other] - since[other]) / weights.get(other, 1.0)
                assert theirs - mine <= 2 * largest + 1e-6
