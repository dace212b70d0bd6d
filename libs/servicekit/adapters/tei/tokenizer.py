"""The tokenizer of a text-embeddings-inference node, asked over HTTP: exact counts without the model's files here.

Used by `embedder.py` where its URL names no `tokenizer=` file. Synchronous, since the port is: its callers are threads.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import httpx2
import numpy as np

from servicekit.adapters.engine_failures import MALFORMED, nonsense
from servicekit.adapters.tei.transport import CONNECT_S, key_headers, to_error
from servicekit.errors import BackendUnavailable

_TIMEOUT = httpx2.Timeout(30.0, connect=CONNECT_S)
# A node takes bodies of 2 MB; a longer text is asked about in parts that end at white space.
MAX_PART_CHARS = 100_000
_CACHED_TEXTS = 2_048
_CACHED_CHARS = 8_192
_ATTEMPTS = 2
# Its two letters take two bytes each, so that the end of the last token tells bytes from characters.
_PROBE = "é é"
_PROBE_BYTES = 5
_CONTINUATION = 0x80  # the top bits of a byte that continues a character (RFC 3629)

Offsets = tuple[tuple[int, int], ...]


class NodeTokenizer:
    """Asks `/tokenize`. What was asked lately is kept, for cutting asks about the same slices again."""

    def __init__(self, base_url: str, *, address: str, api_key: str | None) -> None:
        self._address = address
        self._http = httpx2.Client(base_url=base_url, headers=key_headers(api_key), timeout=_TIMEOUT, trust_env=False)
        self._in_bytes = True
        self._cached = lru_cache(_CACHED_TEXTS)(self._ask)

    def probe(self) -> None:
        """Learn whether the node counts offsets in bytes or in characters (blocking).

        Raises:
            BackendUnavailable, BackendTimeout: the node does not answer, or not with tokens.
        """
        pieces = self._pieces(_PROBE)
        self._in_bytes = max((stop for _, stop in pieces), default=0) >= _PROBE_BYTES

    def count(self, text: str) -> int:
        """Tokens of `text`."""
        return len(self.offsets(text))

    def offsets(self, text: str) -> Sequence[tuple[int, int]]:
        """Character range of each token in order."""
        sendable = text.encode("utf-8", "replace").decode("utf-8")
        if len(sendable) <= _CACHED_CHARS:
            return self._cached(sendable)
        found: list[tuple[int, int]] = []
        for begin, part in _parts(sendable):
            found += ((start + begin, stop + begin) for start, stop in self._ask(part))
        return found

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def _ask(self, text: str) -> Offsets:
        if not text:
            return ()
        pieces = self._pieces(text)
        return pieces if not self._in_bytes or text.isascii() else _in_characters(text, pieces)

    def _pieces(self, text: str) -> Offsets:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return self._send(text)
            except BackendUnavailable:
                if attempt == _ATTEMPTS:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def _send(self, text: str) -> Offsets:
        try:
            response = self._http.post("/tokenize", json={"inputs": text, "add_special_tokens": False})
            response.raise_for_status()
            (tokens,) = response.json()
            return tuple((int(one["start"]), int(one["stop"])) for one in tokens if _is_text(one))
        except httpx2.HTTPError as error:
            raise to_error(self._address, error) from error
        except MALFORMED as error:
            raise nonsense(self._address) from error


def _is_text(token: dict[str, Any]) -> bool:
    return token["start"] is not None and not token["special"]


def _parts(text: str) -> Iterator[tuple[int, str]]:
    """Slices of a long text with their begins, each ending where white space does."""
    begin = 0
    while begin < len(text):
        end = min(begin + MAX_PART_CHARS, len(text))
        if end < len(text):
            space = max(text.rfind(" ", begin, end), text.rfind("\n", begin, end))
            end = space + 1 if space > begin else end
        yield begin, text[begin:end]
        begin = end


def _in_characters(text: str, pieces: Offsets) -> Offsets:
    """Byte ranges as the ranges of the characters that they touch."""
    data = np.frombuffer(text.encode(), dtype=np.uint8)
    begun = np.cumsum((data & 0xC0) != _CONTINUATION)  # characters begun up to and with each byte

    def place(start: int, stop: int) -> tuple[int, int]:
        first = int(begun[start]) - 1 if start < len(data) else len(text)
        return first, max(first, int(begun[min(stop, len(data)) - 1]) if stop > 0 else 0)

    return tuple(place(start, stop) for start, stop in pieces)
