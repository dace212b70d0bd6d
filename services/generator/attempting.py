"""One attempt at one engine: pack, generate, count, and say how it ended.

Called by `generating.py` for each model of the chain.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from servicekit.domain.generation import (
    Attempt,
    EngineEvent,
    FinishReason,
    GenerationEnd,
    ModelInfo,
    TokenEvent,
    Usage,
)
from servicekit.domain.prompt import EngineRequest, Sampling
from servicekit.domain.token_estimate import estimate_tokens
from servicekit.errors import BackendTimeout, BinnacleError, InvalidRequest, Overloaded
from servicekit.ports.clock import Clock
from services.generator.models import Model
from services.generator.packing import Packed, Prompt, pack
from services.generator.templates import PromptTemplate

DEFAULT_OUTPUT_TOKENS = 512


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be answered, by whichever model."""

    prompt: Prompt
    template: PromptTemplate
    sampling: Sampling
    request_id: str


class Trial:
    """An attempt while it runs; afterwards `attempt()` tells what it took, whatever its end."""

    def __init__(self, number: int, model: Model, task: Task, *, clock: Clock) -> None:
        self._number = number
        self._model = model
        self._task = task
        self._clock = clock
        self._start_s = clock.monotonic_s()
        self._end_s: float | None = None
        self._first_token_s: float | None = None
        self._info: ModelInfo | None = None
        self._sent = False
        self._output_tokens = 0
        self.packed: Packed | None = None
        self.end: GenerationEnd | None = None
        self.failure: BinnacleError | None = None
        self._reason = FinishReason.CANCELLED

    @property
    def model(self) -> Model:
        """The model it asks."""
        return self._model

    @property
    def released(self) -> bool:
        """Whether a token came, so that no other attempt may begin."""
        return self._first_token_s is not None

    async def tokens(self, *, first_token_within_s: float, ends_s: float) -> AsyncGenerator[TokenEvent, None]:
        """The tokens; returns once the engine has ended the generation.

        `ends_s` is the point on the clock at which all must be over; either bound may be infinite.

        Raises:
            BinnacleError: as the engine port says, and BackendTimeout where a token or the end did not come in time.
        """
        events: AsyncGenerator[EngineEvent, None] | None = None
        try:
            async with self._bounded(first_token_within_s, reason="FIRST_TOKEN_TIMEOUT"):
                request = await self._request()
                events = self._model.engine.generate(request)
                self._sent = True
                event = await anext(events, None)
            while event is not None:
                if isinstance(event, GenerationEnd):
                    self.end = event
                    self._reason = event.finish_reason
                else:
                    self._output_tokens += event.token_count
                    if self._first_token_s is None:
                        self._first_token_s = self._clock.monotonic_s()
                    yield event
                async with self._bounded(ends_s - self._clock.monotonic_s(), reason="DEADLINE"):
                    event = await anext(events, None)
        except BinnacleError as error:
            self.failure = error
            self._reason = FinishReason.ERROR
            raise
        finally:
            self._end_s = self._clock.monotonic_s()
            if events is not None:
                await events.aclose()

    @asynccontextmanager
    async def _bounded(self, within_s: float, *, reason: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(None if math.isinf(within_s) else within_s):
                yield
        except TimeoutError as error:
            address = self._model.engine.address
            raise BackendTimeout(f"engine {address} did not answer in time", reason=reason) from error

    async def _request(self) -> EngineRequest:
        """What is sent: packed for this model's window, with this model's defaults."""
        info = self._info = await self._model.info()
        sampling = self._task.sampling.over(self._model.route.sampling)
        output_tokens = min(sampling.max_output_tokens or DEFAULT_OUTPUT_TOKENS, max(1, info.max_total_tokens // 2))
        prompt = self._task.prompt
        packed = await pack(
            prompt, self._task.template, info=info, output_tokens=output_tokens, count=self._model.count_tokens
        )
        self.packed = packed
        return EngineRequest(
            messages=packed.messages,
            question=prompt.question,
            context=packed.context,
            sampling=replace(sampling, max_output_tokens=output_tokens),
            request_id=self._task.request_id,
        )

    def attempt(self) -> Attempt:
        """What it took."""
        usage = self._usage()
        end_s = self._clock.monotonic_s() if self._end_s is None else self._end_s
        return Attempt(
            number=self._number,
            model_alias=self._model.route.alias,
            model=self._info.model if self._info else "",
            revision=self._info.revision if self._info else "",
            engine=self._model.engine.address,
            usage=usage,
            cost=self._model.route.price.cost(usage),
            duration_s=end_s - self._start_s,
            time_to_first_token_s=None if self._first_token_s is None else self._first_token_s - self._start_s,
            finish_reason=self._reason,
            error_reason=self.failure.reason if self.failure else "",
        )

    def _usage(self) -> Usage:
        """As the engine counted; where it never told, an estimate of what it has read and what came of it."""
        if self.end is not None:
            return self.end.usage
        refused = isinstance(self.failure, Overloaded | InvalidRequest)
        unreached = self.failure is not None and self.failure.reason == "CONNECT"
        if not self._sent or self.packed is None or refused or unreached:
            return Usage()
        sent = sum(estimate_tokens(message.content) for message in self.packed.messages)
        return Usage(sent, self._output_tokens, estimated=True)
