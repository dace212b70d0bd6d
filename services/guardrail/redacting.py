"""Replaces found spans by typed placeholders, the same value by the same placeholder within a conversation.

`redact` is pure but for the pseudonyms that it asks; `Redactor` gets those from the vault for `checking.py`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from servicekit.domain.verdict import Span
from services.guardrail.pseudonyms import Pseudonyms, may_hold_placeholder
from services.guardrail.sealing import Owner
from services.guardrail.vault import Vault


@dataclass(frozen=True, slots=True, order=True)
class Replaceable:
    """A span to replace and what stands there (`EMAIL`)."""

    span: Span
    kind: str


@dataclass(frozen=True, slots=True)
class Found:
    """A text and what in it is to be replaced."""

    text: str = field(repr=False)
    replaceable: tuple[Replaceable, ...]


@dataclass(frozen=True, slots=True)
class Redacted:
    """The texts, redacted; `whole` where all that was to be remembered can be put back."""

    texts: tuple[str, ...]
    whole: bool = True


class Redactor:
    """Redacts by the pseudonyms of a conversation."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    async def redact(self, found: Sequence[Found], owner: Owner, *, remember: bool) -> Redacted:
        """The texts in order; `remember`: what is replaced may be put back later, and what was typed stays typed."""
        concerned = [one.replaceable or (remember and may_hold_placeholder(one.text)) for one in found]
        if not any(concerned):
            if remember:
                await self._vault.touch(owner)
            return Redacted(tuple(one.text for one in found))

        def work(pseudonyms: Pseudonyms) -> tuple[str, ...]:
            return tuple(redact(one.text, one.replaceable, pseudonyms, remember=remember) for one in found)

        updated = await self._vault.update(owner, work)
        replaced = any(one.replaceable for one in found)
        return Redacted(updated.result, whole=updated.whole or not (remember and replaced and owner.conversation))


def redact(text: str, found: Iterable[Replaceable], pseudonyms: Pseudonyms, *, remember: bool) -> str:
    """The text with every found span replaced; spans that overlap are replaced together, as the longest's kind."""
    pseudonyms.reserve(text)
    pieces = []
    position = 0
    for item in _merge(found):
        pieces.append(text[position : item.span.start])
        value = text[item.span.start : item.span.end]
        pieces.append(pseudonyms.placeholder(item.kind, value, remember=remember))
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
