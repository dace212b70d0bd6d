"""Answers a question: by the model that was asked for, or by what stands in for it until the first token.

Called by `server.py`; yields tokens, then one answer with everything that is known of how it was made.
"""

import math
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

import structlog

from servicekit.domain.generation import Attempt, Cost, Degradation, FinishReason, TokenEvent, Usage
from servicekit.domain.prompt import PromptRef, Sampling
from servicekit.errors import (
    BackendTimeout,
    BackendUnavailable,
    BinnacleError,
    ContextWindowExceeded,
    NotReady,
    Overloaded,
)
from servicekit.ports.clock import Clock
from services.generator.attempting import Task, Trial
from services.generator.citations import Citations, find_citations
from services.generator.metrics import ATTEMPTS, FIRST_TOKEN_SECONDS, TOKENS
from services.generator.models import Model, Models
from services.generator.packing import Packed, Prompt
from services.generator.templates import PromptLibrary
from services.generator.tracing import attempt_span

# Of what is left of the deadline, how much a model may wait for its first token while others could stand in.
_FIRST_TOKEN_SHARE = 0.6
# Any other error lies in the request, and no other engine would help.
_ENGINE_FAILURES = (BackendUnavailable, BackendTimeout, Overloaded, NotReady)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Question:
    """A question with what may be used to answer it; empty `model`, `prompt_id` and `adapter` mean the defaults."""

    prompt: Prompt
    model: str = ""
    sampling: Sampling = field(default_factory=Sampling)
    prompt_id: str = ""
    request_id: str = ""
    tenant: str = ""
    output_schema: str = ""
    adapter: str = ""
    want_logprobs: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """The end of a generation; `text` is all tokens joined, usage and cost are those of all attempts.

    `sampling` are the settings in force, those of the route and a pinned seed included; `mean_logprob` is None unless
    asked for and told by the engine.
    """

    text: str
    citations: Citations
    finish_reason: FinishReason
    attempts: tuple[Attempt, ...]
    usage: Usage
    cost: Cost
    prompt: PromptRef
    packed: Packed
    degradations: tuple[Degradation, ...]
    refused: bool
    sampling: Sampling = field(default_factory=Sampling)
    mean_logprob: float | None = None


@dataclass(frozen=True, slots=True)
class Spent:
    """What a generation took that ends in an error: no answer tells it."""

    attempts: tuple[Attempt, ...]


