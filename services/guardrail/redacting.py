"""Replaces found spans by typed placeholders, the same value by the same placeholder within a conversation.

Pure but for the numbers given out, which live in this process's memory; used by `checking.py` on the event loop.
"""

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from servicekit.domain.verdict import Span
from services.guardrail.linear import LinearPattern

_PLACEHOLDER = LinearPattern(r"\[[A-Z]+_\d{1,6}\]")


@dataclass(frozen=True, slots=True, order=True)
class Replaceable:
    """A span to replace and what stands there (`EMAIL`)."""

    span: Span
    kind: str


@dataclass(slots=True)
class Numbering:
    """The numbers given out in one conversation; values are kept as keyed digests only."""

    key: bytes = field(default_factory=lambda: secrets.token_bytes(16))
    given: dict[tuple[str, bytes], int] = field(default_factory=dict)
    highest: dict[str, int] = field(default_factory=dict)

    def placeholder(self, kind: str, value: str) -> str:
        """`[EMAIL_1]` for the first address of a conversation, whatever its case and separators."""
        same = "".join(char for char in value.casefold() if char.isalnum())
        digest = hashlib.blake2b(same.encode(), key=self.key, digest_size=16).digest()
        number = self.given.get((kind, digest))
        if number is None:
            number = self.given[kind, digest] = self.highest.get(kind, 0) + 1
            self.highest[kind] = number
        return f"[{kind}_{number}]"

    def reserve(self, text: str) -> None:
        """Never give out a placeholder that the text holds already, from an earlier redaction or by chance."""
        for span in _PLACEHOLDER.spans(text):
            kind, _, number = text[span.start + 1 : span.end - 1].rpartition("_")
            self.highest[kind] = max(self.highest.get(kind, 0), int(number))


class Conversations:
    """Numberings by tenant and conversation; the least recently used is forgotten beyond `capacity`."""

    def __init__(self, *, capacity: int = 10_000) -> None:
        self._capacity = capacity
        self._numberings: OrderedDict[tuple[str, str], Numbering] = OrderedDict()

    def numbering(self, tenant: str, conversation: str) -> Numbering:
        """The conversation's numbering; a fresh one, not kept, for an empty id."""
        if not conversation:
            return Numbering()
        numbering = self._numberings.setdefault((tenant, conversation), Numbering())
        self._numberings.move_to_end((tenant, conversation))
        if len(self._numberings) > self._capacity:
            self._numberings.popitem(last=False)
        return numbering


def redact(text: str, found: Iterable[Replaceable], numbering: Numbering) -> str:
    """The text with every found span replaced; spans that overlap are replaced together, as the longest's kind."""
    merged = _merge(found)
    numbering.reserve(text)
    pieces = []
    position = 0
    for item in merged:
        pieces.append(text[position : item.span.start])
        pieces.append(numbering.placeholder(item.kind, text[item.span.start : item.span.end]))
        position = item.span.end
    pieces.append(text[position:])
    return "".join(pieces)


def _merge(found: Iterable[Replaceable]) -> list[Replaceable]:
    merged: list[tuple[Replaceable, int]] = []
    for item in sorted(found):
        length = item.span.end - item.span.start
        if merged and item.span.start < merged[-1][0].span.end:
            last, longest = merged[-1]
            union = Span(last.span.start, max(last.span.end, item.span.end))
            kind = item.kind if length > longest else last.kind
            merged[-1] = (Replaceable(union, kind), max(length, longest))
        else:
            merged.append((item, length))
    return [item for item, _ in merged]
