"""The life of an alert: one per signal, segment and window, through its states, and how subscribers hear of it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit.errors import InvalidRequest, NotFound, NotReady
from servicekit.testing.clocks import FakeClock
from services.drift_monitor.alerts import Alert, AlertBook, AlertState, Segment, Severity, severity_of
from services.drift_monitor.feed import (
    AlertChanged,
    AlertFeed,
    FeedEvent,
    Heartbeat,
    Interest,
    Synchronized,
)
from services.drift_monitor.listing import list_alerts
from tests.unit.drift_monitor.drift_fakes import SEGMENT, finding, window

REFERENCE = window(0, 10)


def make_book() -> tuple[AlertBook, list[Alert], FakeClock]:
    """A book, its changes, and its clock."""
    changes: list[Alert] = []
    clock = FakeClock()
    return AlertBook(clock=clock, on_change=changes.append), changes, clock


def fire(book: AlertBook, first: int = 10, *, signal: str = "question_words", segment: Segment = SEGMENT) -> Alert:
    """Let an alert fire on the window that begins with number `first`."""
    alert = book.judge(segment, window(first), REFERENCE, finding(drifted=True, signal=signal))
    assert alert is not None
    return alert


def resolve(book: AlertBook, first: int = 18, *, signal: str = "question_words") -> Alert | None:
    """Judge a window that has not drifted."""
    return book.judge(SEGMENT, window(first), REFERENCE, finding(drifted=False, signal=signal))


def test_a_drifted_window_fires_one_alert_however_often_it_is_judged() -> None:
    """The same window of the same signal in the same segment never fires again."""
    book, changes, _ = make_book()
    alert = fire(book)
    for _ in range(3):
        assert book.judge(SEGMENT, window(10), REFERENCE, finding(drifted=True)) is None
    assert changes == [alert]
    assert (alert.state, alert.effect, alert.reference_window.summary.count) == (AlertState.FIRING, 1.5, 10)


def test_further_drifted_windows_belong_to_the_open_alert() -> None:
    """A drift that lasts is one alert, not one per window."""
    book, changes, _ = make_book()
    fire(book)
    assert book.judge(SEGMENT, window(18), REFERENCE, finding(drifted=True)) is None
    assert len(changes) == 1


def test_a_full_window_without_drift_resolves() -> None:
    """The resolved alert keeps the window it fired on and names the one that shows the signal back."""
    book, _, _ = make_book()
    fired = fire(book)
    resolved = resolve(book)
    assert resolved is not None
    assert (resolved.alert_id, resolved.state) == (fired.alert_id, AlertState.RESOLVED)
    assert resolved.current_window == fired.current_window
    assert resolved.latest_window.start_time > fired.current_window.end_time


def test_a_filling_window_does_not_resolve() -> None:
    """Few requests may look like the reference by chance."""
    book, _, _ = make_book()
    fire(book)
    part = window(18, 4, sealed=False)
    assert book.judge(SEGMENT, part, REFERENCE, finding(drifted=False)) is None


def test_the_window_that_fired_or_an_older_one_does_not_resolve() -> None:
    """Windows are judged again after a restart; what lies before the alert says nothing about its end."""
    book, _, _ = make_book()
    fire(book, 18)
    assert resolve(book, 18) is None
    assert resolve(book, 10) is None


def test_a_window_judged_before_the_resolution_does_not_fire_afterwards() -> None:
    """A drifted window that the resolved alert had already covered is no news."""
    book, _, _ = make_book()
    fire(book, 10)
    assert resolve(book, 26) is not None
    assert book.judge(SEGMENT, window(18), REFERENCE, finding(drifted=True)) is None


def test_drift_after_a_resolution_is_a_new_alert() -> None:
    """Another id, the same key."""
    book, _, _ = make_book()
    first = fire(book)
    resolve(book)
    second = fire(book, 26)
    assert second.alert_id != first.alert_id
    assert second.alert_key == first.alert_key


def test_ids_are_derived_from_signal_segment_and_window() -> None:
    """Two books give the same id to the same drift, and different ones to any other."""
    ids = {fire(make_book()[0]).alert_id for _ in range(2)}
    ids |= {fire(make_book()[0], 11).alert_id, fire(make_book()[0], signal="latency_ms").alert_id}
    ids |= {fire(make_book()[0], segment=Segment("acme", "chat")).alert_id}
    ids |= {fire(make_book()[0], segment=Segment("globex", "docs")).alert_id}
    assert len(ids) == 5


@pytest.mark.parametrize(
    ("effect", "severity"),
    [(0.8, Severity.INFO), (1.2, Severity.WARNING), (1.99, Severity.WARNING), (2.0, Severity.CRITICAL)],
)
def test_severity_goes_by_effect(effect: float, severity: Severity) -> None:
    """Two standard deviations of the reference are critical."""
    assert severity_of(effect) is severity


def test_an_acknowledged_alert_says_by_whom_and_still_resolves() -> None:
    """Acknowledging is repeatable, changes the state once, and ends with the resolution."""
    book, changes, _ = make_book()
    fired = fire(book)
    for _ in range(2):
        alert = book.acknowledge(fired.alert_id, tenant="acme", by="ann", note="looking")
    assert (alert.state, alert.acknowledged_by, alert.acknowledge_note) == (AlertState.ACKNOWLEDGED, "ann", "looking")
    assert len(changes) == 2
    resolved = resolve(book)
    assert resolved is not None
    assert resolved.acknowledged_by == "ann"


def test_a_foreign_or_unknown_alert_is_not_found() -> None:
    """Another tenant's alert cannot be told from none."""
    book, _, _ = make_book()
    fired = fire(book)
    for identity, tenant in ((fired.alert_id, "globex"), ("nonsense", "acme")):
        with pytest.raises(NotFound):
            book.acknowledge(identity, tenant=tenant, by="eve", note="")