class Generator:
    """Drives the models."""

    def __init__(self, models: Models, prompts: PromptLibrary, *, clock: Clock) -> None:
        self._models = models
        self._prompts = prompts
        self._clock = clock

    async def answer(
        self, question: Question, *, remaining_s: float = math.inf
    ) -> AsyncGenerator[TokenEvent | Answer | Spent, None]:
        """Tokens, then the answer; before an error of an engine what was spent.

        A model that fails before its first token is replaced by the next of its chain; later failures are raised.
        Closing the generator cancels the work at the engine.

        Raises:
            NotFound: no such model or prompt.
            ContextWindowExceeded, InvalidRequest: the question can be answered by no engine as it stands.
            Overloaded, BackendUnavailable, BackendTimeout: no engine answered, or one broke off.
        """
        chain = self._models.chain(question.model)
        ends_s = self._clock.monotonic_s() + remaining_s
        trials: list[Trial] = []
        for place, model in enumerate(chain):
            last = place == len(chain) - 1
            trial = Trial(place + 1, model, self._task(question, model), clock=self._clock)
            trials.append(trial)
            text: list[str] = []
            try:
                async with aclosing(self._attempt(trial, ends_s=ends_s, last=last)) as tokens:
                    async for token in tokens:
                        text.append(token.text)
                        yield token
            except BinnacleError as error:
                if last or trial.released or not _lies_with_engine(error, first=place == 0):
                    yield Spent(tuple(trial.attempt() for trial in trials))
                    raise
                _log_failure(trial, error, question)
            else:
                yield self._answer("".join(text), question, trials)
                return

    async def _attempt(self, trial: Trial, *, ends_s: float, last: bool) -> AsyncGenerator[TokenEvent, None]:
        """The tokens of one attempt; the last of the chain may wait for its first as long as time is left."""
        left_s = max(0.0, ends_s - self._clock.monotonic_s())
        wait_s = left_s if last else min(trial.model.route.first_token_s, left_s * _FIRST_TOKEN_SHARE)
        try:
            with attempt_span(trial):
                async with aclosing(trial.tokens(first_token_within_s=wait_s, ends_s=ends_s)) as tokens:
                    async for token in tokens:
                        yield token
        finally:
            _count(trial)

    def _task(self, question: Question, model: Model) -> Task:
        template = self._prompts.get(question.prompt_id or model.route.prompt_id)
        return Task(question.prompt, template, question.sampling, question.request_id)

    def _answer(self, text: str, question: Question, trials: list[Trial]) -> Answer:
        final = trials[-1]
        if final.end is None or final.packed is None:
            raise BackendUnavailable(f"engine {final.model.engine.address} gave no end", reason="STREAM_CUT")
        attempts = tuple(trial.attempt() for trial in trials)
        answer = Answer(
            text=text,
            citations=find_citations(text, final.packed.context),
            finish_reason=final.end.finish_reason,
            attempts=attempts,
            usage=sum((attempt.usage for attempt in attempts), Usage()),
            cost=Cost(sum(attempt.cost.microusd for attempt in attempts), attempts[-1].cost.price_version),
            prompt=self._task(question, final.model).template.ref,
            packed=final.packed,
            degradations=_degradations(trials, final.packed),
            refused=final.end.refused,
        )
        _log(answer, question)
        return answer


def _lies_with_engine(error: BinnacleError, *, first: bool) -> bool:
    """Whether another engine may do better; a stand-in's smaller window is no fault of the question."""
    return isinstance(error, _ENGINE_FAILURES) or (isinstance(error, ContextWindowExceeded) and not first)


def _degradations(trials: list[Trial], packed: Packed) -> tuple[Degradation, ...]:
    found = []
    failures = [trial.failure for trial in trials if trial.failure is not None]
    if failures:
        rung = "extractive_answer" if trials[-1].model.route.extractive else "fallback_model"
        found.append(Degradation(rung, failures[0].reason))
    if packed.dropped_chunks:
        found.append(Degradation("fewer_chunks", "CONTEXT_WINDOW"))
    if packed.dropped_messages:
        found.append(Degradation("shorter_history", "CONTEXT_WINDOW"))
    return tuple(found)


def _count(trial: Trial) -> None:
    attempt = trial.attempt()
    alias = attempt.model_alias
    ATTEMPTS.labels(alias, attempt.finish_reason.value).inc()
    TOKENS.labels(alias, "input").inc(attempt.usage.input_tokens)
    TOKENS.labels(alias, "output").inc(attempt.usage.output_tokens)
    if attempt.time_to_first_token_s is not None:
        FIRST_TOKEN_SECONDS.labels(alias).observe(attempt.time_to_first_token_s)


def _log_failure(trial: Trial, error: BinnacleError, question: Question) -> None:
    log.warning(
        "attempt.failed",
        model=trial.model.route.alias,
        engine=trial.model.engine.address,
        reason=error.reason,
        request_id=question.request_id,
    )


def _log(answer: Answer, question: Question) -> None:
    final = answer.attempts[-1]
    log.info(
        "generation.completed",
        request_id=question.request_id,
        model=final.model_alias,
        finish_reason=answer.finish_reason.value,
        input_tokens=answer.usage.input_tokens,
        output_tokens=answer.usage.output_tokens,
        attempts=len(answer.attempts),
        chunks=len(answer.packed.context),
        elapsed_ms=round(final.duration_s * 1000),
    )
