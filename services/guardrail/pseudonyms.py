"""The pseudonyms of one conversation: which placeholder stands for which value, and back.

Pure; kept sealed in the state store by `vault.py`, asked by `redacting.py`.

A value is told apart from others by what it means: an address by its letters whatever their case, a number by its
digits whatever their grouping. So that a person is one person to the model, all that mean the same share a number; so
that what a user typed comes back as it was typed, each further way of writing it has a letter of its own: `Ada@a.org`
is `[EMAIL_1]`, `ada@A.org` after it `[EMAIL_1b]`, to the 25th; what is written in still more ways gets a new number.
Only what is to be remembered is kept; of the rest a keyed digest, so that it gets the same placeholder again.
A placeholder that somebody typed is never given out. One that was given out before and is typed means its value:
so a user may speak of `[EMAIL_1]`, and so a history that went to the caller redacted goes on.
"""

import hashlib
import json
import secrets
import string
import unicodedata
from dataclasses import dataclass, field

from services.guardrail.linear import LinearPattern

MAX_VALUES = 1_000
MAX_VALUE_CHARS = 128 * 1024
MAX_TYPED = 1_000
MAX_RESTORED_CHARS = 1_000_000
_KEY_BYTES = 16
_DIGEST_BYTES = 12
_LETTERS: tuple[str, ...] = ("", *string.ascii_lowercase[1:])
_UNNUMBERED = str.maketrans(string.hexdigits[:16], string.ascii_lowercase[:16])
# One that is numbered, by a number that can be given out; one that is not.
_NUMBERED = LinearPattern(r"\[[A-Z][A-Z0-9_]{0,31}_[1-9][0-9]{0,3}[b-z]?\]")
_ANY = LinearPattern(r"\[[A-Z][A-Z0-9_]{0,31}_(?:[1-9][0-9]{0,3}[b-z]?|x[a-p]{12})\]")
# Kinds of which every character but its case, or its case too, makes another value.
_BY_CHARACTERS = frozenset({"EMAIL", "IP", "IP_ADDRESS", "URL"})
_EXACT = frozenset({"SECRET"})


@dataclass(frozen=True, slots=True)
class Restored:
    """A text with values put back, and how many placeholders were replaced and how many stayed."""

    text: str = field(repr=False)
    restored: int
    unknown: int


@dataclass(slots=True)
class _Value:
    """A number given out, and the ways to write its value that may be put back, by their letters."""

    kind: str
    number: int
    forms: dict[str, str] = field(default_factory=dict, repr=False)


