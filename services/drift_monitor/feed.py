"""Alerts as a subscription: what is open now, then each change, with heartbeats between.

Called by `server.py`. A subscriber holds a cursor and nothing else: one that reads slowly gets an alert's
latest state instead of each of its states, so that it costs no memory however slow it is.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from services.drift_monitor.alerts import Alert, AlertBook, Severity


@dataclass(frozen=True, slots=True)
class Interest:
    """What a subscriber wants to hear of."""

    tenant: str
    min_severity: Severity = Severity.INFO
    signals: frozenset[str] = frozenset()

    def covers(self, alert: Alert) -> bool:
        """True if the alert is of the tenant, severe enough and about one of the signals."""
        return (
            alert.segment.tenant == self.tenant
            and alert.severity >= self.min_severity
            and (not self.signals or alert.signal in self.signals)
        )


@dataclass(frozen=True, slots=True)
class AlertChanged:
    """An alert as it is now."""

    cursor: int
    alert: Alert


@dataclass(frozen=True, slots=True)
class Synchronized:
    """All that was open at the start has been sent."""

    cursor: int
    open_alerts: int


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Nothing happened, and the stream lives."""

    cursor: int


FeedEvent = AlertChanged | Synchronized | Heartbeat


class AlertFeed:
    """Wakes subscribers when the book changes."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._restorations = 0

    def announce_restored(self) -> None:
        """Alerts of an earlier run came back: every subscriber is sent what is open once more."""
        self._restorations += 1
        self.announce()

    def announce(self) -> None:
        """Wake every subscriber; called after each change of the book."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def follow(
        self, book: AlertBook, interest: Interest, *, after_cursor: int, heartbeat_s: float
    ) -> AsyncIterator[FeedEvent]:
        """What is open now, then each change; endless.

        First every open alert, and with an `after_cursor` also those that changed behind it, by cursor; then
        `Synchronized`; then changes as they come, and a heartbeat after each silent `heartbeat_s`. The events'
        cursors never fall. What is open is repeated after a restoration.
        """
        restorations = self._restorations
        cursor = max(0, after_cursor)
        known = [alert for alert in book.of_tenant(interest.tenant) if interest.covers(alert)]
        head = max(cursor, book.cursor)
        for alert in known:
            if alert.is_open or 0 < after_cursor < alert.cursor:
                cursor = max(cursor, alert.cursor)
                yield AlertChanged(cursor, alert)
        cursor = head
        yield Synchronized(cursor, sum(alert.is_open for alert in known))
        while True:
            changed = self._changed
            if restorations != self._restorations:
                restorations = self._restorations
                for alert in _open_alerts(book, interest):
                    yield AlertChanged(cursor, alert)
            fresh = book.of_tenant(interest.tenant, after_cursor=cursor)
            for alert in fresh:
                cursor = max(cursor, alert.cursor)
                if interest.covers(alert):
                    yield AlertChanged(cursor, alert)
            if fresh:
                continue
            try:
                async with asyncio.timeout(heartbeat_s):
                    await changed.wait()
            except TimeoutError:
                yield Heartbeat(cursor)


def _open_alerts(book: AlertBook, interest: Interest) -> list[Alert]:
    return [alert for alert in book.of_tenant(interest.tenant) if alert.is_open and interest.covers(alert)]
