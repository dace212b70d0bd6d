"""Wires the generator: the only place that knows which adapters there are."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from binnacle.generator.v1.generator_service_pb2_grpc import add_GeneratorServiceServicer_to_server
from servicekit.adapters.registry import open_engine
from servicekit.domain.prompt import Sampling
from servicekit.errors import InvalidRequest
from servicekit.ports.clock import Clock
from servicekit.runtime.service import RpcService, Service, Stack
from servicekit.runtime.settings import variable_of
from services.generator.config import Settings
from services.generator.generating import Generator
from services.generator.model_config import (
    EXTRACTIVE_URL,
    ModelConfig,
    ModelsConfig,
    parse_models,
    read_models,
    single_model,
)
from services.generator.models import Model, Models, Route
from services.generator.pricing import Price
from services.generator.server import SCOPES, SERVICE_NAME, GeneratorServicer
from services.generator.templates import PromptLibrary, load_prompts

_LAST_RESORT = "extractive"


async def build(settings: Settings, stack: Stack) -> Service:
    """The generator, its models configured and their engines opened; no engine is asked yet.

    Raises:
        InvalidRequest: a models or prompt file cannot be followed; names file and place.
    """
    config = _configured(settings)
    prompts = load_prompts(settings.prompts_dir)
    models = await _open_models(config, prompts, settings, stack)
    generator = Generator(models, prompts, clock=stack.clock)
    servicer = GeneratorServicer(generator, models)
    return Service(
        name="generator",
        rpc_services=(
            RpcService(SERVICE_NAME, partial(add_GeneratorServiceServicer_to_server, servicer), scopes=SCOPES),
        ),
    )


def _configured(settings: Settings) -> ModelsConfig:
    if settings.models_file is not None:
        return read_models(settings.models_file)
    if settings.models is not None:
        return parse_models({"models": settings.models}, file=variable_of(Settings, "models"))
    return single_model(settings.default_engine_url)


async def _open_models(config: ModelsConfig, prompts: PromptLibrary, settings: Settings, stack: Stack) -> Models:
    opened = []
    for alias, model in config.models.items():
        prompts.get(model.prompt)
        opened.append(await _open_model(_route(alias, model, config.price_version), model, settings, stack))
    last_resort = None
    if config.extractive_fallback:
        free = Route(_LAST_RESORT, Price(version=config.price_version), Sampling(), "grounded-answer", extractive=True)
        last_resort = await _open_model(free, ModelConfig(engine_url=EXTRACTIVE_URL), settings, stack)
    return Models(opened, last_resort=last_resort)


async def _open_model(route: Route, config: ModelConfig, settings: Settings, stack: Stack) -> Model:
    # No engine is essential: another stands in, and ListModels tells what can be asked for now.
    model = _opened(route, config, settings, stack.clock)
    return await stack.enter(f"engine:{route.alias}", model, ping=lambda opened: opened.ping(), essential=False)


@asynccontextmanager
async def _opened(route: Route, config: ModelConfig, settings: Settings, clock: Clock) -> AsyncIterator[Model]:
    async with open_engine(config.engine_url, api_key=_key(config.api_key_file)) as engine:
        yield Model(route, engine, clock=clock, info_ttl_s=settings.info_ttl_s)


def _route(alias: str, config: ModelConfig, price_version: str) -> Route:
    return Route(
        alias=alias,
        price=config.price(price_version),
        sampling=config.sampling.sampling(),
        prompt_id=config.prompt,
        fallbacks=config.fallbacks,
        window_tokens=config.window_tokens,
        first_token_s=config.first_token_s,
        extractive=config.engine_url.startswith(EXTRACTIVE_URL),
    )


def _key(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return file.read_text("utf-8").strip()
    except OSError as error:
        raise InvalidRequest(f"{file}: {error.strerror}", field="models_file", reason="MODELS_INVALID") from error
