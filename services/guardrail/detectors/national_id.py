"""Finds personal numbers of some thirty countries by form, check digits and announcing words.

Pure; one of `catalogue.py`'s detectors. The plans stand in `national/`.
"""

from collections.abc import Iterator

from servicekit.domain.verdict import Finding, Span
from services.guardrail.detectors.announcing import Announcement
from services.guardrail.detectors.detector import EVERY_SURFACE, Subject
from services.guardrail.detectors.national.plan import Plan
from services.guardrail.detectors.national.plans import ALL_PLANS
from services.guardrail.linear import LinearPattern, LinearSet

_SEPARATORS = str.maketrans("", "", " -./")
_ANNOUNCED = 0.9
_ANY_WORDS = Announcement(
    r"(?:national|personal|government|citizen|identity|identification|tax|fiscal)[ \-]"
    r"(?:id(?:entity|entification)?|insurance|number|no|code|card)|id card|identity card|tax ?id|tin|personalausweis"
)
_GLUE = frozenset("-./_@:=+\\")
_GROUP_BEFORE = LinearPattern(r"^\d[ \-]$")
_MOST_LOOKED_AT = 5_000


class NationalIdDetector:
    """Numbers whose form and check digits prove them, and weaker ones that a word announces."""

    id = "pii.national_id"
    version = "1"
    surfaces = EVERY_SURFACE
    redacts = True
    options_model = None

    def __init__(self) -> None:
        patterns = [rf"\b(?:{plan.pattern})\b" for plan in ALL_PLANS]
        self._any = LinearSet(patterns, ignore_case=True)
        self._patterns = tuple(LinearPattern(pattern, ignore_case=True) for pattern in patterns)
        self._announcements = tuple(Announcement(plan.words) for plan in ALL_PLANS)

    def find(self, subject: Subject) -> Iterator[Finding]:
        """Score 0.9 where a word announces the number, else what its check digits prove: 0.3 to 0.95."""
        text = subject.text
        best: dict[Span, tuple[float, Plan]] = {}
        for position in self._any.matching(text):
            for span, score in self._numbers(text, position):
                if score > best.get(span, (0.0, None))[0]:
                    best[span] = score, ALL_PLANS[position]
        for span, (score, plan) in best.items():
            yield Finding(plan.rule, score, span, "ID", "A national or tax identity number.")

    def _numbers(self, text: str, position: int) -> Iterator[tuple[Span, float]]:
        plan = ALL_PLANS[position]
        for count, span in enumerate(self._patterns[position].spans(text)):
            if count >= _MOST_LOOKED_AT:
                return
            number = text[span.start : span.end].upper().translate(_SEPARATORS)
            if number.isascii() and not _is_glued(text, span) and plan.check(number):
                announced = self._announcements[position].announces(text, span) or _ANY_WORDS.announces(text, span)
                yield span, max(plan.alone, _ANNOUNCED) if announced else plan.alone


def _is_glued(text: str, span: Span) -> bool:
    """A part of something longer: of a word, or of more groups of digits than its own, as a card number has."""
    before, after = text[max(0, span.start - 2) : span.start], text[span.end : span.end + 2]
    if any(char in " -" for char in text[span.start : span.end]) and (_GROUP_BEFORE.first(before) or _is_group(after)):
        return True
    labelled = before[-1:] in {":", "="} and before[0].isalpha()
    return (before[-1:] in _GLUE and not labelled) or (after[:1] in _GLUE and after[1:].isalnum())


def _is_group(after: str) -> bool:
    return after[:1] in {" ", "-"} and after[1:].isdigit()
