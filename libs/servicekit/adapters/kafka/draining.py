"""Takes what is spooled to Kafka: in order per partition, in batches, and off the disk once it is acknowledged.

Run by `KafkaEventBus` for as long as it is open. What an earlier process left goes out under its old headers: the
ledger of this one counts only what this one numbered.
"""

import asyncio
from collections.abc import Sequence

import structlog
from aiokafka.errors import KafkaError, KafkaTimeoutError

from servicekit.adapters.kafka.sending import Copies, Copy
from servicekit.adapters.kafka.session import ProducerSession, SessionBroken, SessionKeeper
from servicekit.adapters.kafka.spool import READ_EVENTS, Spool
from servicekit.adapters.kafka.spool_file import Lane, SpooledRecord
from servicekit.events import metrics
from servicekit.events.ledger import SequenceLedger

log = structlog.get_logger()

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 10.0
# A session that answers and yet acknowledges nothing for so long is replaced.
_STUCK_S = 60.0

Spooled = Sequence[tuple[int, SpooledRecord]]


class Drain:
    """One task for each partition that has something spooled; a partition that Kafka refuses holds up no other."""

    def __init__(
        self, spool: Spool, sessions: SessionKeeper, ledger: SequenceLedger, *, producer: str, copies: Copies
    ) -> None:
        self._spool = spool
        self._sessions = sessions
        self._ledger = ledger
        self._producer = producer
        self._copies = copies
        self._busy: set[Lane] = set()

    async def run(self) -> None:
        """Drain until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                for lane in set(self._spool.lanes()) - self._busy:
                    self._busy.add(lane)
                    group.create_task(self._drain(lane))
                await self._spool.changed()

    async def finish(self) -> None:
        """Return when the spool is empty, or Kafka is away: what remains, the next start sends."""
        while self._spool.lanes() and self._sessions.usable() is not None:  # noqa: ASYNC110  # either may end it
            await asyncio.sleep(_FIRST_PAUSE_S)

    async def _drain(self, lane: Lane) -> None:
        pause_s, max_events = _FIRST_PAUSE_S, READ_EVENTS
        try:
            while self._spool.holds(lane):
                if await self._send_batch(lane, max_events):
                    pause_s, max_events = _FIRST_PAUSE_S, READ_EVENTS
                else:
                    # One at a time from here, so that what stands behind a refused record is not repeated with it.
                    await asyncio.sleep(pause_s)
                    pause_s, max_events = min(pause_s * 2, _LONGEST_PAUSE_S), 1
        finally:
            self._busy.discard(lane)

    async def _send_batch(self, lane: Lane, max_events: int) -> bool:
        """Send the oldest records and take off the disk what is acknowledged; False: again, after a pause."""
        session = await self._sessions.live()
        try:
            batch = await self._spool.read(lane, max_events=max_events)
            sent, error = await self._hand_over(session, batch)
            await _until_done(session, sent)
            taken = self._take_out(batch, sent)
        except Exception:
            log.exception("kafka.drain_failed", topic=lane[0], partition=lane[1])
            return False
        if taken < len(batch):
            cause = sent[taken].exception() if taken < len(sent) else error
            log.warning("kafka.drain_repeated", topic=lane[0], partition=lane[1], taken=taken, error=repr(cause))
        return bool(batch) and taken == len(batch)

    async def _hand_over(self, session: ProducerSession, batch: Spooled) -> tuple[list[Copy], Exception | None]:
        """The acknowledgements to come, in order, as far as the session took the records, and why it took no more."""
        sent: list[Copy] = []
        try:
            for position, record in batch:
                sent.append(self._copies.hopeful(position) or await _send(session, record))
        except (KafkaError, SessionBroken) as exc:
            return sent, exc
        return sent, None

    def _take_out(self, batch: Spooled, sent: Sequence[Copy]) -> int:
        """Remove what is acknowledged with all before it; how many those are."""
        taken = 0
        while taken < len(sent) and sent[taken].exception() is None:
            taken += 1
        for position, record in batch[:taken]:
            if record.producer == self._producer:
                if self._copies.hopeful(position) is None:  # else counted when the copy arrived
                    metrics.ACKNOWLEDGED.labels(record.topic).inc()
                self._ledger.acknowledge(record.topic, record.partition, record.sequence)
            self._copies.forget(position)
        if taken:
            self._spool.remove(batch[:taken])
        return taken


async def _send(session: ProducerSession, record: SpooledRecord) -> Copy:
    return await session.send(
        record.topic,
        record.partition,
        key=record.key,
        value=record.value,
        headers=record.headers,
        time_ms=record.time_ms,
    )


async def _until_done(session: ProducerSession, sent: Sequence[Copy]) -> None:
    """Wait for every acknowledgement or failure, however long Kafka is away meanwhile."""
    pending = set(sent)
    while pending:
        _, pending = await asyncio.wait(pending, timeout=_STUCK_S)
        if pending and await session.answers():
            session.give_up(KafkaTimeoutError(f"{len(pending)} records unacknowledged for {_STUCK_S:g} s"))
