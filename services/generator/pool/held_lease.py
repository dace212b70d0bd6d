"""A lease that is held: keeps the replica's books in step with what becomes of the work.

Implements `lease.Lease`; made and released by `replica_pool.py`.
"""

from typing import Protocol

from servicekit.errors import BinnacleError
from servicekit.ports.clock import Clock
from servicekit.ports.engine import Engine
from services.generator.pool.lease import Choice, Work
from services.generator.pool.replica import Replica


class Told(Protocol):
    """Who wants to know what becomes of leases."""

    def first_token(self, replica: Replica, took_s: float) -> None:
        """The first token came."""
        ...

    def failure(self, replica: Replica) -> None:
        """The work failed at the replica."""
        ...


class HeldLease:
    """A place at a replica until `release`, which may come at any time and counts once."""

    def __init__(
        self,
        key: int,
        replica: Replica,
        work: Work,
        *,
        choice: Choice,
        prefill_tokens: int,
        clock: Clock,
        told: Told,
    ) -> None:
        self._key = key
        self._replica = replica
        self._choice = choice
        self._prefill_tokens = prefill_tokens
        self._clock = clock
        self._told = told
        self._awaited = work.output_tokens
        self._received = 0
        self._first_s: float | None = None
        self._failed = False
        self._released = False
        self.queue_s = 0.0
        self.begun_s = clock.monotonic_s()
        replica.place(key, prefill_tokens, self._awaited, self.begun_s)

    @property
    def replica(self) -> Replica:
        """Where it is."""
        return self._replica

    @property
    def engine(self) -> Engine:
        """The replica's engine."""
        return self._replica.engine

    @property
    def choice(self) -> Choice:
        """Why this one."""
        return self._choice

    def received(self, tokens: int) -> None:
        """Tokens came; the first call is the first token."""
        if self._released:
            return
        if self._first_s is None:
            self._first_s = self._clock.monotonic_s()
            took_s = self._replica.first_token(self._key, self._prefill_tokens, self._first_s)
            self._told.first_token(self._replica, took_s)
        self._received += tokens
        settled = min(tokens, self._awaited)
        self._awaited -= settled
        self._replica.decoded(settled)

    def failed(self, error: BinnacleError) -> None:
        """The work ended in an error; counts once, and not after the lease."""
        if self._failed or self._released:
            return
        self._failed = True
        self._replica.failed(error, self._clock.monotonic_s())
        self._told.failure(self._replica)

    def release(self) -> None:
        """Give the place back."""
        if self._released:
            return
        self._released = True
        now_s = self._clock.monotonic_s()
        self._replica.decoded(self._awaited)
        self._replica.leave(self._key, self._prefill_tokens, now_s)
        if self._first_s is not None and self._received > 1:
            self._replica.decoding.add(self._received - 1, max(now_s - self._first_s, 1e-6))
