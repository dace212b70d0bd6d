"""What the drift monitor's tests share: a laboratory that needs no Evidently, and short-hands for its types."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from servicekit.errors import BackendUnavailable
from servicekit.testing.clocks import FakeClock
from services.drift_monitor.alerts import Alert, AlertBook, Segment
from services.drift_monitor.judging import Comparison, Finding, Measured, Strictness, Summary, Test
from services.drift_monitor.monitor import DriftMonitor
from services.drift_monitor.traffic import ObservedRequest
from services.drift_monitor.windows import Observation, Window, WindowSizes

START = datetime(2030, 1, 1, tzinfo=UTC)
SEGMENT = Segment("acme", "docs")
SIZES = WindowSizes(reference_size=10, current_size=8, min_size=4)


class MeansLaboratory:
    """Compares means: p is 0 once they differ by more than 1, else 1. `failures` makes that many asks fail."""

    def __init__(self) -> None:
        self.failures = 0
        self.asked: list[tuple[str, ...]] = []

    async def compare(self, comparisons: Sequence[Comparison]) -> Sequence[Measured]:
        """One result per comparison."""
        if self.failures:
            self.failures -= 1
            raise BackendUnavailable("told to fail")
        self.asked.append(tuple(asked.signal for asked in comparisons))
        return [_compare(asked) for asked in comparisons]

    async def render_report(self, comparisons: Sequence[Comparison], *, thresholds: Mapping[str, float]) -> bytes:
        """The signals' names."""
        return f"<html>{' '.join(asked.signal for asked in comparisons)}</html>".encode()


def _compare(asked: Comparison) -> Measured:
    means = [math.fsum(values) / len(values) for values in (asked.reference, asked.current)]
    apart = abs(means[0] - means[1])
    return Measured(p_value=0.0 if apart > 1 else 1.0, effect=apart)


def seen_at(place: int, value: float, *, segment: Segment = SEGMENT, name: str = "r") -> ObservedRequest:
    """The request number `place`, one second after the one before, with a question of `value` words."""
    time = START + timedelta(seconds=place)
    return ObservedRequest(f"{name}-{place:04}", segment, time, {"question_words": value})


def make_monitor(
    laboratory: MeansLaboratory | None = None, clock: FakeClock | None = None, sizes: WindowSizes = SIZES
) -> tuple[DriftMonitor, list[Alert]]:
    """A monitor, and the list that its alerts' changes go to."""
    changes: list[Alert] = []
    book = AlertBook(clock=clock or FakeClock(), on_change=changes.append)
    monitor = DriftMonitor(sizes=sizes, strictness=Strictness(), laboratory=laboratory or MeansLaboratory(), book=book)
    return monitor, changes


def window(first: int, count: int = 8, *, sealed: bool = True) -> Window:
    """A window of `count` requests beginning with number `first`."""
    seen = [
        Observation(START + timedelta(seconds=place), f"r-{place:04}", {"question_words": 5.0})
        for place in range(first, first + count)
    ]
    return Window(tuple(seen), sealed=sealed)


def finding(*, drifted: bool, effect: float = 1.5, signal: str = "question_words") -> Finding:
    """What a test found of a signal."""
    return Finding(
        signal=signal,
        test=Test.KOLMOGOROV_SMIRNOV,
        p_value=0.0 if drifted else 1.0,
        threshold=0.001,
        effect=effect,
        drifted=drifted,
        reference=Summary(10, 5.0, 1.0),
        current=Summary(8, 9.0, 1.0),
    )
