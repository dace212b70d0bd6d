"""Finds e-mail addresses. Pure; one of `catalogue.py`'s detectors."""

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict

from servicekit.domain.verdict import Finding, Span, Surface
from services.guardrail.detectors.detector import EVERY_SURFACE, Subject
from services.guardrail.linear import LinearPattern

_ADDRESS = LinearPattern(r"[\p{L}\p{N}_.%+\-]+@[\p{L}\p{N}\-]+(?:\.[\p{L}\p{N}\-]+)*\.\p{L}{2,}")
_LONGEST = 254  # RFC 5321
# RFC 2606 and RFC 6761: names that belong to nobody, which documentation uses in its examples.
_NOBODYS = ("example.com", "example.org", "example.net", "example.edu")
_NOBODYS_TOP = (".example", ".test", ".invalid", ".localhost", ".localdomain")


class EmailOptions(BaseModel):
    """On which surfaces addresses of reserved domains are told.

    What users type may stand for a real one; what a document or an answer shows is an example.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    reserved_domains: tuple[Surface, ...] = (Surface.INPUT,)


class EmailDetector:
    """`local@domain.tld`; example domains, reserved for documentation, only where the options say so."""

    id = "pii.email"
    version = "2"
    surfaces = EVERY_SURFACE
    redacts = True
    options_model = EmailOptions

    def find(self, subject: Subject) -> Iterator[Finding]:
        """Every address, score 0.95; `git@host:` names a repository's server."""
        if "@" not in subject.text:
            return
        options = subject.options if isinstance(subject.options, EmailOptions) else EmailOptions()
        examples = subject.surface in options.reserved_domains
        for span in _ADDRESS.spans(subject.text):
            local, _, domain = subject.text[span.start : span.end].rpartition("@")
            server = local == "git" and subject.text[span.end : span.end + 1] in {":", "/"}
            if span.end - span.start <= _LONGEST and not server and (examples or not _is_reserved(domain.lower())):
                yield Finding("pii.email", 0.95, _without_lead(subject.text, span), "EMAIL", "An e-mail address.")


def _without_lead(text: str, span: Span) -> Span:
    """No address begins with a dot, a dash or a percent sign: they belong to the text before it."""
    start = span.start
    while text[start] in ".-%+":
        start += 1
    return Span(start, span.end)


def _is_reserved(domain: str) -> bool:
    return domain.endswith(_NOBODYS_TOP) or any(domain == name or domain.endswith(f".{name}") for name in _NOBODYS)
