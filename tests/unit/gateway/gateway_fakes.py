"""Fakes of what the gateway's domain asks, each with dials, and the wiring around them."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from servicekit.adapters.memory.state_store import MemoryStateStore
from servicekit.domain.generation import Attempt, Cost, FinishReason, TokenEvent, Usage
from servicekit.domain.ids import RequestIds
from servicekit.domain.prompt import PromptRef
from servicekit.domain.verdict import Action, Surface, Verdict
from servicekit.ports.clock import SystemClock
from servicekit.ports.event_bus import OutgoingEvent
from servicekit.rpc.deadline import Budget
from services.gateway.admission import Admission
from services.gateway.answer import AnswerEvent
from services.gateway.answering import Answering, Stages
from services.gateway.backends import (
    CheckContext,
    Found,
    FoundChunk,
    Generated,
    GenerationRequest,
    GuardEvent,
    Judgement,
    ModelAlias,
    Released,
    SearchResult,
    StreamedText,
    StreamEnd,
)
from services.gateway.conversations import Conversations
from services.gateway.convert import decode_answer, encode_answer
from services.gateway.events import interaction_completed
from services.gateway.generating import Generating
from services.gateway.idempotency import AnswerCodec, Idempotency
from services.gateway.publishing import Publishing
from services.gateway.question import Asker, RetrievalMode, SealedFilter
from services.gateway.routes import Route
from services.gateway.screening import Screening
from services.gateway.speculation import Speculation

ASKER = Asker("acme", "key-1")
SECRET = "ann@example.org"
REDACTED = "[EMAIL_1]"

Hook = Callable[[str], Awaitable[None]]


async def no_hook(place: str) -> None:
    """Let every step pass, at the next turn of the loop."""
    await asyncio.sleep(0)


def verdict(surface: Surface, action: Action, rule: str = "r") -> Verdict:
    """A verdict of a test detector."""
    return Verdict(surface, "test", "1", action, 0.9, rule, None, "", "p1")


def judged(text: str, surface: Surface) -> Judgement:
    """What the fake policy makes of a text: BLOCK and FLAG by word, an address redacted."""
    if "BLOCK" in text:
        return Judgement(Action.BLOCK, "", (verdict(surface, Action.BLOCK),), "p1")
    if SECRET in text:
        found = (verdict(surface, Action.REDACT),)
        return Judgement(Action.REDACT, text.replace(SECRET, REDACTED), found, "p1")
    if "FLAG" in text:
        return Judgement(Action.FLAG, text, (verdict(surface, Action.FLAG),), "p1")
    return Judgement(Action.ALLOW, text, (), "p1")


@dataclass
class FakeGuard:
    """Judges by words; `hook` is awaited before each check, with its name."""

    hook: Hook = no_hook
    inputs: list[str] = field(default_factory=list)
    outputs: list[tuple[str, int, bool]] = field(default_factory=list)
    restored: list[tuple[tuple[str, ...], CheckContext]] = field(default_factory=list)

    async def check_input(self, text: str, *, context: CheckContext, timeout_s: float) -> Judgement:
        """Judge a question."""
        self.inputs.append(text)
        await self.hook("check_input")
        return judged(text, Surface.INPUT)

    async def check_retrieved(
        self, chunks: Sequence[FoundChunk], *, context: CheckContext, timeout_s: float
    ) -> Sequence[Judgement]:
        """Judge chunks."""
        await self.hook("check_retrieved")
        return [judged(chunk.text, Surface.RETRIEVED) for chunk in chunks]

    async def check_stream(
        self,
        texts: AsyncGenerator[StreamedText, None],
        *,
        chunk_texts: Sequence[str],
        context: CheckContext,
        restore: bool,
        timeout_s: float,
    ) -> AsyncGenerator[GuardEvent, None]:
        """Judge an answer, each sentence once it is whole, and its rest at the end."""
        held = ""
        async with aclosing(texts):
            async for text in texts:
                held += text.text
                whole = len(held) if text.final else held.rfind(". ") + 2 * (". " in held)
                if whole <= 0 and not text.final:
                    continue
                piece, held = held[:whole], held[whole:]
                self.outputs.append((piece, len(self.outputs), text.final))
                await self.hook("check_output")
                judgement = judged(piece, Surface.OUTPUT)
                if judgement.verdicts:
                    yield Found(judgement.verdicts)
                if judgement.action is Action.BLOCK:
                    yield StreamEnd(Action.BLOCK, "p1")
                    return
                yield Released(judgement.text, len(piece))
        yield StreamEnd(Action.ALLOW, "p1")

    async def restore_text(self, texts: Sequence[str], *, context: CheckContext, timeout_s: float) -> Sequence[str]:
        """Put the one address back that questions hold."""
        self.restored.append((tuple(texts), context))
        await self.hook("restore_text")
        return [text.replace(REDACTED, SECRET) for text in texts]


@dataclass
class FakeRetriever:
    """Finds the same chunks for every query."""

    hook: Hook = no_hook
    texts: Sequence[str] = ("Kafka keeps records in a log.", "Logs have offsets.")
    searches: list[dict[str, Any]] = field(default_factory=list)

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
        """The chunks."""
        self.searches.append({"query": query, "speculative": speculative, "top_k": top_k, "mode": mode})
        await self.hook("search_chunks")
        chunks = tuple(
            FoundChunk(f"c{n}", f"d{n}", 1, f"{n:064x}", n, 1 / n, text) for n, text in enumerate(self.texts, 1)
        )
        return SearchResult(chunks[:top_k], 7, "test-embedder")


@dataclass
class FakeGenerator:
    """Streams the given tokens, then the given end."""

    hook: Hook = no_hook
    tokens: Sequence[str] = ("Kafka keeps ", "records. ", "They have ", "offsets [1].")
    end: Generated | None = field(default_factory=lambda: generated())  # noqa: PLW0108  # defined below
    requests: list[GenerationRequest] = field(default_factory=list)
    closed: int = 0

    async def generate(
        self, request: GenerationRequest, *, timeout_s: float
    ) -> AsyncGenerator[TokenEvent | Generated, None]:
        """The tokens and the end."""
        self.requests.append(request)
        try:
            await self.hook("generate")
            for token in self.tokens:
                yield TokenEvent(token)
                await self.hook("token")
            if self.end is not None:
                yield self.end
        finally:
            self.closed += 1

    async def list_models(self, *, timeout_s: float) -> Sequence[ModelAlias]:
        """Two aliases."""
        return (ModelAlias("default", "m", 4096, True), ModelAlias("extractive", "x", 4096, True))


def generated(**changes: Any) -> Generated:
    """An end of a generation with everything set."""
    usage = Usage(10, 4)
    cost = Cost(12, "prices-1")
    attempt = Attempt(1, "default", "m", "r1", "engine", usage, cost, 0.01, 0.002, FinishReason.STOP)
    values = {
        "usage": usage,
        "cost": cost,
        "attempts": (attempt,),
        "prompt": PromptRef("answer", "1", "ab" * 32),
        "packed_chunk_ids": frozenset({"c1"}),
    }
    return Generated(**{**values, **changes})


@dataclass
class FakeBus:
    """Keeps what is published; `hook` is awaited before the acknowledgement."""

    hook: Hook = no_hook
    events: list[OutgoingEvent] = field(default_factory=list)

    async def publish(self, event: OutgoingEvent) -> None:
        """Acknowledge once the hook lets it."""
        await self.hook("publish")
        self.events.append(event)

    def interactions(self) -> list[Any]:
        """The messages of all interactions."""
        return [event.message for event in self.events if event.topic == "binnacle.interaction.completed.v1"]


@dataclass
class Gateway:
    """The domain wired to fakes."""

    guard: FakeGuard = field(default_factory=FakeGuard)
    retriever: FakeRetriever = field(default_factory=FakeRetriever)
    generator: FakeGenerator = field(default_factory=FakeGenerator)
    bus: FakeBus = field(default_factory=FakeBus)
    store: MemoryStateStore = field(default_factory=MemoryStateStore)
    routes: dict[str, Route] = field(
        default_factory=lambda: {
            "default": Route(),
            "passthrough": Route(retrieval=False, guard=False, model="echo"),
        }
    )
    fail_open: bool = False
    max_in_flight: int = 64
    events: list[AnswerEvent] = field(default_factory=list)

    def __post_init__(self) -> None:
        clock = SystemClock()
        self.ids = RequestIds([b"k" * 32])
        self.publishing = Publishing(self.bus, ack_timeout_s=5)
        self.answering = Answering(
            stages=Stages(
                Speculation(self.guard, self.retriever, speculative=True, fail_open=self.fail_open),
                Screening(self.guard, fail_open=self.fail_open),
                Generating(self.generator, self.guard, fail_open=self.fail_open),
            ),
            guard=self.guard,
            routes=self.routes,
            ids=self.ids,
            admission=Admission(max_in_flight=self.max_in_flight),
            idempotency=Idempotency(self.store, codec=AnswerCodec(encode_answer, decode_answer)),
            conversations=Conversations(self.store),
            publishing=self.publishing,
            event_of=interaction_completed,
            clock=clock,
        )

    def hook_all(self, hook: Hook) -> None:
        """Give every fake the same hook."""
        self.guard.hook = self.retriever.hook = self.generator.hook = self.bus.hook = hook

    async def emit(self, event: AnswerEvent) -> None:
        """Keep an event."""
        self.events.append(event)

    def kinds(self) -> list[str]:
        """The names of the events, in order."""
        return [type(event).__name__ for event in self.events]


def budget(seconds: float = 30.0) -> Budget:
    """A budget on the machine's clock."""
    return Budget.from_remaining(seconds)


async def settle() -> None:
    """Let tasks that are ready run."""
    for _ in range(20):
        await asyncio.sleep(0)
