"""Keeps of a growing text what is still to be released, and what stands around it.

Pure; used by `stream.py`. Every character is released once and in order, alone or as part of what replaced it. A piece
is judged with the text around it, so that what detectors find in pieces is what they would find in the whole.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from servicekit.domain.verdict import Span
from services.guardrail.linear import LinearPattern
from services.guardrail.redacting import Replaceable
from services.guardrail.streaming.holding import LONGEST_HELD, free_end

CONTEXT_CHARS = 320
"""Released text that is judged again with what follows: a telephone number is announced within 40 characters."""
_KEPT_WHEN_FORCED = 1_024
_PARTICLES = LinearPattern(r"^(?:\s\p{Ll}{1,5}){1,2}\s?$")


@dataclass(frozen=True, slots=True)
class View:
    """Text to judge: `text[start:end]` may be released, what stands around it is context.

    `offset` is the place of its first character in all the text; `final` where nothing will come behind it.
    """

    text: str = field(repr=False)
    offset: int
    start: int
    end: int
    forced: bool


@dataclass(frozen=True, slots=True)
class Piece:
    """Text to release, as it came, and what in it is to be replaced."""

    text: str = field(repr=False)
    replaceable: tuple[Replaceable, ...]


class Window:
    """The text behind the last piece released, and a little of what stood before it."""

    def __init__(self) -> None:
        self._text = ""
        self._offset = 0
        self._released = 0
        self._free = 0

    @property
    def released(self) -> int:
        """Characters released so far."""
        return self._offset + self._released

    @property
    def arrived(self) -> int:
        """Characters that have come so far."""
        return self._offset + len(self._text)

    def add(self, text: str) -> None:
        """Text has come."""
        self._text += text

    def view(self, *, final: bool) -> View | None:
        """What could be released now, to be judged first; None where all is to be held."""
        held = self._text[self._released :]
        forced = final
        free = len(held) if final else free_end(held)
        if not final and len(held) - free > LONGEST_HELD:
            free, forced = len(held) - _KEPT_WHEN_FORCED, True
        if free <= 0:
            return None
        start = self._context_start()
        end = self._released + free
        return View(self._text[start:], self._offset + start, self._released - start, end - start, forced)

    def release(self, view: View, found: Iterable[Replaceable]) -> Piece | None:
        """The piece of a view that was judged, up to what goes on behind its end; `found` are places in the view."""
        overlapping = [one for one in found if one.span.end > view.start and one.span.start < view.end]
        end = view.end if view.forced else _before_growing(overlapping, view.text, view.end)
        if end <= view.start:
            return None
        replaceable = tuple(
            Replaceable(
                Span(max(0, one.span.start - view.start), min(end, one.span.end) - view.start),
                one.kind,
            )
            for one in overlapping
            if one.span.start < end
        )
        self._move(view.offset + end - self._offset)
        return Piece(view.text[view.start : end], replaceable)

    def _move(self, released: int) -> None:
        self._released = released
        drop = self._context_start()
        self._text = self._text[drop:]
        self._offset += drop
        self._released -= drop

    def _context_start(self) -> int:
        """Some way in front of what was released last, behind a blank where there is one."""
        start = max(0, self._released - CONTEXT_CHARS)
        if start == 0:
            return 0
        blank = next((place for place in range(start, self._released) if self._text[place].isspace()), start - 1)
        return blank + 1


def _before_growing(found: Iterable[Replaceable], text: str, end: int) -> int:
    """The end, moved in front of every finding that reaches up to it or beyond: one more word may be its own."""
    for one in sorted(found, key=lambda one: one.span, reverse=True):
        if one.span.start < end and _may_grow(one, text[one.span.end : end]):
            end = one.span.start
    return end


def _may_grow(one: Replaceable, behind: str) -> bool:
    """Whether what stands behind a finding may still become a part of it: blanks, a name's particles."""
    return not behind.strip() or (one.kind == "NAME" and _PARTICLES.first(behind) is not None)
