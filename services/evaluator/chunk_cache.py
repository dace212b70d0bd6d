"""Remembers chunk texts for a short while: neighbouring questions use the same chunks.

A wrapper around `ChunkSource`; the age bounds how long an erased chunk is still scored.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from servicekit.domain.score import Unmeasured
from servicekit.ports.clock import Clock
from services.evaluator.evaluating import ChunkSource


class CachedChunks:
    """At most `max_entries` texts, each at most `max_age_s` old, least recently used out first.

    What is missing is never remembered: it may be indexed the next moment.
    """

    def __init__(self, source: ChunkSource, *, clock: Clock, max_entries: int, max_age_s: float) -> None:
        self._source = source
        self._clock = clock
        self._max_entries = max_entries
        self._max_age_s = max_age_s
        self._texts: OrderedDict[tuple[str, str], tuple[float, str]] = OrderedDict()

    async def fetch_texts(self, tenant: str, content_hashes: Sequence[str]) -> Mapping[str, str | Unmeasured]:
        """As the source's; only what is not remembered is asked for."""
        found: dict[str, str | Unmeasured] = {}
        for key in content_hashes:
            text = self._recall(tenant, key)
            if text is not None:
                found[key] = text
        wanted = [key for key in content_hashes if key not in found]
        if wanted:
            fresh = await self._source.fetch_texts(tenant, wanted)
            for key, value in fresh.items():
                if not isinstance(value, Unmeasured):
                    self._keep(tenant, key, value)
            found.update(fresh)
        return found

    def _recall(self, tenant: str, key: str) -> str | None:
        kept = self._texts.get((tenant, key))
        if kept is None:
            return None
        since_s, text = kept
        if self._clock.monotonic_s() - since_s > self._max_age_s:
            del self._texts[tenant, key]
            return None
        self._texts.move_to_end((tenant, key))
        return text

    def _keep(self, tenant: str, key: str, text: str) -> None:
        self._texts[tenant, key] = (self._clock.monotonic_s(), text)
        while len(self._texts) > self._max_entries:
            self._texts.popitem(last=False)
