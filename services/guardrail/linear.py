"""Regular expressions that match in linear time whatever the text, so that no input can stall a check.

A typed face of google-re2; used by every detector of this service instead of `re`.
"""

from collections.abc import Iterator, Sequence

import re2

from servicekit.domain.verdict import Span

_SET_MEMORY_BYTES = 64 << 20


class LinearPattern:
    """One RE2 expression; spans are in characters."""

    def __init__(self, pattern: str, *, ignore_case: bool = False) -> None:
        options = re2.Options()
        options.case_sensitive = not ignore_case
        options.log_errors = False
        try:
            self._compiled = re2.compile(pattern, options)
        except re2.error as exc:
            raise ValueError(f"{pattern!r} is not a linear-time expression: {exc}") from exc

    def spans(self, text: str, *, group: int = 0) -> Iterator[Span]:
        """Where the expression (or one of its groups) matches, in order, without overlaps."""
        for match in self._compiled.finditer(text):
            start, end = match.span(group)
            if 0 <= start < end:
                yield Span(start, end)

    def first(self, text: str, *, start: int = 0) -> Span | None:
        """The first match that begins at `start` or later."""
        match = self._compiled.search(text, start)
        return Span(*match.span()) if match else None


class LinearSet:
    """Many expressions asked in one pass which of them match at all; most texts match none."""

    def __init__(self, patterns: Sequence[str], *, ignore_case: bool = False) -> None:
        options = re2.Options()
        options.case_sensitive = not ignore_case
        options.log_errors = False
        options.max_mem = _SET_MEMORY_BYTES
        self._set = re2.Set.SearchSet(options)
        self._empty = not patterns
        for pattern in patterns:
            self._set.Add(pattern)
        if patterns:
            self._set.Compile()

    def matching(self, text: str) -> tuple[int, ...]:
        """Positions of the expressions that match somewhere in the text, ascending."""
        return () if self._empty else tuple(sorted(self._set.Match(text) or ()))
