"""Drives one policy with the arrivals, and says what came of them.

All policies retry alike: another replica, before the first token only.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from servicekit.domain.generation import GenerationEnd
from servicekit.domain.prompt import EngineRequest, Message, Role, Sampling
from servicekit.errors import BinnacleError
from services.generator.pool.lease import Choice, Work
from tests.bench._routing_load import Arrival
from tests.bench._routing_policies import Router, Spent

BOUND_S = 2.0
_GIVE_UP_S = 10.0
_TRIES = 3


@dataclass(slots=True)
class Outcome:
    """Of all arrivals; `places` are tries by address."""

    first_tokens_s: list[float] = field(default_factory=list)
    good: int = 0
    offered: int = 0
    places: dict[str, int] = field(default_factory=dict)

    def figures(self, spent: Sequence[Spent]) -> dict[str, float]:
        """As the benchmark prints them; requests without a first token count as given up."""
        lost = self.offered - len(self.first_tokens_s)
        times = sorted(self.first_tokens_s) + [_GIVE_UP_S] * lost
        read, cached = sum(one.input_tokens for one in spent), sum(one.cached_tokens for one in spent)
        return {
            "ttft_p50_ms": round(1e3 * times[len(times) // 2], 1),
            "ttft_p99_ms": round(1e3 * times[int(len(times) * 0.99)], 1),
            "goodput": round(self.good / self.offered, 4),
            "wasted_tokens": sum(one.wasted_tokens for one in spent),
            "prefix_hit_rate": round(cached / max(1, read), 4),
        }


async def drive(router: Router, load: Sequence[Arrival]) -> Outcome:
    """All arrivals at their times."""
    outcome = Outcome(offered=len(load))
    now = asyncio.get_running_loop().time
    start_s = now()
    async with asyncio.TaskGroup() as group:
        for arrival in load:
            await asyncio.sleep(start_s + arrival.at_s - now())
            group.create_task(_ask(router, arrival, outcome, now))
    return outcome


async def _ask(router: Router, arrival: Arrival, outcome: Outcome, now: Callable[[], float]) -> None:
    begun_s = now()
    try:
        async with asyncio.timeout(_GIVE_UP_S) as patience:
            first_s = await _answered(router, arrival, outcome, patience)
    except (BinnacleError, TimeoutError):
        return
    outcome.first_tokens_s.append(first_s - begun_s)
    outcome.good += first_s - begun_s <= BOUND_S


async def _answered(router: Router, arrival: Arrival, outcome: Outcome, patience: asyncio.Timeout) -> float:
    """When the first token came; raises as the last try did."""
    work = Work(arrival.tenant, arrival.prompt, arrival.input_tokens, arrival.output_tokens)
    request = EngineRequest(
        messages=(Message(Role.USER, arrival.prompt),),
        question=arrival.prompt,
        sampling=Sampling(max_output_tokens=arrival.output_tokens),
    )
    avoid: frozenset[str] = frozenset()
    now = asyncio.get_running_loop().time
    for tries_left in reversed(range(_TRIES)):
        choice = Choice.RETRY if avoid else None
        async with router.lease(work, within_s=_GIVE_UP_S, avoid=avoid, choice=choice) as lease:
            outcome.places[lease.engine.address] = outcome.places.get(lease.engine.address, 0) + 1
            first_s: float | None = None
            events = lease.engine.generate(request)
            try:
                async for event in events:
                    if isinstance(event, GenerationEnd):
                        return first_s or now()
                    if first_s is None:
                        first_s = now()
                        patience.reschedule(None)
                    lease.received(event.token_count)
            except BinnacleError as error:
                lease.failed(error)
                if first_s is not None or not tries_left:
                    raise
                avoid |= {lease.engine.address}
            finally:
                await events.aclose()
    raise AssertionError("a try ends in an answer or an error")
