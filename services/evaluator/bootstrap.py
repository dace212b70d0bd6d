"""Wires the evaluator: the only place that knows which adapters there are."""

from functools import partial

from binnacle.evaluator.v1.evaluator_service_pb2_grpc import add_EvaluatorServiceServicer_to_server
from servicekit.adapters.registry import open_event_bus
from servicekit.errors import InvalidRequest
from servicekit.ports.event_bus import EventBus
from servicekit.rpc.client import open_channel
from servicekit.runtime.service import RpcService, Service, Stack
from services.evaluator.chunk_cache import CachedChunks
from services.evaluator.clients import AUDIENCE, IDEMPOTENT, RetrieverChunks
from services.evaluator.config import Settings
from services.evaluator.evaluating import Evaluator
from services.evaluator.events import EvaluatorEvents
from services.evaluator.server import SCOPES, SERVICE_NAME, EvaluatorServicer


async def build(settings: Settings, stack: Stack) -> Service:
    """The evaluator, its bus and its channel to the retriever opened.

    Raises:
        InvalidRequest: there is no key to sign tokens with, so no chunk text could ever be read.
    """
    if stack.minter is None:
        raise InvalidRequest(
            "token_private_key_file must be set: the evaluator reads chunk texts in its tenants' names",
            field="token_private_key_file",
        )
    bus: EventBus = await stack.enter(
        "event_bus",
        open_event_bus(settings.event_bus_url, identity=stack.identity, clock=stack.clock),
        ping=lambda opened: opened.ping(),
    )
    channel = await stack.enter(
        "retriever",
        open_channel(settings.retriever_target, audience=AUDIENCE, minter=stack.minter, idempotent=IDEMPOTENT),
    )
    chunks = CachedChunks(
        RetrieverChunks(channel, deadline_s=settings.chunk_deadline_s),
        clock=stack.clock,
        max_entries=settings.chunk_cache_entries,
        max_age_s=settings.chunk_cache_age_s,
    )
    events = EvaluatorEvents(Evaluator(chunks=chunks, clock=stack.clock), bus)
    return Service(
        name="evaluator",
        rpc_services=(
            RpcService(
                SERVICE_NAME,
                partial(add_EvaluatorServiceServicer_to_server, EvaluatorServicer()),
                scopes=SCOPES,
            ),
        ),
        bus=bus,
        subscriptions=events.subscriptions(),
    )
