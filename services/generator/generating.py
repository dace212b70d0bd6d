"""Answers a question: by the model that was asked for, or by what stands in for it until the first token.

Called by `server.py`; yields tokens, then one answer with everything that is known of how it was made.
"""

import math
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field

import structlog

from servicekit.domain.generation import Attempt, Cost, Degradation, FinishReason, TokenEvent, Usage
from servicekit.domain.output_schema import OutputSchema
from servicekit.domain.prompt import PromptRef, Sampling
from servicekit.errors import BackendUnavailable, BinnacleError, InvalidRequest, Overloaded
from servicekit.ports.clock import Clock
from services.generator.accounting import Account, total_cost, total_usage
from services.generator.attempting import DEADLINE, LATE, Trial, answering
from services.generator.beginning import ENGINE_FAILURES, Beginning, Limits
from services.generator.citations import Citations, find_citations
from services.generator.json_answers import OUTPUT_INVALID, check_answer, citable, read_schema
from services.generator.models import Backend, Models
from services.generator.packing import Packed
from services.generator.preparing import Question, prepare
from services.generator.templates import PromptLibrary

__all__ = ["Answer", "Generator", "Question", "Spent"]

log = structlog.get_logger()


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
    sampling: Sampling
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
        self, question: Question, *, remaining_s: float = math.inf, hold: bool = False
    ) -> AsyncGenerator[TokenEvent | Answer | Spent, None]:
        """Tokens, then the answer; before an error of an engine what was spent.

        A replica that fails before its first token is replaced by another, an engine by the next of the chain; a later
        failure is raised with the metadata `resumable`, `released_tokens` and `released_chars`. With `hold` all tokens
        come at the end, so that whatever fails until then may be done over; an answer that breaks its schema is
        asked of the next engine.
        Closing the generator cancels the work at the engine.

        Raises:
            NotFound: no such model or prompt.
            ContextWindowExceeded, InvalidRequest: the question can be answered by no engine as it stands.
            Overloaded, BackendUnavailable, BackendTimeout: no engine answered, or one broke off; OUTPUT_INVALID where
                the answer breaks its schema.
        """
        schema = await read_schema(question.output_schema)
        work = _Work(question, schema, self._chain(question), self._clock.monotonic_s() + remaining_s)
        account = Account(question.request_id, clock=self._clock)
        try:
            try:
                trial, held = await (self._held(work, account) if hold else self._begun(work, account))
                pieces = [token.text for token in held]
                for token in held:
                    yield token
                if not hold:
                    with _released_told(trial, pieces):
                        async with aclosing(trial.tokens(ends_s=work.ends_s)) as tokens:
                            async for token in tokens:
                                pieces.append(token.text)
                                yield token
                        await check_answer(schema, "".join(pieces), trial)
            except BinnacleError:
                if account.trials:
                    yield Spent(await account.settle())
                raise
            yield self._answer("".join(pieces), question, trial, await account.settle(), account)
        finally:
            await account.settle()

    async def _begun(self, work: "_Work", account: Account) -> tuple[Trial, list[TokenEvent]]:
        """An attempt whose tokens are still to be read."""
        return await self._first_token(work, account), []

    async def _held(self, work: "_Work", account: Account) -> tuple[Trial, list[TokenEvent]]:
        """All tokens of the first attempt that comes to a good end."""
        while True:
            trial = await self._first_token(work, account)
            try:
                async with aclosing(trial.tokens(ends_s=work.ends_s)) as tokens:
                    held = [token async for token in tokens]
                await check_answer(work.schema, "".join(token.text for token in held), trial)
            except ENGINE_FAILURES as error:
                work.failures.append(error)
                if error.reason != OUTPUT_INVALID and account.may_ask_again(trial.backend):
                    work.pending.appendleft(trial.backend)
                if not work.pending or self._clock.monotonic_s() >= work.ends_s:
                    raise _most_telling(work.failures) from error
            else:
                return trial, held

    async def _first_token(self, work: "_Work", account: Account) -> Trial:
        """The attempt that gave a first token, by the first engine still pending that has one to give."""
        while work.pending:
            backend = work.pending.popleft()
            limits = Limits(work.ends_s, last=not work.pending)
            stands_in = backend.route.alias != work.alias
            try:
                return await self._begin(work.question, backend, account, limits=limits, stands_in=stands_in)
            except BinnacleError as error:
                # A stand-in's smaller window, or its lack of an adapter, is no fault of the question's.
                first = account.trials[0].backend is backend
                if not isinstance(error, ENGINE_FAILURES) and (first or not isinstance(error, InvalidRequest)):
                    raise
                work.failures.append(error)
        raise _most_telling(work.failures)

    def _chain(self, question: Question) -> deque[Backend]:
        """The engines to try, in order; sentences of the chunks are no answer by a schema."""
        models = self._models.chain(question.model)
        backends = [backend for model in models for backend in model.ordered(question.request_id)]
        if question.output_schema:
            backends = [backend for backend in backends if not backend.route.extractive] or backends
        return deque(backends)

    async def _begin(
        self, question: Question, backend: Backend, account: Account, *, limits: Limits, stands_in: bool
    ) -> Trial:
        trial = account.trial(backend)
        left_s = max(0.0, limits.ends_s - self._clock.monotonic_s())
        within_s = left_s if limits.last else min(backend.engine.first_token_s, left_s)
        try:
            async with answering(within_s, trial.address, reason=DEADLINE if within_s == left_s else LATE):
                prepared = await prepare(question, backend, self._prompts, stands_in=stands_in)
        except BinnacleError as error:
            await trial.fail(error)
            raise
        return await Beginning(backend, prepared, account, limits=limits, clock=self._clock).first_token(trial)

    def _answer(
        self, text: str, question: Question, final: Trial, attempts: tuple[Attempt, ...], account: Account
    ) -> Answer:
        assert final.end is not None
        assert final.prepared is not None
        packed = final.prepared.packed
        answer = Answer(
            text=text,
            citations=find_citations(citable(text) if question.output_schema else text, packed.context),
            finish_reason=final.end.finish_reason,
            attempts=attempts,
            usage=total_usage(attempts),
            cost=total_cost(attempts),
            prompt=final.prepared.prompt,
            packed=packed,
            degradations=_degradations(account.trials, final, packed),
            refused=final.end.refused,
            sampling=final.prepared.request.sampling,
            mean_logprob=math.fsum(final.logprobs) / len(final.logprobs) if final.logprobs else None,
        )
        _log(answer, question, final)
        return answer


