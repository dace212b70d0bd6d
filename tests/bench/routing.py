"""Compares how policies route to four unequal replicas: `python -m tests.bench.routing --json`.

One replica is five times slower, one fails three requests in ten; prompts are of skewed lengths, share beginnings
(system prompts, conversations) and come in bursts. Every policy gets the same arrivals and the same rule of retries.
The servers are contract servers over HTTP in this process, driven through TGI engines in real time; `--simulate` takes
their schedulers alone, in virtual time: exact, repeatable, and quick enough for long runs. `goodput` is the share of
requests that ended with a first token within 2 s, `wasted_tokens` were prefilled or generated for what failed or was
given up. A request without a first token for 10 s is given up and counts as 10 s. `oracle` sees every queue, cache and
failure rate as it is, and takes the least wait.
"""

import argparse
import asyncio
import json
import random
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace

import structlog

from servicekit.ports.engine import Engine
from servicekit.testing.tgi_server.dials import Dials, Fault
from services.generator.pool.opening import running
from services.generator.pool.replica_pool import ReplicaPool
from tests.bench._routing_client import drive
from tests.bench._routing_load import Arrival, arrivals
from tests.bench._routing_policies import (
    PlainRouter,
    Router,
    TellsAll,
    at_random,
    least_outstanding,
    oracle,
    round_robin,
)
from tests.bench._routing_servers import open_servers
from tests.bench._routing_simulation import SimulatedEngine
from tests.virtual_time import LoopClock, run_virtually

POLICIES = ("round_robin", "least_outstanding", "random", "binnacle", "oracle")


SLOWER = 5.0
FAILS = 0.3


def replicas() -> list[Dials]:
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
    slow = replace(
        good,
        prefill_tokens_per_s=good.prefill_tokens_per_s / SLOWER,
        decode_step_s=good.decode_step_s * SLOWER,
        decode_step_per_sequence_s=good.decode_step_per_sequence_s * SLOWER,
    )
    return [good, good, slow, replace(good, fault=Fault.ERROR, fault_share=FAILS, fault_seed=7)]


async def simulated(policy: str, load: Sequence[Arrival], seed: int) -> dict[str, float]:
    """One policy against fresh servers in virtual time."""
    engines = [SimulatedEngine(f"sim://{number}", dials) for number, dials in enumerate(replicas())]
    return await measure(policy, load, seed, engines, {engine.address: engine for engine in engines})


async def served(policy: str, load: Sequence[Arrival], seed: int) -> dict[str, float]:
    """One policy against fresh contract servers over HTTP."""
    async with open_servers(replicas()) as (engines, servers):
        return await measure(policy, load, seed, engines, servers)


async def measure(
    policy: str, load: Sequence[Arrival], seed: int, engines: Sequence[Engine], servers: Mapping[str, TellsAll]
) -> dict[str, float]:
    """One policy against these servers."""
    async with AsyncExitStack() as stack:
        router: Router
        if policy == "binnacle":
            pool = ReplicaPool(engines, clock=LoopClock(), chance=random.Random(seed), name="bench")
            await pool.refresh()
            router = await stack.enter_async_context(running(pool))
        else:
            router = plain(policy, engines, servers, seed)
        outcome = await drive(router, load)
    figures = outcome.figures([server.spent for server in servers.values()])
    tell(f"{policy}: {figures}, tries by replica {[outcome.places.get(engine.address, 0) for engine in engines]}")
    return figures


def plain(policy: str, engines: Sequence[Engine], servers: Mapping[str, TellsAll], seed: int) -> Router:
    """One of those to compare with."""
    picks = {
        "round_robin": round_robin(),
        "random": at_random(seed),
        "least_outstanding": least_outstanding(seed),
        "oracle": oracle(servers),
    }
    return PlainRouter(engines, picks[policy])


def judge(figures: Mapping[str, Mapping[str, float]]) -> list[str]:
    """What is not as it must be."""
    if set(POLICIES) - figures.keys():
        return []
    ours, turns, best = figures["binnacle"], figures["round_robin"], figures["oracle"]
    missed = []
    if ours["ttft_p99_ms"] > 0.5 * turns["ttft_p99_ms"]:
        missed.append("p99 of time to first token is over half of round robin's")
    if ours["goodput"] < 0.95 * best["goodput"]:
        missed.append("goodput is below 0.95 of the oracle's")
    return missed


def tell(line: str) -> None:
    """What goes on."""
    print(line, file=sys.stderr, flush=True)


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.routing", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--simulate", action="store_true", help="no HTTP, in virtual time")
    parser.add_argument("--seconds", type=float, help="of arrivals (30; simulated 240)")
    parser.add_argument("--per-s", type=float, default=20.0, help="arrivals a second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--policy", choices=POLICIES, action="append", help="only this one (again for more)")
    flags = parser.parse_args()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    seconds = flags.seconds or (240.0 if flags.simulate else 30.0)
    load = arrivals(per_s=flags.per_s, seconds=seconds, seed=flags.seed)
    tell(f"{len(load)} arrivals in {seconds:.0f} s for each policy, {'simulated' if flags.simulate else 'over HTTP'}")
    figures = {}
    for policy in flags.policy or POLICIES:
        if flags.simulate:
            figures[policy] = run_virtually(simulated(policy, load, flags.seed))
        else:
            figures[policy] = asyncio.run(served(policy, load, flags.seed))
    missed = judge(figures)
    tell("; ".join(missed) or "as it must be")
    if flags.json:
        print(json.dumps(figures))
    return min(len(missed), 1)


if __name__ == "__main__":
    sys.exit(main())
