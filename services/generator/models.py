"""The aliases that can be asked for, each with its engine, and the chain of those that stand in for it.

Built by `bootstrap.py`; asked by `generating.py`. An engine's model and limits are remembered for a while.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from servicekit.domain.generation import ModelInfo, TokenCount
from servicekit.domain.prompt import Sampling
from servicekit.errors import BackendTimeout, BinnacleError, NotFound
from servicekit.ports.clock import Clock
from servicekit.ports.engine import Engine
from services.generator.model_config import DEFAULT_ALIAS
from services.generator.pricing import Price


@dataclass(frozen=True, slots=True)
class Route:
    """How an alias is served; `window_tokens` narrows what the engine reports."""

    alias: str
    price: Price
    sampling: Sampling
    prompt_id: str
    fallbacks: tuple[str, ...] = ()
    window_tokens: int | None = None
    first_token_s: float = 20.0
    extractive: bool = False


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """A row of ListModels; `info` is what was last known, None if nothing ever was."""

    route: Route
    info: ModelInfo | None
    available: bool


class Model:
    """An alias and its engine."""

    def __init__(self, route: Route, engine: Engine, *, clock: Clock, info_ttl_s: float) -> None:
        self.route = route
        self.engine = engine
        self._clock = clock
        self._info_ttl_s = info_ttl_s
        self._info: ModelInfo | None = None
        self._info_until_s = 0.0

    async def info(self) -> ModelInfo:
        """What the engine serves, asked again when what is known is old; raises as the engine does."""
        if self._info is None or self._clock.monotonic_s() >= self._info_until_s:
            return await self.refresh()
        return self._info

    async def refresh(self) -> ModelInfo:
        """Ask the engine now."""
        info = await self.engine.info()
        window = self.route.window_tokens
        if window is not None:
            info = replace(
                info,
                max_total_tokens=min(window, info.max_total_tokens),
                max_input_tokens=min(window - 1, info.max_input_tokens),
            )
        self._info = info
        self._info_until_s = self._clock.monotonic_s() + self._info_ttl_s
        return info

    async def ping(self) -> None:
        """Return if the engine answers now, else raise as it does."""
        await self.refresh()

    async def status(self, *, within_s: float) -> ModelStatus:
        """Whether it answers within the time, and what is known of it."""
        try:
            async with asyncio.timeout(within_s):
                await self.refresh()
        except (BinnacleError, TimeoutError):
            return ModelStatus(self.route, self._info, available=False)
        return ModelStatus(self.route, self._info, available=True)

    async def count_tokens(self, text: str, *, within_s: float | None = None) -> TokenCount:
        """Tokens by the engine's tokenizer, or its estimate.

        Raises:
            BackendUnavailable, BackendTimeout.
        """
        try:
            async with asyncio.timeout(within_s):
                return await self.engine.count_tokens(text)
        except TimeoutError as error:
            raise BackendTimeout(
                f"engine of model {self.route.alias!r} did not count in time", reason="ENGINE_TIMEOUT"
            ) from error


class Models:
    """All aliases."""

    def __init__(self, models: Sequence[Model], *, last_resort: Model | None) -> None:
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
        return tuple(await asyncio.gather(*(model.status(within_s=within_s) for model in models)))
