"""What tokens cost, now and at other times. Pure; used for every attempt by `accounting.py`."""

from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, datetime

from servicekit.domain.generation import Cost, Usage

ALWAYS = datetime.min.replace(tzinfo=UTC)
_PRICED_TOKENS = 1_000_000


@dataclass(frozen=True, slots=True)
class Price:
    """Prices of a million tokens in millionths of a US dollar; cached input tokens cost `cached_microusd`."""

    input_microusd: int = 0
    output_microusd: int = 0
    cached_microusd: int = 0
    version: str = "unpriced"

    def cost(self, usage: Usage) -> Cost:
        """The cost of one attempt, rounded half up to a whole micro-dollar once, at the end."""
        cached = min(usage.cached_tokens, usage.input_tokens)
        exact = (
            (usage.input_tokens - cached) * self.input_microusd
            + cached * self.cached_microusd
            + usage.output_tokens * self.output_microusd
        )
        return Cost((exact + _PRICED_TOKENS // 2) // _PRICED_TOKENS, self.version)


@dataclass(frozen=True, slots=True)
class PriceTable:
    """Prices, each with the time from which it holds, oldest first; the oldest holds before its time as well."""

    entries: tuple[tuple[datetime, Price], ...]

    def at(self, time: datetime) -> Price:
        """The price in force at a time."""
        newer = bisect_right(self.entries, time, key=lambda entry: entry[0])
        return self.entries[max(0, newer - 1)][1]
