"""Lets detectors, which run in threads, embed texts with the embedder, which lives on the event loop.

Opened by `bootstrap.py`, given to detectors as `Subject.embed`. Vectors are remembered by the text's hash: topics and
examples are the same in every check. Texts embedded at the same time share the embedder's own threads.
"""

import asyncio
import hashlib
import time
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from threading import Lock

from servicekit.errors import BackendTimeout, BackendUnavailable
from servicekit.ports.embedder import Embedder, Vector
from services.guardrail.detectors.detector import Embed
from services.guardrail.metrics import EMBEDDINGS

MAX_TEXT_CHARS = 4_096
"""A model reads 256 to 512 tokens; what lies far behind them need not be cut into tokens first."""


class BlockingEmbedder:
    """`Embed` over an embedder of this event loop. Never called on the loop itself: it would wait for itself."""

    def __init__(
        self, embedder: Embedder, loop: asyncio.AbstractEventLoop, *, timeout_s: float, cache_entries: int
    ) -> None:
        self._embedder = embedder
        self._loop = loop
        self._timeout_s = timeout_s
        self._capacity = cache_entries
        self._known: OrderedDict[bytes, Vector] = OrderedDict()
        self._lock = Lock()

    def __call__(self, texts: Sequence[str]) -> Sequence[Vector]:
        """Unit vectors in the order of the texts, single precision.

        Raises:
            BackendTimeout: not done within the time for one call.
            BackendUnavailable, Overloaded: as the embedder says.
        """
        cut = [text[:MAX_TEXT_CHARS] for text in texts]
        keys = [hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).digest() for text in cut]
        vectors = self._recall(keys)
        unknown = {key: text for key, text in zip(keys, cut, strict=True) if key not in vectors}
        if unknown:
            made = self._embed(list(unknown.values()))
            new = {key: array("f", vector) for key, vector in zip(unknown, made, strict=True)}
            self._remember(new)
            vectors |= new
        EMBEDDINGS.labels("known").inc(len(texts) - len(unknown))
        EMBEDDINGS.labels("embedded").inc(len(unknown))
        return [vectors[key] for key in keys]

    def _embed(self, texts: Sequence[str]) -> Sequence[Vector]:
        future = asyncio.run_coroutine_threadsafe(self._embedder.embed_documents(texts), self._loop)
        begun_s = time.monotonic()
        try:
            return future.result(self._timeout_s)
        except FutureTimeoutError as exc:
            future.cancel()
            took_s = time.monotonic() - begun_s
            raise BackendTimeout(
                f"{len(texts)} texts were not embedded within {took_s:.1f} s; allow more (embedding_timeout_s) or give "
                "the embedder more threads",
                reason="EMBEDDING_TIMEOUT",
            ) from exc

    def _recall(self, keys: Sequence[bytes]) -> dict[bytes, Vector]:
        with self._lock:
            known = {key: self._known[key] for key in keys if key in self._known}
            for key in known:
                self._known.move_to_end(key)
        return known

    def _remember(self, vectors: dict[bytes, "array[float]"]) -> None:
        with self._lock:
            self._known |= vectors
            while len(self._known) > self._capacity:
                self._known.popitem(last=False)


def missing_embedder(cause: str) -> Embed:
    """For detectors that need an embedder which could not be opened: they hear so, and the policy decides."""

    def refuse(texts: Sequence[str]) -> Sequence[Vector]:
        raise BackendUnavailable(
            f"{len(texts)} texts were not embedded: the embedder could not be opened ({cause}); start the guardrail "
            "again once it can, or set embedder_url to nothing",
            reason="EMBEDDER_MISSING",
        )

    return refuse
