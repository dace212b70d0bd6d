"""Model servers without HTTP for the routing benchmark: the contract server's own scheduler and prefix cache.

Each is an `Engine` as the pool knows them, and tells an oracle exactly how long a prompt would wait there.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from servicekit.domain.generation import (
    EngineEvent,
    EngineLoad,
    FinishReason,
    GenerationEnd,
    ModelInfo,
    TokenCount,
    TokenEvent,
    Usage,
)
from servicekit.domain.prompt import EngineRequest, Message
from servicekit.errors import BackendUnavailable
from servicekit.testing.tgi_server.dials import Dials
from servicekit.testing.tgi_server.prefix_cache import PrefixCache
from servicekit.testing.tgi_server.scheduling import Lockstep, Next
from servicekit.testing.tgi_server.scheduling import Sequence as Generation
from tests.bench._routing_foresight import Queued, first_token_in_s, new_tokens
from tests.bench._routing_policies import Spent


@dataclass(eq=False, slots=True)
class _Job:
    words: list[str]
    output_tokens: int
    sent: int = 0
    new_tokens: int = 0
    cached: int = 0
    fails: bool = False


class SimulatedEngine:
    """A server by its dials; counts what it did as the contract server does."""

    def __init__(self, address: str, dials: Dials) -> None:
        self.address = address
        self.dials = dials
        self.scheduler = Lockstep(lambda: self.dials)
        self._cached_tokens = 0
        self._input_tokens = 0
        self._wasted_tokens = 0
        self.down = False
        self._cache = PrefixCache()
        self._chance = random.Random(dials.fault_seed)
        self._jobs: dict[Generation, _Job] = {}
        self._prefilling_until_s = 0.0

    async def info(self) -> ModelInfo:
        """By the dials."""
        self._check()
        dials = self.dials
        return ModelInfo(
            dials.model, dials.revision, dials.max_input_tokens, dials.max_total_tokens, dials.max_concurrent_requests
        )

    async def load(self) -> EngineLoad | None:
        """As it is."""
        self._check()
        return EngineLoad(len(self.scheduler.waiting), len(self.scheduler.batch))

    async def count_tokens(self, text: str) -> TokenCount:
        """A token a word."""
        self._check()
        return TokenCount(len(text.split()), estimated=False)

    async def count_messages(self, messages: Sequence[Message]) -> TokenCount:
        """A token a word."""
        return await self.count_tokens(" ".join(message.content for message in messages))

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineEvent, None]:
        """Tokens as the scheduler gives them; fails at the first with the dials' share."""
        self._check()
        words = request.messages[0].content.split(" ")
        job = _Job(words, request.sampling.max_output_tokens or 1, fails=self._chance.random() < self._fault_share)
        tokens: asyncio.Queue[TokenEvent | BackendUnavailable] = asyncio.Queue()

        def admitted() -> int:
            return self._admitted(job)

        def send_token() -> Next:
            if job.fails:
                tokens.put_nowait(BackendUnavailable("out of memory", reason="GENERATION_FAILED"))
                return Next.END
            job.sent += 1
            tokens.put_nowait(TokenEvent("w "))
            return Next.END if job.sent == job.output_tokens else Next.TOKEN

        generation = Generation(admitted, send_token, len(words), len(words) + job.output_tokens)
        self._jobs[generation] = job
        running = asyncio.ensure_future(self.scheduler.run(generation))
        try:
            for _ in range(job.output_tokens):
                event = await tokens.get()
                if isinstance(event, BackendUnavailable):
                    raise event
                yield event
            yield GenerationEnd(FinishReason.LENGTH, Usage(len(words), job.sent, job.cached))
        finally:
            running.cancel()
            await asyncio.wait([running])
            del self._jobs[generation]
            if job.sent < job.output_tokens:
                self._wasted_tokens += job.new_tokens + job.sent

    def exact_wait_s(self, prompt: str, now_s: float) -> float:
        """When such a prompt would have its first token."""
        jobs = self._jobs
        return first_token_in_s(
            self.dials,
            busy_s=max(self._prefilling_until_s - now_s, 0.0),
            batch_left=[jobs[one].output_tokens - jobs[one].sent for one in self.scheduler.batch],
            queue=[self._queued(jobs[one].words, jobs[one].output_tokens) for one in self.scheduler.waiting],
            mine=self._queued(prompt.split(" "), 1),
        )

    @property
    def spent(self) -> Spent:
        """So far."""
        return Spent(self._input_tokens, self._cached_tokens, self._wasted_tokens)

    @property
    def _fault_share(self) -> float:
        return self.dials.fault_share if self.dials.fault.value != "none" else 0.0

    def _admitted(self, job: _Job) -> int:
        dials = self.dials
        job.cached = self._cache.read(
            job.words, adapter="", capacity_blocks=dials.prefix_cache_blocks, block_tokens=dials.prefix_block_tokens
        )
        job.new_tokens = len(job.words) - job.cached
        self._input_tokens += len(job.words)
        self._cached_tokens += job.cached
        now_s = asyncio.get_running_loop().time()
        self._prefilling_until_s = max(self._prefilling_until_s, now_s) + dials.prefill_s(job.new_tokens)
        return job.new_tokens

    def _queued(self, words: Sequence[str], output_tokens: int) -> Queued:
        new = new_tokens(words, self._cache, self.dials.prefix_block_tokens)
        return Queued(len(words), new, output_tokens)

    def _check(self) -> None:
        if self.down:
            raise BackendUnavailable(f"{self.address} refuses connections", reason="CONNECT")
