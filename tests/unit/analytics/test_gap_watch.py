"""The watch shows what is short as metrics, and tells each gap once."""

from datetime import UTC, datetime, timedelta

import pytest
import structlog
from prometheus_client import REGISTRY

from servicekit.events.topics import FEEDBACK_RECORDED
from servicekit.ports.clock import SystemClock
from services.analytics import gap_watch
from services.analytics.completeness import Completeness
from services.analytics.gap_watch import GapWatch
from services.analytics.ledger import Account, ProducerState, Shortfall, Span, Stored
from services.analytics.ranges import Range
from services.analytics.window import Window
from tests.unit.analytics.analytics_fakes import RecordingStore


def _account(*missing: Range, state: ProducerState = ProducerState.OPEN, producer: str = "p") -> Account:
    short = Shortfall(missing=missing, pending=((90, 91),))
    return Account(FEEDBACK_RECORDED, 0, "gateway", producer, state, Span(), Stored(), short)


class _Accounting:
    """Stands in for the store's account; remembers the windows."""

    def __init__(self) -> None:
        self.accounts: list[Account] = []
        self.windows: list[Window] = []

    async def __call__(self, _store: object, *, topics: object, window: Window, now: datetime) -> Completeness:
        assert topics
        assert now == window.end
        self.windows.append(window)
        return Completeness(self.accounts, evicted=0)


@pytest.fixture
def accounting(monkeypatch: pytest.MonkeyPatch) -> _Accounting:
    """An account that the test writes."""
    accounting = _Accounting()
    monkeypatch.setattr(gap_watch, "account_for", accounting)
    return accounting


def _metric(name: str) -> float | None:
    return REGISTRY.get_sample_value(f"binnacle_completeness_{name}", {"topic": FEEDBACK_RECORDED})


async def test_the_last_hour_is_shown_by_topic(accounting: _Accounting) -> None:
    """Sums over producers and partitions; back to 0 when nothing is short any more."""
    watch = GapWatch(RecordingStore(), clock=SystemClock())
    unclean = ProducerState.CLOSED_UNCLEAN
    accounting.accounts = [_account((3, 4)), _account((1, 1), state=unclean, producer="q")]
    await watch.look()
    assert (_metric("missing"), _metric("pending"), _metric("unknown_tails")) == (3, 4, 1)
    accounting.accounts = []
    await watch.look()
    assert (_metric("missing"), _metric("pending"), _metric("unknown_tails")) == (0, 0, 0)
    assert accounting.windows[0].end - accounting.windows[0].start == timedelta(hours=1)
    checked = REGISTRY.get_sample_value("binnacle_completeness_checked_timestamp_seconds")
    assert checked is not None
    assert abs(checked - datetime.now(UTC).timestamp()) < 60


async def test_a_gap_is_told_once_and_its_growth_again(accounting: _Accounting) -> None:
    """With producer, topic, partition and exactly the sequences that are new."""
    watch = GapWatch(RecordingStore(), clock=SystemClock())
    with structlog.testing.capture_logs() as told:
        for missing in ([(3, 4)], [(3, 4)], [(3, 6)], []):
            accounting.accounts = [_account(*missing)]
            await watch.look()
    assert [(line["event"], line["log_level"], line["ranges"]) for line in told] == [
        ("completeness.gap", "error", ((3, 4),)),
        ("completeness.gap", "error", ((5, 6),)),
    ]
    assert (told[0]["producer"], told[0]["topic"], told[0]["partition"]) == ("p", FEEDBACK_RECORDED, 0)
