"""The drift monitor's parts put together, and the tasks that run beside the calls. Built by `bootstrap.py`."""

from datetime import timedelta

import structlog

from servicekit.ports.analytics_store import AnalyticsStore
from servicekit.ports.clock import Clock
from servicekit.ports.event_bus import EventPublisher
from services.drift_monitor.alerts import Alert, AlertBook
from services.drift_monitor.config import Settings
from services.drift_monitor.feed import AlertFeed
from services.drift_monitor.judging import Laboratory
from services.drift_monitor.metrics import CHANGED
from services.drift_monitor.monitor import DriftMonitor
from services.drift_monitor.publishing import AlertPublisher
from services.drift_monitor.restoring import Restorer

_RESTORE_RETRY_S = 1.0

log = structlog.get_logger()


class Watch:
    """Monitor, alerts, their feed and their publisher, wired so that each change reaches both."""

    def __init__(
        self,
        settings: Settings,
        *,
        publisher: EventPublisher,
        store: AnalyticsStore,
        laboratory: Laboratory,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self.feed = AlertFeed()
        self.publisher = AlertPublisher(publisher)
        self.monitor = DriftMonitor(
            sizes=settings.sizes,
            strictness=settings.strictness,
            laboratory=laboratory,
            book=AlertBook(clock=clock, on_change=self._on_change),
        )
        self.restorer = Restorer(
            store,
            self.monitor,
            sizes=settings.sizes,
            clock=clock,
            span=timedelta(seconds=settings.restore_span_s),
            on_alerts=self.feed.announce_restored,
        )

    async def restore(self) -> None:
        """Task: read the history back."""
        await self.restorer.run(retry_s=_RESTORE_RETRY_S, reconcile_after_s=self._settings.reconcile_after_s)

    async def judge(self) -> None:
        """Task: judge windows as they change, once the history is there or has been waited for long enough.

        Without it the first requests since the start would pass for the reference.
        """
        if not await self.restorer.wait(timeout_s=self._settings.restore_patience_s):
            # The store is away, as readiness says; better a new reference than no watch at all.
            log.warning("drift.judging_without_history")
        await self.monitor.judge_forever(interval_s=self._settings.evaluate_interval_s)

    def _on_change(self, alert: Alert) -> None:
        CHANGED.labels(alert.signal, alert.state).inc()
        log.info(
            "alert.changed",
            alert_id=alert.alert_id,
            state=alert.state.value,
            signal=alert.signal,
            segment=alert.segment.label,
            effect=round(alert.effect, 2),
        )
        self.publisher.put(alert)
        self.feed.announce()
