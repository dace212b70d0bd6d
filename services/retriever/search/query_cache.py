"""Remembers the vectors of recent queries, so that a question asked again is not embedded again.

Called by `searching.py`; the searches that are ahead of their guard go past it.
"""

from array import array
from collections import OrderedDict

from servicekit.ports.embedder import Embedder, Vector

# 384 values of 4 bytes and the text: about 2 KB an entry.
DEFAULT_ENTRIES = 4_096
# A longer text is embedded each time: it would hold the room of many.
MAX_TEXT_CHARS = 1_024


class QueryCache:
    """Vectors by tenant, model and text, the least recently used forgotten first.

    By tenant, because an answer that comes faster would tell one tenant what another has asked. Kept as 4-byte floats,
    as models make them. `hits` and `misses` count since the start.
    """

    def __init__(self, *, entries: int = DEFAULT_ENTRIES) -> None:
        self._entries = entries
        self._vectors: OrderedDict[tuple[str, str, str], array[float]] = OrderedDict()
        self.hits = 0
        self.misses = 0

    async def embed_query(self, tenant: str, embedder: Embedder, text: str) -> Vector:
        """The query's vector, remembered or from the embedder, with the embedder's errors.

        The vector is the same either way: what is returned has been through the cache's precision.
        """
        key = (tenant, embedder.model.id, text)
        held = self._vectors.get(key)
        if held is not None:
            self._vectors.move_to_end(key)
            self.hits += 1
            return held
        self.misses += 1
        vector = array("f", await embedder.embed_query(text))
        if self._entries and len(text) <= MAX_TEXT_CHARS:
            self._vectors[key] = vector
            while len(self._vectors) > self._entries:
                self._vectors.popitem(last=False)
        return vector

    def __len__(self) -> int:
        return len(self._vectors)
