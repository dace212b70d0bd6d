"""A generator in this process over real pools and engines, every attempt of it kept.

Used by the tests of accounting, faults, kills and cancellations; servers are contract servers.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any
from unittest import mock

from servicekit.adapters.registry import open_engine
from servicekit.domain.chunk import Chunk, ScoredChunk
from servicekit.domain.generation import Attempt
from servicekit.ports.clock import SystemClock
from servicekit.testing.tgi_server.server import TgiServer
from services.generator import accounting
from services.generator.generating import Generator, Question
from services.generator.model_config import parse_models
from services.generator.models import Models
from services.generator.opening import last_resort, opened_model, route_of
from services.generator.packing import Prompt
from services.generator.pool.replica_pool import ReplicaPool
from services.generator.templates import load_prompts

PRICES = {"input_price_microusd": 1_000_000, "output_price_microusd": 2_000_000}
CHUNK = ScoredChunk(
    Chunk("c1", "d1", 1, "a" * 64, "The harbour opens at six in the morning. It closes at ten."), 1, 1.0
)


def url_of(server: TgiServer, kind: str) -> str:
    """The engine URL of a contract server: `tgi`, or `openai` for its chat route."""
    host = server.url.removeprefix("http://")
    return f"openai://{host}/v1" if kind == "openai" else f"tgi://{host}"


def question(words: int = 5, **fields: Any) -> Question:
    """A question of so many words over one chunk."""
    return Question(Prompt("When does it open? " + "word " * words, (CHUNK,), ()), **fields)


@asynccontextmanager
async def open_generator(content: dict[str, Any]) -> AsyncIterator[Generator]:
    """The generator of a models file with this content."""
    config = parse_models(content, file="models")
    clock = SystemClock()
    async with AsyncExitStack() as stack:

        async def opened(route: Any, model: Any) -> Any:
            context = opened_model(route, model, open_engine=open_engine, info_ttl_s=60, clock=clock)
            return await stack.enter_async_context(context)

        models = [
            await opened(route_of(alias, model, config.price_version), model) for alias, model in config.models.items()
        ]
        extractive = await opened(*last_resort(config)) if config.extractive_fallback else None
        yield Generator(Models(models, last_resort=extractive, clock=clock), load_prompts(None), clock=clock)


@contextmanager
def recorded_attempts() -> Iterator[list[Attempt]]:
    """Every attempt that is settled meanwhile, those of cancelled requests too."""
    attempts: list[Attempt] = []
    with mock.patch.object(accounting, "observe_attempt", attempts.append):
        yield attempts


@contextmanager
def eager_hedging(after_s: float) -> Iterator[None]:
    """Pools with hedging ask a second replica after this time, however few first tokens they have seen."""

    def hedge_after_s(pool: ReplicaPool) -> float | None:
        return after_s if pool._settings.hedging else None  # what the pool itself looks at

    with mock.patch.object(ReplicaPool, "hedge_after_s", hedge_after_s):
        yield


def spent_at(server: TgiServer, attempts: Sequence[Attempt]) -> tuple[int, int]:
    """Input and output tokens of the attempts at one server."""
    place = server.url.removeprefix("http://")
    there = [attempt.usage for attempt in attempts if place in attempt.engine]
    return sum(usage.input_tokens for usage in there), sum(usage.output_tokens for usage in there)


def served_by(server: TgiServer) -> tuple[int, int]:
    """Input and output tokens that the server counted."""
    return server.counts.input_tokens, server.counts.output_tokens
