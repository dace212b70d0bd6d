"""Counts the minutes that inserts have touched afresh, from collapsed rows, and says which are final.

A background task of `services.analytics`, wired in `bootstrap.py`; the tables are those of migration 0005. Nothing is
incremented: a touched minute is counted as a whole and written as a newer version, so that no copy of an event counts
twice. Replicas may count the same minute; the version that began last has seen everything that the others saw.

Why a minute ends up right, whatever is killed: rows and the touch of their minute are written by one insert, but either
may be seen first. So a minute is counted when a touch is first seen, and once more, for good, when every insert that
could have left the touch has either ended or been given up by the sink, which then inserts the rows again and touches
the minute again.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import structlog

from servicekit.errors import BinnacleError
from servicekit.ports.analytics_store import AnalyticsStore
from services.analytics.metrics import ROLLUP_MINUTES, ROLLUP_SECONDS, ROLLUP_UNSETTLED
from services.analytics.rollup_statements import STATEMENTS

log = structlog.get_logger()

_SLACK = timedelta(seconds=15)
_MINUTES_AT_ONCE = 60
_WIDEST_STATEMENT = timedelta(days=1)
_MINUTE_S = 60
_EPOCH = datetime.fromtimestamp(0, UTC)

# The store's clock stamps touches, so it is the store's clock that says what time it is.
_NOW = "SELECT now64(3, 'UTC') AS now"
_UNSETTLED = """
SELECT touches.minute AS minute, touches.newest AS newest
FROM
(
    SELECT minute, max(touch_time) AS newest
    FROM rollup_touches
    WHERE rollup = {rollup:String} AND touch_time >= {since:DateTime64(3, 'UTC')}
    GROUP BY minute
) AS touches
LEFT JOIN
(
    SELECT minute, max(settled_through) AS through
    FROM rollup_settlements
    WHERE rollup = {rollup:String}
    GROUP BY minute
) AS settlements ON settlements.minute = touches.minute
WHERE touches.newest > settlements.through
ORDER BY minute
"""


@dataclass(frozen=True, slots=True)
class TouchedMinute:
    """A minute whose figures are not final, and when it was last touched."""

    minute: datetime
    newest_touch: datetime


@dataclass(slots=True)
class Rollup:
    """How far one rollup is counted by this process: by minute, up to which touch; and from which touch on to look."""

    name: str
    counted: dict[datetime, datetime] = field(default_factory=dict)
    since: datetime = _EPOCH


class RollupKeeper:
    """Counts a touched minute within about `every_s`; the sink gives up an insert after `insert_within_s`."""

    def __init__(self, store: AnalyticsStore, *, every_s: float, insert_within_s: float) -> None:
        self._store = store
        self._every_s = every_s
        self._insert_bound = timedelta(seconds=insert_within_s) + _SLACK
        self.rollups = tuple(Rollup(name) for name in STATEMENTS)

    async def run(self) -> None:
        """Until cancelled; a store that is away is tried again the next time."""
        while True:
            for rollup in self.rollups:
                try:
                    await self.bring_up(rollup)
                except BinnacleError as error:
                    log.warning("rollup.failed", rollup=rollup.name, reason=error.reason, error=error.message[:300])
            await asyncio.sleep(self._every_s)

    async def bring_up(self, rollup: Rollup) -> int:
        """Count what is due; the number of minutes counted.

        Raises:
            BackendUnavailable, BackendTimeout, Overloaded, NotReady
        """
        now: datetime = (await self._store.query(_NOW))[0]["now"]
        final_until = now - self._insert_bound
        unsettled = await self._unsettled(rollup)
        due = [
            one for one in unsettled
            if one.newest_touch <= final_until or rollup.counted.get(one.minute) != one.newest_touch
        ]  # fmt: skip
        with ROLLUP_SECONDS.labels(rollup=rollup.name).time():
            for chunk in chunked(due):
                await self._store.execute(count_statement(rollup.name, chunk))
                await self._settle(rollup.name, [one for one in chunk if one.newest_touch <= final_until], final_until)
        left = [one for one in unsettled if one.newest_touch > final_until]
        rollup.counted = {one.minute: one.newest_touch for one in left}
        rollup.since = final_until  # what was not seen by now is stamped later than this
        ROLLUP_MINUTES.labels(rollup=rollup.name).inc(len(due))
        ROLLUP_UNSETTLED.labels(rollup=rollup.name).set(len(left))
        return len(due)

    async def _unsettled(self, rollup: Rollup) -> Sequence[TouchedMinute]:
        rows = await self._store.query(_UNSETTLED, {"rollup": rollup.name, "since": rollup.since})
        return [TouchedMinute(row["minute"], row["newest"]) for row in rows]

    async def _settle(self, name: str, minutes: Sequence[TouchedMinute], through: datetime) -> None:
        if not minutes:
            return
        rows = ", ".join(f"('{name}', {_seconds(one.minute)}, {through.timestamp():.3f})" for one in minutes)
        await self._store.execute(
            f"INSERT INTO rollup_settlements (rollup, minute, settled_through) VALUES {rows}"  # noqa: S608  # ours
        )


def count_statement(name: str, minutes: Sequence[TouchedMinute]) -> str:
    """The statement that counts these minutes; put together from numbers only."""
    first_s, last_s = _seconds(minutes[0].minute), _seconds(minutes[-1].minute)
    return STATEMENTS[name].format(
        minutes=f"({', '.join(str(_seconds(one.minute)) for one in minutes)})",
        start=f"toDateTime({first_s}, 'UTC')",
        end=f"toDateTime({last_s + _MINUTE_S}, 'UTC')",
    )


def chunked(minutes: Sequence[TouchedMinute]) -> Sequence[Sequence[TouchedMinute]]:
    """Minutes in order, put together so that no statement reads a wide span or counts too much at once."""
    chunks: list[list[TouchedMinute]] = []
    for one in minutes:
        chunk = chunks[-1] if chunks else []
        if not chunk or len(chunk) >= _MINUTES_AT_ONCE or one.minute - chunk[0].minute > _WIDEST_STATEMENT:
            chunk = []
            chunks.append(chunk)
        chunk.append(one)
    return chunks


def _seconds(minute: datetime) -> int:
    return int(minute.timestamp())
