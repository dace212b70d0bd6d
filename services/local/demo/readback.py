"""Reads back from ClickHouse what the demo left there; the only place of the demo that knows SQL.

Used by `__main__.py`, through the same client that anybody would use.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

_POLL_S = 0.5


class Store(Protocol):
    """What is needed of the analytics store."""

    async def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Any:
        """Rows as mappings."""
        ...


@dataclass(frozen=True, slots=True)
class Counts:
    """Everything counted once, from the collapsing views."""

    interactions: int
    evaluations: int
    evaluated_interactions: int
    verdicts: int
    feedback: int
    alerts: int
    gaps: int

    def as_dict(self) -> dict[str, int]:
        """By name."""
        return asdict(self)


_COUNTS = """
SELECT
    (SELECT uniqExact(request_id) FROM interactions) AS interactions,
    (SELECT count() FROM evaluations) AS evaluations,
    (SELECT uniqExact(request_id) FROM evaluations) AS evaluated_interactions,
    (SELECT count() FROM guardrail_decisions) AS verdicts,
    (SELECT uniqExact(feedback_id) FROM feedback) AS feedback,
    (SELECT uniqExact(alert_id) FROM drift_alerts) AS alerts
"""


async def read_counts(store: Store, *, gaps: int) -> Counts:
    """The counts as they stand."""
    (row,) = await store.query(_COUNTS)
    return Counts(**{name: int(value) for name, value in row.items()}, gaps=gaps)


async def wait_for_counts(store: Store, *, interactions: int, feedback: int, timeout_s: float) -> Counts:
    """Poll until that much has landed and every interaction is evaluated, or the time is over; the last counts."""
    counts = await read_counts(store, gaps=-1)
    try:
        async with asyncio.timeout(timeout_s):
            while (
                counts.interactions < interactions
                or counts.feedback < feedback
                or counts.evaluated_interactions < interactions
                or counts.alerts < 1
            ):
                await asyncio.sleep(_POLL_S)
                counts = await read_counts(store, gaps=-1)
    except TimeoutError:
        pass
    return counts
