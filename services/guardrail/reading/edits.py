"""What was replaced in a text and where, so that every place of the result leads back to what it was before.

Pure; made by the readings beside it, followed by `normalizing.py`.
"""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from servicekit.domain.verdict import Span


@dataclass(frozen=True, slots=True)
class Edit:
    """A piece of a text, never an empty one, and what stands in its place.

    `exact` where character stands for character; otherwise each new character stands for the whole piece.
    """

    span: Span
    text: str
    exact: bool = False


class Edits:
    """Edits of one text in their order, without overlaps, and the text that they make."""

    def __init__(self, before: str, edits: Iterable[Edit]) -> None:
        self._edits = tuple(edits)
        self._before_ends: list[int] = []
        self._after_ends: list[int] = []
        pieces: list[str] = []
        position = length = 0
        for edit in self._edits:
            length += edit.span.start - position + len(edit.text)
            pieces += (before[position : edit.span.start], edit.text)
            position = edit.span.end
            self._before_ends.append(position)
            self._after_ends.append(length)
        pieces.append(before[position:])
        self.text = "".join(pieces)

    def to_before(self, span: Span) -> Span:
        """The piece that became `text[span.start:span.end]`; an empty span leads to an empty one."""
        start = self._start_before(span.start)
        return Span(start, start if span.start >= span.end else self._end_before(span.end))

    def to_after(self, span: Span) -> Span:
        """What a piece became; empty where all of it was dropped."""
        start = self._start_after(span.start)
        return Span(start, max(start, self._start_after(span.end)))

    def _start_before(self, place: int) -> int:
        """Where the character at `place` begins, or the end of all."""
        done = bisect_right(self._after_ends, place)
        if done < len(self._edits):
            edit = self._edits[done]
            into = place - (self._after_ends[done] - len(edit.text))
            if into >= 0:
                return edit.span.start + into * edit.exact
        return place + self._shift_to_before(done)

    def _end_before(self, place: int) -> int:
        """Where the last character in front of `place` ends."""
        done = bisect_right(self._after_ends, place - 1)
        if done < len(self._edits):
            edit = self._edits[done]
            into = place - (self._after_ends[done] - len(edit.text))
            if into > 0:
                return edit.span.start + into if edit.exact else edit.span.end
        return place + self._shift_to_before(done)

    def _start_after(self, place: int) -> int:
        """The first character that begins at `place` of the text before or behind it."""
        done = bisect_right(self._before_ends, place)
        if done < len(self._edits):
            edit = self._edits[done]
            into = place - edit.span.start
            if into > 0:
                return self._after_ends[done] - (len(edit.text) - into if edit.exact else 0)
        return place - self._shift_to_before(done)

    def _shift_to_before(self, done: int) -> int:
        """How much farther back places are in the text before, behind the first `done` edits."""
        return self._before_ends[done - 1] - self._after_ends[done - 1] if done else 0
