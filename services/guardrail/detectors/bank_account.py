"""Finds account and routing numbers of banks that a word announces. Pure; one of `catalogue.py`'s detectors.

International numbers are `iban.py`'s, cards `card.py`'s.
"""

from collections.abc import Iterator

from servicekit.domain.verdict import Finding, Span
from services.guardrail.detectors.announcing import Announcement
from services.guardrail.detectors.card import CardDetector
from services.guardrail.detectors.claims import Claims
from services.guardrail.detectors.detector import EVERY_SURFACE, Subject
from services.guardrail.detectors.iban import IbanDetector
from services.guardrail.detectors.national.check_digits import weighted
from services.guardrail.detectors.phone_forms import is_american
from services.guardrail.linear import LinearPattern

_ACCOUNT = LinearPattern(r"\b\d(?:[ \-]?\d){5,17}\b")
_ROUTING = LinearPattern(r"\b\d{9}\b")
_SORT_CODE = LinearPattern(r"\b\d{2}-\d{2}-\d{2}\b|\b\d{6}\b")
_ACCOUNT_WORDS = Announcement(
    r"(?:bank |checking |savings? |current |deposit )?(?:account|acct|a/c)s?\.?(?: ?(?:number|num|no\.?|nr\.?|#|:))"
    r"|(?:bank|checking|savings?|current|deposit) (?:account|acct)|kontonummer|konto(?:-?nr\.?)|num[ée]ro de compte"
    r"|n[úu]mero de cuenta|rekeningnummer|conto corrente"
)
_ROUTING_WORDS = Announcement(r"routing(?: (?:number|no\.?|#|code|transit number))?|aba|rtn|transit number")
_SORT_CODE_WORDS = Announcement(r"sort ?code")
_ROUTING_WEIGHTS = (3, 7, 1) * 3
_DISTRICTS = frozenset([*range(13), *range(21, 33), *range(61, 73), 80])
_CERTAIN = 0.6
_GLUE = frozenset(".-/$€£@+#")
_STEMS = ("acc", "a/c", "konto", "compte", "cuenta", "rekening", "conto", "routing", "aba", "rtn", "transit", "sort")


class BankAccountDetector:
    """Numbers of 6 to 18 digits behind "account number"; routing numbers with their check digit; sort codes."""

    id = "pii.bank_account"
    version = "1"
    surfaces = EVERY_SURFACE
    redacts = True
    options_model = None

    def __init__(self) -> None:
        self._stronger = (CardDetector(), IbanDetector())

    def find(self, subject: Subject) -> Iterator[Finding]:
        """Score 0.9 for a routing number, 0.85 for a sort code, 0.8 for an account, which has no check digit."""
        text = subject.text
        lowered = text.lower()
        if not any(stem in lowered for stem in _STEMS):
            return
        told: set[Span] = set()
        claims = Claims(subject, self._stronger, min_score=_CERTAIN)
        for rule, score, span in _announced(text):
            if span in told:
                continue
            told.add(span)
            if rule != "account" or not claims.touch(span):
                yield Finding(f"pii.bank_account.{rule}", score, span, "ACCOUNT", "A number of a bank account.")


def _announced(text: str) -> Iterator[tuple[str, float, Span]]:
    for span in _ROUTING.spans(text):
        if _is_routing(text[span.start : span.end]) and _ROUTING_WORDS.announces(text, span):
            yield "routing", 0.9, span
    for span in _SORT_CODE.spans(text):
        if _SORT_CODE_WORDS.announces(text, span):
            yield "sort_code", 0.85, span
    for span in _ACCOUNT.spans(text):
        if not _is_glued(text, span) and _ACCOUNT_WORDS.announces(text, span):
            yield "account", 0.8, span


def _is_routing(digits: str) -> bool:
    """American Bankers Association: weights 3, 7, 1, mod 10; the first two digits name a district."""
    return int(digits[:2]) in _DISTRICTS and any(map(int, digits)) and weighted(digits, _ROUTING_WEIGHTS) % 10 == 0


def _is_glued(text: str, span: Span) -> bool:
    """A part of something longer, or a telephone number: `account number, call 1-800-300-5616`."""
    before, after = text[span.start - 1 : span.start], text[span.end : span.end + 2]
    if is_american(text[span.start : span.end]):
        return True
    return before in _GLUE or (after[:1] in {".", "/", ","} and after[1:].isdigit())
