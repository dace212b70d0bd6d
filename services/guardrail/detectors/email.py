"""Finds e-mail addresses of real domains. Pure; one of `catalogue.py`'s detectors."""

from collections.abc import Iterator

from servicekit.domain.verdict import Finding
from services.guardrail.detectors.detector import EVERY_SURFACE, Subject
from services.guardrail.linear import LinearPattern

_ADDRESS = LinearPattern(r"[\p{L}\p{N}_.%+\-]+@[\p{L}\p{N}\-]+(?:\.[\p{L}\p{N}\-]+)*\.\p{L}{2,}")
_LONGEST = 254  # RFC 5321
# RFC 2606 and RFC 6761: names that belong to nobody, which documentation uses in its examples.
_NOBODYS = ("example.com", "example.org", "example.net", "example.edu")
_NOBODYS_TOP = (".example", ".test", ".invalid", ".localhost", ".localdomain")


class EmailDetector:
    """`local@domain.tld`; example domains, reserved for documentation, are left alone."""

    id = "pii.email"
    version = "1"
    surfaces = EVERY_SURFACE
    redacts = True
    options_model = None

    def find(self, subject: Subject) -> Iterator[Finding]:
        """Every address, score 0.95."""
        if "@" not in subject.text:
            return
        for span in _ADDRESS.spans(subject.text):
            domain = subject.text[span.start : span.end].rpartition("@")[2].lower()
            if span.end - span.start <= _LONGEST and not _is_reserved(domain):
                yield Finding("pii.email", 0.95, span, "EMAIL", "An e-mail address.")


def _is_reserved(domain: str) -> bool:
    return domain.endswith(_NOBODYS_TOP) or any(domain == name or domain.endswith(f".{name}") for name in _NOBODYS)
