"""What was handed out of one partition and how much of it is acknowledged: the offset that may be committed.

Pure; kept by `reader.py`, one for each partition and assignment.
"""

from collections import deque


class Window:
    """Offsets from the first unacknowledged to the last handed out.

    Acknowledgements may come in any order; `position` moves only past those with no gap before them, so that
    whoever starts there gets everything that was not acknowledged. `live` turns false when the partition is given
    up: what is acknowledged afterwards counts no more, for the events come again.
    """

    def __init__(self, start: int) -> None:
        self._open: deque[int] = deque()
        self._acknowledged: set[int] = set()
        self._next = start
        self.committed = start
        self.live = True

    def __len__(self) -> int:
        """How many are held: unacknowledged, or acknowledged behind one that is not."""
        return len(self._open)

    @property
    def next(self) -> int:
        """One past the last offset handed out."""
        return self._next

    @property
    def position(self) -> int:
        """The first offset that is not acknowledged, or one past the last handed out."""
        return self._open[0] if self._open else self._next

    @property
    def unacknowledged(self) -> int:
        """How many were handed out and not acknowledged."""
        return len(self._open) - len(self._acknowledged)

    def hand_out(self, offset: int) -> None:
        """Note an offset, higher than all before: a log with holes (compaction) skips some.

        Raises:
            ValueError: the offset was passed already.
        """
        if offset < self._next:
            raise ValueError(f"offsets are handed out in order: got {offset} after {self._next - 1}")
        self._open.append(offset)
        self._next = offset + 1

    def acknowledge(self, offset: int) -> None:
        """Note that the event there is done; a second time changes nothing.

        Raises:
            ValueError: the offset was never handed out.
        """
        if offset >= self._next:
            raise ValueError(f"offset {offset} was not handed out; the last one was {self._next - 1}")
        if offset < self.position:
            return
        self._acknowledged.add(offset)
        while self._open and self._open[0] in self._acknowledged:
            self._acknowledged.remove(self._open.popleft())