@dataclass(slots=True)
class _Work:
    """A request under way: the engines not asked yet, and what those failed with that were."""

    question: Question
    schema: OutputSchema | None
    pending: deque[Backend]
    ends_s: float
    alias: str = field(init=False)
    failures: list[BinnacleError] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.alias = self.pending[0].route.alias


def _most_telling(failures: list[BinnacleError]) -> BinnacleError:
    """Of what every engine of a chain failed with: the shortest wait if one is only busy, else the last engine's."""
    engines = [failure for failure in failures if isinstance(failure, ENGINE_FAILURES)]
    last = engines[-1] if engines else failures[-1]
    busy = [failure for failure in engines if isinstance(failure, Overloaded)]
    if busy and isinstance(last, Overloaded | BackendUnavailable):
        return min(busy, key=lambda failure: failure.retry_after_s)
    return last


@contextmanager
def _released_told(trial: Trial, pieces: list[str]) -> Iterator[None]:
    """An error then says how much went out before it broke off, and that asking again may end better."""
    try:
        yield
    except BinnacleError as error:
        error.metadata |= {
            "resumable": str(isinstance(error, ENGINE_FAILURES)).lower(),
            "released_tokens": str(trial.output_tokens),
            "released_chars": str(sum(map(len, pieces))),
        }
        raise


def _degradations(trials: list[Trial], final: Trial, packed: Packed) -> tuple[Degradation, ...]:
    """Another replica or engine of the same alias is as good; another alias is not."""
    found = []
    asked = trials[0].backend.route
    answered = final.backend.route
    if answered.alias != asked.alias:
        failures = [trial.failure for trial in trials if trial.failure is not None]
        rung = "extractive_answer" if answered.extractive else "fallback_model"
        found.append(Degradation(rung, failures[0].reason))
    if packed.dropped_chunks:
        found.append(Degradation("fewer_chunks", "CONTEXT_WINDOW"))
    if packed.shortened_chunks:
        found.append(Degradation("shorter_chunks", "CONTEXT_WINDOW"))
    if packed.dropped_messages:
        found.append(Degradation("shorter_history", "CONTEXT_WINDOW"))
    return tuple(found)


def _log(answer: Answer, question: Question, final: Trial) -> None:
    log.info(
        "generation.completed",
        request_id=question.request_id,
        model=final.backend.route.alias,
        finish_reason=answer.finish_reason.value,
        input_tokens=answer.usage.input_tokens,
        output_tokens=answer.usage.output_tokens,
        cost_microusd=answer.cost.microusd,
        attempts=len(answer.attempts),
        chunks=len(answer.packed.context),
        elapsed_ms=round(final.attempt().duration_s * 1000),
    )
