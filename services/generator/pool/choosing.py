"""Chooses a replica for a piece of work: the shorter expected wait of two, unless another has its prefix.

Pure, its chance injected; asked by `replica_pool.py`. Two choices: Mitzenmacher, "The Power of Two Choices in
Randomized Load Balancing" (2001); the cap on affinity: Mirrokni, Thorup, Zadimoghaddam, "Consistent Hashing with
Bounded Loads" (2016).
"""

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from services.generator.pool.lease import Choice, Work
from services.generator.pool.prefixes import PrefixMemory
from services.generator.pool.replica import OVERHEAD_TOKENS, Replica
from services.generator.pool.settings import PoolSettings

# Until any replica's speed is known: a prefill of middling hardware.
ASSUMED_TOKENS_PER_S = 4_000.0
_CHARS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Pick:
    """The replica, why, and how many tokens of prefill it is thought to need for the work."""

    replica: Replica
    choice: Choice
    prefill_tokens: int


class Policy(Protocol):
    """How one of several replicas is chosen."""

    def choose(self, candidates: Sequence[Replica], work: Work, now_s: float) -> Pick:
        """One of the candidates, of which there is at least one."""
        ...

    def forget(self, address: str) -> None:
        """The replica is gone."""
        ...


class ShorterWait:
    """The policy that Binnacle ships."""

    def __init__(self, settings: PoolSettings, chance: random.Random) -> None:
        self._settings = settings
        self._chance = chance
        self._prefixes = PrefixMemory(settings.affinity_blocks)

    def choose(self, candidates: Sequence[Replica], work: Work, now_s: float) -> Pick:
        """The least cost of those drawn, or the longest prefix if its cost is not far beyond."""
        pick = self._choose(candidates, work, now_s)
        if self._settings.affinity:
            self._prefixes.served(work.prefix, pick.replica.address)
        return pick

    def forget(self, address: str) -> None:
        """Its cache is gone with it."""
        self._prefixes.forget(address)

    def _choose(self, candidates: Sequence[Replica], work: Work, now_s: float) -> Pick:
        matches = self._prefixes.matches(work.prefix) if self._settings.affinity and work.prefix else {}
        usual = usual_rate(candidates)

        def priced(replica: Replica) -> tuple[float, int]:
            tokens = prefill_tokens(work, matches.get(replica.address, 0))
            return expected_cost_s(replica, tokens, now_s, usual), tokens

        if len(candidates) == 1:
            return Pick(candidates[0], Choice.ONLY, priced(candidates[0])[1])
        drawn = self._drawn(candidates)
        (cost_s, tokens), chosen = min(((priced(replica), replica) for replica in drawn), key=lambda item: item[0])
        home = self._home(candidates, matches)
        if home is not None:
            home_cost_s, home_tokens = priced(home)
            if home_cost_s <= cost_s * self._settings.affinity_cap + self._settings.affinity_margin_s:
                return Pick(home, Choice.AFFINITY, home_tokens)
        return Pick(chosen, Choice.SHORTER_WAIT, tokens)

    def _drawn(self, candidates: Sequence[Replica]) -> Sequence[Replica]:
        """In an order by chance, which settles ties."""
        small = len(candidates) <= self._settings.small_pool
        count = len(candidates) if small else self._settings.choices
        return self._chance.sample(list(candidates), min(count, len(candidates)))

    @staticmethod
    def _home(candidates: Sequence[Replica], matches: dict[str, int]) -> Replica | None:
        known = [replica for replica in candidates if matches.get(replica.address)]
        return max(known, key=lambda replica: matches[replica.address], default=None)


def usual_rate(replicas: Sequence[Replica]) -> float:
    """Prompt tokens a second of the middle replica, for those of which none is known."""
    known = [rate for replica in replicas if (rate := replica.backlog.tokens_per_s) is not None]
    return statistics.median(known) if known else ASSUMED_TOKENS_PER_S


def prefill_tokens(work: Work, matched_chars: int) -> int:
    """What a replica that has so much of the prefix still has to read."""
    cached = min(matched_chars // _CHARS_PER_TOKEN, work.input_tokens)
    return work.input_tokens - cached + OVERHEAD_TOKENS


def expected_cost_s(replica: Replica, tokens: int, now_s: float, usual: float) -> float:
    """The expected wait, and the waits of the tries that come after failures: a geometric series."""
    wait_s = replica.expected_wait_s(tokens, now_s, tokens_per_s=usual)
    return wait_s / (1.0 - min(replica.health.failure_share(now_s), 0.95))
