"""Wires the gateway: the only place that knows which adapters there are."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc

from binnacle.gateway.v1.gateway_service_pb2_grpc import add_GatewayServiceServicer_to_server
from servicekit.adapters.registry import open_event_bus, open_state_store
from servicekit.domain.ids import RequestIds
from servicekit.rpc.client import open_channel
from servicekit.rpc.keyfiles import ensure_hmac_key, read_hmac_keys
from servicekit.runtime.service import HttpApp, RpcService, Service, Stack
from services.gateway.admission import Admission
from services.gateway.answering import Answering, Stages
from services.gateway.clients import IDEMPOTENT, GeneratorClient, GuardClient, RetrieverClient, ping
from services.gateway.config import Settings
from services.gateway.conversations import Conversations
from services.gateway.convert import decode_answer, encode_answer
from services.gateway.events import feedback_recorded, interaction_completed
from services.gateway.feedback import FeedbackDesk
from services.gateway.generating import Generating
from services.gateway.idempotency import AnswerCodec, Idempotency
from services.gateway.openai_api import HttpLimits, OpenAiApi
from services.gateway.publishing import Publishing
from services.gateway.screening import Screening
from services.gateway.server import SCOPES, GatewayServicer
from services.gateway.speculation import Speculation


@dataclass(frozen=True, slots=True)
class _Backends:
    guard: GuardClient
    retriever: RetrieverClient
    generator: GeneratorClient


async def build(settings: Settings, stack: Stack) -> Service:
    """The gateway behind gRPC and the OpenAI-compatible API."""
    bus = await stack.enter(
        "event_bus",
        open_event_bus(
            settings.event_bus_url,
            identity=stack.identity,
            clock=stack.clock,
            spool_dir=settings.state_dir / "spool",
        ),
        ping=lambda bus: bus.ping(),
    )
    backends = await _open_backends(settings, stack)
    publishing = Publishing(bus, ack_timeout_s=settings.ack_timeout_s)
    ids = _request_ids(settings)
    answering = await _answering(settings, stack, backends, publishing, ids)
    desk = FeedbackDesk(
        ids=ids, guard=backends.guard, publishing=publishing, event_of=feedback_recorded, clock=stack.clock
    )
    servicer = GatewayServicer(
        answering,
        desk,
        default_deadline_s=settings.default_deadline_s,
        slow_reader_s=settings.slow_reader_s,
    )
    api = OpenAiApi(
        answering,
        backends.generator,
        authenticator=stack.authenticator,
        clock=stack.clock,
        limits=HttpLimits(settings.default_deadline_s, settings.slow_reader_s, settings.max_http_body_bytes),
    )
    rpc = RpcService(
        name="binnacle.gateway.v1.GatewayService",
        add_to_server=partial(add_GatewayServiceServicer_to_server, servicer),
        scopes=SCOPES,
    )
    return Service(
        name="gateway",
        rpc_services=(rpc,),
        bus=bus,
        http=HttpApp(app=api.app, host=settings.http_host or settings.host, port=settings.http_port),
        drain=(publishing.drain,),
    )


async def _open_backends(settings: Settings, stack: Stack) -> _Backends:
    """Channels to the backends; without one the gateway still serves, and degrades."""

    async def channel(name: str, target: str, *scopes: str, as_name: str = "") -> grpc.aio.Channel:
        opened: Any = open_channel(
            target, audience=name, minter=stack.minter, scopes=scopes, idempotent=IDEMPOTENT[name]
        )
        return await stack.enter(as_name or name, opened, ping=None if as_name else ping, essential=False)

    guardrail = settings.guardrail_target
    restoring = await channel("guardrail", guardrail, "guard", "restore", as_name="guardrail_restoring")

    return _Backends(
        guard=GuardClient(await channel("guardrail", guardrail, "guard"), restoring=restoring),
        retriever=RetrieverClient(await channel("retriever", settings.retriever_target, "search")),
        generator=GeneratorClient(await channel("generator", settings.generator_target, "generate")),
    )


async def _answering(
    settings: Settings, stack: Stack, backends: _Backends, publishing: Publishing, ids: RequestIds
) -> Answering:
    store = await stack.enter(
        "state_store",
        open_state_store(settings.state_store_url),
        ping=lambda store: store.ping(),
        essential=False,  # without it conversations have no history, and idempotency keys are UNAVAILABLE
    )
    fail_open = settings.guard_failure == "open"
    stages = Stages(
        Speculation(
            backends.guard,
            backends.retriever,
            speculative=settings.speculative_retrieval,
            fail_open=fail_open,
        ),
        Screening(backends.guard, fail_open=fail_open),
        Generating(backends.generator, backends.guard, fail_open=fail_open),
    )
    return Answering(
        stages=stages,
        guard=backends.guard,
        routes=settings.routes,
        ids=ids,
        admission=Admission(max_in_flight=settings.max_concurrent_answers),
        idempotency=Idempotency(store, codec=AnswerCodec(encode_answer, decode_answer)),
        conversations=Conversations(store),
        publishing=publishing,
        event_of=interaction_completed,
        clock=stack.clock,
    )


def _request_ids(settings: Settings) -> RequestIds:
    """The signer of request ids; replicas on other machines need the same key file."""
    key_file = settings.request_id_key_file or settings.state_dir / "request_ids.key"
    ensure_hmac_key(key_file)
    return RequestIds(read_hmac_keys(key_file))
