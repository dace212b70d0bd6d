"""Whether a word before a number, or behind it, says what the number is. Pure; used by the detectors beside it."""

from servicekit.domain.verdict import Span
from services.guardrail.linear import LinearPattern

_WINDOW_CHARS = 64
# What stands between a word and its number: `passport no.: `, `IBAN (savings) is `. No digit, no other
# sentence, though an answer may follow a question.
_BETWEEN = r"(?:[^\d.!;]|\b(?:no|nr|num|tel|ext|acct)\.|\.(?:[:#]|\s?[:#])){0,32}"


class Announcement:
    """Words that announce a kind of number, as alternatives of an expression."""

    def __init__(self, words: str, *, behind: str = "") -> None:
        self._anywhere = LinearPattern(words, ignore_case=True)
        self._before = LinearPattern(rf"(?:^|[^\p{{L}}\p{{N}}])(?:{words}){_BETWEEN}$", ignore_case=True)
        self._behind = (
            LinearPattern(rf"^[ \-\x{{2013}},(/]{{0,3}}(?:{behind})(?:$|[^\p{{L}}\p{{N}}])", ignore_case=True)
            if behind
            else None
        )

    def mentioned(self, text: str) -> bool:
        """Whether one of the words stands anywhere: if not, no place needs to be asked."""
        return self._anywhere.first(text) is not None

    def announces(self, text: str, span: Span) -> bool:
        """Whether one of the words stands before the span in the same sentence, or one of `behind` right after it."""
        start = max(0, span.start - _WINDOW_CHARS)
        if self._before.first(text[start : span.start]):
            return True
        return bool(self._behind and self._behind.first(text[span.end : span.end + _WINDOW_CHARS]))
