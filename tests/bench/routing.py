"""Compares how policies route to four unequal replicas: `python -m tests.bench.routing --json`.

One replica is five times slower, one fails three requests in ten; prompts are of skewed lengths, share beginnings
(system prompts, conversations) and come in bursts. Every policy gets the same arrivals and the same rule of retries.
The servers' time is simulated by the contract server's own scheduler in virtual time, so that figures are exact and
repeatable. `goodput` is the share of requests that ended with a first token within 2 s; `wasted_tokens` were prefilled
or generated for nothing; `oracle` sees every queue, cache and failure rate as it is, and takes the least wait.
"""

import argparse
import asyncio
import json
import random
import sys
from collections.abc import Sequence

from servicekit.testing.tgi_server.dials import Dials, Fault
from services.generator.pool.replica_pool import ReplicaPool
from tests.bench._routing_client import drive
from tests.bench._routing_load import Arrival, arrivals
from tests.bench._routing_policies import PlainRouter, Router, at_random, least_outstanding, oracle, round_robin
from tests.bench._routing_simulation import SimulatedEngine
from tests.virtual_time import LoopClock, run_virtually

POLICIES = ("round_robin", "least_outstanding", "random", "binnacle", "oracle")


def replicas(*, slow: float = 5.0, fault_share: float = 0.3) -> list[Dials]:
    """Two good ones, a slow one and one that fails."""
    good = Dials(
        prefill_tokens_per_s=8_000,
        decode_step_s=0.012,
        decode_step_per_sequence_s=0.0004,
        max_batch_size=24,
        max_batch_prefill_tokens=4_096,
        prefix_cache_blocks=2_500,
        max_concurrent_requests=128,
    )
    return [
        good,
        good,
        Dials(
            prefill_tokens_per_s=8_000 / slow,
            decode_step_s=0.012 * slow,
            decode_step_per_sequence_s=0.0004 * slow,
            max_batch_size=24,
            max_batch_prefill_tokens=4_096,
            prefix_cache_blocks=2_500,
            max_concurrent_requests=128,
        ),
        Dials(
            prefill_tokens_per_s=8_000,
            decode_step_s=0.012,
            decode_step_per_sequence_s=0.0004,
            max_batch_size=24,
            max_batch_prefill_tokens=4_096,
            prefix_cache_blocks=2_500,
            max_concurrent_requests=128,
            fault=Fault.ERROR,
            fault_share=fault_share,
            fault_seed=7,
        ),
    ]


async def measure(policy: str, load: Sequence[Arrival], seed: int) -> dict[str, float]:
    """One policy against fresh servers."""
    engines = [SimulatedEngine(f"sim://{number}", dials) for number, dials in enumerate(replicas())]
    async with asyncio.TaskGroup() as group:
        router: Router
        if policy == "binnacle":
            pool = ReplicaPool(engines, clock=LoopClock(), chance=random.Random(seed), name="bench")
            await pool.refresh()
            polling = group.create_task(pool.run())
            router = pool
        else:
            router, polling = plain(policy, engines, seed), None
        outcome = await drive(router, load)
        if polling is not None:
            polling.cancel()
    print(f"{policy}: {outcome.places}", file=sys.stderr)
    return outcome.figures(
        spent_tokens=sum(engine.prefilled_tokens + engine.generated_tokens for engine in engines),
        input_tokens=sum(engine.input_tokens for engine in engines),
        cached_tokens=sum(engine.cached_tokens for engine in engines),
    )


def plain(policy: str, engines: Sequence[SimulatedEngine], seed: int) -> Router:
    """One of those to compare with."""
    shares = {engine.address: engine._fault_share for engine in engines}
    picks = {
        "round_robin": round_robin(),
        "random": at_random(seed),
        "least_outstanding": least_outstanding(seed),
        "oracle": oracle({engine.address: engine for engine in engines}, shares),
    }
    return PlainRouter(engines, picks[policy])


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.routing", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--seconds", type=float, default=240.0, help="of arrivals, in virtual time")
    parser.add_argument("--per-s", type=float, default=20.0, help="arrivals a second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--policy", choices=POLICIES, action="append")
    flags = parser.parse_args()
    load = arrivals(per_s=flags.per_s, seconds=flags.seconds, seed=flags.seed)
    figures = {}
    for policy in flags.policy or POLICIES:
        figures[policy] = run_virtually(measure(policy, load, flags.seed))
        print(f"{policy}: {figures[policy]}", file=sys.stderr)
    if flags.json:
        print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
