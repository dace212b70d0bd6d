"""Finds passwords, keys and tokens that are stated under their name. Pure; used by `secret.py`.

`password = hunter2-Xy` states one; `password = getpass()`, `token: str` and `<your key>` do not. What is stated must
look chosen or random: placeholders, code and words are left alone, since documentation is full of them.
"""

import math
from collections import Counter
from collections.abc import Iterator

from servicekit.domain.verdict import Span
from services.guardrail.linear import LinearPattern

_NAMES = (
    r"pass(?:word|wd|phrase|code)|pwd|passwort|mot de passe|contraseña|secret(?:[_\- ]?(?:access[_\- ]?)?key)?"
    r"|(?:api|access|auth|private|account|signing|encryption|master|storage|shared)[_\- ]?key"
    r"|(?:access|auth|api|bearer|refresh|session|bot|oauth|personal)[_\- ]?token|client[_\- ]?secret|app[_\- ]?secret"
    r"|credentials?"
)
_ASSIGNED = LinearPattern(
    rf"(?:\b|_)(?:{_NAMES})[\"'`\])]{{0,2}}[ \t]{{0,4}}(?:=>|:=|==?"
    rf"|:)[ \t]{{0,4}}[\"'`]?([^\s\"'`,;<>()\[\]{{}}$]{{6,200}})",
    ignore_case=True,
)
_TOLD = LinearPattern(
    r"\b(?:pass(?:word|phrase|code)|passwort|api key|access token|secret key|mot de passe|contraseña)"
    r"(?: for [\w@.\-]{1,40}| to [\w@.\- ]{1,40})? (?:is|was|ist|est|es):? [\"'`]?([^\s\"'`,;<>()\[\]{}$]{6,200})",
    ignore_case=True,
)
_BEARER = LinearPattern(r"\b(?:authorization: ?)(?:bearer|basic|token) ([A-Za-z0-9_\-.=+/]{16,400})", ignore_case=True)
_PLACEHOLDER = LinearPattern(
    r"your|example|change.?me|placeholder|dummy|sample|xxx|\*\*\*|\.\.\.|insert|redacted|todo|n/a|none|null|undefined"
    r"|my[_\-]?(?:pass|secret|key|token)|password|passwd|secret[_\-]?(?:key|token)|api[_\-]?key|foo|s3cr3t|p4ssw0rd",
    ignore_case=True,
)
_CODE = LinearPattern(
    r"^(?:[A-Za-z_][A-Za-z0-9_]*\.)+[A-Za-z_][A-Za-z0-9_]*$|^[A-Z][A-Z0-9_]+$|^[a-z_]+\d?$|::|->|^/|^https?:|^\\"
)
_TRAILING = ".,;:!?*|&"
_FEWEST_CHARS, _FEWEST_BITS = 7, 2.5
_FEWEST_CLASSES = 2


def assigned_secrets(text: str) -> Iterator[tuple[str, Span]]:
    """Rules and places of values that stand under a secret's name; the names themselves stay readable."""
    for rule, pattern in (("secret.assigned", _ASSIGNED), ("secret.told", _TOLD), ("secret.bearer", _BEARER)):
        for place in pattern.spans(text, group=1):
            value = text[place.start : place.end].rstrip(_TRAILING)
            if _looks_secret(value):
                yield rule, Span(place.start, place.start + len(value))


def _looks_secret(value: str) -> bool:
    if len(value) < _FEWEST_CHARS or _PLACEHOLDER.first(value) or _CODE.first(value):
        return False
    has_digit = any(map(str.isdigit, value))
    has_sign = any(not char.isalnum() and char not in "_-./:" for char in value)
    classes = any(map(str.islower, value)) + any(map(str.isupper, value)) + has_digit + has_sign
    return (has_digit or has_sign) and classes >= _FEWEST_CLASSES and _entropy_bits(value) >= _FEWEST_BITS


def _entropy_bits(value: str) -> float:
    """Shannon's entropy of the characters, in bits a character."""
    counts = Counter(value).values()
    return -sum(count / len(value) * math.log2(count / len(value)) for count in counts)
