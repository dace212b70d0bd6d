"""Looks every 30 s whether the last hour is whole, shows it as metrics, and tells each new gap once.

A background task of `services.analytics`, wired in `bootstrap.py`; alert rules on its metrics are in
`infra/prometheus/alerts.yml`.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta

import structlog

from servicekit.errors import BinnacleError
from servicekit.ports.analytics_store import AnalyticsStore
from servicekit.ports.clock import Clock
from services.analytics.completeness import COUNTED_TOPICS, Completeness, account_for
from services.analytics.ledger import Account
from services.analytics.metrics import CHECKED_TIME, DEAD_LETTERED, MISSING, PENDING, UNKNOWN_TAILS
from services.analytics.ranges import Range, length, without
from services.analytics.window import Window

log = structlog.get_logger()

_EVERY_S = 30.0
_SPAN = timedelta(hours=1)
# A look at a busy hour takes long: at most this share of the time is spent on looking.
_MAX_SHARE = 0.1
_LOOK_WITHIN_S = 300.0
_TOLD_RANGES = 20

Place = tuple[str, int, str]


class GapWatch:
    """Remembers what it has told, so that a gap that stays is one line in the log."""

    def __init__(self, store: AnalyticsStore, *, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._told: Mapping[Place, Sequence[Range]] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            began_s = self._clock.monotonic_s()
            try:
                async with asyncio.timeout(_LOOK_WITHIN_S):
                    await self.look()
            except (BinnacleError, TimeoutError) as error:
                log.warning("completeness.not_checked", error=str(error)[:300])
            await asyncio.sleep(max(_EVERY_S, (self._clock.monotonic_s() - began_s) / _MAX_SHARE))

    async def look(self) -> Completeness:
        """Account for the last hour and show the result.

        Raises:
            BackendUnavailable, BackendTimeout, Overloaded, NotReady: the store does not answer.
        """
        now = self._clock.now()
        found = await account_for(self._store, topics=COUNTED_TOPICS, window=Window(now - _SPAN, now), now=now)
        for topic in COUNTED_TOPICS:
            accounts = [account for account in found.accounts if account.topic == topic]
            MISSING.labels(topic).set(sum(account.missing for account in accounts))
            PENDING.labels(topic).set(sum(account.pending for account in accounts))
            DEAD_LETTERED.labels(topic).set(sum(account.dead_lettered for account in accounts))
            UNKNOWN_TAILS.labels(topic).set(len({account.producer for account in accounts if account.unknown_tail}))
        for account in found.accounts:
            self._tell(account)
        self._told = {_place(account): account.shortfall.missing for account in found.accounts if account.missing}
        CHECKED_TIME.set(now.timestamp())
        return found

    def _tell(self, account: Account) -> None:
        fresh = without(account.shortfall.missing, self._told.get(_place(account), ()))
        if fresh:
            log.error(
                "completeness.gap",
                topic=account.topic,
                partition=account.partition,
                source=account.source,
                producer=account.producer,
                missing=length(fresh),
                ranges=fresh[:_TOLD_RANGES],
            )


def _place(account: Account) -> Place:
    return account.topic, account.partition, account.producer
