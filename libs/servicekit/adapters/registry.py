"""Chooses an adapter by the scheme of its URL, from one table of dotted names.

Called by `services.*.bootstrap`; an adapter, and the client library it needs, is imported only when chosen.

Each target is `module:function`; the function takes the URL first, then the keyword options given here, and
returns an async context manager that yields the opened adapter.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from importlib import import_module
from types import MappingProxyType
from typing import Any

from servicekit.domain.identity import ServiceIdentity
from servicekit.errors import InvalidRequest
from servicekit.ports.analytics_store import AnalyticsStore
from servicekit.ports.clock import Clock
from servicekit.ports.event_bus import EventBus
from servicekit.ports.state_store import StateStore

_ADAPTERS = "servicekit.adapters"

ADAPTERS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "event_bus": {
            "kafka": f"{_ADAPTERS}.kafka.event_bus:open_event_bus",
            "memory": f"{_ADAPTERS}.memory.event_bus:open_event_bus",
        },
        "analytics_store": {
            "clickhouse": f"{_ADAPTERS}.clickhouse.analytics_store:open_analytics_store",
        },
        "vector_store": {
            "lancedb": f"{_ADAPTERS}.lancedb.vector_store:open_vector_store",
            "memory": f"{_ADAPTERS}.memory.vector_store:open_vector_store",
            "weaviate": f"{_ADAPTERS}.weaviate.vector_store:open_vector_store",
            "weaviates": f"{_ADAPTERS}.weaviate.vector_store:open_vector_store",
        },
        "embedder": {
            "onnx": f"{_ADAPTERS}.onnx.embedder:open_embedder",
            "memory": f"{_ADAPTERS}.memory.embedder:open_embedder",
            "openai": f"{_ADAPTERS}.openai.embedder:open_embedder",
            "tei": f"{_ADAPTERS}.tei.embedder:open_embedder",
        },
        "engine": {
            "extractive": f"{_ADAPTERS}.extractive.engine:open_engine",
            "openai": f"{_ADAPTERS}.openai.engine:open_engine",
            "tgi": f"{_ADAPTERS}.tgi.engine:open_engine",
        },
        "reranker": {
            "lexical": f"{_ADAPTERS}.lexical.reranker:open_reranker",
            "tei": f"{_ADAPTERS}.tei.reranker:open_reranker",
        },
        "state_store": {
            "memory": f"{_ADAPTERS}.memory.state_store:open_state_store",
            "redis": f"{_ADAPTERS}.redis.state_store:open_state_store",
            "rediss": f"{_ADAPTERS}.redis.state_store:open_state_store",
        },
    }
)


def open_event_bus(
    url: str, *, identity: ServiceIdentity, clock: Clock, **options: Any
) -> AbstractAsyncContextManager[EventBus]:
    """Connect to the bus at `url`; publishing works at once, consuming begins with `start_consuming`."""
    bus: AbstractAsyncContextManager[EventBus] = _open("event_bus", url, identity=identity, clock=clock, **options)
    return bus


def open_analytics_store(url: str, **options: Any) -> AbstractAsyncContextManager[AnalyticsStore]:
    """Connect to one database of the analytics store."""
    store: AbstractAsyncContextManager[AnalyticsStore] = _open("analytics_store", url, **options)
    return store


def open_state_store(url: str, **options: Any) -> AbstractAsyncContextManager[StateStore]:
    """Connect to the state store."""
    store: AbstractAsyncContextManager[StateStore] = _open("state_store", url, **options)
    return store


def open_vector_store(url: str, **options: Any) -> AbstractAsyncContextManager[Any]:
    """Open the vector store (`ports.vector_store.VectorStore`)."""
    return _open("vector_store", url, **options)


def open_embedder(url: str, **options: Any) -> AbstractAsyncContextManager[Any]:
    """Open an embedder (`ports.embedder.Embedder`)."""
    return _open("embedder", url, **options)


def open_reranker(url: str, **options: Any) -> AbstractAsyncContextManager[Any]:
    """Open a reranker (`ports.reranker.Reranker`)."""
    return _open("reranker", url, **options)


def open_engine(url: str, **options: Any) -> AbstractAsyncContextManager[Any]:
    """Open an engine (`ports.engine.Engine`)."""
    return _open("engine", url, **options)


def preload(port: str, url: str) -> None:
    """Import the adapter that `url` names; in a thread while others are opened, where the import takes seconds."""
    _find(port, url)


def _open(port: str, url: str, **options: Any) -> AbstractAsyncContextManager[Any]:
    opened: AbstractAsyncContextManager[Any] = _find(port, url)(url, **options)
    return opened


def _find(port: str, url: str) -> Callable[..., AbstractAsyncContextManager[Any]]:
    scheme = url.partition("://")[0]
    known = ADAPTERS[port]
    if scheme not in known:
        valid = ", ".join(f"{name}://" for name in sorted(known))
        raise InvalidRequest(
            f"{port}_url must begin with one of {valid}; got {url!r}",
            field=f"{port}_url",
            reason="UNKNOWN_SCHEME",
        )
    module, _, function = known[scheme].partition(":")
    found: Callable[..., AbstractAsyncContextManager[Any]] = getattr(import_module(module), function)
    return found
