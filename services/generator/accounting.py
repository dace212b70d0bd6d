"""What a request took: every attempt, its tokens counted exactly where that is possible, its money, its record.

Kept by `generating.py`, one account a request; told to metrics, traces and the log when it is settled.
"""

import asyncio
from collections.abc import Iterable

import structlog

from servicekit.domain.generation import Attempt, Cost, TokenCount, Usage
from servicekit.domain.token_estimate import estimate_tokens
from servicekit.errors import BinnacleError
from servicekit.ports.clock import Clock
from services.generator.attempting import Trial
from services.generator.metrics import observe_attempt
from services.generator.models import Backend
from services.generator.preparing import Prepared
from services.generator.tracing import trace_attempt

# How long a request that broke off is held to have its prompt counted.
_COUNT_WITHIN_S = 1.0

log = structlog.get_logger()


class Account:
    """The attempts of one request."""

    def __init__(self, request_id: str, *, clock: Clock) -> None:
        self._request_id = request_id
        self._clock = clock
        self._settled = False
        self.trials: list[Trial] = []

    def trial(self, backend: Backend) -> Trial:
        """Begin an attempt."""
        trial = Trial(len(self.trials) + 1, backend, clock=self._clock)
        self.trials.append(trial)
        return trial

    def forget(self, trial: Trial) -> None:
        """It never came to anything: no place was found for it."""
        self.trials.remove(trial)

    def tried(self, backend: Backend) -> frozenset[str]:
        """The replicas of this engine that were reached."""
        return frozenset(trial.address for trial in self.trials if trial.backend is backend and trial.reached)

    def may_ask_again(self, backend: Backend) -> bool:
        """Whether another replica of this engine may be tried."""
        tries = sum(trial.backend is backend for trial in self.trials)
        return tries <= backend.engine.retries and backend.has_other_than(self.tried(backend))

    async def settle(self) -> tuple[Attempt, ...]:
        """Count what is not yet known, and tell of every attempt once; the attempts, in order.

        A prompt is counted after the fact where an engine that read it never told how long it was: by what another
        replica told of the same prompt, else by the engine's tokenizer, else as an estimate marked so.
        """
        if self._settled:
            return self.attempts()
        self._settled = True
        try:
            for trial in self.trials:
                if trial.end is None and trial.read_prompt and trial.prepared is not None:
                    await self._count_input(trial, trial.prepared)
        finally:
            attempts = self.attempts()
            for attempt, trial in zip(attempts, self.trials, strict=True):
                observe_attempt(attempt)
                trace_attempt(attempt, started=trial.started)
                self._log(attempt)
        return attempts

    def attempts(self) -> tuple[Attempt, ...]:
        """Every attempt so far."""
        return tuple(trial.attempt() for trial in self.trials)

    async def _count_input(self, trial: Trial, prepared: Prepared) -> None:
        if prepared.input_count is not None:
            return
        messages = prepared.request.messages
        estimate = sum(estimate_tokens(message.content) for message in messages)
        prepared.input_count = TokenCount(estimate, estimated=True)  # stands if the counting is cancelled
        told = self._told(prepared)
        if told is not None:
            prepared.input_count = told
            return
        try:
            async with asyncio.timeout(_COUNT_WITHIN_S):
                prepared.input_count = await trial.backend.counts.count(messages, info=prepared.info)
        except (BinnacleError, TimeoutError):
            return

    def _told(self, prepared: Prepared) -> TokenCount | None:
        """What a replica told of the same prompt."""
        ends = (trial.end for trial in self.trials if trial.prepared is prepared and trial.end is not None)
        exact = (end.usage.input_tokens for end in ends if not end.usage.estimated)
        tokens = next(exact, None)
        return None if tokens is None else TokenCount(tokens, estimated=False)

    def _log(self, attempt: Attempt) -> None:
        tell = log.warning if attempt.error_reason else log.info
        tell(
            "attempt.ended",
            request_id=self._request_id,
            number=attempt.number,
            model=attempt.model_alias,
            engine=attempt.engine,
            choice=attempt.choice,
            finish_reason=attempt.finish_reason.value,
            reason=attempt.error_reason,
            input_tokens=attempt.usage.input_tokens,
            output_tokens=attempt.usage.output_tokens,
            cached_tokens=attempt.usage.cached_tokens,
            estimated=attempt.usage.estimated,
            cost_microusd=attempt.cost.microusd,
            queue_ms=round(attempt.queue_s * 1000),
            elapsed_ms=round(attempt.duration_s * 1000),
        )


def total_usage(attempts: Iterable[Attempt]) -> Usage:
    """The tokens of all attempts."""
    return sum((attempt.usage for attempt in attempts), Usage())


def total_cost(attempts: Iterable[Attempt]) -> Cost:
    """The money of all attempts, under the version of the last."""
    costs = [attempt.cost for attempt in attempts]
    return Cost(sum(cost.microusd for cost in costs), costs[-1].price_version if costs else "")
