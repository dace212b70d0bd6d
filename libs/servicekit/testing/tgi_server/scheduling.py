"""Continuous batching: a queue in front of a batch whose sequences get their tokens together.

Driven by the event loop's timers alone (no task and no sleep per stream); `answering.py` submits sequences.
"""

import asyncio
import heapq
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import count

from servicekit.testing.tgi_server.dials import Dials

# A late timer is made up for by shorter waits, but no more than this: a machine that cannot keep up does not rush.
_MAKE_UP_S = 0.1
_TOGETHER_S = 0.0005


class Next(Enum):
    """What comes after a token was sent."""

    TOKEN = auto()
    SILENCE = auto()
    END = auto()


@dataclass(eq=False, slots=True)
class Sequence:
    """A generation on its way: `send_token` is called for each token, `admitted` once before the first.

    `admitted` tells how many of the input tokens are new to the prefix cache; `most_tokens` are those of the budget.
    """

    admitted: Callable[[], int]
    send_token: Callable[[], Next]
    input_tokens: int
    most_tokens: int
    ended: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    silent: bool = False


class Scheduler(ABC):
    """The queue and the batch; subclasses say when tokens come."""

    def __init__(self, dials: Callable[[], Dials]) -> None:
        self._dials = dials
        self._loop = asyncio.get_running_loop()
        self.waiting: deque[Sequence] = deque()
        self.batch: dict[Sequence, None] = {}

    async def run(self, sequence: Sequence) -> None:
        """Return once the sequence has ended; cancelled, it has left the queue or the batch at once."""
        self.waiting.append(sequence)
        self._wake()
        try:
            await sequence.ended
        finally:
            if sequence in self.batch:
                del self.batch[sequence]
                self._wake()
            elif sequence in self.waiting:
                self.waiting.remove(sequence)

    @abstractmethod
    def _wake(self) -> None:
        """There may be something new to admit."""

    def _admit(self) -> list[tuple[Sequence, int]]:
        """Take from the queue what fits into the batch, with how many tokens each has to prefill."""
        dials, group, new_tokens = self._dials(), list[tuple[Sequence, int]](), 0
        while self.waiting and self._fits(self.waiting[0], dials):
            if group and 0 < dials.max_batch_prefill_tokens < new_tokens + self.waiting[0].input_tokens:
                break
            sequence = self.waiting.popleft()
            self.batch[sequence] = None
            own_tokens = sequence.admitted()
            new_tokens += own_tokens
            group.append((sequence, own_tokens))
        return group

    def _fits(self, sequence: Sequence, dials: Dials) -> bool:
        if not self.batch:
            return True
        if 0 < dials.max_batch_size <= len(self.batch):
            return False
        if dials.max_batch_total_tokens <= 0:
            return True
        held = sum(other.most_tokens for other in self.batch)
        return held + sequence.most_tokens <= dials.max_batch_total_tokens

    def _send(self, sequence: Sequence) -> bool:
        """Send one token; whether more will come."""
        if sequence not in self.batch or sequence.ended.done():
            return False
        match sequence.send_token():
            case Next.TOKEN:
                return True
            case Next.SILENCE:
                sequence.silent = True
            case Next.END:
                del self.batch[sequence]
                sequence.ended.set_result(None)
        return False


class Lockstep(Scheduler):
    """One operation at a time, as on a GPU: a prefill of newcomers, or a decode step of the whole batch."""

    def __init__(self, dials: Callable[[], Dials]) -> None:
        super().__init__(dials)
        self._busy = False

    def _wake(self) -> None:
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._next, self._loop.time())

    def _next(self, began: float) -> None:
        """Begin the next operation."""
        dials = self._dials()
        if group := self._admit():
            took_s = dials.prefill_s(sum(tokens for _, tokens in group)) + dials.first_token_s
            members = [sequence for sequence, _ in group]
        elif members := [sequence for sequence in self.batch if not sequence.silent]:
            took_s = dials.decode_s(len(members))
        else:
            self._busy = False
            return
        self._loop.call_at(began + took_s, self._finish, members, began + took_s)

    def _finish(self, members: list[Sequence], due: float) -> None:
        """End an operation: a token for each of its sequences that is still there."""
        for sequence in members:
            self._send(sequence)
        self._next(max(due, self._loop.time() - _MAKE_UP_S))


class Paced(Scheduler):
    """Each sequence at its own pace; those due at the same time are served together."""

    def __init__(self, dials: Callable[[], Dials]) -> None:
        super().__init__(dials)
        self._due: list[tuple[float, int, Sequence]] = []
        self._order = count()
        self._timer: asyncio.TimerHandle | None = None
        self._prefill_free_at = 0.0

    def _wake(self) -> None:
        dials, now = self._dials(), self._loop.time()
        for sequence, new_tokens in self._admit():
            self._prefill_free_at = max(self._prefill_free_at, now) + dials.prefill_s(new_tokens)
            self._push(self._prefill_free_at + dials.first_token_s, sequence)
        self._arm()

    def _push(self, due: float, sequence: Sequence) -> None:
        heapq.heappush(self._due, (due, next(self._order), sequence))

    def _arm(self) -> None:
        """Set the timer to whoever is due first."""
        while self._due and self._due[0][2] not in self.batch:
            heapq.heappop(self._due)
        if not self._due:
            return
        due = self._due[0][0]
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._fire)

    def _fire(self) -> None:
        """Serve all that are due."""
        self._timer = None
        dials, now = self._dials(), self._loop.time()
        between_s = 1 / dials.tokens_per_s if dials.tokens_per_s > 0 else 0.0
        served = []
        while self._due and self._due[0][0] <= now + _TOGETHER_S:
            served.append(heapq.heappop(self._due))
        for due, _, sequence in served:
            if self._send(sequence):
                self._push(max(due + between_s, now - _MAKE_UP_S), sequence)
        self._wake()
