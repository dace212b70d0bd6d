"""Remembers which replicas served the beginning of a prompt lately, so that its cache there is used again.

Pure; asked and told by `choosing.py`. Prefixes are compared by whole blocks of characters, as caches hold them.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterator

BLOCK_CHARS = 256
_MAX_BLOCKS = 64
_MAX_HOLDERS = 4


class PrefixMemory:
    """Blocks by what leads up to them, with the replicas that had them last; the longest unused goes first."""

    def __init__(self, max_blocks: int) -> None:
        self._max_blocks = max_blocks
        self._holders: OrderedDict[bytes, list[str]] = OrderedDict()

    def matches(self, prefix: str) -> dict[str, int]:
        """Characters of `prefix` that each replica has served from its beginning on."""
        found: dict[str, int] = {}
        for number, block in enumerate(_blocks(prefix), start=1):
            holders = self._holders.get(block)
            if holders is None:
                break
            for address in holders:
                if found.get(address, 0) == (number - 1) * BLOCK_CHARS:
                    found[address] = number * BLOCK_CHARS
        return found

    def served(self, prefix: str, address: str) -> None:
        """The replica works on this prompt."""
        for block in _blocks(prefix):
            holders = self._holders.setdefault(block, [])
            if address in holders:
                holders.remove(address)
            holders.append(address)
            del holders[:-_MAX_HOLDERS]
            self._holders.move_to_end(block)
        while len(self._holders) > self._max_blocks:
            self._holders.popitem(last=False)

    def forget(self, address: str) -> None:
        """The replica is gone, and its cache with it."""
        for block in [block for block, holders in self._holders.items() if address in holders]:
            self._holders[block].remove(address)
            if not self._holders[block]:
                del self._holders[block]


def _blocks(prefix: str) -> Iterator[bytes]:
    """A hash for each whole block, of all that leads up to its end."""
    chain = hashlib.blake2b(digest_size=12)
    for end in range(BLOCK_CHARS, min(len(prefix), _MAX_BLOCKS * BLOCK_CHARS) + 1, BLOCK_CHARS):
        chain.update(prefix[end - BLOCK_CHARS : end].encode("utf-8", "surrogatepass"))
        yield chain.digest()
