"""Counts requests, tokens and cost by group, from collapsed rows. Called by `server.py`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from servicekit.ports.analytics_store import AnalyticsStore
from services.analytics.window import Tenancy, Window

MAX_ROWS = 10_000


class Group(StrEnum):
    """What usage can be grouped by; the value is the name in the answer."""

    TENANT = "tenant"
    MODEL = "model"
    PROMPT = "prompt"
    ROUTE = "route"
    PROJECT = "project"
    HOUR = "hour"
    DAY = "day"


_EXPRESSIONS = {
    Group.TENANT: "toString(tenant)",
    Group.MODEL: "toString(model)",
    Group.PROMPT: "if(empty(prompt.prompt_id), '', concat(prompt.prompt_id, '@', prompt.version))",
    Group.ROUTE: "toString(route)",
    Group.PROJECT: "toString(project)",
    Group.HOUR: "formatDateTime(toStartOfHour(complete_time), '%Y-%m-%dT%H:00:00Z', 'UTC')",
    Group.DAY: "formatDateTime(complete_time, '%Y-%m-%d', 'UTC')",
}
# Outcomes by number: FAILED, CANCELLED and DEADLINE are errors; BLOCKED is the guardrail's.
_FIGURES = {
    "requests": "count()",
    "errors": "countIf(outcome IN (4, 5, 6))",
    "blocked": "countIf(outcome = 2)",
    "input_tokens": "sum(usage.input_tokens)",
    "output_tokens": "sum(usage.output_tokens)",
    "cached_tokens": "sum(usage.cached_tokens)",
    "cost": "sum(cost_microusd)",
    "latency_p50": "toInt64(ifNotFinite(quantileTDigest(0.5)(duration_us), 0))",
    "latency_p95": "toInt64(ifNotFinite(quantileTDigest(0.95)(duration_us), 0))",
}


@dataclass(frozen=True, slots=True)
class UsageFigures:
    """The sums of one group; times in microseconds, cost in micro-dollars."""

    group: Mapping[str, str]
    requests: int
    errors: int
    blocked: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    cost_microusd: int
    latency_p50_us: int
    latency_p95_us: int


async def count_usage(
    store: AnalyticsStore, *, groups: Sequence[Group], window: Window, tenancy: Tenancy
) -> Sequence[UsageFigures]:
    """One row a group, the costliest first, at most 10,000; a single total without groups."""
    names = {f"group_{group.value}": _EXPRESSIONS[group] for group in groups}
    selected = ", ".join(f"{expression} AS {name}" for name, expression in {**names, **_FIGURES}.items())
    grouped = f"GROUP BY {', '.join(names)} " if names else ""
    rows = await store.query(
        f"SELECT {selected} FROM interactions_raw FINAL WHERE {tenancy.condition} "  # noqa: S608  # names of our own
        "AND complete_time >= {start:DateTime64(6, 'UTC')} AND complete_time < {end:DateTime64(6, 'UTC')} "
        f"{grouped}ORDER BY cost DESC, requests DESC LIMIT {MAX_ROWS}",
        {"start": window.start, "end": window.end, **tenancy.parameters},
    )
    return [
        UsageFigures(
            group={group.value: str(row[f"group_{group.value}"]) for group in groups},
            requests=row["requests"],
            errors=row["errors"],
            blocked=row["blocked"],
            input_tokens=row["input_tokens"],
            output_tokens=row["output_tokens"],
            cached_tokens=row["cached_tokens"],
            cost_microusd=row["cost"],
            latency_p50_us=row["latency_p50"],
            latency_p95_us=row["latency_p95"],
        )
        for row in rows
    ]
