"""A cross-encoder on a text-embeddings-inference node: `tei://host[:port][?batch=32][&timeout_ms=2000][&tls=true]`.

Opened by `servicekit.adapters.registry` for the retriever. Model and limits are the node's own (`/info`), asked for
when the first search needs them: a node that is away does not keep the retriever from starting.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from servicekit.adapters.engine_failures import MALFORMED, nonsense
from servicekit.adapters.tei.transport import TeiNode, open_node
from servicekit.errors import BackendUnavailable, InvalidRequest
from servicekit.ports.reranker import Candidate

DEFAULT_BATCH = 32
DEFAULT_TIMEOUT_MS = 2_000
_MAX_BATCH = 1_024
_MAX_TIMEOUT_MS = 60_000
_OPTIONS = frozenset({"batch", "timeout_ms"})
_SHA_CHARS = 12


@dataclass(frozen=True, slots=True)
class _Served:
    """What the node serves, and how many texts it takes at once."""

    id: str
    batch_texts: int


class TeiReranker:
    """Batches go to the node at the same time; the scores of a pair depend on nothing else."""

    wants_vectors = False

    def __init__(self, node: TeiNode, *, batch_texts: int, timeout_s: float) -> None:
        self._node = node
        self._batch_texts = batch_texts
        self._timeout_s = timeout_s
        self._served: _Served | None = None

    @property
    def id(self) -> str:
        """Model and revision as the node names them; its address until it has been asked."""
        return self._served.id if self._served else self._node.address

    async def rerank(self, query: str, candidates: Sequence[Candidate]) -> Sequence[float]:
        """The node's scores, 0 to 1; it cuts what is too long for the model."""
        if not candidates:
            return ()
        try:
            async with asyncio.timeout(self._timeout_s):
                served = self._served = self._served or await self._ask()
                texts = [one.text for one in candidates]
                parts = [texts[at : at + served.batch_texts] for at in range(0, len(texts), served.batch_texts)]
                scores = await asyncio.gather(*(self._score(query, part) for part in parts))
        except InvalidRequest as error:
            raise BackendUnavailable(error.message, reason="RERANKER_REFUSED") from error
        except TimeoutError as error:
            problem = f"engine {self._node.address} did not rank in {self._timeout_s:g} s"
            raise BackendUnavailable(problem, reason="RERANKER_TIMEOUT") from error
        return [score for part in scores for score in part]

    async def ping(self) -> None:
        """Ask the node for its health."""
        await self._node.check_health()

    async def _score(self, query: str, texts: Sequence[str]) -> list[float]:
        body = {"query": query, "texts": texts, "truncate": True}
        ranked = await self._node.post("/rerank", body, timeout_s=self._timeout_s)
        try:
            scores = {int(one["index"]): float(one["score"]) for one in ranked}
        except MALFORMED as error:
            raise nonsense(self._node.address) from error
        if scores.keys() != set(range(len(texts))) or not all(map(math.isfinite, scores.values())):
            raise nonsense(self._node.address)
        return [scores[place] for place in range(len(texts))]

    async def _ask(self) -> _Served:
        info = await self._node.get("/info", timeout_s=self._timeout_s)
        try:
            if "reranker" not in info.get("model_type", {"reranker": {}}):
                problem = f"engine {self._node.address} serves {info['model_id']!r}, no reranker: name one that does"
                raise BackendUnavailable(problem, reason="NO_RERANKER_MODEL")
            revision = str(info.get("model_sha") or "")[:_SHA_CHARS]
            name = f"{info['model_id']}@{revision}" if revision else str(info["model_id"])
            return _Served(name, max(1, min(self._batch_texts, int(info["max_client_batch_size"]))))
        except MALFORMED as error:
            raise nonsense(self._node.address) from error


@asynccontextmanager
async def open_reranker(url: str, *, api_key: str | None = None) -> AsyncIterator[TeiReranker]:
    """Open the connection pool; nothing is sent yet.

    Raises:
        InvalidRequest: the URL cannot be followed.
    """
    async with open_node(url, known_options=_OPTIONS, api_key=api_key) as node:
        yield TeiReranker(
            node,
            batch_texts=_number(node.options, "batch", default=DEFAULT_BATCH, most=_MAX_BATCH),
            timeout_s=_number(node.options, "timeout_ms", default=DEFAULT_TIMEOUT_MS, most=_MAX_TIMEOUT_MS) / 1000,
        )


def _number(options: Mapping[str, str], name: str, *, default: int, most: int) -> int:
    given = str(options.get(name, default))
    if not given.isdecimal() or not 1 <= int(given) <= most:
        raise InvalidRequest(f"reranker_url: {name} must be 1..{most}, got {given!r}", field="reranker_url")
    return int(given)
