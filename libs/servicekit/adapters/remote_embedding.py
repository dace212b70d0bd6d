"""Embedding on a model server: batches within its limits, queries ahead of documents, every wait bounded.

Used by the embedder adapters that speak to a server, which say how one batch is sent.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from servicekit.adapters.engine_failures import nonsense
from servicekit.errors import BackendUnavailable, BinnacleError, Overloaded
from servicekit.ports.embedder import EmbeddingModel, Tokenizer, Vector

MAX_WAITING_QUERIES = 512
_FIRST_PAUSE_S = 0.1
_MAX_PAUSE_S = 5.0
# Whatever a token limit allows, a body stays far below the 2 MB that servers take.
_MAX_BATCH_CHARS = 250_000

SendBatch = Callable[[Sequence[str], float], Awaitable[Sequence[Sequence[float]]]]


@dataclass(frozen=True, slots=True)
class CallLimits:
    """What one server is asked to bear at once.

    Document batches in flight are few, so that a query finds a short queue at the server; queries have slots of
    their own and never wait for a document here. An attempt at either ends after its time.
    """

    batch_texts: int = 32
    document_batches: int = 4
    queries: int = 32
    query_s: float = 10.0
    documents_s: float = 60.0
    query_attempts: int = 2
    document_attempts: int = 6


@dataclass(frozen=True, slots=True)
class Prefixes:
    """What the model wants to read in front of a query, and in front of a document."""

    query: str = ""
    document: str = ""


NO_PREFIXES = Prefixes()


class RemoteEmbedder:
    """An embedder whose vectors come from `send`, one batch a call, made unit vectors here."""

    def __init__(
        self,
        *,
        address: str,
        model: EmbeddingModel,
        tokenizer: Tokenizer,
        send: SendBatch,
        check: Callable[[], Awaitable[None]],
        limits: CallLimits,
        prefixes: Prefixes,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self._address = address
        self._send = send
        self._check = check
        self._limits = limits
        self._prefixes = prefixes
        self._query_slots = asyncio.Semaphore(limits.queries)
        self._document_slots = asyncio.Semaphore(limits.document_batches)
        self._queries = 0
        self._open = True

    async def embed_query(self, text: str) -> Vector:
        """The query's vector; a failure that may pass is tried once more."""
        self._check_open()
        if self._queries >= MAX_WAITING_QUERIES:
            raise Overloaded(
                f"{self._queries} queries wait to be embedded, which is the bound: try again",
                reason="EMBEDDER_OVERLOADED",
            )
        self._queries += 1
        try:
            async with self._query_slots:
                texts = [_sendable(self._prefixes.query + text)]
                (vector,) = await self._attempt(
                    texts, timeout_s=self._limits.query_s, attempts=self._limits.query_attempts, patient=False
                )
                return vector
        finally:
            self._queries -= 1

    async def embed_documents(self, texts: Sequence[str]) -> Sequence[Vector]:
        """Vectors in the order of `texts`; an overloaded server is asked again after the time it names."""
        self._check_open()
        prepared = [_sendable(self._prefixes.document + text) for text in texts]
        jobs: list[asyncio.Task[Sequence[Vector]]] = []
        try:
            async with asyncio.TaskGroup() as group:
                jobs = [group.create_task(self._embed_batch(batch)) for batch in self._batches(prepared)]
        except BaseExceptionGroup as failed:
            raise _first_error(failed) from failed
        return [vector for job in jobs for vector in job.result()]

    async def ping(self) -> None:
        """Ask the server whether it works."""
        self._check_open()
        await self._check()

    def close(self) -> None:
        """Refuse what comes after."""
        self._open = False

    def _check_open(self) -> None:
        if not self._open:
            raise BackendUnavailable("the embedder is closed", reason="EMBEDDER_CLOSED")

    async def _embed_batch(self, texts: Sequence[str]) -> Sequence[Vector]:
        async with self._document_slots:
            return await self._attempt(
                texts, timeout_s=self._limits.documents_s, attempts=self._limits.document_attempts, patient=True
            )

    async def _attempt(
        self, texts: Sequence[str], *, timeout_s: float, attempts: int, patient: bool
    ) -> Sequence[Vector]:
        """Send, again after a pause where the server was away; only the patient wait for an overloaded one."""
        for attempt in range(1, attempts + 1):
            try:
                raw = await self._send(texts, timeout_s)
                return unit_vectors(raw, count=len(texts), dimension=self.model.dimension, address=self._address)
            except (BackendUnavailable, Overloaded) as error:
                if attempt == attempts or (isinstance(error, Overloaded) and not patient):
                    raise
                await asyncio.sleep(_pause_s(error, attempt))
        raise AssertionError("the last attempt returns or raises")

    def _batches(self, texts: Sequence[str]) -> Iterator[Sequence[str]]:
        batch: list[str] = []
        chars = 0
        for text in texts:
            if batch and (len(batch) == self._limits.batch_texts or chars + len(text) > _MAX_BATCH_CHARS):
                yield batch
                batch, chars = [], 0
            batch.append(text)
            chars += len(text)
        if batch:
            yield batch


def unit_vectors(raw: Sequence[Sequence[float]], *, count: int, dimension: int, address: str) -> Sequence[Vector]:
    """What a server sent, as unit vectors.

    Raises:
        BackendUnavailable: not as many as were asked for, of another length, or no directions.
    """
    try:
        vectors = np.asarray(raw, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise nonsense(address) from error
    if vectors.shape != (count, dimension) or not np.isfinite(vectors).all():
        raise nonsense(address)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not norms.all():
        raise nonsense(address)
    units: Sequence[Vector] = [tuple(vector) for vector in (vectors / norms).tolist()]
    return units


def _sendable(text: str) -> str:
    """Servers refuse an empty input, and no lone surrogate can be encoded; a blank is embedded as nothing is."""
    return text.encode("utf-8", "replace").decode("utf-8") or " "


def _pause_s(error: BackendUnavailable | Overloaded, attempt: int) -> float:
    doubled: float = min(_FIRST_PAUSE_S * 2 ** (attempt - 1), _MAX_PAUSE_S)
    wanted = error.retry_after_s if isinstance(error, Overloaded) else 0.0
    return max(doubled, min(wanted, _MAX_PAUSE_S)) * random.uniform(0.75, 1.25)  # noqa: S311  # jitter


def _first_error(failed: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that ended the group: ours if there is one."""
    first = failed.exceptions[0]
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return next((one for one in failed.exceptions if isinstance(one, BinnacleError)), first)
