"""How fast a replica works, learnt from what its leases tell; recent work counts most.

Pure; kept by `replica.py`, read where waits are expected.
"""

import math


class DecayingRate:
    """Amount per second of work, old work forgotten by half for every `half_life_s` of it."""

    def __init__(self, half_life_s: float) -> None:
        self._half_life_s = half_life_s
        self._amount = 0.0
        self._seconds = 0.0

    def add(self, amount: float, seconds: float) -> None:
        """So much was done in so many seconds (0 of it where they were spent in vain)."""
        keep = math.pow(0.5, seconds / self._half_life_s)
        self._amount = self._amount * keep + amount
        self._seconds = self._seconds * keep + seconds

    @property
    def per_s(self) -> float | None:
        """The rate; None until something was done."""
        if self._amount <= 0 or self._seconds <= 0:
            return None
        return self._amount / self._seconds


class Backlog:
    """Drains of what waits for a first token: how many prompt tokens a second get theirs while any wait.

    Queueing, prefill and the decoding between them are all in it, so that a backlog divided by the rate is a wait. Only
    time in which something waits counts: an idle replica stays as fast as it was.
    """

    def __init__(self, *, half_life_s: float = 4.0) -> None:
        self.tokens = 0
        self._rate = DecayingRate(half_life_s)
        self._waiting = 0
        self._since_s = 0.0

    @property
    def waiting(self) -> int:
        """Requests without a first token."""
        return self._waiting

    @property
    def tokens_per_s(self) -> float | None:
        """The rate of drain; None until known."""
        return self._rate.per_s

    def put(self, tokens: int, now_s: float) -> None:
        """A request with so many tokens was sent."""
        if self._waiting == 0:
            self._since_s = now_s
        self._waiting += 1
        self.tokens += tokens

    def take(self, tokens: int, now_s: float, *, served: bool) -> None:
        """It got its first token, or it is over without one."""
        self._waiting -= 1
        self.tokens -= tokens
        self._rate.add(tokens if served else 0.0, max(now_s - self._since_s, 1e-6))
        self._since_s = now_s