class Pseudonyms:
    """What was given out in one conversation.

    `numbered` is false where nothing can be kept: placeholders then come of a keyed digest, agree within the
    conversation all the same, on every replica, and cannot be restored. `whole` turns false once one was given so.
    """

    def __init__(self, *, digest_key: bytes, numbered: bool = True) -> None:
        self.numbered = numbered
        self.whole = numbered
        self.changed = False
        self.renewed_s = 0.0
        self._digest_key = digest_key
        self._key = secrets.token_bytes(_KEY_BYTES)
        self._values: dict[tuple[str, str], _Value] = {}
        self._by_placeholder: dict[str, str] = {}
        self._highest: dict[str, int] = {}
        self._typed: set[str] = set()
        self._value_chars = 0

    def __repr__(self) -> str:
        """How much there is, and nothing of what it is."""
        return f"Pseudonyms({len(self._values)} values, numbered={self.numbered})"

    def placeholder(self, kind: str, value: str, *, remember: bool) -> str:
        """What stands for the value from now on; `remember`: it may be put back later, exactly as it is written."""
        known = self._known(kind, value, remember=remember) if self.numbered else None
        letter = None if known is None else self._letter(known, value, remember=remember)
        if known is None or letter is None:
            self.whole = False
            return self._unnumbered(kind, value)
        return f"[{known.kind}_{known.number}{letter}]"

    def reserve(self, text: str) -> None:
        """Never give out a placeholder that the text holds and that was not given out before."""
        if "[" not in text:
            return
        for span in _NUMBERED.spans(text):
            typed = text[span.start : span.end]
            if typed in self._typed or self._is_given(typed):
                continue
            if len(self._typed) >= MAX_TYPED:
                self.numbered = self.whole = False  # what it then gives out cannot be mistaken for anything typed
                self.changed = True
                return
            self._typed.add(typed)
            self.changed = True

    def restore(self, text: str, *, max_chars: int = MAX_RESTORED_CHARS) -> Restored:
        """The text with what is remembered put back; any other placeholder stays, and all beyond `max_chars` of it."""
        pieces: list[str] = []
        position = restored = unknown = 0
        room = max_chars - len(text)
        for span in _ANY.spans(text) if "[" in text else ():
            value = self._by_placeholder.get(text[span.start : span.end])
            if value is None or len(value) > room:
                unknown += 1
                continue
            room -= len(value)
            pieces += [text[position : span.start], value]
            position = span.end
            restored += 1
        pieces.append(text[position:])
        return Restored("".join(pieces), restored, unknown)

    def encode(self, *, renewed_s: float) -> bytes:
        """All of it as JSON, the values in the clear: for sealing."""
        values = [[digest, value.kind, value.number, value.forms] for (_, digest), value in self._values.items()]
        document = {
            "key": self._key.hex(),
            "renewed_s": renewed_s,
            "numbered": self.numbered,
            "values": values,
            "typed": sorted(self._typed),
        }
        return json.dumps(document, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, encoded: bytes, *, digest_key: bytes) -> "Pseudonyms":
        """What `encode` made."""
        document = json.loads(encoded)
        kept = cls(digest_key=digest_key, numbered=document["numbered"])
        kept._key = bytes.fromhex(document["key"])
        kept.renewed_s = document["renewed_s"]
        kept._typed = set(document["typed"])
        for digest, kind, number, forms in document["values"]:
            value = kept._values[kind, digest] = _Value(kind, number, dict(forms))
            kept._highest[kind] = max(kept._highest.get(kind, 0), number)
            for letter, form in value.forms.items():
                kept._keep(value, letter, form)
        return kept

    def _known(self, kind: str, value: str, *, remember: bool) -> _Value | None:
        """The value's number, a new one where it has none; None where no more can be kept."""
        digest = _digest(self._key, kind, _meaning(kind, value))
        known = self._values.get((kind, digest))
        if known is not None and remember and not self._has_room(known, value):
            digest = _digest(self._key, kind, f"\0{value}")
            known = self._values.get((kind, digest))
        return known or self._new(kind, digest, value)

    def _has_room(self, known: _Value, value: str) -> bool:
        return value in known.forms.values() or any(self._is_free(known, letter) for letter in _LETTERS)

    def _new(self, kind: str, digest: str, value: str) -> _Value | None:
        if len(self._values) >= MAX_VALUES or self._value_chars + len(value) > MAX_VALUE_CHARS:
            return None
        number = self._highest.get(kind, 0) + 1
        while f"[{kind}_{number}]" in self._typed:
            number += 1
        self._highest[kind] = number
        self._values[kind, digest] = made = _Value(kind, number)
        self.changed = True
        return made

    def _letter(self, known: _Value, value: str, *, remember: bool) -> str | None:
        """The letter of this way of writing it; None where it is to be remembered and no more can be kept."""
        for letter, form in known.forms.items():
            if form == value:
                return letter
        if not remember:
            return ""
        if self._value_chars + len(value) > MAX_VALUE_CHARS:
            return None
        letter = next(letter for letter in _LETTERS if self._is_free(known, letter))
        known.forms[letter] = value
        self._keep(known, letter, value)
        self.changed = True
        return letter

    def _keep(self, value: _Value, letter: str, form: str) -> None:
        self._by_placeholder[f"[{value.kind}_{value.number}{letter}]"] = form
        self._value_chars += len(form)

    def _is_free(self, known: _Value, letter: str) -> bool:
        return letter not in known.forms and f"[{known.kind}_{known.number}{letter}]" not in self._typed

    def _is_given(self, placeholder: str) -> bool:
        """Whether it was given out, remembered or not."""
        if placeholder in self._by_placeholder:
            return True
        kind, _, number = placeholder[1:-1].rpartition("_")
        return number.isdecimal() and int(number) <= self._highest.get(kind, 0)

    def _unnumbered(self, kind: str, value: str) -> str:
        return f"[{kind}_x{_digest(self._digest_key, kind, _meaning(kind, value))[:12].translate(_UNNUMBERED)}]"


def may_hold_placeholder(text: str) -> bool:
    """Whether `reserve` would have to look at it."""
    return "[" in text and _NUMBERED.first(text) is not None


def _meaning(kind: str, value: str) -> str:
    """What two ways to write the same value have in common."""
    if kind in _EXACT:
        return value
    plain = unicodedata.normalize("NFKC", value).casefold()
    if kind in _BY_CHARACTERS:
        return plain
    return "".join(char for char in plain if char.isalnum()) or plain


def _digest(key: bytes, kind: str, meaning: str) -> str:
    # Spans of a text are whole characters, but a text of this process may hold half of a pair.
    told = f"{kind}\0{meaning}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(told, key=key, digest_size=_DIGEST_BYTES).hexdigest()
