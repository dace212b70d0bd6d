"""One engine of an alias in the models file: its servers, its share, its bounds.

Pure; part of `model_config.py`, followed by `opening.py`.
"""

from pathlib import Path
from typing import Annotated, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from services.generator.pricing import Price, PriceTable

Adapter = Annotated[str, StringConstraints(max_length=128)]
PriceVersion = Annotated[str, StringConstraints(min_length=1, max_length=64)]


class PriceConfig(BaseModel):
    """Prices of a million tokens in millionths of a US dollar, in force from a time until the next one's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: PriceVersion
    from_time: AwareDatetime = Field(validation_alias="from")
    input_price_microusd: int = Field(default=0, ge=0)
    output_price_microusd: int = Field(default=0, ge=0)
    cached_input_price_microusd: int | None = Field(default=None, ge=0)

    def price(self) -> Price:
        """The domain's price; cached tokens cost as much as others unless stated."""
        cached = self.cached_input_price_microusd
        return Price(
            self.input_price_microusd,
            self.output_price_microusd,
            self.input_price_microusd if cached is None else cached,
            self.version,
        )


Prices = Annotated[tuple[PriceConfig, ...], Field(max_length=100)]


def price_table(prices: Prices) -> PriceTable:
    """The table, oldest first."""
    return PriceTable(tuple(sorted(((one.from_time, one.price()) for one in prices), key=lambda entry: entry[0])))


def check_prices(prices: Prices) -> None:
    """Raise ValueError where two entries share a version or a time."""
    for name in ("version", "from_time"):
        values = [getattr(one, name) for one in prices]
        doubled = next((value for value in values if values.count(value) > 1), None)
        if doubled is not None:
            shown = "from" if name == "from_time" else name
            raise ValueError(f"two prices have the {shown} {doubled}; each needs its own")


class EngineConfig(BaseModel):
    """One engine: the replicas of one model that take each other's place.

    `url` is one server, `urls` are several, `dns` is a URL whose host name stands for as many as it resolves to.
    `weight` is its share of the requests that begin here; 0: only a stand-in for the others.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str | None = None
    urls: tuple[str, ...] | None = Field(default=None, min_length=1, max_length=256)
    dns: str | None = None
    api_key_file: Path | None = None
    weight: float = Field(default=1.0, ge=0, le=1_000_000, allow_inf_nan=False)
    adapter: Adapter = ""
    first_token_s: float | None = Field(default=None, gt=0, le=600)
    attempt_s: float = Field(default=300.0, gt=0, le=3600)
    retries: int = Field(default=2, ge=0, le=8)
    concurrency: int | None = Field(default=None, ge=1, le=100_000)
    queue: int = Field(default=256, ge=0, le=100_000)
    hedging: bool = False
    affinity: bool = True
    prices: Prices = ()

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        given = [name for name in ("url", "urls", "dns") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"needs exactly one of url, urls and dns, got {', '.join(given) or 'none'}")
        if self.urls is not None and len(set(self.urls)) < len(self.urls):
            raise ValueError("urls must differ from each other")
        check_prices(self.prices)
        return self

    @property
    def addresses(self) -> tuple[str, ...]:
        """The URLs as they are written, that of `dns` as well."""
        if self.urls is not None:
            return self.urls
        return (self.url or self.dns or "",)
