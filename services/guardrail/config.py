"""Settings of the guardrail. Read once at start by the runtime."""

from pathlib import Path

from pydantic import Field

from servicekit.runtime.settings import ServiceSettings, settings_config


class Settings(ServiceSettings):
    """Environment prefix `BINNACLE_GUARDRAIL__`."""

    model_config = settings_config("guardrail")

    port: int = Field(default=7703, ge=0, le=65535, description="the gRPC port; 0: a free one")
    policy_dir: Path | None = Field(
        default=None, description="folder of <tenant>.yaml and default.yaml; unset: the packaged policy for all"
    )
    policy_poll_s: float = Field(default=2.0, gt=0, description="between two looks for changed policy files")
    worker_threads: int = Field(default=2, ge=1, description="threads that judge long texts")
    worker_queue: int = Field(default=64, ge=0, description="long checks waiting; more: RESOURCE_EXHAUSTED")
    retrieved_cache_entries: int = Field(default=50_000, ge=0, description="judgements of chunks kept in memory")
    decision_queue: int = Field(
        default=10_000,
        ge=1,
        description="decisions held while neither Kafka nor the spool takes them; more: checks wait, then fail",
    )
