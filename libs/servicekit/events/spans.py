"""A set of whole numbers kept as spans, for sets that come in long runs.

Pure; used by `ledger.py` for what is spooled: a million records in a row are one span.
"""

from bisect import bisect_right
from collections.abc import Iterator

Span = tuple[int, int]


class Spans:
    """Numbers added and discarded one by one, in any order; told as ascending spans (first, last), both included."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []

    def __bool__(self) -> bool:
        return bool(self._firsts)

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._firsts, number) - 1
        return at >= 0 and number <= self._lasts[at]

    def add(self, number: int) -> None:
        """Put the number in; no effect if it is there."""
        if number in self:
            return
        at = bisect_right(self._firsts, number)
        after_one = at > 0 and self._lasts[at - 1] == number - 1
        before_one = at < len(self._firsts) and self._firsts[at] == number + 1
        if after_one and before_one:
            self._lasts[at - 1] = self._lasts.pop(at)
            self._firsts.pop(at)
        elif after_one:
            self._lasts[at - 1] = number
        elif before_one:
            self._firsts[at] = number
        else:
            self._firsts.insert(at, number)
            self._lasts.insert(at, number)

    def discard(self, number: int) -> None:
        """Take the number out; no effect if it is not there."""
        if number not in self:
            return
        at = bisect_right(self._firsts, number) - 1
        first, last = self._firsts[at], self._lasts[at]
        kept = [span for span in ((first, number - 1), (number + 1, last)) if span[0] <= span[1]]
        self._firsts[at : at + 1] = [span[0] for span in kept]
        self._lasts[at : at + 1] = [span[1] for span in kept]

    def up_to(self, highest: int) -> Iterator[Span]:
        """The spans of all numbers that are at most `highest`."""
        for first, last in zip(self._firsts, self._lasts, strict=True):
            if first > highest:
                return
            yield first, min(last, highest)
