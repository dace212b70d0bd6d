"""Which replica of a pool gets a piece of work."""

import random
from collections import Counter

from servicekit.domain.generation import EngineLoad
from servicekit.errors import Overloaded
from servicekit.testing.clocks import FakeClock
from services.generator.pool.choosing import ShorterWait
from services.generator.pool.lease import Choice
from services.generator.pool.prefixes import BLOCK_CHARS, PrefixMemory
from services.generator.pool.replica import Replica
from services.generator.pool.settings import PoolSettings
from tests.bench import routing
from tests.bench._routing_load import arrivals
from tests.pool_stand import SetEngine, work
from tests.virtual_time import run_virtually

SYSTEM = "s" * (4 * BLOCK_CHARS)


def replicas(count: int, settings: PoolSettings | None = None) -> list[Replica]:
    """Idle ones."""
    return [Replica(SetEngine(f"set://{number}"), settings or PoolSettings()) for number in range(count)]


def policy(**settings: object) -> ShorterWait:
    """The shipped one, by chance that repeats."""
    return ShorterWait(PoolSettings(**settings), random.Random(1))  # type: ignore[arg-type]  # any setting of the pool


def serve(replica: Replica, clock: FakeClock, *, tokens: int, took_s: float, key: int = 0) -> None:
    """One request from placement to its end."""
    replica.place(key, tokens, 0, clock.monotonic_s())
    clock.advance(took_s)
    replica.first_token(key, tokens, clock.monotonic_s())
    replica.leave(key, tokens, clock.monotonic_s())


def test_the_shorter_wait_of_two_is_taken() -> None:
    """Of two replicas, the one with less to read ahead gets the work."""
    one, two = replicas(2)
    one.place(1, 5_000, 0, 0.0)
    pick = policy().choose([one, two], work(), 0.0)
    assert (pick.replica, pick.choice) == (two, Choice.SHORTER_WAIT)


def test_a_small_pool_is_compared_whole_and_two_of_a_large_one() -> None:
    """One idle replica among busy ones is always found by four, and by two of eight in about a quarter of the tries."""
    for count, least, most in ((4, 400, 400), (8, 60, 140)):
        routes = policy()
        candidates = replicas(count)
        for replica in candidates[1:]:
            replica.place(1, 5_000, 0, 0.0)
        found = sum(routes.choose(candidates, work(), 0.0).replica is candidates[0] for _ in range(400))
        assert least <= found <= most


def test_speed_is_learnt_from_first_tokens() -> None:
    """A replica that was five times slower is expected to be so, and gets less."""
    clock = FakeClock()
    fast, slow = replicas(2)
    serve(fast, clock, tokens=1_000, took_s=0.1)
    serve(slow, clock, tokens=1_000, took_s=0.5)
    now_s = clock.monotonic_s()
    waits = [one.expected_wait_s(1_000, now_s, tokens_per_s=1) for one in (fast, slow)]
    assert round(waits[1] / waits[0], 3) == 5.0
    assert policy().choose([fast, slow], work(), now_s).replica is fast


def test_a_replica_that_hangs_is_not_believed_to_be_fast() -> None:
    """As long as its oldest request waits, so long a new one is expected to."""
    clock = FakeClock()
    (replica,) = replicas(1)
    serve(replica, clock, tokens=1_000, took_s=0.01)
    replica.place(1, 10, 0, clock.monotonic_s())
    clock.advance(3.0)
    assert replica.expected_wait_s(10, clock.monotonic_s(), tokens_per_s=1) == 3.0


def test_what_others_queued_there_counts_while_it_is_news() -> None:
    """Requests in the engine's queue that are not from here lengthen the wait, for a few seconds."""
    clock = FakeClock()
    (replica,) = replicas(1)
    replica.told(EngineLoad(queued_requests=4, running_requests=9), clock.monotonic_s())
    assert replica.expected_wait_s(100, clock.monotonic_s(), tokens_per_s=1_000) == 0.5
    clock.advance(6.0)
    assert replica.expected_wait_s(100, clock.monotonic_s(), tokens_per_s=1_000) == 0.1


