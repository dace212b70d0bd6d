"""Wires the retriever: the only place that knows which adapters there are."""

import asyncio
import os
import sys
from functools import partial
from pathlib import Path

from binnacle.retriever.v1.retriever_service_pb2_grpc import add_RetrieverServiceServicer_to_server
from servicekit.adapters.http.content_source import open_content_source
from servicekit.adapters.registry import (
    open_embedder,
    open_event_bus,
    open_reranker,
    open_state_store,
    open_vector_store,
    preload,
)
from servicekit.errors import InvalidRequest
from servicekit.ports.embedder import Embedder
from servicekit.ports.event_bus import EventBus
from servicekit.ports.reranker import Reranker
from servicekit.ports.state_store import StateStore
from servicekit.ports.vector_store import VectorStore
from servicekit.rpc.client import open_channel
from servicekit.runtime.service import BackgroundTask, RpcService, Service, Stack
from services.retriever.clients import AUDIENCE, IDEMPOTENT, GuardClient
from services.retriever.config import NO_RERANKER, Settings
from services.retriever.events import RetrieverEvents
from services.retriever.formats.parse_workers import running_workers
from services.retriever.index.embedders import TenantEmbedders
from services.retriever.index.pacing import PacedEmbedder, PacedVectorStore, SearchGate, WatchedVectorStore
from services.retriever.index.reembedding import MAX_EMBEDDED_TOKENS, Reembedder, check_window
from services.retriever.index.write_gate import WriteGate
from services.retriever.ingestion.chunking import ChunkRules
from services.retriever.ingestion.duplicates import DuplicateStep
from services.retriever.ingestion.embedding import embed
from services.retriever.ingestion.fetching import Fetcher
from services.retriever.ingestion.guarding import GuardMode, GuardStep
from services.retriever.ingestion.indexing import Indexer
from services.retriever.ingestion.operations import Operations
from services.retriever.ingestion.preparing import Preparer, TextChecks
from services.retriever.search.profiles import read_profiles
from services.retriever.search.query_cache import QueryCache
from services.retriever.search.searching import Searcher
from services.retriever.server import SCOPES, SERVICE_NAME, RetrieverServicer


async def build(settings: Settings, stack: Stack) -> Service:
    """The retriever with its embedder, vector store, state store and bus opened."""
    embedder, previous, store = await _open_index(settings, stack)
    gate = SearchGate()
    searched = WatchedVectorStore(store, gate)
    hurried, store, embedder = embedder, PacedVectorStore(store, gate), PacedEmbedder(embedder, gate)
    previous = previous and PacedEmbedder(previous, gate)
    embedders = TenantEmbedders(store=store, current=embedder, previous=previous)
    reembedder = _make_reembedder(settings, store, embedder, previous, hurried=hurried, gate=embedders.gate)
    states: StateStore = await stack.enter(
        "state_store", open_state_store(settings.state_store_url), ping=lambda opened: opened.ping()
    )
    bus = await _open_bus(settings, stack)
    indexer = await _open_indexer(settings, stack, store=store, embedders=embedders)
    operations = Operations(store=states, clock=stack.clock)
    events = RetrieverEvents(
        indexer=indexer,
        operations=operations,
        publisher=bus,
        clock=stack.clock,
        embedding_model=embedder.model.id,
    )
    servicer = RetrieverServicer(
        indexer=indexer,
        searcher=Searcher(
            store=searched,
            embedders=embedders,
            profiles=read_profiles(settings.profiles_file),
            cache=QueryCache(entries=settings.query_cache_entries),
            reranker=await _open_reranker(settings, stack),
        ),
        store=store,
        events=events,
        operations=operations,
        reembedder=reembedder,
    )
    return Service(
        name="retriever",
        rpc_services=(
            RpcService(SERVICE_NAME, partial(add_RetrieverServiceServicer_to_server, servicer), scopes=SCOPES),
        ),
        bus=bus,
        subscriptions=events.subscriptions(),
        tasks=() if reembedder is None else (BackgroundTask("reembedding", reembedder.run),),
    )


async def _open_index(settings: Settings, stack: Stack) -> tuple[Embedder, Embedder | None, VectorStore]:
    """The embedders and the store; LanceDB takes two seconds to import, the embedder as long to load."""
    importing = asyncio.ensure_future(asyncio.to_thread(preload, "vector_store", settings.vector_store_url))
    try:
        embedder, previous = await _open_embedders(settings, stack)
    finally:
        await importing
    store: VectorStore = await stack.enter(
        "vector_store", open_vector_store(settings.vector_store_url), ping=lambda opened: opened.ping()
    )
    return embedder, previous, store


