"""How telephone numbers are written, and what only looks like one. Pure; used by `phone.py`."""

import phonenumbers

from servicekit.domain.verdict import Span
from services.guardrail.linear import LinearPattern

_DECIMAL = LinearPattern(r"^\+?\d+\.\d+$")
# Dates, times, spans of years, dotted quads, social security numbers and book numbers.
_OTHER = LinearPattern(
    r"^\(?(?:(?:1[89]|2[01])\d{2}[-./ ]\d{1,2}[-./ ]\d{1,2}(?: .*)?"
    r"|\d{1,2}[-./ ]\d{1,2}[-./ ](?:1[89]|2[01])\d{2}(?: .*)?"
    r"|(?:1[5-9]|20)\d{2}[-\x{2013}/ ](?:1[5-9]|20)\d{2}"
    r"|(?:1[89]|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?:[ \-]?\d{4,6})?"
    r"|\d{1,3}(?:\.\d{1,3}){3}|\d+\.\d{1,2}\.\d{3,6}|\d{3,4}-\d{2}-\d{4}|97[89][\- ].*)$"
)
_AMERICAN = LinearPattern(
    r"^(?:1[ .\-])?(?:\(\d{3}\)[ .\-]?|\d{3}[.\-])\d{3}[ .\-]\d{4}(?:(?: ?x\.? ?|,? ?ext(?:ension)?\.? ?|#)\d{1,6})?$",
    ignore_case=True,
)
_TRUNK = LinearPattern(r"^\(?0[1-9]\d{0,4}\)?(?:[ \-/]?\d{2,}){1,5}$")
# Thousands, as in `331 449 281`; mobile numbers of three threes begin with 5 to 9.
_THOUSANDS = LinearPattern(r"^(?:[1-4]\d{2}|\d{1,2})(?: \d{3}){2,3}$")
_GROUP = LinearPattern(r"\d+")
_GLUE = frozenset("-._/:=#$€£@\\%")
_FEWEST_GROUPS, _SHORTEST_GROUP, _LONGEST_GROUP = 3, 2, 5
_TRUNK_DIGITS, _BLOCK_DIGITS = range(10, 13), range(10, 12)
# Where national formats are looked up when the number has no country code: the most telephones first.
_REGIONS = ("US", "GB", "FR", "DE", "AU", "IT", "ES", "CH", "SE", "DK", "NL", "BE", "IN", "PL", "BR", "ZA")


def count_digits(written: str) -> int:
    """How many digits there are."""
    return sum(map(str.isdigit, written))


def tidied(text: str, span: Span) -> Span:
    """Without a bracket at its start that is not closed inside: it belongs to the sentence."""
    opens = text[span.start : span.start + 1] == "(" and text.find(")", span.start, span.end) < 0
    return Span(span.start + 1, span.end) if opens else span


def is_glued(text: str, span: Span) -> bool:
    """Whether it is a part of something longer: a word, a path, an amount, a larger number."""
    before, after = text[max(0, span.start - 2) : span.start], text[span.end : span.end + 2]
    glued_before = (before[-1:].isalnum() or before[-1:] in _GLUE) and not _is_label(before)
    glued_after = after[:1].isalnum() or after[:1] in {"_", "%"} or (after[:1] in _GLUE and after[1:].isdigit())
    return (bool(before) and glued_before) or (bool(after) and glued_after)


def _is_label(before: str) -> bool:
    """`Tel:0301234567`, `phone=…` and `#541-714-1388`: a sign behind a name, a hash behind nothing."""
    return (before[-1:] in {":", "=", "-"} and before[0].isalpha()) or (before[-1:] == "#" and not before[0].isalnum())


def is_other(written: str) -> bool:
    """A date, a decimal, an address, a book; or brackets that do not match."""
    if written.count("(") != written.count(")"):
        return True
    return bool(_DECIMAL.first(written) or _OTHER.first(written))


def is_american(written: str) -> bool:
    """`(541) 714-1388`, `541-714-1388`, `541.714.1388`: by its form, whether the area exists or not."""
    return bool(_AMERICAN.first(written))


def is_grouped(written: str) -> bool:
    """Three groups or more, none long, as in `541-714-1388` and `(37) 788-063`."""
    if "/" in written or _THOUSANDS.first(written):
        return False
    groups = [span.end - span.start for span in _GROUP.spans(written)]
    return len(groups) >= _FEWEST_GROUPS and all(_SHORTEST_GROUP <= length <= _LONGEST_GROUP for length in groups)


def is_trunk(written: str, digits: int) -> bool:
    """A leading zero and the length of a national number, as in `0475 4429797` and `089/1234567`."""
    lengths = _BLOCK_DIGITS if written.isdigit() else _TRUNK_DIGITS
    return digits in lengths and bool(_TRUNK.first(written))


def is_possible(written: str) -> bool:
    """A country code that exists, and a length that exists there: the plus sign is evidence enough."""
    try:
        return phonenumbers.is_possible_number(phonenumbers.parse("+" + written.lstrip("+0 ("), None))
    except phonenumbers.NumberParseException:
        return False


def is_valid_somewhere(written: str) -> bool:
    """Whether some region's plan gives out this number."""
    return any(_is_valid(written, region) for region in _REGIONS)


def _is_valid(written: str, region: str) -> bool:
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(written, region))
    except phonenumbers.NumberParseException:
        return False
