"""The services that the gateway asks, as Protocols, and what they give back.

Pure; implemented over gRPC by `clients.py`, by fakes in tests. Every method may raise BackendUnavailable,
BackendTimeout, Overloaded or InvalidRequest; `timeout_s` bounds the call.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from servicekit.domain.generation import Attempt, Cost, Degradation, FinishReason, TokenEvent, Usage
from servicekit.domain.prompt import Message, PromptRef, Sampling
from servicekit.domain.verdict import Action, Span, Verdict
from services.gateway.question import RetrievalMode, SealedFilter

NO_USAGE = Usage()
NO_COST = Cost(0, "")


@dataclass(frozen=True, slots=True)
class FoundChunk:
    """A retrieved chunk: what the gateway reads of it; `sealed` is the retriever's message, passed on as it came."""

    chunk_id: str
    document_id: str
    revision: int
    content_hash: str
    rank: int
    score: float
    text: str = ""
    title: str = ""
    sealed: object = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Chunks best first, what was searched with which model, and what could not be done of what was asked for."""

    chunks: tuple[FoundChunk, ...]
    corpus_version: int
    embedding_model: str
    degradations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a guardrail decided about one text; `text` is what to go on with, empty when blocked; `title` a chunk's."""

    action: Action
    text: str
    verdicts: tuple[Verdict, ...] = ()
    policy_version: str = ""
    title: str | None = None


@dataclass(frozen=True, slots=True)
class CheckContext:
    """What a judgement is part of."""

    request_id: str = ""
    conversation_id: str = ""
    route: str = ""


@dataclass(frozen=True, slots=True)
class AnswerCitation:
    """A marker at `span` of the answer, and the piece of a document it points to."""

    marker: str
    span: Span
    chunk_id: str
    document_id: str
    revision: int
    content_hash: str
    source_span: Span
    title: str
    source_uri: str


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """What the generator is asked."""

    request_id: str
    question: str
    chunks: tuple[FoundChunk, ...]
    history: tuple[Message, ...]
    model: str
    sampling: Sampling
    output_schema: str = ""
    want_logprobs: bool = False


@dataclass(frozen=True, slots=True)
class Generated:
    """The end of a generation: its provenance, usage and cost over all attempts.

    `sampling` are the settings in force, None where the generator did not come to tell them; `invalid_markers` name no
    chunk; `mean_logprob` is None unless asked for and told by the engine.
    """

    citations: tuple[AnswerCitation, ...] = ()
    usage: Usage = NO_USAGE
    cost: Cost = NO_COST
    finish_reason: FinishReason = FinishReason.STOP
    attempts: tuple[Attempt, ...] = ()
    prompt: PromptRef | None = None
    packed_chunk_ids: frozenset[str] = frozenset()
    degradations: tuple[Degradation, ...] = ()
    refused: bool = False
    sampling: Sampling | None = None
    mean_logprob: float | None = None
    invalid_markers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelAlias:
    """A model that can be asked for."""

    alias: str
    model: str
    context_window_tokens: int
    available: bool


@dataclass(frozen=True, slots=True)
class StreamedText:
    """The next text of an answer that is to be judged."""

    text: str = field(repr=False)
    token_count: int
    final: bool


@dataclass(frozen=True, slots=True)
class Released:
    """Text that may go, for so many characters of what was sent; `restored` where that differs."""

    text: str = field(repr=False)
    source_chars: int
    restored: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Found:
    """Verdicts on text that was sent; their spans are places in all of it."""

    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """All was released, or something was blocked, and what that took."""

    action: Action
    policy_version: str
    judging_s: float = 0.0


GuardEvent = Released | Found | StreamEnd


class Guard(Protocol):
    """Judges texts by the tenant's policy."""

    async def check_input(self, text: str, *, context: CheckContext, timeout_s: float) -> Judgement:
        """Judge what an end user typed."""
        ...

    async def check_retrieved(
        self, chunks: Sequence[FoundChunk], *, context: CheckContext, timeout_s: float
    ) -> Sequence[Judgement]:
        """Judge chunks, text and title, one judgement for each in order; both are the chunk's unless redacted."""
        ...

    def check_stream(
        self,
        texts: AsyncGenerator[StreamedText, None],
        *,
        chunk_texts: Sequence[str],
        context: CheckContext,
        restore: bool,
        timeout_s: float,
    ) -> AsyncGenerator[GuardEvent, None]:
        """Judge an answer while it is made: text that may go and verdicts, then exactly one StreamEnd.

        Texts that end without a final one were broken off: what is held back then stays so.
        """
        ...

    async def restore_text(self, texts: Sequence[str], *, context: CheckContext, timeout_s: float) -> Sequence[str]:
        """At most 32 texts with what end users typed put back; for callers who may have it alone."""
        ...


class Retriever(Protocol):
    """Finds chunks."""

    async def search(
        self,
        query: str,
        *,
        top_k: int,
        mode: RetrievalMode,
        where: SealedFilter | None,
        speculative: bool,
        profile: str,
        timeout_s: float,
    ) -> SearchResult:
        """Chunks for the query, by the retriever's profile; a speculative search leaves no trace of it."""
        ...


class Generator(Protocol):
    """Drives the engines."""

    def generate(self, request: GenerationRequest, *, timeout_s: float) -> AsyncGenerator[TokenEvent | Generated, None]:
        """Tokens, then exactly one Generated; closing the generator cancels the generation.

        An answer by a schema comes in one piece, once it satisfies it.

        A generation that fails may still yield one, with what it took, before it raises.
        """
        ...

    async def list_models(self, *, timeout_s: float) -> Sequence[ModelAlias]:
        """The aliases that can be asked for, by name."""
        ...
