"""Settings of the retriever. Read once at start by the runtime."""

from pydantic import Field

from servicekit.runtime.settings import ServiceSettings, settings_config


class Settings(ServiceSettings):
    """Environment prefix `BINNACLE_RETRIEVER__`."""

    model_config = settings_config("retriever")

    port: int = 7701
    vector_store_url: str = Field(default="lancedb:///var/lib/binnacle/lancedb", description="the vector store")
    embedder_url: str = Field(
        default="onnx://minilm?precision=int8", description="the embedder; also threads=… and cache_dir=…"
    )
    state_store_url: str = Field(default="memory://", description="where operations are kept for a day")