async def _open_bus(settings: Settings, stack: Stack) -> EventBus:
    """Searching needs no bus; what is to be indexed is spooled while Kafka is away."""
    bus: EventBus = await stack.enter(
        "event_bus",
        open_event_bus(
            settings.event_bus_url,
            identity=stack.identity,
            clock=stack.clock,
            spool_dir=settings.state_dir / "spool",
        ),
        ping=lambda opened: opened.ping(),
        essential=False,
    )
    return bus


async def _open_embedders(settings: Settings, stack: Stack) -> tuple[Embedder, Embedder | None]:
    """The embedder, and the one whose indexes are being moved: only their tenants miss it while it is away."""
    embedder: Embedder = await stack.enter(
        "embedder",
        open_embedder(settings.embedder_url, **_key_option(settings.embedder_api_key_file)),
        ping=lambda opened: opened.ping(),
    )
    if settings.previous_embedder_url is None:
        return embedder, None
    previous: Embedder = await stack.enter(
        "previous_embedder",
        open_embedder(settings.previous_embedder_url, **_key_option(settings.previous_embedder_api_key_file)),
        ping=lambda opened: opened.ping(),
        essential=False,
    )
    return embedder, previous


def _make_reembedder(
    settings: Settings,
    store: VectorStore,
    embedder: Embedder,
    previous: Embedder | None,
    *,
    hurried: Embedder,
    gate: WriteGate,
) -> Reembedder | None:
    if previous is None:
        return None
    check_window(embedder.model, previous=previous.model, chunk_tokens=MAX_EMBEDDED_TOKENS)
    return Reembedder(
        store=store,
        current=embedder,
        hurried=hurried,
        previous=previous.model,
        gate=gate,
        share=settings.reembedding_share,
    )


def _key_option(file: Path | None) -> dict[str, str]:
    """An embedder's or reranker's key, where one is given."""
    if file is None:
        return {}
    try:
        return {"api_key": file.read_text("utf-8").strip()}
    except OSError as error:
        raise InvalidRequest(
            f"the key file {str(file)!r} cannot be read: {error.strerror}", field="api_key_file"
        ) from error


async def _open_reranker(settings: Settings, stack: Stack) -> Reranker | None:
    """Searching goes on while it is away."""
    if settings.reranker_url == NO_RERANKER:
        return None
    reranker: Reranker = await stack.enter(
        "reranker",
        open_reranker(settings.reranker_url, **_key_option(settings.reranker_api_key_file)),
        ping=lambda opened: opened.ping(),
        essential=False,
    )
    return reranker


async def _open_indexer(settings: Settings, stack: Stack, *, store: VectorStore, embedders: TenantEmbedders) -> Indexer:
    """The ingestion pipeline; its steps in their order."""
    source = await stack.enter(
        "content_source", open_content_source(settings.fetch_allowed_prefixes, timeout_s=settings.fetch_timeout_s)
    )
    workers = await stack.enter(
        "parse_workers",
        running_workers(
            workers=settings.parse_workers,
            memory_mb=settings.parse_memory_mb,
            timeout_s=settings.parse_timeout_s,
            environment={"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        ),
    )
    checks = TextChecks(
        boilerplate=settings.check_boilerplate,
        language=settings.check_language,
        expected_languages=frozenset(settings.expected_languages.lower().split()),
    )
    return Indexer(
        store=store,
        embedders=embedders,
        clock=stack.clock,
        fetch=Fetcher(source),
        steps=(
            Preparer(ChunkRules(), binaries=workers, checks=checks, policy=_policy(settings)),
            *await _open_guard(settings, stack),
            embed,
            DuplicateStep(store, decision=settings.check_duplicates),
        ),
    )


async def _open_guard(settings: Settings, stack: Stack) -> tuple[GuardStep, ...]:
    """The guardrail's step, or none.

    Raises:
        InvalidRequest: it is asked for without saying where the guardrail is, or without a key to sign tokens with.
    """
    if settings.ingest_guard is GuardMode.OFF:
        return ()
    if not settings.guardrail_target or stack.minter is None:
        raise InvalidRequest(
            f"guardrail_target and token_private_key_file must be set for ingest_guard={settings.ingest_guard}: "
            "documents are judged by the guardrail in their tenants' names",
            field="guardrail_target",
        )
    channel = await stack.enter(
        "guardrail",
        open_channel(settings.guardrail_target, audience=AUDIENCE, minter=stack.minter, idempotent=IDEMPOTENT),
    )
    guard = GuardClient(channel, deadline_s=settings.guard_deadline_s)
    return (GuardStep(guard, mode=settings.ingest_guard, clock=stack.clock),)


def _policy(settings: Settings) -> str:
    """What else shapes the stored text: with another setting the same document is due for indexing again."""
    stored_redacted = settings.ingest_guard is GuardMode.REDACT
    return " redacted" if stored_redacted else ""
