"""Embeds training texts with the model that the running guardrail embeds with.

Used by the training modules; the vectors of a text agree between machines to about two decimals, not to the bit.
"""

import asyncio
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from servicekit.adapters.registry import open_embedder

DEFAULT_URL = "onnx://minilm?precision=int8&threads=2"
_BATCH = 1_000


class Vectors:
    """Unit vectors of texts; a text is embedded once however often it is asked for."""

    def __init__(self, url: str = DEFAULT_URL) -> None:
        self._url = url
        self._known: dict[str, NDArray[np.float32]] = {}

    def of(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """A row a text, in order."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known.update(zip(new, asyncio.run(_embed(new, self._url)), strict=True))
        return np.stack([self._known[text] for text in texts])


async def _embed(texts: Sequence[str], url: str) -> NDArray[np.float32]:
    async with open_embedder(url) as embedder:
        batches = [
            np.array(await embedder.embed_documents(texts[start : start + _BATCH]), dtype=np.float32)
            for start in range(0, len(texts), _BATCH)
        ]
    return np.concatenate(batches)