def test_a_resolved_alert_is_not_acknowledged() -> None:
    """There is nothing left to look after."""
    book, _, _ = make_book()
    fired = fire(book)
    resolve(book)
    with pytest.raises(NotReady):
        book.acknowledge(fired.alert_id, tenant="acme", by="ann", note="")


def test_cursors_grow_though_the_clock_stands_still_or_goes_back() -> None:
    """Every change has a larger cursor than the one before, across a restart too."""
    book, changes, clock = make_book()
    fire(book)
    clock.advance(-3600)
    fire(book, signal="latency_ms")
    restarted, later, _ = make_book()
    restarted.restore(changes)
    fire(restarted, signal="cost_microusd")
    cursors = [alert.cursor for alert in (*changes, *later)]
    assert cursors == sorted(set(cursors))


def test_a_restored_alert_does_not_fire_again() -> None:
    """After a restart the same window is judged drifted again, and nothing is announced."""
    book, _, _ = make_book()
    fired = fire(book)
    restarted, announced, _ = make_book()
    assert restarted.restore([fired]) == 1
    assert restarted.restore([fired]) == 0
    assert restarted.judge(SEGMENT, window(10), REFERENCE, finding(drifted=True)) is None
    assert announced == []


def test_restoring_does_not_undo_a_later_change() -> None:
    """A second reading of the store may bring an older state than what happened since."""
    book, _, _ = make_book()
    fired = fire(book)
    book.acknowledge(fired.alert_id, tenant="acme", by="ann", note="")
    book.restore([fired])
    (alert,) = book.of_tenant("acme")
    assert alert.state is AlertState.ACKNOWLEDGED


@given(steps=st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=40))
def test_whatever_is_judged_there_is_one_alert_a_window_and_one_open_a_key(steps: list[tuple[int, bool]]) -> None:
    """In any order of judgements, repeats included, ids fire once and at most one alert is open."""
    book, changes, _ = make_book()
    for place, drifted in steps:
        book.judge(SEGMENT, window(10 + 8 * place), REFERENCE, finding(drifted=drifted))
        assert sum(alert.is_open for alert in book.of_tenant("acme")) <= 1
    fired = [alert.alert_id for alert in changes if alert.state is AlertState.FIRING]
    assert len(fired) == len(set(fired))


def test_resolved_alerts_are_forgotten_before_open_ones() -> None:
    """The book is bounded; what is open, and each key's newest, stays."""
    changes: list[Alert] = []
    book = AlertBook(clock=FakeClock(), on_change=changes.append, kept=5)
    fire(book, signal="latency_ms")
    for place in range(10):
        fire(book, 10 + 16 * place)
        resolve(book, 18 + 16 * place)
    kept = book.of_tenant("acme")
    assert len(kept) == 5
    assert any(alert.signal == "latency_ms" for alert in kept)


async def take(events: AsyncIterator[FeedEvent], count: int) -> list[FeedEvent]:
    """The next events of a subscription."""
    async with asyncio.timeout(5):
        return [await anext(events) for _ in range(count)]


def follow(
    book: AlertBook, feed: AlertFeed, *, after: int = 0, interest: Interest | None = None, heartbeat_s: float = 60
) -> AsyncIterator[FeedEvent]:
    """A subscription of the tenant."""
    return feed.follow(book, interest or Interest("acme"), after_cursor=after, heartbeat_s=heartbeat_s)


def announced_book() -> tuple[AlertBook, AlertFeed]:
    """A book whose changes wake the feed."""
    feed = AlertFeed()
    return AlertBook(clock=FakeClock(), on_change=lambda _: feed.announce()), feed


async def test_a_subscriber_hears_what_is_open_and_then_each_change() -> None:
    """Open alerts, the sign that this was all, and the next change."""
    book, feed = announced_book()
    fired = fire(book)
    events = follow(book, feed)
    first, second = await take(events, 2)
    assert isinstance(first, AlertChanged)
    assert first.alert == fired
    assert isinstance(second, Synchronized)
    assert second.open_alerts == 1
    later = fire(book, signal="latency_ms")
    (third,) = await take(events, 1)
    assert isinstance(third, AlertChanged)
    assert third.alert == later


