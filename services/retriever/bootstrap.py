"""Wires the retriever: the only place that knows which adapters there are."""

from functools import partial

from binnacle.retriever.v1.retriever_service_pb2_grpc import add_RetrieverServiceServicer_to_server
from servicekit.adapters.registry import (
    open_embedder,
    open_event_bus,
    open_reranker,
    open_state_store,
    open_vector_store,
)
from servicekit.ports.embedder import Embedder
from servicekit.ports.event_bus import EventBus
from servicekit.ports.reranker import Reranker
from servicekit.ports.state_store import StateStore
from servicekit.ports.vector_store import VectorStore
from servicekit.runtime.service import RpcService, Service, Stack
from services.retriever.config import NO_RERANKER, Settings
from services.retriever.events import RetrieverEvents
from services.retriever.indexing import Indexer
from services.retriever.operations import Operations
from services.retriever.query_cache import QueryCache
from services.retriever.search_profiles import read_profiles
from services.retriever.searching import Searcher
from services.retriever.server import SCOPES, SERVICE_NAME, RetrieverServicer


async def build(settings: Settings, stack: Stack) -> Service:
    """The retriever with its embedder, vector store, state store and bus opened."""
    embedder: Embedder = await stack.enter(
        "embedder", open_embedder(settings.embedder_url), ping=lambda opened: opened.ping()
    )
    store: VectorStore = await stack.enter(
        "vector_store",
        open_vector_store(settings.vector_store_url, dimension=embedder.model.dimension),
        ping=lambda opened: opened.ping(),
    )
    states: StateStore = await stack.enter(
        "state_store", open_state_store(settings.state_store_url), ping=lambda opened: opened.ping()
    )
    # Searching needs no bus; what is to be indexed is spooled while Kafka is away.
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
    indexer = Indexer(store=store, embedder=embedder, clock=stack.clock)
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
            store=store,
            embedder=embedder,
            profiles=read_profiles(settings.profiles_file),
            cache=QueryCache(entries=settings.query_cache_entries),
            reranker=await _open_reranker(settings, stack),
        ),
        store=store,
        events=events,
        operations=operations,
    )
    return Service(
        name="retriever",
        rpc_services=(
            RpcService(SERVICE_NAME, partial(add_RetrieverServiceServicer_to_server, servicer), scopes=SCOPES),
        ),
        bus=bus,
        subscriptions=events.subscriptions(),
    )


async def _open_reranker(settings: Settings, stack: Stack) -> Reranker | None:
    """Searching goes on while it is away."""
    if settings.reranker_url == NO_RERANKER:
        return None
    reranker: Reranker = await stack.enter(
        "reranker", open_reranker(settings.reranker_url), ping=lambda opened: opened.ping(), essential=False
    )
    return reranker
