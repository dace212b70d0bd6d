"""Finds hardware addresses of network interfaces. Pure; one of `catalogue.py`'s detectors."""

from collections.abc import Iterator

from servicekit.domain.verdict import Finding, Span
from services.guardrail.detectors.detector import EVERY_SURFACE, Subject
from services.guardrail.linear import LinearPattern

_ADDRESS = LinearPattern(
    r"\b(?:[0-9a-f]{2}(?::[0-9a-f]{2}){5}|[0-9a-f]{2}(?:-[0-9a-f]{2}){5}|[0-9a-f]{4}\.[0-9a-f]{4}\.[0-9a-f]{4})\b",
    ignore_case=True,
)
_GLUE = frozenset(":-.")
_GROUP_BIT = 1


class MacAddressDetector:
    """EUI-48 as IEEE 802 writes it, with colons or dashes, and with dots; groups and the unset address name nobody."""

    id = "pii.mac_address"
    version = "1"
    surfaces = EVERY_SURFACE
    redacts = True
    options_model = None

    def find(self, subject: Subject) -> Iterator[Finding]:
        """Every address of one interface, score 0.85."""
        for span in _ADDRESS.spans(subject.text):
            written = subject.text[span.start : span.end]
            octets = bytes.fromhex(written.replace(":", "").replace("-", "").replace(".", ""))
            if not _is_glued(subject.text, span) and any(octets) and not octets[0] & _GROUP_BIT:
                yield Finding("pii.mac_address", 0.85, span, "MAC", "A hardware address.")


def _is_glued(text: str, span: Span) -> bool:
    after = text[span.end : span.end + 2]
    return text[span.start - 1 : span.start] in _GLUE - {":"} or (after[:1] in _GLUE and after[1:].isalnum())
