"""What a pool is asked for, and what it gives: a place at one replica, held until the work there has ended.

Pure; made by `replica_pool.py`, used by `attempting.py`, which tells the lease what comes of it.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from servicekit.errors import BinnacleError
from servicekit.ports.engine import Engine


class Choice(StrEnum):
    """Why this replica."""

    ONLY = "only"
    AFFINITY = "affinity"
    SHORTER_WAIT = "shorter_wait"
    PROBE = "probe"
    RETRY = "retry"
    HEDGE = "hedge"


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be placed.

    `prefix` is what the prompt begins with, for replicas that may have it in their cache (compared by blocks; the
    beginning of the first message, say); `input_tokens` and `output_tokens` are what it takes at most.
    """

    tenant: str
    prefix: str
    input_tokens: int
    output_tokens: int


class Lease(Protocol):
    """A place at one replica."""

    @property
    def engine(self) -> Engine:
        """The replica's engine."""
        ...

    @property
    def choice(self) -> Choice:
        """Why this one."""
        ...

    @property
    def queue_s(self) -> float:
        """How long the place was waited for."""
        ...

    def received(self, tokens: int) -> None:
        """Tokens came; the first call is the first token."""
        ...

    def failed(self, error: BinnacleError) -> None:
        """The work ended in an error of the replica's; it counts towards its ejection."""
        ...
