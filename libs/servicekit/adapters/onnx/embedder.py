"""The embedder on this machine's CPU, opened by `servicekit.adapters.registry` for the retriever.

`onnx://minilm[?precision=int8][&threads=2][&cache_dir=…]` is the model of an installed package, its graph built at the
first start. `onnx:///folder[?file=onnx/model_int8.onnx][&name=…][&query_prefix=…][&document_prefix=…]` is any model as
sentence-transformers saves it; its prompts are those of its configuration unless the URL gives others.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from servicekit.adapters.onnx.folder import load_folder
from servicekit.adapters.onnx.graph_cache import Precision, default_cache_dir, ensure_graph, graph_revision
from servicekit.adapters.onnx.model_files import ModelFiles, find_model
from servicekit.adapters.onnx.pool import Priority, PriorityPool
from servicekit.adapters.onnx.sentence_model import read_sentence_model
from servicekit.adapters.onnx.session import Encoder, EncoderSession
from servicekit.adapters.remote_embedding import NO_PREFIXES, Prefixes
from servicekit.adapters.tokenizer_file import FileTokenizer
from servicekit.errors import BackendUnavailable, InvalidRequest
from servicekit.ports.embedder import EmbeddingModel, Vector

MAX_THREADS = 64
DEFAULT_THREADS = 4
_FOLDER_OPTIONS = ("file", "name", "query_prefix", "document_prefix")
MAX_WAITING = {Priority.QUERY: 512, Priority.DOCUMENT: 50_000}


@dataclass(frozen=True, slots=True)
class OnnxOptions:
    """What the URL says; `folder` where it names one, and then no precision unless it says one.

    Prefixes are None where the folder's own hold.
    """

    model: str
    precision: Precision | None
    threads: int
    cache_dir: Path
    folder: Path | None = None
    file: str = ""
    name: str = ""
    query_prefix: str | None = None
    document_prefix: str | None = None


def parse_url(url: str) -> OnnxOptions:
    """Read an `onnx://` URL; unknown parameters and values are refused by name."""
    parts = urlsplit(url)
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    threads = given.pop("threads", str(min(DEFAULT_THREADS, os.cpu_count() or 1)))
    folder = Path(unquote(parts.path)) if not parts.netloc and parts.path.strip("/") else None
    precision = given.pop("precision", None if folder else Precision.INT8)
    cache_dir = given.pop("cache_dir", "")
    own = {name: given.pop(name) for name in _FOLDER_OPTIONS if folder and name in given}
    if given:
        known = ("precision", "threads", "cache_dir", *(_FOLDER_OPTIONS if folder else ()))
        raise _refusal(f"has no parameter {next(iter(given))!r}: {', '.join(known)} are known")
    if not threads.isdecimal() or not 1 <= int(threads) <= MAX_THREADS:
        raise _refusal(f"threads must be 1..{MAX_THREADS}, got {threads!r}")
    if precision is not None and precision not in set(Precision):
        raise _refusal(f"precision must be int8 or fp32, got {precision!r}")
    return OnnxOptions(
        model=parts.netloc or "minilm",
        precision=None if precision is None else Precision(precision),
        threads=int(threads),
        cache_dir=Path(cache_dir).expanduser() if cache_dir else default_cache_dir(),
        folder=folder,
        file=own.get("file", ""),
        name=own.get("name", ""),
        query_prefix=own.get("query_prefix"),
        document_prefix=own.get("document_prefix"),
    )


def _refusal(problem: str) -> InvalidRequest:
    return InvalidRequest(f"embedder_url {problem}", field="embedder_url")


class OnnxEmbedder:
    """Embeds one text a run on a few threads, queries first."""

    def __init__(
        self, *, model: EmbeddingModel, tokenizer: FileTokenizer, session: Encoder, prefixes: Prefixes = NO_PREFIXES
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self._session = session
        self._prefixes = prefixes
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
        return await self._open_pool().submit(
            partial(self._encode, text, self._prefixes.query), priority=Priority.QUERY
        )

    async def embed_documents(self, texts: Sequence[str]) -> Sequence[Vector]:
        """Vectors in the order of `texts`; what is not begun ends with the caller's cancellation."""
        pool = self._open_pool()
        jobs: list[asyncio.Future[Vector]] = []
        try:
            for text in texts:
                job = pool.submit(partial(self._encode, text, self._prefixes.document), priority=Priority.DOCUMENT)
                jobs.append(job)  # a refusal midway must find those before it, to cancel them
            return await asyncio.gather(*jobs)
        finally:
            for job in jobs:
                job.cancel()

    async def ping(self) -> None:
        """Embed one character."""
        await self.embed_query("a")

    def _encode(self, text: str, prefix: str) -> Vector:
        vector: Vector = tuple(self._session.encode(text, prefix=prefix).tolist())
        return vector

    def _open_pool(self) -> PriorityPool[Vector]:
        if self._pool is None or not self._pool.is_open:
            raise BackendUnavailable("the embedder is closed", reason="EMBEDDER_CLOSED")
        return self._pool


@asynccontextmanager
async def open_embedder(url: str, *, api_key: str | None = None) -> AsyncIterator[OnnxEmbedder]:
    """Build the graph if need be, load it, start the threads; they end with the block. No key is asked for."""
    del api_key
    options = parse_url(url)
    embedder = await asyncio.to_thread(_load, options)
    async with embedder.running(threads=options.threads):
        yield embedder


def prepare(options: OnnxOptions) -> str:
    """Build what the first start would build; returns what is embedded with: a graph's path, or a folder's model."""
    if options.folder is not None:
        return _load(options).model.id
    return str(ensure_graph(find_model(options.model), options.precision or Precision.INT8, options.cache_dir))


def _load(options: OnnxOptions) -> OnnxEmbedder:
    if options.folder is not None:
        return _load_folder(options, options.folder)
    files = find_model(options.model)
    precision = options.precision or Precision.INT8
    graph = ensure_graph(files, precision, options.cache_dir)
    return OnnxEmbedder(
        model=_describe(files, precision),
        tokenizer=FileTokenizer(files.tokenizer),
        session=EncoderSession(graph, files),
    )


def _load_folder(options: OnnxOptions, folder: Path) -> OnnxEmbedder:
    model = read_sentence_model(folder, name=options.name)
    prefixes = Prefixes(
        model.prefixes.query if options.query_prefix is None else options.query_prefix,
        model.prefixes.document if options.document_prefix is None else options.document_prefix,
    )
    model = replace(model, prefixes=prefixes)
    session, revision = load_folder(model, file=options.file, precision=options.precision, cache_dir=options.cache_dir)
    tokenizer = FileTokenizer(model.tokenizer)
    # Prompts and special tokens beyond two take room that chunks were to have.
    taken = max(map(tokenizer.count, (prefixes.query, prefixes.document))) + max(0, tokenizer.special_tokens() - 2)
    return OnnxEmbedder(
        model=EmbeddingModel(
            name=model.name,
            revision=revision,
            dimension=len(session.encode("a")),
            max_tokens=model.max_tokens - taken,
        ),
        tokenizer=tokenizer,
        session=session,
        prefixes=prefixes,
    )


def _describe(files: ModelFiles, precision: Precision) -> EmbeddingModel:
    return EmbeddingModel(
        name=files.name,
        revision=graph_revision(files, precision),
        dimension=files.hidden,
        max_tokens=files.max_tokens,
    )
