"""The embedder on this machine's CPU: `onnx://minilm?precision=int8&threads=2&cache_dir=…`.

Opened by `servicekit.adapters.registry` for the retriever; builds its graph at the first start.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from servicekit.adapters.onnx.graph_cache import Precision, default_cache_dir, ensure_graph, graph_revision
from servicekit.adapters.onnx.model_files import ModelFiles, find_model
from servicekit.adapters.onnx.pool import Priority, PriorityPool
from servicekit.adapters.onnx.session import EncoderSession
from servicekit.adapters.tokenizer_file import FileTokenizer
from servicekit.errors import BackendUnavailable, InvalidRequest
from servicekit.ports.embedder import EmbeddingModel, Vector

MAX_THREADS = 64
DEFAULT_THREADS = 4
MAX_WAITING = {Priority.QUERY: 512, Priority.DOCUMENT: 50_000}


@dataclass(frozen=True, slots=True)
class OnnxOptions:
    """What the URL says."""

    model: str
    precision: Precision
    threads: int
    cache_dir: Path


def parse_url(url: str) -> OnnxOptions:
    """Read an `onnx://` URL; unknown parameters and values are refused by name."""
    parts = urlsplit(url)
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    threads = given.pop("threads", str(min(DEFAULT_THREADS, os.cpu_count() or 1)))
    precision = given.pop("precision", Precision.INT8)
    cache_dir = given.pop("cache_dir", "")
    if given:
        raise _refusal(f"has no parameter {next(iter(given))!r}: precision, threads and cache_dir are known")
    if not threads.isdecimal() or not 1 <= int(threads) <= MAX_THREADS:
        raise _refusal(f"threads must be 1..{MAX_THREADS}, got {threads!r}")
    if precision not in set(Precision):
        raise _refusal(f"precision must be int8 or fp32, got {precision!r}")
    return OnnxOptions(
        model=parts.netloc or "minilm",
        precision=Precision(precision),
        threads=int(threads),
        cache_dir=Path(cache_dir).expanduser() if cache_dir else default_cache_dir(),
    )


def _refusal(problem: str) -> InvalidRequest:
    return InvalidRequest(f"embedder_url {problem}", field="embedder_url")


class OnnxEmbedder:
    """Embeds one text a run on a few threads, queries first."""

    def __init__(self, *, model: EmbeddingModel, tokenizer: FileTokenizer, session: EncoderSession) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self._session = session
        self._pool: PriorityPool[Vector] | None = None

    @asynccontextmanager
    async def running(self, *, threads: int) -> AsyncIterator["OnnxEmbedder"]:
        """The embedder with its threads up."""
        self._pool = PriorityPool(threads=threads, max_waiting=MAX_WAITING, name="embedder")
        self._pool.start()
        try:
            yield self
        finally:
            await asyncio.to_thread(self._pool.close)

    async def embed_query(self, text: str) -> Vector:
        """The query's vector, ahead of any document that waits."""
        return await self._open_pool().submit(partial(self._encode, text), priority=Priority.QUERY)

    async def embed_documents(self, texts: Sequence[str]) -> Sequence[Vector]:
        """Vectors in the order of `texts`; what is not begun ends with the caller's cancellation."""
        pool = self._open_pool()
        jobs: list[asyncio.Future[Vector]] = []
        try:
            for text in texts:
                job = pool.submit(partial(self._encode, text), priority=Priority.DOCUMENT)
                jobs.append(job)  # a refusal midway must find those before it, to cancel them
            return await asyncio.gather(*jobs)
        finally:
            for job in jobs:
                job.cancel()

    async def ping(self) -> None:
        """Embed one character."""
        await self.embed_query("a")

    def _encode(self, text: str) -> Vector:
        vector: Vector = tuple(self._session.encode(text).tolist())
        return vector

    def _open_pool(self) -> PriorityPool[Vector]:
        if self._pool is None or not self._pool.is_open:
            raise BackendUnavailable("the embedder is closed", reason="EMBEDDER_CLOSED")
        return self._pool


@asynccontextmanager
async def open_embedder(url: str) -> AsyncIterator[OnnxEmbedder]:
    """Build the graph if need be, load it, start the threads; they end with the block."""
    options = parse_url(url)
    embedder = await asyncio.to_thread(_load, options)
    async with embedder.running(threads=options.threads):
        yield embedder


def _load(options: OnnxOptions) -> OnnxEmbedder:
    files = find_model(options.model)
    graph = ensure_graph(files, options.precision, options.cache_dir)
    return OnnxEmbedder(
        model=_describe(files, options.precision),
        tokenizer=FileTokenizer(files.tokenizer),
        session=EncoderSession(graph, files),
    )


def _describe(files: ModelFiles, precision: Precision) -> EmbeddingModel:
    return EmbeddingModel(
        name=files.name,
        revision=graph_revision(files, precision),
        dimension=files.hidden,
        max_tokens=files.max_tokens,
    )
