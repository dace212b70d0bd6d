"""Settings of the evaluator. Read once at start by the runtime."""

from pydantic import Field

from servicekit.runtime.settings import ServiceSettings, settings_config


class Settings(ServiceSettings):
    """Environment prefix `BINNACLE_EVALUATOR__`."""

    model_config = settings_config("evaluator")

    port: int = 7704
    retriever_target: str = Field(default="dns:///127.0.0.1:7701", description="where chunk texts are read")
    chunk_cache_entries: int = Field(default=4096, ge=0, description="chunk texts kept in memory")
    chunk_cache_age_s: float = Field(default=60.0, gt=0, description="after it an erased chunk is noticed")
    chunk_deadline_s: float = Field(default=5.0, gt=0, description="for one read of chunk texts")
