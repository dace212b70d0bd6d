"""Settings of the generator. Read once at start by the runtime."""

from pathlib import Path
from typing import Any

from pydantic import Field

from servicekit.runtime.settings import ServiceSettings, settings_config


class Settings(ServiceSettings):
    """Environment prefix `BINNACLE_GENERATOR__`."""

    model_config = settings_config("generator")

    port: int = Field(default=7702, ge=0, le=65535, description="the gRPC port; 0: a free one")
    models_file: Path | None = Field(
        default=None, description="YAML or JSON file of model aliases (models.example.yaml); unset: see `models`"
    )
    models: dict[str, Any] | None = Field(
        default=None,
        description='aliases as JSON, such as {"default": {"engine_url": "tgi://tgi:8080"}}, each as in a models_file; '
        "unset: `default` alone, on default_engine_url",
    )
    default_engine_url: str = Field(
        default="extractive://", description="engine of the alias `default` where neither models_file nor models is set"
    )
    prompts_dir: Path | None = Field(
        default=None, description="folder of further prompt templates (*.yaml); those packaged are always there"
    )
    canary_key_file: Path | None = Field(
        default=None,
        description="file of hexadecimal keys, the newest first, the same as the guardrail's: prompts may hold the "
        "newest one's canary, as {{ canary }}, which the guardrail finds in answers; unset: it is empty",
    )
    info_ttl_s: float = Field(default=60.0, gt=0, description="how long an engine's model and limits are believed")
