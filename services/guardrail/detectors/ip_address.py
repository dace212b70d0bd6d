"""Finds public IP addresses. Pure; one of `catalogue.py`'s detectors."""

import ipaddress
from collections.abc import Iterator

from servicekit.domain.verdict import Finding, Span
from services.guardrail.detectors.detector import EVERY_SURFACE, Subject
from services.guardrail.linear import LinearPattern

_V4 = LinearPattern(r"\b\d{1,3}(?:\.\d{1,3}){3}\b")
_V6 = LinearPattern(r"[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}")

_IPV4 = 4
_COLONS_IN_FULL = 7
_UNICAST_V6 = ipaddress.ip_network("2000::/3")  # RFC 4291: all that is given out


class IpAddressDetector:
    """IPv4 and IPv6 that the internet routes: private, loopback and documentation ranges name nobody."""

    id = "pii.ip_address"
    version = "1"
    surfaces = EVERY_SURFACE
    redacts = True
    options_model = None

    def find(self, subject: Subject) -> Iterator[Finding]:
        """Every global unicast address, score 0.8 (a dotted version number may look like one)."""
        for pattern in (_V4, _V6):
            for span in pattern.spans(subject.text):
                if _stands_alone(subject.text, span) and _is_public(subject.text[span.start : span.end]):
                    yield Finding("pii.ip_address", 0.8, span, "IP", "A public IP address.")


def _stands_alone(text: str, span: Span) -> bool:
    before = text[span.start - 1 : span.start]
    after = text[span.end : span.end + 2]
    glued_before = before.isalnum() or before in {".", ":", "_", "-"}
    glued_after = after[:1].isalnum() or after[:1] in {":", "_"} or (after[:1] == "." and after[1:].isdigit())
    return not (before and glued_before) and not (after and glued_after)


def _is_public(candidate: str) -> bool:
    try:
        address = ipaddress.ip_address(candidate)
    except ValueError:
        return False
    in_full = candidate.count(":") == _COLONS_IN_FULL and "::" not in candidate
    plausible = address.version == _IPV4 or in_full or address in _UNICAST_V6
    return plausible and address.is_global and not address.is_multicast
