"""Finds names of people that their context gives away. Pure; one of `catalogue.py`'s detectors.

No model: only names behind a title, an introduction, a greeting, a sender's field or a closing phrase, so most names
in prose are not told. The packaged policy leaves it off.
"""

from collections.abc import Iterator

from servicekit.domain.verdict import Finding, Span
from services.guardrail.detectors.detector import EVERY_SURFACE, Subject
from services.guardrail.linear import LinearPattern

_WORD = r"\p{Lu}[\p{L}\p{M}'\x{2019}]+(?:-\p{Lu}?[\p{L}\p{M}'\x{2019}]+)*"
_PART = rf"(?:{_WORD}|\p{{Lu}}\.)"
_PARTICLE = r"(?:von|van|de|der|den|da|di|del|della|la|le|el|al|bin|ibn|dos|du|zu|ter)"
_NAME = rf"{_PART}(?: (?:{_PARTICLE} ){{0,2}}{_PART}){{0,3}}"
_FULL_NAME = rf"{_PART}(?: (?:{_PARTICLE} ){{0,2}}{_PART}){{1,3}}"
_TITLES = r"(?:Mr|Mrs|Ms|Miss|Mx|Dr|Prof|Professor|Herr|Frau|Mme|Monsieur|Madame|Señora?|Sra?)"
_MY_NAME = r"(?i:my (?:full |legal |first |last |sur)?name is|my name's|ich heiße|je m'appelle|me llamo|mi chiamo)"
_NAME_FIELD = r"(?im:^[ \t>*\-]*(?:full |first |last |sur|patient |customer |client |employee |applicant )?name)"
_SENDER_FIELD = r"(?im:^[ \t>]*(?:from|to|cc|attn|sender|recipient|contact))"
_CLOSING = (
    r"(?i:\b(?:best|kind|warm)? ?(?:regards|wishes)|\bsincerely(?: yours)?|\byours (?:truly|faithfully|sincerely)"
    r"|\bcheers|\bthanks),?[ \t]*\n\s*"
)
_PATTERNS = (
    ("title", 0.85, LinearPattern(rf"\b{_TITLES}\b\.? ({_NAME})")),
    ("introduction", 0.9, LinearPattern(rf"\b{_MY_NAME} ({_NAME})")),
    ("introduction", 0.7, LinearPattern(rf"\b(?i:this is|i am|i'm) ({_FULL_NAME})")),
    ("field", 0.85, LinearPattern(rf'{_NAME_FIELD}[ \t]*[:=][ \t]*"?({_NAME})')),
    ("field", 0.85, LinearPattern(rf'{_SENDER_FIELD}[ \t]*:[ \t]*"?({_FULL_NAME})')),
    ("greeting", 0.75, LinearPattern(rf"\b(?:Dear|Hi|Hello|Hey|Hallo|Bonjour|Hola) ({_NAME})[ \t]*[,!:\n]")),
    ("signature", 0.8, LinearPattern(rf"{_CLOSING}({_FULL_NAME})[ \t]*(?:\n|$)")),
)
_NOBODY = frozenset(
    {"A", "All", "Also", "An", "And", "Assistant", "At", "Both", "But", "Colleagues", "Customer", "Doctor", "Dr"}
    | {"Everyone", "Folks", "For", "Friend", "Friends", "From", "God", "Guys", "He", "Hiring", "I", "If", "In", "It"}
    | {"Just", "Lord", "Madam", "Manager", "Mr", "Mrs", "Ms", "Not", "Now", "Of", "On", "Or", "Professor", "Reader"}
    | {"Readers", "Recipient", "She", "Sir", "Sirs", "Student", "Students", "Support", "Team", "That", "The", "There"}
    | {"They", "This", "Users", "We", "World", "You"}
)


class NameDetector:
    """`Dr. Ada Lovelace`, `my name is …`, `Dear …,`, `From: …`, a name under "Best regards"."""

    id = "pii.name"
    version = "1"
    surfaces = EVERY_SURFACE
    redacts = True
    options_model = None

    def find(self, subject: Subject) -> Iterator[Finding]:
        """Each name once, with the strongest context's score: 0.7 to 0.9; titles stay outside of the span."""
        best: dict[Span, tuple[float, str]] = {}
        for rule, score, pattern in _PATTERNS:
            for span in pattern.spans(subject.text, group=1):
                words = subject.text[span.start : span.end].split()
                if words[0] not in _NOBODY and score > best.get(span, (0.0, ""))[0]:
                    best[span] = score, rule
        for span, (score, rule) in best.items():
            yield Finding(f"pii.name.{rule}", score, span, "NAME", "A person's name.")
