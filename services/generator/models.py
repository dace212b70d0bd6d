"""The aliases that can be asked for, each with its engines, and the chain of those that stand in for it.

Built by `opening.py`; asked by `generating.py`. What a pool serves is remembered by the pool.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Protocol

from servicekit.domain.generation import ModelInfo, TokenCount
from servicekit.domain.prompt import Message
from servicekit.errors import BackendTimeout, BackendUnavailable, BinnacleError, NotFound
from servicekit.ports.clock import Clock
from services.generator.context.token_counts import TokenCounts
from services.generator.model_config import DEFAULT_ALIAS
from services.generator.pool.lease import Choice, Lease, Work
from services.generator.pool.replica import ReplicaStatus
from services.generator.pricing import Price
from services.generator.routes import EngineRoute, Route, order


class Pool(Protocol):
    """The replicas of one engine; `services.generator.pool.replica_pool` in production."""

    def lease(
        self, work: Work, *, within_s: float, avoid: frozenset[str] = frozenset(), choice: Choice | None = None
    ) -> AbstractAsyncContextManager[Lease]:
        """A place at a replica, one whose address is in `avoid` only if there is no other.

        Raises:
            Overloaded: there is no place within the time.
        """
        ...

    def hedge_after_s(self) -> float | None:
        """After how long without a first token a second replica is worth asking; None: never."""
        ...

    async def info(self) -> ModelInfo:
        """What the replicas serve, as far as it is known; asked where it is not."""
        ...

    async def ping(self) -> None:
        """Return if a replica answers now, else raise as it does."""
        ...

    def statuses(self) -> Sequence[ReplicaStatus]:
        """Every replica."""
        ...

    async def count_messages(self, messages: Sequence[Message]) -> TokenCount:
        """As the engine port says, by a healthy replica."""
        ...

    async def count_tokens(self, text: str) -> TokenCount:
        """As the engine port says, by a healthy replica."""
        ...


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """A row of ListModels; `info` is what was last known, None if nothing ever was; `price` is the one in force."""

    route: Route
    info: ModelInfo | None
    available: bool
    price: Price
    replicas: tuple[ReplicaStatus, ...] = ()


class Backend:
    """One engine of an alias: its pool, and how it is used there."""

    def __init__(self, route: Route, engine: EngineRoute, pool: Pool) -> None:
        self.route = route
        self.engine = engine
        self.pool = pool
        self.counts = TokenCounts(pool.count_messages)
        self.last_info: ModelInfo | None = None

    async def info(self) -> ModelInfo:
        """What it serves, in the alias's window; raises as the engine does."""
        info = await self.pool.info()
        window = self.route.window_tokens
        if window is not None:
            info = replace(
                info,
                max_total_tokens=min(window, info.max_total_tokens),
                max_input_tokens=min(window - 1, info.max_input_tokens),
            )
        self.last_info = info
        return info

    def has_other_than(self, tried: frozenset[str]) -> bool:
        """Whether there is a replica that was not tried."""
        return any(status.address not in tried for status in self.pool.statuses())

    async def answers(self) -> None:
        """Return if a replica answers now and tells what it serves, else raise as it does."""
        await self.pool.ping()
        await self.info()


class Model:
    """An alias and its engines, in the order in which they stand in for each other."""

    def __init__(self, route: Route, pools: Sequence[Pool]) -> None:
        self.route = route
        self.backends = tuple(Backend(route, engine, pool) for engine, pool in zip(route.engines, pools, strict=True))

    def ordered(self, request_id: str) -> tuple[Backend, ...]:
        """The engines in the order in which this request tries them."""
        places = order(self.route.engines, alias=self.route.alias, request_id=request_id)
        return tuple(self.backends[place] for place in places)

    async def ping(self) -> None:
        """Return if one of the engines answers now, else raise as the first does."""
        ended = await asyncio.gather(*(backend.answers() for backend in self.backends), return_exceptions=True)
        failures = [end for end in ended if isinstance(end, BaseException)]
        if len(failures) == len(ended):
            raise failures[0]

    async def status(self, *, within_s: float, clock: Clock) -> ModelStatus:
        """Whether it answers within the time, and what is known of it."""
        available = True
        try:
            async with asyncio.timeout(within_s):
                await self.ping()
        except (BinnacleError, TimeoutError):
            available = False
        known = (backend.last_info for backend in self.backends)
        return ModelStatus(
            self.route,
            next((info for info in known if info is not None), None),
            available,
            self.route.engines[0].prices.at(clock.now()),
            tuple(status for backend in self.backends for status in backend.pool.statuses()),
        )

    async def count_tokens(self, text: str, *, within_s: float | None = None) -> TokenCount:
        """Tokens by the first engine's tokenizer that answers, or its estimate.

        Raises:
            BackendUnavailable, BackendTimeout.
        """
        failure: BinnacleError | None = None
        try:
            async with asyncio.timeout(within_s):
                for backend in self.backends:
                    try:
                        return await backend.pool.count_tokens(text)
                    except (BackendUnavailable, BackendTimeout) as error:
                        failure = error
        except TimeoutError as error:
            raise BackendTimeout(
                f"engine of model {self.route.alias!r} did not count in time", reason="ENGINE_TIMEOUT"
            ) from error
        assert failure is not None
        raise failure


class Models:
    """All aliases."""

    def __init__(self, models: Sequence[Model], *, last_resort: Model | None, clock: Clock) -> None:
        self._clock = clock
        self._models: Mapping[str, Model] = {model.route.alias: model for model in models}
        self._last_resort = last_resort

    def get(self, alias: str) -> Model:
        """The alias, `default` for an empty one.

        Raises:
            NotFound: names the aliases there are.
        """
        model = self._models.get(alias or DEFAULT_ALIAS)
        if model is None:
            known = ", ".join(sorted(self._models))
            raise NotFound(f"no model {alias!r}; known: {known}", reason="MODEL_NOT_FOUND")
        return model

    def chain(self, alias: str) -> tuple[Model, ...]:
        """The alias and what stands in for it, in order, each once; the extractive engine last, if it may."""
        chain: dict[str, Model] = {}
        waiting = [self.get(alias)]
        while waiting:
            model = waiting.pop(0)
            if model.route.alias not in chain:
                chain[model.route.alias] = model
                waiting[:0] = [self.get(fallback) for fallback in model.route.fallbacks]
        if self._last_resort is not None and not any(model.route.extractive for model in chain.values()):
            chain[self._last_resort.route.alias] = self._last_resort
        return tuple(chain.values())

    async def statuses(self, *, within_s: float) -> tuple[ModelStatus, ...]:
        """Every alias by name, all asked at once."""
        models = [self._models[alias] for alias in sorted(self._models)]
        return tuple(await asyncio.gather(*(model.status(within_s=within_s, clock=self._clock) for model in models)))
