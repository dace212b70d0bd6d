"""The record of one request while it grows: what `InteractionCompleted` and the answer are made from.

Pure; opened and closed by `answering.py`, filled by the stages. Only text that a guard has passed is kept for
the event: `query` and `recorded_answer` are empty where nothing was redacted because nothing was judged.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime

from opentelemetry.trace import Span

from servicekit.domain.generation import Cost, Degradation, FinishReason, Usage
from servicekit.domain.output_schema import OutputSchema
from servicekit.domain.prompt import Message, Sampling
from servicekit.domain.verdict import Action, Verdict
from servicekit.ports.clock import Clock
from servicekit.telemetry.tracing import part
from services.gateway.answer import Answer, ChunkUse, Outcome, StageTiming
from services.gateway.backends import (
    NO_COST,
    NO_USAGE,
    AnswerCitation,
    CheckContext,
    FoundChunk,
    Generated,
    SearchResult,
)
from services.gateway.question import Asker, Question
from services.gateway.release import Piece, relocate
from services.gateway.routes import Route

_MICROSECONDS = 1_000_000


@dataclass(slots=True)
class Interaction:
    """Everything known of one accepted request; `outcome` is set exactly once, by `close`."""

    question: Question
    asker: Asker
    route: Route
    request_id: str
    clock: Clock
    deadline_granted_s: float
    accept_time: datetime = field(init=False)
    started_s: float = field(init=False)
    output_schema: OutputSchema | None = None
    conversation_id: str = ""
    asked: str | None = None
    history: tuple[Message, ...] = ()
    search: SearchResult | None = None
    context_chunks: tuple[FoundChunk, ...] = ()
    generated: Generated | None = None
    citations: tuple[AnswerCitation, ...] = ()
    tokens_seen: int = 0
    released: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list, repr=False)
    stand_in: str | None = None
    finish_reason: FinishReason | None = None
    policy_version: str = ""
    verdicts: list[Verdict] = field(default_factory=list)
    degradations: list[Degradation] = field(default_factory=list)
    timings: list[StageTiming] = field(default_factory=list)
    retracted: bool = False
    first_token_s: float | None = None
    unguarded: bool = False
    outcome: Outcome | None = None
    error_reason: str = ""
    complete_time: datetime | None = None
    duration_s: float = 0.0

    def __post_init__(self) -> None:
        self.accept_time = self.clock.now()
        self.started_s = self.clock.monotonic_s()
        self.unguarded = not self.route.guard

    @property
    def context(self) -> CheckContext:
        """What the guardrail is told of where a text belongs."""
        return CheckContext(self.request_id, self.conversation_id, self.question.route)

    @contextmanager
    def stage(self, name: str) -> Iterator[Span]:
        """Times and traces a stage, whatever its end."""
        start = self.clock.monotonic_s()
        try:
            with part(name) as span:
                yield span
        finally:
            self.add_timing(name, start, self.clock.monotonic_s() - start)

    def add_timing(self, name: str, start_s: float, duration_s: float) -> None:
        """Adds a stage that was timed elsewhere; `start_s` is of the interaction's clock."""
        offset_us = max(0, round((start_s - self.started_s) * _MICROSECONDS))
        self.timings.append(StageTiming(name, offset_us, max(0, round(duration_s * _MICROSECONDS))))

    def degrade(self, rung: str, cause: str) -> None:
        """Notes that something was left out."""
        self.degradations.append(Degradation(rung, cause))

    def note_verdicts(self, verdicts: Iterable[Verdict], policy_version: str) -> tuple[Verdict, ...]:
        """Keeps every verdict but allow; returns those that are new."""
        self.policy_version = policy_version or self.policy_version
        kept = tuple(verdict for verdict in verdicts if verdict.action is not Action.ALLOW)
        self.verdicts.extend(kept)
        return kept

    def release(self, text: str, *, told: str | None = None) -> None:
        """Notes text that goes to the caller; `told`: as the caller gets it, with values put back."""
        if self.first_token_s is None:
            self.first_token_s = self.clock.monotonic_s() - self.started_s
        self.released.append(text)
        self.told.append(text if told is None else told)

    def close(self, outcome: Outcome, *, error_reason: str = "") -> None:
        """Sets the outcome; the first close counts."""
        if self.outcome is not None:
            return
        self.outcome = outcome
        self.error_reason = error_reason
        self.complete_time = self.clock.now()
        self.duration_s = self.clock.monotonic_s() - self.started_s

    @property
    def chunks(self) -> tuple[FoundChunk, ...]:
        """Every chunk that was retrieved, best first."""
        return () if self.search is None else self.search.chunks

    @property
    def query(self) -> str:
        """The question for the event: empty unless a guard has passed it."""
        return "" if self.unguarded or self.asked is None else self.asked

    @property
    def text(self) -> str:
        """The answer as it is recorded: what was released, or what stands in its place."""
        return "".join(self.released) if self.stand_in is None else self.stand_in

    @property
    def recorded_answer(self) -> str:
        """The answer for the event: empty where no guard has judged it."""
        return "" if self.unguarded and self.stand_in is None else self.text

    @property
    def is_turn(self) -> bool:
        """Whether it can be continued: answered in words, and judged, as no later question judges it again."""
        return self.outcome is Outcome.ANSWERED and not self.unguarded and bool(self.text.strip())

    @property
    def usage(self) -> Usage:
        """What the generator reported, else an estimate from the tokens that came."""
        if self.generated is not None:
            return self.generated.usage
        return Usage(output_tokens=self.tokens_seen, estimated=True) if self.tokens_seen else NO_USAGE

    @property
    def cost(self) -> Cost:
        """Cost over all attempts; nothing where the generator did not come to its end."""
        return NO_COST if self.generated is None else self.generated.cost

    @property
    def sampling(self) -> Sampling:
        """The settings in force; those that were asked for where the generator did not come to tell."""
        told = None if self.generated is None else self.generated.sampling
        return self.question.sampling if told is None else told

    @property
    def mean_logprob(self) -> float | None:
        """How sure the model was of its answer, if asked for and told."""
        return None if self.generated is None else self.generated.mean_logprob

    @property
    def invalid_markers(self) -> tuple[str, ...]:
        """Markers of the answer that name no chunk."""
        return () if self.generated is None or self.stand_in is not None else self.generated.invalid_markers

    @property
    def final_reason(self) -> FinishReason:
        """Why the generation ended."""
        if self.finish_reason is not None:
            return self.finish_reason
        return FinishReason.STOP if self.generated is None else self.generated.finish_reason

    @property
    def chunk_uses(self) -> tuple[ChunkUse, ...]:
        """Every chunk that was retrieved, and whether the prompt held it."""
        packed = self.generated.packed_chunk_ids if self.generated is not None else frozenset[str]()
        return tuple(ChunkUse(chunk, chunk.chunk_id in packed) for chunk in self.chunks)

    @property
    def model(self) -> str:
        """The model alias that was asked for."""
        return self.question.model or self.route.model or "default"

    def answer(self) -> Answer:
        """The answer as it is kept; needs a closed interaction."""
        if self.outcome is None:
            raise RuntimeError("an interaction is closed before its answer is made")
        return Answer(
            request_id=self.request_id,
            text=self.text,
            outcome=self.outcome,
            citations=() if self.stand_in is not None else self.citations,
            chunks=self.chunk_uses,
            usage=self.usage,
            cost=self.cost,
            finish_reason=self.final_reason,
            verdicts=tuple(self.verdicts),
            degradations=tuple(self.degradations),
            timings=tuple(self.timings),
            corpus_version=0 if self.search is None else self.search.corpus_version,
            release=self.route.release,
            route=self.question.route,
            model=self.model,
            conversation_id=self.conversation_id,
            prompt=None if self.generated is None else self.generated.prompt,
            mean_logprob=self.mean_logprob,
        )

    def told_answer(self) -> Answer:
        """The answer as it goes to the caller: with the values put back that were put back in its tokens."""
        answer = self.answer()
        if self.stand_in is not None or self.told == self.released:
            return answer
        pieces = [Piece(text, told) for text, told in zip(self.released, self.told, strict=True)]
        return replace(answer, text="".join(self.told), citations=relocate(answer.citations, pieces))
