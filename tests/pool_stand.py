"""Engines without a server for tests of the generator's pool: every answer is what the test sets."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from servicekit.domain.generation import (
    EngineEvent,
    EngineLoad,
    FinishReason,
    GenerationEnd,
    ModelInfo,
    TokenCount,
    Usage,
)
from servicekit.domain.prompt import EngineRequest, Message
from servicekit.errors import BackendUnavailable, BinnacleError
from services.generator.pool.lease import Work

INFO = ModelInfo("model", "r1", 4_000, 4_096, 0)


def connect_error() -> BackendUnavailable:
    """As an adapter raises where nothing listens."""
    return BackendUnavailable("refused", reason="CONNECT")


def generation_error() -> BackendUnavailable:
    """As an adapter raises when a generation failed."""
    return BackendUnavailable("out of memory", reason="GENERATION_FAILED")


def work(tenant: str = "t", *, prefix: str = "", tokens: int = 100, output: int = 50) -> Work:
    """A piece of work."""
    return Work(tenant, prefix, tokens, output)


class SetEngine:
    """Implements `ports.engine.Engine`; `error` fails every call."""

    def __init__(self, address: str, *, info: ModelInfo = INFO) -> None:
        self.address = address
        self.told = info
        self.queue = EngineLoad(0, 0)
        self.error: BinnacleError | None = None
        self.closed = False
        self.loads_asked = 0

    async def info(self) -> ModelInfo:
        """As set."""
        self._check()
        return self.told

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineEvent, None]:
        """Nothing."""
        self._check()
        yield GenerationEnd(FinishReason.STOP, Usage())

    async def count_tokens(self, text: str) -> TokenCount:
        """One a word."""
        self._check()
        return TokenCount(len(text.split()), estimated=False)

    async def count_messages(self, messages: Sequence[Message]) -> TokenCount:
        """One a message."""
        self._check()
        return TokenCount(len(messages), estimated=False)

    async def load(self) -> EngineLoad | None:
        """As set."""
        self.loads_asked += 1
        self._check()
        return self.queue

    def _check(self) -> None:
        if self.error is not None:
            raise self.error


@dataclass
class SetDiscovery:
    """Finds the URLs that the test sets, and opens a `SetEngine` for each."""

    urls: set[str] = field(default_factory=set)
    opened: dict[str, SetEngine] = field(default_factory=dict)
    error: BackendUnavailable | None = None
    prepare: Callable[[SetEngine], None] = lambda engine: None

    async def find(self) -> frozenset[str]:
        """As set."""
        if self.error is not None:
            raise self.error
        return frozenset(self.urls)

    @asynccontextmanager
    async def open(self, url: str) -> AsyncIterator[SetEngine]:
        """A new engine."""
        engine = self.opened[url] = SetEngine(url)
        self.prepare(engine)
        try:
            yield engine
        finally:
            engine.closed = True
