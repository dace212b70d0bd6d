"""The contract server's prefix cache: which blocks of tokens prompts began with, least recently used first out.

Pure; asked by `answering.py` for every prompt that is admitted.
"""

from collections import OrderedDict
from collections.abc import Sequence


class PrefixCache:
    """Whole blocks only, each known by itself and all before it."""

    def __init__(self) -> None:
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def read(self, texts: Sequence[str], *, adapter: str, capacity_blocks: int, block_tokens: int) -> int:
        """Take a prompt's tokens in; return how many of them, from the front, were there already.

        The last token is never among them: what follows it is computed from it.
        """
        if capacity_blocks <= 0:
            return 0
        found, still_found, before = 0, True, hash(adapter)
        for start in range(0, len(texts) - block_tokens + 1, block_tokens):
            before = hash((before, *texts[start : start + block_tokens]))
            still_found = still_found and before in self._blocks
            found += block_tokens * still_found
            self._blocks[before] = None
            self._blocks.move_to_end(before)
        while len(self._blocks) > capacity_blocks:
            self._blocks.popitem(last=False)
        return min(found, max(0, len(texts) - 1))
