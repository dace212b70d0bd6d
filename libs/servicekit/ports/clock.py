"""Time as a port, so that windows and deadlines are tested without sleeping. Injected everywhere."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Wall clock for records, monotonic clock for spans of time."""

    def now(self) -> datetime:
        """The time in UTC, aware."""
        ...

    def monotonic_s(self) -> float:
        """Seconds from an arbitrary start, never going back."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        """The time in UTC, aware."""
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        """Seconds from an arbitrary start, never going back."""
        return time.monotonic()
