"""Wires the generator: the only place that knows which adapters there are."""

from functools import partial

from binnacle.generator.v1.generator_service_pb2_grpc import add_GeneratorServiceServicer_to_server
from servicekit.adapters.registry import open_engine
from servicekit.domain.canary import canary_of
from servicekit.rpc.keyfiles import read_hmac_keys
from servicekit.runtime.service import RpcService, Service, Stack
from servicekit.runtime.settings import variable_of
from services.generator.config import Settings
from services.generator.generating import Generator
from services.generator.model_config import ModelConfig, ModelsConfig, parse_models, read_models, single_model
from services.generator.models import Model, Models
from services.generator.opening import last_resort, opened_model, route_of
from services.generator.routes import Route
from services.generator.server import SCOPES, SERVICE_NAME, GeneratorServicer
from services.generator.templates import PromptLibrary, load_prompts


async def build(settings: Settings, stack: Stack) -> Service:
    """The generator, its models configured and their engines opened; no engine is asked yet.

    Raises:
        InvalidRequest: a models, prompt or key file cannot be followed; names file and place.
    """
    config = _configured(settings)
    keys = read_hmac_keys(settings.canary_key_file) if settings.canary_key_file else ()
    prompts = load_prompts(settings.prompts_dir, canary=canary_of(keys[0]) if keys else "")
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
        opened.append(await _open_model(route_of(alias, model, config.price_version), model, settings, stack))
    extractive = None
    if config.extractive_fallback:
        extractive = await _open_model(*last_resort(config), settings, stack)
    return Models(opened, last_resort=extractive, clock=stack.clock)


async def _open_model(route: Route, config: ModelConfig, settings: Settings, stack: Stack) -> Model:
    # No engine is essential: another stands in, and ListModels tells what can be asked for now.
    model = opened_model(route, config, open_engine=open_engine, info_ttl_s=settings.info_ttl_s, clock=stack.clock)
    return await stack.enter(f"engine:{route.alias}", model, ping=lambda opened: opened.ping(), essential=False)
