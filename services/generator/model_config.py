"""The file of model aliases: which engines each stands for, its limits, prices, sampling and fallbacks.

Parsed at start by `bootstrap.py`; a fault is told by its place and line in the file and what would be valid.
"""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from servicekit.domain.prompt import Sampling
from servicekit.errors import InvalidRequest
from services.generator.engine_config import (
    Adapter,
    EngineConfig,
    Prices,
    PriceVersion,
    check_prices,
    price_table,
)
from services.generator.pricing import ALWAYS, Price, PriceTable
from services.generator.yaml_lines import line_of

DEFAULT_ALIAS = "default"
EXTRACTIVE_URL = "extractive://"
PER_REQUEST = "per_request"
_MAX_FILE_BYTES = 1_048_576

Alias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$")]


class SamplingConfig(BaseModel):
    """Defaults of an alias; bounds are those of `Sampling`.

    `seed` may be `per_request`: made from the request's id, so that a repeat of it gets the same one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    max_output_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | Literal["per_request"] | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None

    def sampling(self) -> Sampling:
        """The domain's settings; a seed per request is not among them."""
        seed = None if self.seed == PER_REQUEST else self.seed
        return Sampling(**{**self.model_dump(), "seed": seed})


class ModelConfig(BaseModel):
    """One alias: `engine_url`, or `engines` in the order in which they stand in for each other.

    Prices are for a million tokens, in millionths of a US dollar: one price for all time, or `prices` with versions.
    `deterministic` answers greedily and with a pinned seed, whatever the caller asks for.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine_url: str | None = None
    engines: tuple[EngineConfig, ...] = Field(default=(), max_length=64)
    api_key_file: Path | None = None
    adapter: Adapter = ""
    window_tokens: int | None = Field(default=None, ge=64, le=10_000_000)
    first_token_s: float = Field(default=20.0, gt=0, le=600)
    input_price_microusd: int = Field(default=0, ge=0)
    output_price_microusd: int = Field(default=0, ge=0)
    cached_input_price_microusd: int | None = Field(default=None, ge=0)
    prices: Prices = ()
    sampling: SamplingConfig = SamplingConfig()
    deterministic: bool = False
    prompt: str = "grounded-answer"
    fallbacks: tuple[Alias, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.engine_url is None) == (not self.engines):
            raise ValueError("needs either engine_url or engines")
        if self.engines and not any(engine.weight for engine in self.engines):
            raise ValueError("engines must hold one with a weight over 0, where requests can begin")
        single = {"input_price_microusd", "output_price_microusd", "cached_input_price_microusd"}
        if self.prices and self.model_fields_set & single:
            raise ValueError("prices replaces input_price_microusd and its like; give one or the other")
        check_prices(self.prices)
        if self.deterministic and (self.sampling.temperature or self.sampling.seed == PER_REQUEST):
            raise ValueError("deterministic means temperature 0 and a pinned seed; take them out of sampling")
        return self

    def all_engines(self) -> tuple[EngineConfig, ...]:
        """The engines in order; that of `engine_url` has every default."""
        if self.engine_url is not None:
            return (EngineConfig(url=self.engine_url),)
        return self.engines

    def price_table(self, engine: EngineConfig, version: str) -> PriceTable:
        """The prices of one engine: its own, else the alias's, else its one price under the file's version."""
        if engine.prices or self.prices:
            return price_table(engine.prices or self.prices)
        cached = self.cached_input_price_microusd
        price = Price(
            self.input_price_microusd,
            self.output_price_microusd,
            self.input_price_microusd if cached is None else cached,
            version,
        )
        return PriceTable(((ALWAYS, price),))


class ModelsConfig(BaseModel):
    """The whole file; `price_version` names prices without a version of their own in every record."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: Mapping[Alias, ModelConfig] = Field(min_length=1, max_length=256)
    price_version: PriceVersion = "unpriced"
    extractive_fallback: bool = True


def read_models(path: Path) -> ModelsConfig:
    """Read the file.

    Raises:
        InvalidRequest: no such file, not YAML, or something in it that cannot be followed.
    """
    try:
        source = path.read_bytes()
    except OSError as error:
        raise _Source(path).invalid((), error.strerror or "cannot be read") from error
    if len(source) > _MAX_FILE_BYTES:
        raise _Source(path).invalid((), f"is larger than {_MAX_FILE_BYTES} bytes")
    try:
        content = yaml.safe_load(source)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise _Source(path).invalid((), f"is no YAML: {error}") from error
    return _checked(content, _Source(path, source))


def parse_models(content: Any, *, file: Path | str) -> ModelsConfig:
    """Check what was read; `file` names the source in what is told of a fault."""
    return _checked(content, _Source(file))


def single_model(engine_url: str) -> ModelsConfig:
    """The configuration where there is no file: one alias, unpriced."""
    return ModelsConfig(models={DEFAULT_ALIAS: ModelConfig(engine_url=engine_url)})


class _Source:
    """Where the configuration comes from, and how a fault in it is told."""

    def __init__(self, file: Path | str, text: bytes | None = None) -> None:
        self._file = file
        self._text = text

    def invalid(self, path: Sequence[str | int], fault: str) -> InvalidRequest:
        line = line_of(self._text, path) if self._text is not None and path else None
        place = str(self._file) if line is None else f"{self._file}, line {line}"
        return InvalidRequest(f"{place}: {fault}", field="models_file", reason="MODELS_INVALID")


def _checked(content: Any, source: _Source) -> ModelsConfig:
    try:
        config = ModelsConfig.model_validate(content)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in fault["loc"]) or "the file"
        message = _told(fault["type"], fault["loc"], fault["msg"])
        raise source.invalid(fault["loc"], f"{place}: {message}") from error
    for alias, model in config.models.items():
        _check_model(alias, model, config, source)
    if DEFAULT_ALIAS not in config.models:
        told = f"models must name the alias {DEFAULT_ALIAS!r}, which is asked for by an empty model"
        raise source.invalid(("models",), told)
    return config


def _told(kind: str, path: Sequence[str | int], message: str) -> str:
    """The fault in words; a name that is no setting gets the nearest that is one."""
    if kind != "extra_forbidden":
        return message.removeprefix("Value error, ")
    known = {name for part in (ModelsConfig, ModelConfig, EngineConfig, SamplingConfig) for name in part.model_fields}
    near = get_close_matches(str(path[-1]), known, n=1)
    return f"is no setting; did you mean {near[0]}?" if near else "is no setting"


def _check_model(alias: str, model: ModelConfig, config: ModelsConfig, source: _Source) -> None:
    for place, fallback in enumerate(model.fallbacks):
        if fallback not in config.models:
            known = ", ".join(sorted(config.models))
            told = f"models.{alias}.fallbacks: {fallback!r} is no alias; known: {known}"
            raise source.invalid(("models", alias, "fallbacks", place), told)
    try:
        model.sampling.sampling()
    except InvalidRequest as error:
        path = ("models", alias, *error.field.split("."))
        raise source.invalid(path, f"models.{alias}.{error.message}") from error
