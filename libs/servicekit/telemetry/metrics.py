"""Declares Prometheus metrics: typed, once, with help and unit; exposed by the runtime at `/metrics`.

Labels are bounded sets: a method, a code, a stage; never an id, a tenant or a text.
"""

from collections.abc import Sequence
from typing import Literal

from prometheus_client import Counter, Gauge, Histogram

Unit = Literal["seconds", "bytes", "tokens", "events", "chunks", "ratio", ""]

LATENCY_BUCKETS_S = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip


def counter(name: str, *, meaning: str, unit: Unit = "", labels: Sequence[str] = ()) -> Counter:
    """Declare what only grows; exposed as `binnacle_<name>_<unit>_total`."""
    return Counter(name, meaning, labelnames=labels, namespace="binnacle", unit=unit)


def gauge(name: str, *, meaning: str, unit: Unit = "", labels: Sequence[str] = ()) -> Gauge:
    """Declare what goes up and down; exposed as `binnacle_<name>_<unit>`."""
    return Gauge(name, meaning, labelnames=labels, namespace="binnacle", unit=unit)


def histogram(
    name: str,
    *,
    meaning: str,
    unit: Unit = "seconds",
    labels: Sequence[str] = (),
    buckets: Sequence[float] = LATENCY_BUCKETS_S,
) -> Histogram:
    """Declare a distribution; exposed as `binnacle_<name>_<unit>` with the given upper bounds."""
    return Histogram(name, meaning, labelnames=labels, namespace="binnacle", unit=unit, buckets=buckets)
