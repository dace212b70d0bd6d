"""Settings of the retriever. Read once at start by the runtime."""

from pathlib import Path

from pydantic import Field

from servicekit.runtime.settings import ServiceSettings, settings_config
from services.retriever.query_cache import DEFAULT_ENTRIES

# `reranker_url` where there is no reranker.
NO_RERANKER = "none"


class Settings(ServiceSettings):
    """Environment prefix `BINNACLE_RETRIEVER__`."""

    model_config = settings_config("retriever")

    port: int = 7701
    vector_store_url: str = Field(default="lancedb:///var/lib/binnacle/lancedb", description="the vector store")
    embedder_url: str = Field(
        default="onnx://minilm?precision=int8", description="the embedder; also threads=… and cache_dir=…"
    )
    state_store_url: str = Field(default="memory://", description="where operations are kept for a day")
    reranker_url: str = Field(
        default="lexical://", description="the reranker of searches that ask for one; none: there is none"
    )
    profiles_file: Path | None = Field(
        default=None, description="YAML with search profiles by name; unset: the built-in default alone"
    )
    query_cache_entries: int = Field(
        default=DEFAULT_ENTRIES, ge=0, le=1_000_000, description="queries whose vectors are remembered; 0: none"
    )
