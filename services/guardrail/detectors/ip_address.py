"""Finds public IP addresses. Pure; one of `catalogue.py`'s detectors."""

import ipaddress
from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict

from servicekit.domain.verdict import Finding, Span, Surface
from services.guardrail.detectors.announcing import Announcement
from services.guardrail.detectors.detector import EVERY_SURFACE, Subject
from services.guardrail.linear import LinearPattern

_V4 = LinearPattern(r"\b\d{1,3}(?:\.\d{1,3}){3}\b")
_V6 = LinearPattern(r"[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}")

_ANNOUNCED = Announcement(r"(?:my|his|her|their|user|client|source|customer|home) ip|ip ?address(?:es)?|ip:")
_BROADCAST = ipaddress.IPv4Address("255.255.255.255")
_IPV4 = 4
_COLONS_IN_FULL = 7
_UNICAST_V6 = ipaddress.ip_network("2000::/3")  # RFC 4291: all that is given out


class IpAddressOptions(BaseModel):
    """On which surfaces addresses that the internet does not route are told where a word announces them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    private: tuple[Surface, ...] = (Surface.INPUT,)


class IpAddressDetector:
    """IPv4 and IPv6 that the internet routes: private, loopback and documentation ranges name nobody."""

    id = "pii.ip_address"
    version = "2"
    surfaces = EVERY_SURFACE
    redacts = True
    options_model = IpAddressOptions

    def find(self, subject: Subject) -> Iterator[Finding]:
        """Score 0.8 for every global unicast address (a dotted version number may look like one), 0.7 for another."""
        options = subject.options if isinstance(subject.options, IpAddressOptions) else IpAddressOptions()
        for pattern in (_V4, _V6):
            for span in pattern.spans(subject.text):
                if not _stands_alone(subject.text, span):
                    continue
                address = _address(subject.text[span.start : span.end])
                if address is None:
                    continue
                if address.is_global and not address.is_multicast:
                    yield Finding("pii.ip_address", 0.8, span, "IP", "A public IP address.")
                elif subject.surface in options.private and _is_somebodys(address, subject.text, span):
                    yield Finding("pii.ip_address.private", 0.7, span, "IP", "An IP address of somebody's network.")


def _stands_alone(text: str, span: Span) -> bool:
    before = text[span.start - 1 : span.start]
    after = text[span.end : span.end + 2]
    glued_before = before.isalnum() or before in {".", ":", "_", "-"}
    glued_after = after[:1].isalnum() or after[:1] in {":", "_"} or (after[:1] == "." and after[1:].isdigit())
    return not (before and glued_before) and not (after and glued_after)


def _address(candidate: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(candidate)
    except ValueError:
        return None
    in_full = candidate.count(":") == _COLONS_IN_FULL and "::" not in candidate
    return address if address.version == _IPV4 or in_full or address in _UNICAST_V6 else None


def _is_somebodys(address: ipaddress.IPv4Address | ipaddress.IPv6Address, text: str, span: Span) -> bool:
    nobodys = address.is_loopback or address.is_unspecified or address.is_multicast or address == _BROADCAST
    return not nobodys and _ANNOUNCED.announces(text, span)
