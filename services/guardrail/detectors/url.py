"""Finds web addresses. Pure; one of `catalogue.py`'s detectors, which the packaged policy leaves off.

An address as such is nobody's; the e-mail addresses, tokens and passwords inside one are found by their detectors.
"""

from collections.abc import Iterator

from servicekit.domain.verdict import Finding, Span
from services.guardrail.detectors.detector import EVERY_SURFACE, Subject
from services.guardrail.linear import LinearPattern

# A scheme or `www.`; or a bare domain of the oldest top levels: newer ones are words and file extensions as well.
_ADDRESS = LinearPattern(
    r"\b(?:(?:https?|ftp)://[^\s<>\"'`{}|\\^\[\]]+"
    r"|www\.[\p{L}\p{N}\-]+(?:\.[\p{L}\p{N}\-]+)+(?::\d+)?(?:[/?#][^\s<>\"'`{}|\\^\[\]]*)?"
    r"|(?:[a-z0-9][a-z0-9\-]*\.)+(?:com|org|net|edu|gov|mil|co\.uk|org\.uk|ac\.uk)\b(?:/[^\s<>\"'`{}|\\^\[\]]*)?)",
    ignore_case=True,
)
_TRAILING = frozenset(".,;:!?)'\"*_")
_BEFORE_BARE = frozenset("@.-_/")
_SURE, _BARE = 0.95, 0.8
_LONGEST = 2_083
_SCHEME_OR_WWW = ("http://", "https://", "ftp://", "www.")


class UrlDetector:
    """`scheme://host/…`, `www.host/…`, and bare domains of well-known top levels."""

    id = "pii.url"
    version = "1"
    surfaces = EVERY_SURFACE
    redacts = True
    options_model = None

    def find(self, subject: Subject) -> Iterator[Finding]:
        """Score 0.95 with a scheme or `www.`, 0.8 for a bare domain; the punctuation of the sentence stays outside."""
        text = subject.text
        if "." not in text and "://" not in text:
            return
        for place in _ADDRESS.spans(text):
            span = _trimmed(text, place)
            full = text[span.start : span.start + 8].lower().startswith(_SCHEME_OR_WWW)
            if span.end - span.start <= _LONGEST and (full or _stands_alone(text, span)):
                yield Finding("pii.url", _SURE if full else _BARE, span, "URL", "A web address.")


def _trimmed(text: str, span: Span) -> Span:
    """Without what closes the sentence or a bracket opened before; a bracket opened inside is the address's own."""
    end = span.end
    opened = text.count("(", span.start, end)
    closed = text.count(")", span.start, end)
    while end > span.start and text[end - 1] in _TRAILING:
        if text[end - 1] == ")":
            if closed <= opened:
                break
            closed -= 1
        end -= 1
    return Span(span.start, end)


def _stands_alone(text: str, span: Span) -> bool:
    before, after = text[span.start - 1 : span.start], text[span.end : span.end + 1]
    return before not in _BEFORE_BARE and after not in {"@", "(", "_"}
