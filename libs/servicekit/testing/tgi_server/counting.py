"""What the contract server served: totals, and every generation by itself, so that accounting can be reconciled.

Filled by `answering.py` and `server.py`; told by `GET /counts` and `GET /counts/generations`.
"""

import time
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

_KEPT_GENERATIONS = 100_000


class End(StrEnum):
    """How a generation ended; `cancelled`: its caller hung up, `refused`: it never began."""

    OPEN = "open"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"
    REFUSED = "refused"


class Stage(StrEnum):
    """How far a generation came."""

    QUEUED = "queued"
    PREFILL = "prefill"
    DECODE = "decode"


@dataclass(slots=True)
class Generation:
    """One generation; `id` is the caller's `x-request-id`, else a number of ours.

    `output_tokens` are those generated before its end, the end-of-sequence token among them; `cached_tokens` of the
    input were found in the prefix cache. Times are seconds, `started_at_s` and `ended_at_s` on the machine's monotonic
    clock. `noticed_s` is how long after the hang-up was seen on the socket a cancelled one had left the batch.
    """

    id: str
    route: str
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    end: End = End.OPEN
    stage: Stage = Stage.QUEUED
    adapter: str = ""
    seed: int | None = None
    fault: str = ""
    started_at_s: float = field(default_factory=time.monotonic)
    ended_at_s: float = 0.0
    queue_s: float = 0.0
    first_token_s: float | None = None
    noticed_s: float | None = None


@dataclass(slots=True)
class Counts:
    """Totals; every generation that began ended `completed`, `cancelled` or `failed`, or is `open`."""

    requests: int = 0
    generations: int = 0
    completed: int = 0
    cancelled: int = 0
    failed: int = 0
    refused: int = 0
    open: int = 0
    most_open: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    most_noticed_s: float = 0.0


class Ledger:
    """Counts generations from their start to whatever end they have; the last 100,000 are kept."""

    def __init__(self) -> None:
        self.counts = Counts()
        self.generations: deque[Generation] = deque(maxlen=_KEPT_GENERATIONS)

    def begin(self, generation: Generation) -> None:
        """A generation was accepted: it is open until `close`."""
        self.generations.append(generation)
        self.counts.generations += 1
        self.counts.open += 1
        self.counts.most_open = max(self.counts.most_open, self.counts.open)
        self.counts.input_tokens += generation.input_tokens

    def cached(self, generation: Generation, tokens: int) -> None:
        """Of its input, `tokens` were in the prefix cache."""
        generation.cached_tokens = tokens
        self.counts.cached_tokens += tokens

    def token(self, generation: Generation) -> None:
        """One more token was generated."""
        if generation.output_tokens == 0:
            generation.first_token_s = time.monotonic() - generation.started_at_s
        generation.output_tokens += 1
        self.counts.output_tokens += 1

    def close(self, generation: Generation, end: End, *, lost_at_s: float | None = None) -> None:
        """A generation ended; `lost_at_s` is when its caller was seen to hang up."""
        generation.end, generation.ended_at_s = end, time.monotonic()
        self.counts.open -= 1
        self.counts.completed += end is End.COMPLETED
        self.counts.cancelled += end is End.CANCELLED
        self.counts.failed += end is End.FAILED
        if end is End.CANCELLED and lost_at_s is not None:
            generation.noticed_s = generation.ended_at_s - lost_at_s
            self.counts.most_noticed_s = max(self.counts.most_noticed_s, generation.noticed_s)

    def refuse(self, identity: str, route: str) -> None:
        """A generation was refused before it began."""
        self.counts.refused += 1
        refused = Generation(identity, route, end=End.REFUSED)
        refused.ended_at_s = refused.started_at_s
        self.generations.append(refused)

    def of(self, identity: str) -> list[Generation]:
        """The generations of one request id, in the order they came."""
        return [generation for generation in self.generations if generation.id == identity]
