"""Answers and the events that stream them, as the gateway's domain sees them.

Pure; made by `record.py` and `answering.py`, encoded by `convert.py` and `openai_convert.py`.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from servicekit.domain.generation import Cost, Degradation, FinishReason, Usage
from servicekit.domain.prompt import PromptRef
from servicekit.domain.verdict import Verdict
from services.gateway.backends import NO_COST, NO_USAGE, AnswerCitation, FoundChunk


class Outcome(StrEnum):
    """How a request ended."""

    ANSWERED = "answered"
    BLOCKED = "blocked"
    REFUSED = "refused"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DEADLINE = "deadline"


@dataclass(frozen=True, slots=True)
class StageTiming:
    """A stage's start, from the start of its request, and its length, in microseconds."""

    stage: str
    start_us: int
    duration_us: int


@dataclass(frozen=True, slots=True)
class ChunkUse:
    """A retrieved chunk, and whether it was packed into the prompt."""

    chunk: FoundChunk
    used: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with its provenance; `text` is what stands in its place when it was blocked or refused."""

    request_id: str
    text: str
    outcome: Outcome
    citations: tuple[AnswerCitation, ...] = ()
    chunks: tuple[ChunkUse, ...] = ()
    usage: Usage = NO_USAGE
    cost: Cost = NO_COST
    finish_reason: FinishReason = FinishReason.STOP
    verdicts: tuple[Verdict, ...] = ()
    degradations: tuple[Degradation, ...] = ()
    timings: tuple[StageTiming, ...] = ()
    corpus_version: int = 0
    release: str = ""
    route: str = ""
    variant: str = ""
    model: str = ""
    conversation_id: str = ""
    prompt: PromptRef | None = None
    replayed: bool = False
    mean_logprob: float | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """The request has an id and is being worked on."""

    request_id: str
    accept_time: datetime


@dataclass(frozen=True, slots=True)
class Retrieved:
    """Retrieval is done, or there was none."""

    chunks: tuple[FoundChunk, ...]
    corpus_version: int


@dataclass(frozen=True, slots=True)
class Token:
    """Text of the answer that the guards have released."""

    text: str


@dataclass(frozen=True, slots=True)
class VerdictFound:
    """A guardrail found something."""

    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Retracted:
    """What was streamed must be thrown away; `replacement` stands in its place."""

    reason: str
    replacement: str


@dataclass(frozen=True, slots=True)
class Completed:
    """The end; the record of the interaction is safe."""

    answer: Answer


AnswerEvent = Accepted | Retrieved | Token | VerdictFound | Retracted | Completed

Emit = Callable[[AnswerEvent], Awaitable[None]]


async def emit_nothing(event: AnswerEvent) -> None:
    """For unary calls: only the answer at the end matters."""
    del event
