"""Rankings to compare the service's with: a kept BM25 library, and exact cosines. Used by `retrieval_quality.py`.

Both are made without any of the service's ranking code.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import bm25s
import numpy as np
import snowballstemmer

from binnacle.type.v1 import chunk_pb2
from servicekit.ports.embedder import Embedder
from tests.bench._collections import Collection
from tests.bench._relevance import Run

DEPTH = 100
logging.getLogger("bm25s").setLevel(logging.WARNING)  # it sets itself to debug when it is imported


@dataclass(frozen=True, slots=True)
class IndexedText:
    """A chunk as the service cut it: its document, and the words that were embedded."""

    document_id: str
    text: str

    @classmethod
    def of(cls, chunk: chunk_pb2.Chunk) -> "IndexedText":
        """Title and headings stand before the text."""
        names = dict.fromkeys(name for name in (chunk.title, *chunk.heading_path) if name)
        return cls(chunk.document_id, f"{' > '.join(names)}\n{chunk.text}" if names else chunk.text)


def rank_by_bm25(collection: Collection) -> Run:
    """The library's own defaults over whole documents."""
    stem = snowballstemmer.stemmer("english").stemWords
    texts = [f"{one.title}\n{one.text}" for one in collection.documents]
    index = bm25s.BM25()
    index.index(bm25s.tokenize(texts, stopwords="en", stemmer=stem, show_progress=False), show_progress=False)
    keys = list(collection.queries)
    asked = bm25s.tokenize(
        [collection.queries[key] for key in keys], stopwords="en", stemmer=stem, return_ids=False, show_progress=False
    )
    ids = [one.document_id for one in collection.documents]
    run: Run = {}
    for key, words in zip(keys, asked, strict=True):
        scores = index.get_scores(words) if words else np.zeros(len(ids))
        run[key] = {ids[place]: float(scores[place]) for place in _best(scores) if scores[place] > 0}
    return run


async def rank_by_cosine(collection: Collection, chunks: Sequence[IndexedText], embedder: Embedder) -> Run:
    """Every chunk against every query; of the 100 best chunks the best of each document, as the service returns."""
    matrix = np.asarray(await embedder.embed_documents([one.text for one in chunks]), dtype=np.float32)
    run: Run = {}
    for key, query in collection.queries.items():
        scores = matrix @ np.asarray(await embedder.embed_query(query), dtype=np.float32)
        best: dict[str, float] = {}
        for place in _best(scores):
            best.setdefault(chunks[place].document_id, float(scores[place]))
        run[key] = best
    return run


def _best(scores: np.ndarray) -> list[int]:
    return [int(place) for place in np.argsort(-scores, kind="stable")[:DEPTH]]
