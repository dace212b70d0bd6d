"""One event on its way, and the partition it is on its way to.

Used by `publisher.py`, which moves them, and by `draining.py`, which waits for copies that are still under way.
"""

import asyncio
from dataclasses import dataclass, field

from aiokafka.structs import RecordMetadata

from servicekit.adapters.kafka.spool_file import Lane, SpooledRecord

Copy = asyncio.Future[RecordMetadata]


@dataclass(slots=True, eq=False)
class Sending:
    """`copy` is the acknowledgement of what was handed to a session, None if nothing was.

    `safe` ends when the event is acknowledged or on disk, and raises when it is neither and never will be.
    Once it is `spooling` the spool has it, or is about to: whatever becomes of the copy, it is not given up.
    """

    record: SpooledRecord
    copy: Copy | None = None
    spooling: bool = False
    safe: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def succeed(self) -> None:
        """Whoever waits may go on."""
        if not self.safe.done():
            self.safe.set_result(None)

    def fail(self, error: BaseException) -> None:
        """Whoever waits gets the error."""
        if not self.safe.done():
            self.safe.set_exception(error)
            self.safe.exception()  # retrieved, if nobody waits any more


@dataclass(slots=True, eq=False)
class Partition:
    """One partition of a topic. `order` is held from the choice of a sequence until its record is handed over.

    `in_flight` are handed over and neither acknowledged nor spooled, by sequence, ascending.
    """

    lane: Lane
    order: asyncio.Lock = field(default_factory=asyncio.Lock)
    in_flight: dict[int, Sending] = field(default_factory=dict)

    def in_flight_bytes(self) -> int:
        """What spooling all of them would take."""
        return sum(one.record.size_bytes for one in self.in_flight.values())


class Copies:
    """Acknowledgements still expected of records that are spooled as well, by their position in the spool.

    A copy that arrives late spares the drain a second one; one whose session broke never will.
    """

    def __init__(self) -> None:
        self._by_position: dict[int, Copy] = {}

    def keep(self, position: int, copy: Copy) -> None:
        """Remember the copy of what is spooled at this position."""
        self._by_position[position] = copy

    def forget(self, position: int) -> None:
        """The record is not in the spool, or no longer."""
        self._by_position.pop(position, None)

    def hopeful(self, position: int) -> Copy | None:
        """A copy that arrived or still may."""
        copy = self._by_position.get(position)
        if copy is None or (copy.done() and (copy.cancelled() or copy.exception() is not None)):
            return None
        return copy
