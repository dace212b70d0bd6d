"""Tells how much of a growing text may be cut off: no finding that is still being written begins before that place.

Pure; asked by `window.py` for every piece that arrives. It knows the shapes of what detectors replace, not the things:
a run without blanks, digits in groups, an account number in groups, a key's block, a credential beside its name. So
ordinary prose is held by one word, and an address, a number or a placeholder until it can grow no more.
"""

from servicekit.domain.verdict import Span
from services.guardrail.linear import LinearPattern
from services.guardrail.normalizing import normalize

LONGEST_HELD = 20_000
"""Characters held at most; a private key with its frame, the longest finding there is, has 16,384."""

_LONGEST_RUN = 8_448
_LONGEST_DIGITS = 128
_LONGEST_CANDIDATE = 160
_LONGEST_KEY = 16_640

# Blanks, the marks of clauses, and punctuation beyond ASCII stand in none of the things that detectors replace, web
# addresses apart.
_WORD_CHAR = r"(?:[\"-+\--:<->@-~]|[^\x00-\x7f\p{Z}\p{P}\p{S}])"
_WORD = LinearPattern(rf"{_WORD_CHAR}+\z")
# Digits in groups, with the word in front of them (a month, the letters of a paper's number), an extension, and the
# word behind them, which may say what they are. A word whose follower is not known may stand in front of digits.
_BEFORE = r"(?:\p{L}{1,12}\.?[\s\-]{1,2})?"
_GROUPS = r"\S*\d\S*(?:[\s\-(),/.]{1,3}(?:\S*\d\S*|[A-Z]{1,6}))*"
_BEHIND = r"(?:[\s\-(),/.]{1,3}(?:(?:x|ext|extension)\b\.?\s?|toll[\s\-])?\p{L}{0,12}\)?)?"
_DIGITS = LinearPattern(rf"\p{{L}}{{1,12}}\.?[\s\-]{{1,2}}\z|{_BEFORE}{_GROUPS}{_BEHIND}\z")
_DATE = LinearPattern(
    r"\b\d{1,2}(?:st|nd|rd|th|\.)?(?:\s(?:of|de))?\s(?:\p{L}{1,10}\.?)?(?:\sde)?,?\s?\d{0,4}\z", ignore_case=True
)
_CANDIDATE = LinearPattern(
    # An account number in groups; a credential between quotes, beside the name of what it opens; a passport's lines.
    r"\S*\b[a-z]{2}\d{2}(?:[ \-]?[a-z0-9]){0,30}[ \-]?\z"
    r"|\S*\baws.{0,20}(?:(?:key|pwd|pw|pass|token).{0,24}(?:['\"][0-9a-z/+]{0,40})?)?\z"
    r"|\S*/:_authToken=[^\n]*\z"
    r"|\S*<<\S*\s?\S*\z",
    ignore_case=True,
)
_ADDRESS = LinearPattern(r"\S*(?:://|www\.)\S*\z", ignore_case=True)
_BLANK = LinearPattern(r"\s")
_KEY_BEGINS = LinearPattern(r"\S*BEGIN(?: [A-Z0-9]*)*\z")
_KEY = LinearPattern(r"-*BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY|PuTTY-User-Key-File-2")
_KEY_END = LinearPattern(r"-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----")
_PROSE = LinearPattern(r"\b[a-z]{2,} [a-z]{2,} [a-z]{2,} [a-z]{2,} ")


def free_end(text: str) -> int:
    """Where the part of `text` ends that nothing still to come can make into a finding; 0 to its length."""
    normalized = normalize(text)
    held = _held_from(normalized.text)
    if held >= len(normalized.text):
        return len(text)
    return normalized.to_original(Span(held, len(normalized.text))).start


def _held_from(text: str) -> int:
    return min(
        _begin(_WORD, text, _LONGEST_RUN),
        _begin(_ADDRESS, text, _LONGEST_RUN),
        _begin(_DIGITS, text, _LONGEST_DIGITS),
        _begin(_DATE, text, _LONGEST_DIGITS),
        _begin(_CANDIDATE, text, _LONGEST_CANDIDATE),
        _begin(_KEY_BEGINS, text, _LONGEST_CANDIDATE),
        _key_begin(text),
    )


def _begin(pattern: LinearPattern, text: str, longest: int) -> int:
    """Where the shape begins that the text ends in, or the text's end; of one that is too long, a later part counts."""
    start = max(0, len(text) - longest)
    if start:
        blank = _BLANK.first(text[start:])
        start += blank.end if blank else 0
    found = pattern.first(text[start:])
    return start + found.start if found else len(text)


def _key_begin(text: str) -> int:
    """Where a private key begins whose end has not come, unless prose has come in its place."""
    if "KEY" not in text and "PuTTY" not in text:
        return len(text)
    for span in _KEY.spans(text):
        behind = text[span.end :]
        if len(behind) <= _LONGEST_KEY and not _KEY_END.first(behind) and not _PROSE.first(behind):
            return span.start
    return len(text)
