"""Where a submitted document stood in its topic, so that an event delivered again never undoes a newer one.

Pure; used by `events.py`, `preparing.py` and `indexing.py`.

A crash between an effect and its commit has events delivered again, the older ones first. To apply them would bring
old content back until the newer ones follow, and count revisions up. Therefore each stored document remembers the
newest event that changed it, inside its fingerprint. An event is passed over when it is not newer **by place and by
time**: place alone would mistake the events of a topic that was made anew, whose offsets begin at 0 again, and time
alone those of a producer whose clock is behind. Documents handed in by a call have no place; they keep the one that
is there, so that an event applied before them is not applied again after them.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_PLACE = re.compile(r"(\d+):(\d+)@(-?\d+)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class EventPlace:
    """Partition and offset of an event, and when its document was submitted."""

    partition: int
    offset: int
    submit_time: datetime

    def is_newer_than(self, other: "EventPlace") -> bool:
        """Whether this event came after the other one; in doubt it did."""
        if self.partition != other.partition:
            return True
        return self.offset > other.offset or _micros(self.submit_time) > _micros(other.submit_time)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a stored document's chunks were made from and by, and the newest event that made them, if one did."""

    digest: str
    place: EventPlace | None = None

    def __str__(self) -> str:
        if self.place is None:
            return self.digest
        return f"{self.digest} {self.place.partition}:{self.place.offset}@{_micros(self.place.submit_time)}"


def read_fingerprint(stored: str) -> Fingerprint:
    """A fingerprint as it is kept in the store."""
    digest, _, rest = stored.partition(" ")
    match = _PLACE.fullmatch(rest)
    if match is None:
        return Fingerprint(digest)
    partition, offset, micros = (int(number) for number in match.groups())
    return Fingerprint(digest, EventPlace(partition, offset, _EPOCH + timedelta(microseconds=micros)))


def _micros(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)
