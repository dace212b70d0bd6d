"""Wires the guardrail: the only place that knows which adapters there are."""

from functools import partial

from binnacle.guardrail.v1.guardrail_service_pb2_grpc import add_GuardrailServiceServicer_to_server
from servicekit.adapters.registry import open_event_bus
from servicekit.errors import InvalidRequest
from servicekit.ports.event_bus import EventBus
from servicekit.runtime.service import BackgroundTask, RpcService, Service, Stack
from services.guardrail.checking import Guardrail
from services.guardrail.config import Settings
from services.guardrail.detectors.catalogue import all_detectors
from services.guardrail.events import DecisionEvents
from services.guardrail.judging import Judge
from services.guardrail.policy_file import PolicyError
from services.guardrail.policy_store import PolicyStore
from services.guardrail.publishing import DecisionPublisher
from services.guardrail.retrieved_cache import RetrievedCache
from services.guardrail.server import SCOPES, SERVICE_NAME, GuardrailServicer
from services.guardrail.workers import Workers


async def build(settings: Settings, stack: Stack) -> Service:
    """The guardrail, its policies read and its bus opened.

    Raises:
        InvalidRequest: a policy file cannot be followed; the message names file and line.
    """
    detectors = all_detectors()
    policies = PolicyStore(settings.policy_dir, detectors=detectors)
    try:
        policies.load()
    except PolicyError as exc:
        raise InvalidRequest(str(exc), field="policy_dir", reason="POLICY_INVALID") from exc
    bus: EventBus = await stack.enter(
        "event_bus",
        open_event_bus(
            settings.event_bus_url,
            identity=stack.identity,
            clock=stack.clock,
            spool_dir=settings.state_dir / "spool",
        ),
        ping=lambda opened: opened.ping(),
        essential=False,  # where not even the spool takes decisions they wait in memory; then checks fail by themselves
    )
    workers = await stack.enter("workers", Workers(threads=settings.worker_threads, queue=settings.worker_queue))
    publisher = DecisionPublisher(bus, capacity=settings.decision_queue)
    guardrail = Guardrail(
        judge=Judge(detectors),
        policies=policies,
        cache=RetrievedCache(capacity=settings.retrieved_cache_entries),
        workers=workers,
        record=DecisionEvents(publisher).record,
        clock=stack.clock,
    )
    return Service(
        name="guardrail",
        rpc_services=(
            RpcService(
                SERVICE_NAME,
                partial(add_GuardrailServiceServicer_to_server, GuardrailServicer(guardrail)),
                scopes=SCOPES,
            ),
        ),
        bus=bus,
        tasks=(
            BackgroundTask("publish_decisions", publisher.run),
            BackgroundTask("watch_policies", partial(policies.watch, every_s=settings.policy_poll_s)),
        ),
        drain=(publisher.drain,),
    )
