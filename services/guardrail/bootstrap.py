"""Wires the guardrail: the only place that knows which adapters there are."""

import asyncio
from functools import partial

import structlog

from binnacle.guardrail.v1.guardrail_service_pb2_grpc import add_GuardrailServiceServicer_to_server
from servicekit.adapters.registry import open_embedder, open_event_bus, open_state_store
from servicekit.domain.canary import canary_of
from servicekit.errors import BinnacleError, InvalidRequest
from servicekit.ports.embedder import Embedder
from servicekit.ports.event_bus import EventBus
from servicekit.rpc.keyfiles import ensure_hmac_key, read_hmac_keys
from servicekit.runtime.service import BackgroundTask, RpcService, Service, Stack
from services.guardrail.checking import Guardrail
from services.guardrail.config import Settings
from services.guardrail.detectors.catalogue import all_detectors
from services.guardrail.detectors.detector import Embed
from services.guardrail.detectors.leak import LeakDetector
from services.guardrail.embedding import BlockingEmbedder, missing_embedder
from services.guardrail.events import DecisionEvents
from services.guardrail.judging import Judge
from services.guardrail.policy import OnFailure
from services.guardrail.policy_file import PolicyError
from services.guardrail.policy_store import PolicyStore
from services.guardrail.prompt_texts import load_prompt_texts
from services.guardrail.publishing import DecisionPublisher
from services.guardrail.retrieved_cache import RetrievedCache
from services.guardrail.server import SCOPES, SERVICE_NAME, GuardrailServicer
from services.guardrail.streaming.checks import StreamChecks
from services.guardrail.vault import Lifetimes, Vault
from services.guardrail.workers import Workers

log = structlog.get_logger()

_TURNS_PER_THREAD = 4
"""Pieces of streams that are with a thread or wait for it; the others wait outside of the queue of checks."""


async def build(settings: Settings, stack: Stack) -> Service:
    """The guardrail, its policies read and its bus opened.

    Raises:
        InvalidRequest: a policy file or a prompt cannot be followed; the message names file and line.
    """
    detectors = all_detectors(_leak_detector(settings))
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
        judge=Judge(detectors, embed=await _open_embed(settings, stack)),
        policies=policies,
        cache=RetrievedCache(capacity=settings.retrieved_cache_entries),
        workers=workers,
        record=DecisionEvents(publisher).record,
        clock=stack.clock,
        vault=await _open_vault(settings, stack),
        vault_failure=OnFailure(settings.vault_failure),
    )
    streams = StreamChecks(guardrail, clock=stack.clock, turns=_TURNS_PER_THREAD * settings.worker_threads)
    return Service(
        name="guardrail",
        rpc_services=(
            RpcService(
                SERVICE_NAME,
                partial(add_GuardrailServiceServicer_to_server, GuardrailServicer(guardrail, streams)),
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


def _leak_detector(settings: Settings) -> LeakDetector:
    """It knows the prompts and the canaries of this deployment."""
    keys = read_hmac_keys(settings.canary_key_file) if settings.canary_key_file else ()
    return LeakDetector(load_prompt_texts(settings.system_prompts_dir), canaries=tuple(map(canary_of, keys)))


async def _open_vault(settings: Settings, stack: Stack) -> Vault:
    """The vault on its state store; without the store checks go on, as `vault_failure` says.

    Raises:
        InvalidRequest: memory:// that was not allowed, or no usable key.
    """
    in_memory = settings.state_store_url.startswith("memory:")
    if in_memory and not settings.allow_memory_vault:
        raise InvalidRequest(
            "BINNACLE_GUARDRAIL__STATE_STORE_URL is memory://, which forgets what placeholders stand for when the "
            "process ends and is shared by no replica: name redis://host:6379/0, or set "
            "BINNACLE_GUARDRAIL__ALLOW_MEMORY_VAULT=true to try things out",
            field="state_store_url",
            reason="MEMORY_VAULT_REFUSED",
        )
    key_file = settings.vault_key_file
    if key_file is None and not in_memory:
        raise InvalidRequest(
            "BINNACLE_GUARDRAIL__VAULT_KEY_FILE must name the file of keys that every replica has: 64 hexadecimal "
            "digits a line, newest first (openssl rand -hex 32)",
            field="vault_key_file",
            reason="VAULT_KEY_MISSING",
        )
    if key_file is None:
        key_file = settings.state_dir / "vault.key"
        ensure_hmac_key(key_file)
    store = await stack.enter(
        "state_store",
        open_state_store(settings.state_store_url, clock=stack.clock),
        ping=lambda opened: opened.ping(),
        essential=False,
    )
    lifetimes = Lifetimes(settings.vault_ttl_s, settings.vault_request_ttl_s)
    return Vault(store, read_hmac_keys(key_file), stack.clock, lifetimes=lifetimes)


async def _open_embed(settings: Settings, stack: Stack) -> Embed | None:
    """What embeds for detectors; one that cannot be opened is missing to them, and no reason not to start.

    Raises:
        InvalidRequest: no such embedder can be meant.
    """
    if not settings.embedder_url:
        return None
    key_file = settings.embedder_api_key_file
    try:
        key = {"api_key": key_file.read_text("utf-8").strip()} if key_file else {}
        embedder: Embedder = await stack.enter(
            "embedder",
            open_embedder(settings.embedder_url, **key),
            ping=lambda opened: opened.ping(),
            essential=False,
        )
    except InvalidRequest:
        raise
    except OSError as exc:
        raise InvalidRequest(
            f"the key file {str(key_file)!r} cannot be read: {exc.strerror}", field="embedder_api_key_file"
        ) from exc
    except BinnacleError as exc:
        log.error("embedder.missing", reason=exc.reason, cause=exc.message)  # noqa: TRY400  # the message says it all
        return missing_embedder(exc.reason)
    return BlockingEmbedder(
        embedder,
        asyncio.get_running_loop(),
        timeout_s=settings.embedding_timeout_s,
        cache_entries=settings.embedding_cache_entries,
    )