def test_own_requests_in_the_engines_queue_count_once() -> None:
    """What we sent is known already when the engine tells of it."""
    (replica,) = replicas(1)
    replica.place(1, 100, 0, 0.0)
    replica.told(EngineLoad(queued_requests=1, running_requests=0), 0.0)
    assert replica.expected_wait_s(100, 0.0, tokens_per_s=1_000) == 0.2


def test_a_prefix_goes_where_it_was_served() -> None:
    """The replica that has the beginning in its cache is taken, its wait being about as short."""
    routes = policy()
    candidates = replicas(8)
    home = routes.choose(candidates, work(prefix=SYSTEM), 0.0).replica
    for ending in "abc":
        pick = routes.choose(candidates, work(prefix=SYSTEM + ending * 500), 0.0)
        assert (pick.replica, pick.choice) == (home, Choice.AFFINITY)


def test_affinity_ends_where_the_home_is_overloaded() -> None:
    """A wait far beyond the other choice's breaks the tie to a cache."""
    routes = policy()
    candidates = replicas(3)
    home = routes.choose(candidates, work(prefix=SYSTEM), 0.0).replica
    home.place(1, 50_000, 0, 0.0)
    pick = routes.choose(candidates, work(prefix=SYSTEM), 0.0)
    assert pick.replica is not home
    assert pick.choice is Choice.SHORTER_WAIT


def test_cached_tokens_are_not_expected_to_be_read() -> None:
    """The prefill that a replica is charged with leaves out what it has."""
    routes = policy()
    candidates = replicas(2)
    first = routes.choose(candidates, work(prefix=SYSTEM, tokens=300), 0.0)
    again = routes.choose(candidates, work(prefix=SYSTEM, tokens=300), 0.0)
    assert first.prefill_tokens - again.prefill_tokens == len(SYSTEM) // 4


def test_a_failing_replica_costs_more() -> None:
    """Of two equally busy ones, the one that failed lately is not taken."""
    good, bad = replicas(2)
    for _ in range(3):
        good.health.succeeded(0.0)
        bad.failed(Overloaded("full"), 0.0)
        bad.health.failed(Overloaded("full"), 0.0)
    assert policy().choose([good, bad], work(), 5.0).replica is good


def test_prefix_memory_is_bounded_and_forgets() -> None:
    """The blocks longest unused go first, and those of a replica that went go with it."""
    memory = PrefixMemory(max_blocks=4)
    memory.served("a" * 2 * BLOCK_CHARS, "one")
    memory.served("b" * 2 * BLOCK_CHARS, "two")
    memory.served("c" * BLOCK_CHARS, "two")
    assert memory.matches("a" * 2 * BLOCK_CHARS) == {}
    assert memory.matches("b" * 3 * BLOCK_CHARS) == {"two": 2 * BLOCK_CHARS}
    memory.forget("two")
    assert memory.matches("b" * 2 * BLOCK_CHARS) == {}


def test_prefix_memory_matches_from_the_beginning_only() -> None:
    """A block counts with all that leads up to it."""
    memory = PrefixMemory(max_blocks=100)
    memory.served("x" * BLOCK_CHARS + "tail" * BLOCK_CHARS, "one")
    assert memory.matches("y" + "x" * BLOCK_CHARS) == {}
    assert memory.matches("x" * BLOCK_CHARS + "other" * BLOCK_CHARS) == {"one": BLOCK_CHARS}


def test_unequal_replicas_are_loaded_by_what_they_can_do() -> None:
    """In the benchmark: near the oracle, half round robin's slowest at most, more cache hits than by chance."""
    load = arrivals(per_s=20.0, seconds=36.0, seed=5)
    figures = {
        name: run_virtually(routing.simulated(name, load, 5))
        for name in ("round_robin", "random", "binnacle", "oracle")
    }
    ours = figures["binnacle"]
    assert ours["goodput"] >= 0.95 * figures["oracle"]["goodput"]
    assert ours["ttft_p99_ms"] <= 0.5 * figures["round_robin"]["ttft_p99_ms"]
    assert ours["prefix_hit_rate"] > 1.2 * figures["random"]["prefix_hit_rate"]


def test_choices_are_spread_over_equal_replicas() -> None:
    """Idle replicas that are alike share the work."""
    routes = policy()
    candidates = replicas(4)
    taken = Counter(routes.choose(candidates, work(), 0.0).replica.address for _ in range(400))
    assert min(taken.values()) > 60
