"""The file of model aliases: which engine each stands for, its limits, prices, sampling and fallbacks.

Parsed at start by `bootstrap.py`; a fault is told by its place in the file and what would be valid.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from servicekit.domain.prompt import Sampling
from servicekit.errors import InvalidRequest
from services.generator.pricing import Price

DEFAULT_ALIAS = "default"
EXTRACTIVE_URL = "extractive://"
_MAX_FILE_BYTES = 1_048_576

Alias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$")]


class SamplingConfig(BaseModel):
    """Defaults of an alias; bounds are those of `Sampling`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    max_output_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None

    def sampling(self) -> Sampling:
        """The domain's settings."""
        return Sampling(**self.model_dump())


class ModelConfig(BaseModel):
    """One alias. Prices are for a million tokens, in millionths of a US dollar."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine_url: str
    api_key_file: Path | None = None
    window_tokens: int | None = Field(default=None, ge=64, le=10_000_000)
    first_token_s: float = Field(default=20.0, gt=0, le=600)
    input_price_microusd: int = Field(default=0, ge=0)
    output_price_microusd: int = Field(default=0, ge=0)
    cached_input_price_microusd: int | None = Field(default=None, ge=0)
    sampling: SamplingConfig = SamplingConfig()
    prompt: str = "grounded-answer"
    fallbacks: tuple[Alias, ...] = ()

    def price(self, version: str) -> Price:
        """The price table of this alias; cached tokens cost as much as others unless stated."""
        cached = self.cached_input_price_microusd
        return Price(
            self.input_price_microusd,
            self.output_price_microusd,
            self.input_price_microusd if cached is None else cached,
            version,
        )


class ModelsConfig(BaseModel):
    """The whole file; `price_version` names the prices in every record."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: Mapping[Alias, ModelConfig] = Field(min_length=1, max_length=256)
    price_version: Annotated[str, StringConstraints(min_length=1, max_length=64)] = "unpriced"
    extractive_fallback: bool = True


def read_models(path: Path) -> ModelsConfig:
    """Read the file.

    Raises:
        InvalidRequest: no such file, not YAML, or something in it that cannot be followed.
    """
    try:
        source = path.read_bytes()
    except OSError as error:
        raise _invalid(path, error.strerror or "cannot be read") from error
    if len(source) > _MAX_FILE_BYTES:
        raise _invalid(path, f"is larger than {_MAX_FILE_BYTES} bytes")
    try:
        content = yaml.safe_load(source)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise _invalid(path, f"is no YAML: {error}") from error
    return parse_models(content, file=path)


def parse_models(content: Any, *, file: Path | str) -> ModelsConfig:
    """Check what was read; `file` names the source in what is told of a fault."""
    try:
        config = ModelsConfig.model_validate(content)
        for alias, model in config.models.items():
            _check_model(alias, model, config, file=file)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in fault["loc"]) or "the file"
        raise _invalid(file, f"{place}: {fault['msg']}") from error
    if DEFAULT_ALIAS not in config.models:
        raise _invalid(file, f"models must name the alias {DEFAULT_ALIAS!r}, which is asked for by an empty model")
    return config


def single_model(engine_url: str) -> ModelsConfig:
    """The configuration where there is no file: one alias, unpriced."""
    return ModelsConfig(models={DEFAULT_ALIAS: ModelConfig(engine_url=engine_url)})


def _check_model(alias: str, model: ModelConfig, config: ModelsConfig, *, file: Path | str) -> None:
    for fallback in model.fallbacks:
        if fallback not in config.models:
            known = ", ".join(sorted(config.models))
            raise _invalid(file, f"models.{alias}.fallbacks: {fallback!r} is no alias; known: {known}")
    try:
        model.sampling.sampling()
    except InvalidRequest as error:
        raise _invalid(file, f"models.{alias}.{error.message}") from error


def _invalid(file: Path | str, fault: str) -> InvalidRequest:
    return InvalidRequest(f"{file}: {fault}", field="models_file", reason="MODELS_INVALID")
