"""Settings of the generator. Read once at start by the runtime."""

from pathlib import Path

from pydantic import Field
from servicekit.runtime.settings import ServiceSettings, settings_config


class Settings(ServiceSettings):
    """Environment prefix `BINNACLE_GENERATOR__`."""

    model_config = settings_config("generator")

    port: int = Field(default=7702, ge=0, le=65535, description="the gRPC port; 0: a free one")
    models_file: Path | None = Field(
        default=None, description="YAML or JSON file of model aliases; unset: `default` alone, on default_engine_url"
    )
    default_engine_url: str = Field(
        default="extractive://", description="engine of the alias `default` where no models_file is set"
    )
    prompts_dir: Path | None = Field(
        default=None, description="folder of further prompt templates (*.yaml); those packaged are always there"
    )
    info_ttl_s: float = Field(default=60.0, gt=0, description="how long an engine's model and limits are believed")