async def test_a_silent_stream_sends_heartbeats() -> None:
    """Nothing happens, and the subscriber knows that the stream lives."""
    book, feed = announced_book()
    found = await take(follow(book, feed, heartbeat_s=0.01), 3)
    assert [type(event) for event in found] == [Synchronized, Heartbeat, Heartbeat]


async def test_a_subscriber_that_resumes_hears_what_it_missed() -> None:
    """A resolution during its absence comes before the synchronisation, and without a cursor it does not come."""
    book, feed = announced_book()
    fired = fire(book)
    resolve(book)
    (missed, _) = await take(follow(book, feed, after=fired.cursor), 2)
    assert isinstance(missed, AlertChanged)
    assert missed.alert.state is AlertState.RESOLVED
    (only,) = await take(follow(book, feed), 1)
    assert isinstance(only, Synchronized)


async def test_cursors_of_a_stream_never_fall() -> None:
    """An old open alert is sent to a subscriber that resumes behind it, under its own cursor."""
    book, feed = announced_book()
    fire(book)
    resume = fire(book, signal="latency_ms").cursor
    events = follow(book, feed, after=resume)
    found = await take(events, 3)
    fire(book, signal="cost_microusd")
    found += await take(events, 1)
    cursors = [event.cursor for event in found]
    assert cursors == sorted(cursors)
    assert cursors[0] >= resume


async def test_filters_leave_out_other_tenants_signals_and_lesser_alerts() -> None:
    """A subscriber hears of its tenant, of its signals, from its severity on."""
    book, feed = announced_book()
    fire(book, segment=Segment("globex", "docs"))
    fire(book, signal="latency_ms")
    wanted = fire(book)
    interest = Interest("acme", Severity.WARNING, frozenset({"question_words"}))
    (first, second) = await take(follow(book, feed, interest=interest), 2)
    assert isinstance(first, AlertChanged)
    assert first.alert == wanted
    assert isinstance(second, Synchronized)
    critical = Interest("acme", Severity.CRITICAL)
    (only,) = await take(follow(book, feed, interest=critical), 1)
    assert isinstance(only, Synchronized)


async def test_a_slow_subscriber_gets_the_latest_state_alone() -> None:
    """What changed twice while it read nothing is sent once."""
    book, feed = announced_book()
    events = follow(book, feed)
    await take(events, 1)
    fired = fire(book)
    book.acknowledge(fired.alert_id, tenant="acme", by="ann", note="")
    (found,) = await take(events, 1)
    assert isinstance(found, AlertChanged)
    assert found.alert.state is AlertState.ACKNOWLEDGED


async def test_a_restoration_repeats_what_is_open() -> None:
    """Alerts of an earlier run that are read late still reach whoever subscribed before."""
    earlier, _, _ = make_book()
    fired = fire(earlier)
    book, feed = announced_book()
    events = follow(book, feed)
    await take(events, 1)
    book.restore([fired])
    feed.announce_restored()
    (found,) = await take(events, 1)
    assert isinstance(found, AlertChanged)
    assert found.alert.alert_id == fired.alert_id


def many(count: int) -> list[Alert]:
    """Alerts with cursors 1 to `count`; every third is resolved."""
    template = fire(make_book()[0])
    return [
        replace(
            template,
            alert_id=f"a-{cursor}",
            cursor=cursor,
            state=AlertState.RESOLVED if cursor % 3 == 0 else AlertState.FIRING,
        )
        for cursor in range(1, count + 1)
    ]


@given(count=st.integers(0, 30), page_size=st.integers(1, 7))
def test_pages_list_each_alert_once_newest_first(count: int, page_size: int) -> None:
    """Following the tokens gives every alert in order."""
    alerts, listed, token = many(count), list[int](), ""
    while True:
        page, token = list_alerts(alerts, state=None, page_size=page_size, page_token=token)
        listed += [alert.cursor for alert in page]
        if not token:
            break
    assert listed == list(range(count, 0, -1))


def test_a_state_narrows_the_list() -> None:
    """Only alerts of that state are on the page."""
    page, _ = list_alerts(many(9), state=AlertState.RESOLVED, page_size=0, page_token="")
    assert [alert.cursor for alert in page] == [9, 6, 3]


@pytest.mark.parametrize(("page_size", "token"), [(-1, ""), (501, ""), (0, "x"), (0, "-1"), (0, "9" * 40), (0, "²")])
def test_an_absurd_page_is_refused_by_field(page_size: int, token: str) -> None:
    """The error names the field and what it may be."""
    with pytest.raises(InvalidRequest) as caught:
        list_alerts([], state=None, page_size=page_size, page_token=token)
    assert caught.value.field == ("page_token" if token else "page_size")
