"""Remembers what a tokenizer has counted, so that nothing is counted twice.

One for each engine of an alias; asked by `packing.py` before an attempt, by `accounting.py` after one that broke off.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from hashlib import blake2b
from typing import Generic, TypeVar

from servicekit.domain.generation import ModelInfo, TokenCount
from servicekit.domain.prompt import Message
from servicekit.domain.token_estimate import estimate_tokens

_T = TypeVar("_T")
CountMessages = Callable[[Sequence[Message]], Awaitable[TokenCount]]
_REMEMBERED = 8_192
# Shorter texts are weighed as fast as they are hashed.
_SHORT_CHARS = 512
_DIGEST_BYTES = 16


class TokenCounts:
    """Counts by text, never the texts themselves; the least recently used are forgotten."""

    def __init__(self, ask: CountMessages, *, remembered: int = _REMEMBERED) -> None:
        self._ask = ask
        self._counts: _Recent[TokenCount] = _Recent(remembered)
        self._weights: _Recent[int] = _Recent(remembered)

    async def count(self, messages: Sequence[Message], *, info: ModelInfo) -> TokenCount:
        """Tokens that a generation from these messages reads, by the tokenizer of the model and revision.

        Raises:
            BackendUnavailable, BackendTimeout.
        """
        key = _digest(info.model, info.revision, *(part for one in messages for part in (one.role.value, one.content)))
        known = self._counts.get(key)
        if known is None:
            known = await self._ask(messages)
            self._counts.put(key, known)
        return known

    def weigh(self, text: str) -> int:
        """About its tokens; the tokenizer is not asked."""
        if len(text) < _SHORT_CHARS:
            return estimate_tokens(text)
        key = _digest(text)
        known = self._weights.get(key)
        if known is None:
            known = estimate_tokens(text)
            self._weights.put(key, known)
        return known


class _Recent(Generic[_T]):
    """The values that were asked for last."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[bytes, _T] = OrderedDict()

    def get(self, key: bytes) -> _T | None:
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def put(self, key: bytes, value: _T) -> None:
        self._values[key] = value
        if len(self._values) > self._most:
            self._values.popitem(last=False)


def _digest(*parts: str) -> bytes:
    digest = blake2b(digest_size=_DIGEST_BYTES)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.digest()
