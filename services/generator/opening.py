"""Opens what the models file names: a pool of replicas for each engine of each alias.

Called by `bootstrap.py`, which passes in how an engine is opened; no engine is asked yet.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from servicekit.domain.prompt import Sampling
from servicekit.errors import InvalidRequest
from servicekit.ports.clock import Clock
from servicekit.ports.engine import Engine
from services.generator.engine_config import EngineConfig
from services.generator.model_config import EXTRACTIVE_URL, PER_REQUEST, ModelConfig, ModelsConfig
from services.generator.models import Model, Pool
from services.generator.pool.discovery import DnsDiscovery
from services.generator.pool.opening import running
from services.generator.pool.replica_pool import ReplicaPool
from services.generator.pool.settings import PoolSettings
from services.generator.pricing import ALWAYS, Price, PriceTable
from services.generator.routes import EngineRoute, Route

LAST_RESORT = "extractive"

OpenEngine = Callable[..., AbstractAsyncContextManager[Any]]


def route_of(alias: str, config: ModelConfig, price_version: str) -> Route:
    """How the alias is served."""
    engines = config.all_engines()
    return Route(
        alias=alias,
        engines=tuple(_engine_route(engine, config, price_version) for engine in engines),
        sampling=config.sampling.sampling(),
        prompt_id=config.prompt,
        fallbacks=config.fallbacks,
        window_tokens=config.window_tokens,
        extractive=all(_extractive(engine) for engine in engines),
        seed_per_request=config.sampling.seed == PER_REQUEST,
        deterministic=config.deterministic,
    )


def last_resort(config: ModelsConfig) -> tuple[Route, ModelConfig]:
    """The extractive engine, which is free and always there."""
    free = PriceTable(((ALWAYS, Price(version=config.price_version)),))
    route = Route(LAST_RESORT, (EngineRoute(EXTRACTIVE_URL, free),), Sampling(), "grounded-answer", extractive=True)
    return route, ModelConfig(engine_url=EXTRACTIVE_URL)


@asynccontextmanager
async def opened_model(
    route: Route, config: ModelConfig, *, open_engine: OpenEngine, info_ttl_s: float, clock: Clock
) -> AsyncIterator[Model]:
    """The alias, its pools polled until the context ends."""
    async with AsyncExitStack() as stack:
        pools: list[Pool] = []
        for place, engine in enumerate(config.all_engines()):
            key = _key(engine.api_key_file or config.api_key_file)
            name = route.alias if len(route.engines) == 1 else f"{route.alias}[{place}]"
            pools.append(
                await stack.enter_async_context(
                    _opened_pool(
                        engine, partial(open_engine, api_key=key), name=name, info_ttl_s=info_ttl_s, clock=clock
                    )
                )
            )
        yield Model(route, pools)


@asynccontextmanager
async def _opened_pool(
    config: EngineConfig, open_engine: OpenEngine, *, name: str, info_ttl_s: float, clock: Clock
) -> AsyncIterator[ReplicaPool]:
    settings = PoolSettings(
        max_concurrent=config.concurrency or 0,
        max_waiting=config.queue,
        hedging=config.hedging,
        affinity=config.affinity,
        info_every_s=info_ttl_s,
    )
    async with AsyncExitStack() as stack:
        engines: list[Engine] = []
        discovery = None
        if config.dns is not None:
            discovery = DnsDiscovery(config.dns, open_engine)
        else:
            engines = [await stack.enter_async_context(open_engine(url)) for url in config.addresses]
        pool = ReplicaPool(engines, clock=clock, settings=settings, discovery=discovery, name=name)
        yield await stack.enter_async_context(running(pool))


def _engine_route(engine: EngineConfig, config: ModelConfig, price_version: str) -> EngineRoute:
    return EngineRoute(
        address=_shown(engine.addresses[0]),
        prices=config.price_table(engine, price_version),
        weight=engine.weight,
        adapter=engine.adapter or config.adapter,
        first_token_s=engine.first_token_s or config.first_token_s,
        attempt_s=engine.attempt_s,
        retries=engine.retries,
    )


def _extractive(engine: EngineConfig) -> bool:
    return all(url.startswith(EXTRACTIVE_URL) for url in engine.addresses)


def _shown(url: str) -> str:
    """The URL as records may hold it: without credentials and options."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.partition('?')[0].rpartition('@')[2]}"


def _key(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return file.read_text("utf-8").strip()
    except OSError as error:
        raise InvalidRequest(f"{file}: {error.strerror}", field="models_file", reason="MODELS_INVALID") from error
