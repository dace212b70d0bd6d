"""One attempt at one replica: take a place, generate, count what comes, and say how it ended.

Made by `beginning.py`, which may have two of them race; read to its end by `generating.py`.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from functools import partial

from servicekit.domain.generation import Attempt, EngineEvent, FinishReason, GenerationEnd, TokenEvent, Usage
from servicekit.errors import BackendTimeout, BackendUnavailable, BinnacleError, InvalidRequest, Overloaded
from servicekit.ports.clock import Clock
from services.generator.models import Backend
from services.generator.pool.lease import Choice, Lease
from services.generator.preparing import Prepared
from services.generator.stopwatch import Stopwatch

DEADLINE = "DEADLINE"
LATE = "FIRST_TOKEN_TIMEOUT"
HEDGE_LOST = "HEDGE_LOST"
# Reasons of engines that began no work, so that nothing of the prompt was read.
_UNREAD = frozenset({"CONNECT", "ENGINE_FAILED", "ENGINE_CREDENTIAL", "ENGINE_UNHEALTHY"})


@asynccontextmanager
async def answering(within_s: float, address: str, *, reason: str) -> AsyncIterator[None]:
    """Bound a wait for an engine, by infinity as well.

    Raises:
        BackendTimeout: it did not answer in time.
    """
    try:
        async with asyncio.timeout(None if math.isinf(within_s) else within_s):
            yield
    except TimeoutError as error:
        raise _late(address, reason) from error


def _late(address: str, reason: str) -> BackendTimeout:
    return BackendTimeout(f"engine {address} did not answer in time", reason=reason)


class Trial:
    """An attempt while it runs; afterwards `attempt()` tells what it took, whatever its end."""

    def __init__(self, number: int, backend: Backend, *, clock: Clock) -> None:
        self.number = number
        self.backend = backend
        self.prepared: Prepared | None = None
        self.failure: BinnacleError | None = None
        self.end: GenerationEnd | None = None
        self.started: datetime = clock.now()
        self.output_tokens = 0
        self.logprobs: list[float] = []
        self._clock = clock
        self._start_s = clock.monotonic_s()
        self._first_token_s: float | None = None
        self._end_s: float | None = None
        self.reached = False
        self._lost = False
        self._sent = False
        self._place: AbstractAsyncContextManager[Lease] | None = None
        self._lease: Lease | None = None
        self._address = backend.engine.address
        self._choice = ""
        self._queue_s = 0.0
        self._events: AsyncGenerator[EngineEvent, None] | None = None
        self._first: EngineEvent | None = None

    @property
    def address(self) -> str:
        """The replica's address, or the engine's where none was reached."""
        return self._address

    async def begin(
        self,
        prepared: Prepared,
        *,
        place_within_s: float,
        first_token_within_s: float,
        avoid: frozenset[str] = frozenset(),
        choice: Choice | None = None,
    ) -> None:
        """Take a place and wait for the first event; afterwards `tokens` must be read, or `close` called.

        Raises:
            BinnacleError: as the engine port says; Overloaded where the pool has no place; BackendTimeout where the
                first event did not come in time. The attempt is over then.
        """
        self.prepared = prepared
        try:
            self._place = self.backend.pool.lease(prepared.work, within_s=place_within_s, avoid=avoid, choice=choice)
            lease = self._lease = await self._place.__aenter__()
            self.reached = True
            self._address, self._choice, self._queue_s = lease.engine.address, lease.choice.value, lease.queue_s
            patient = first_token_within_s >= self.backend.engine.first_token_s
            async with answering(first_token_within_s, self._address, reason=LATE if patient else DEADLINE):
                self._events = lease.engine.generate(prepared.request)
                self._sent = True
                self._first = await self._next(self._events)
        except BaseException as error:
            await self.fail(error)
            raise

    async def tokens(self, *, ends_s: float) -> AsyncGenerator[TokenEvent, None]:
        """The tokens, the first one included; returns once the engine has ended the generation.

        `ends_s` is the point on the clock at which all must be over; it may be infinite.

        Raises:
            BinnacleError: as the engine port says, and BackendTimeout where a token or the end did not come in time.
        """
        assert self._events is not None, "begin() comes first"
        events = self._events
        own_end_s = self._start_s + self._queue_s + self.backend.engine.attempt_s
        reason = DEADLINE if ends_s <= own_end_s else "ATTEMPT_TIMEOUT"
        watch = Stopwatch(min(ends_s, own_end_s) - self._clock.monotonic_s())
        event = self._first
        try:
            while isinstance(event, TokenEvent):
                yield event
                event = await watch.wait(partial(self._next, events))
        except TimeoutError as error:
            late = _late(self._address, reason)
            await self.fail(late)
            raise late from error
        except BinnacleError as error:
            await self.fail(error)
            raise
        finally:
            watch.stop()
            await self.close()

    async def _next(self, events: AsyncGenerator[EngineEvent, None]) -> EngineEvent:
        """The next event, counted."""
        event = await anext(events, None)
        if event is None:
            raise BackendUnavailable(f"engine {self._address} gave no end", reason="STREAM_CUT")
        if isinstance(event, GenerationEnd):
            self.end = event
        else:
            self._count(event)
        return event

    def _count(self, event: TokenEvent) -> None:
        if self._first_token_s is None:
            self._first_token_s = self._clock.monotonic_s()
        self.output_tokens += event.token_count
        if event.logprobs:
            self.logprobs.extend(one.logprob for one in event.logprobs)
        if self._lease is not None:
            self._lease.received(event.token_count)

    async def fail(self, error: BaseException) -> None:
        """Say why it ends, to the pool as well where the replica is to blame, and end it."""
        if isinstance(error, BinnacleError):
            self.failure = error
            # A caller's short deadline is no fault of the replica's.
            if self._lease is not None and error.reason != DEADLINE:
                self._lease.failed(error)
        await self.close()

    def lose(self) -> None:
        """The other of two was faster; it is to be closed, or its task cancelled."""
        self._lost = True

    async def close(self) -> None:
        """End it, the work at the engine as well; the first call counts."""
        if self._end_s is None:
            self._end_s = self._clock.monotonic_s()
        events, self._events = self._events, None
        place, self._place = self._place, None
        try:
            if events is not None:
                await events.aclose()
        finally:
            if place is not None and self._lease is not None:
                await place.__aexit__(None, None, None)
            self._lease = None

    @property
    def read_prompt(self) -> bool:
        """Whether the engine may have read the prompt, as far as can be known."""
        if self.end is not None or self._first_token_s is not None:
            return True
        nothing = isinstance(self.failure, Overloaded | InvalidRequest)
        return self._sent and not nothing and (self.failure is None or self.failure.reason not in _UNREAD)

    def attempt(self) -> Attempt:
        """What it took.

        Where the engine never told, the input is that of `prepared.input_count` and the output what came; a token that
        was on its way when the connection closed is not known of.
        """
        usage = self._usage()
        info = self.prepared.info if self.prepared else None
        end_s = self._clock.monotonic_s() if self._end_s is None else self._end_s
        first_s = self._first_token_s
        return Attempt(
            number=self.number,
            model_alias=self.backend.route.alias,
            model=info.model if info else "",
            revision=info.revision if info else "",
            engine=self._address,
            usage=usage,
            cost=self.backend.engine.prices.at(self.started).cost(usage),
            duration_s=end_s - self._start_s,
            time_to_first_token_s=None if first_s is None else first_s - self._start_s,
            finish_reason=self._finish_reason(),
            error_reason=HEDGE_LOST if self._lost else self.failure.reason if self.failure else "",
            adapter=self.prepared.request.adapter if self.prepared else "",
            choice=self._choice,
            queue_s=self._queue_s,
        )

    def _finish_reason(self) -> FinishReason:
        if self.failure is not None:
            return FinishReason.DEADLINE if self.failure.reason == DEADLINE else FinishReason.ERROR
        return self.end.finish_reason if self.end is not None else FinishReason.CANCELLED

    def _usage(self) -> Usage:
        if self.end is not None:
            return self.end.usage
        if not self.read_prompt or self.prepared is None:
            return Usage()
        count = self.prepared.input_count
        # An engine that was silent may have generated what never came.
        estimated = count is None or count.estimated or isinstance(self.failure, BackendTimeout)
        return Usage(count.tokens if count else 0, self.output_tokens, estimated=estimated)
