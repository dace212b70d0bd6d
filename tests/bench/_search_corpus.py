"""A corpus of any size with real words and vectors, and queries for it; cached under `.cache/`. Used by `search.py`.

Some thousand passages of Python's own documentation (docstrings and `pydoc_data`) are embedded for real. The other
chunks are variations of these: sentences dropped and borrowed, the vector turned by noise to a cosine of about 0.86, so
that neighbourhoods are dense and an approximate index has something to lose. Queries are runs of words from passages.
"""

import asyncio
import hashlib
import importlib
import inspect
import random
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from pydoc_data import topics

import numpy as np
from numpy.typing import NDArray

from servicekit.domain.chunk import Chunk
from servicekit.ports.embedder import Embedder, Vector
from servicekit.ports.vector_store import DocumentRevision, IndexedChunk, StoredDocument
from servicekit.testing.documents import NOON

CACHE = Path(".cache/bench-search")
PASSAGES = 3_000
CHUNKS_A_DOCUMENT = 10
_PASSAGE_WORDS = 90
_NOISE = 0.6
_SENTENCE = re.compile(r"(?<=[.:;])\s+")
_MODULES = """
    argparse asyncio collections concurrent.futures csv ctypes datetime decimal difflib email functools hashlib http
    http.client http.server inspect io ipaddress itertools json logging logging.handlers mailbox math multiprocessing
    os os.path pathlib pickle random re sched selectors shutil signal smtplib socket sqlite3 ssl statistics string
    struct subprocess tarfile tempfile textwrap threading timeit turtle types typing unittest unittest.mock
    urllib.parse urllib.request uuid warnings wave weakref xml.dom xml.etree.ElementTree zipfile zoneinfo
"""

Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class SearchCorpus:
    """Chunk `i` has the words `texts[i]` and the unit vector `vectors[i]`."""

    texts: Sequence[str]
    vectors: Matrix
    passages: Sequence[str]

    def revisions(self, start: int, end: int) -> list[DocumentRevision]:
        """The documents of these chunks."""
        return [
            self._document(first, min(first + CHUNKS_A_DOCUMENT, end)) for first in range(start, end, CHUNKS_A_DOCUMENT)
        ]

    def queries(self, seed: int) -> Iterator[str]:
        """Endless, seldom the same twice: the service remembers the vectors of queries."""
        chosen = random.Random(seed)
        while True:
            words = chosen.choice(self.passages).split()
            first = chosen.randrange(max(1, len(words) - 12))
            yield " ".join(words[first : first + chosen.randint(4, 12)])

    def _document(self, first: int, end: int) -> DocumentRevision:
        document_id = f"corpus-{first // CHUNKS_A_DOCUMENT:06}"
        shelf = {"shelf": f"s{first // CHUNKS_A_DOCUMENT % 10}"}
        chunks = []
        for ordinal, number in enumerate(range(first, end)):
            text = self.texts[number]
            chunk = Chunk(
                chunk_id=f"chunk-{number:07}",
                document_id=document_id,
                revision=1,
                content_hash=hashlib.sha256(text.encode()).hexdigest(),
                text=text,
                title=f"Document {first}",
                ordinal=ordinal,
                token_count=len(text.split()),
                metadata=shelf,
            )
            chunks.append(IndexedChunk(chunk, self.vectors[number].tolist(), text))
        document = StoredDocument(
            document_id=document_id,
            revision=1,
            content_hash=chunks[0].chunk.content_hash,
            fingerprint=document_id,
            index_time=NOON,
            title=f"Document {first}",
            chunk_count=len(chunks),
            metadata=shelf,
        )
        return DocumentRevision(document, tuple(chunks))


async def load_corpus(embedder: Embedder, chunks: int, *, seed: int = 7) -> SearchCorpus:
    """Make the corpus, or read what an earlier run embedded."""
    passages = _passages(seed)[: min(PASSAGES, max(200, chunks // 2))]
    key = hashlib.sha256("\n".join([embedder.model.id, *passages]).encode()).hexdigest()[:16]
    kept = CACHE / f"{key}.npy"
    if not kept.exists():
        print(f"search: embedding {len(passages)} passages", file=sys.stderr, flush=True)
        vectors: list[Vector] = []
        for at in range(0, len(passages), 64):
            vectors += await embedder.embed_documents(passages[at : at + 64])
        CACHE.mkdir(parents=True, exist_ok=True)
        np.save(kept, np.asarray(vectors, dtype=np.float32))
    base: Matrix = np.load(kept)
    return await asyncio.to_thread(_vary, passages, base, chunks, seed)


def _vary(passages: Sequence[str], base: Matrix, chunks: int, seed: int) -> SearchCorpus:
    chosen = random.Random(seed)
    noise = np.random.default_rng(seed)
    sources = [number % len(passages) for number in range(chunks)]
    vectors = base[sources]
    varied = slice(len(passages), chunks)
    turned = noise.standard_normal((max(chunks - len(passages), 0), base.shape[1]), dtype=np.float32)
    vectors[varied] += turned * np.float32(_NOISE / np.sqrt(base.shape[1]))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    texts = [passages[at] if n < len(passages) else _vary_text(passages, at, chosen) for n, at in enumerate(sources)]
    return SearchCorpus(texts, vectors, passages)


def _vary_text(passages: Sequence[str], source: int, chosen: random.Random) -> str:
    sentences = _SENTENCE.split(passages[source])
    sentences.pop(chosen.randrange(len(sentences)))
    sentences.insert(chosen.randint(0, len(sentences)), chosen.choice(_SENTENCE.split(chosen.choice(passages))))
    return " ".join(sentences)


def _passages(seed: int) -> list[str]:
    texts = [*topics.topics.values(), *_docstrings()]
    passages: dict[str, None] = {}
    for text in texts:
        words = text.split()
        for at in range(0, len(words), _PASSAGE_WORDS):
            if len(piece := words[at : at + _PASSAGE_WORDS]) >= 25:
                passages[" ".join(piece)] = None
    found = list(passages)
    random.Random(seed).shuffle(found)
    return found


def _docstrings() -> Iterator[str]:
    warnings.simplefilter("ignore", DeprecationWarning)  # of modules whose docstrings are read, not used
    for name in _MODULES.split():
        try:
            module = importlib.import_module(name)
        except ImportError:  # parts of the library are packages of their own on some systems
            continue
        yield inspect.getdoc(module) or ""
        for _, thing in inspect.getmembers(module, lambda one: inspect.isclass(one) or inspect.isroutine(one)):
            yield inspect.getdoc(thing) or ""
            if inspect.isclass(thing):
                yield from (inspect.getdoc(one) or "" for one in vars(thing).values() if inspect.isroutine(one))
