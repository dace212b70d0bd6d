"""An embedder on a text-embeddings-inference node.

Opened by the registry for `tei://host[:port][?tokenizer=/path/tokenizer.json][&query_prefix=query:%20]`
`[&document_prefix=passage:%20][&batch=32][&concurrency=4][&revision=NAME][&tls=true]`.

Model, limits and revision are the node's own (`/info`), the dimension that of a first vector.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

from servicekit.adapters.embedder_url import (
    SHARED_OPTIONS,
    name_prefixes,
    read_limits,
    read_prefixes,
    tokenizer_path,
)
from servicekit.adapters.engine_failures import MALFORMED, nonsense
from servicekit.adapters.remote_embedding import Prefixes, RemoteEmbedder
from servicekit.adapters.tei.tokenizer import NodeTokenizer
from servicekit.adapters.tei.transport import TeiNode, open_node
from servicekit.adapters.tokenizer_file import FileTokenizer
from servicekit.errors import BackendTimeout, BackendUnavailable, NotReady
from servicekit.ports.embedder import EmbeddingModel, Tokenizer

OPEN_WAIT_S = 30.0
_OPEN_PAUSE_S = 0.5
_FIRST_EMBEDDING_S = 30.0
_SHA_CHARS = 12


@asynccontextmanager
async def open_embedder(
    url: str, *, api_key: str | None = None, open_wait_s: float = OPEN_WAIT_S
) -> AsyncIterator[RemoteEmbedder]:
    """Ask the node what it serves, waiting a while for one that is still starting.

    Raises:
        InvalidRequest: the URL cannot be followed.
        NotReady: the node serves no embedding model, or the tokenizer file cannot be read.
        BackendUnavailable, BackendTimeout: it does not answer in time.
    """
    async with open_node(url, known_options=SHARED_OPTIONS | {"revision"}, api_key=api_key) as node:
        prefixes = read_prefixes(node.options)
        info = await _first_answer(node, open_wait_s)
        limits = read_limits(node.options, default_batch_texts=_number(node, info, "max_client_batch_size"))
        limits = replace(limits, batch_texts=min(limits.batch_texts, _number(node, info, "max_client_batch_size")))
        with ExitStack() as closing:
            tokenizer = await asyncio.to_thread(_open_tokenizer, node, api_key, closing)
            embedder = RemoteEmbedder(
                address=node.address,
                model=await _describe(node, info, prefixes, tokenizer),
                tokenizer=tokenizer,
                send=_Sender(node).send,
                check=node.check_health,
                limits=limits,
                prefixes=prefixes,
            )
            closing.callback(embedder.close)
            yield embedder


class _Sender:
    def __init__(self, node: TeiNode) -> None:
        self._node = node

    async def send(self, texts: Sequence[str], timeout_s: float) -> Sequence[Sequence[float]]:
        """One batch; the node cuts what is too long for the model."""
        body = {"inputs": list(texts), "normalize": True, "truncate": True}
        vectors: Sequence[Sequence[float]] = await self._node.post("/embed", body, timeout_s=timeout_s)
        return vectors


async def _first_answer(node: TeiNode, wait_s: float) -> Mapping[str, Any]:
    """What `/info` says, asked until it says it or the time is up."""
    loop = asyncio.get_running_loop()
    until_s = loop.time() + wait_s
    while True:
        try:
            info: Mapping[str, Any] = await node.get("/info")
        except (BackendUnavailable, BackendTimeout):
            if loop.time() + _OPEN_PAUSE_S >= until_s:
                raise
            await asyncio.sleep(_OPEN_PAUSE_S)
        else:
            return info


async def _describe(node: TeiNode, info: Mapping[str, Any], prefixes: Prefixes, tokenizer: Tokenizer) -> EmbeddingModel:
    name, revision = _identity(node, info)
    first = await _Sender(node).send(["a"], _FIRST_EMBEDDING_S)
    longest = await asyncio.to_thread(lambda: max(map(tokenizer.count, (prefixes.query, prefixes.document))))
    try:
        dimension = len(first[0])
    except MALFORMED as error:
        raise nonsense(node.address) from error
    return EmbeddingModel(
        name=name,
        revision=revision + name_prefixes(prefixes),
        dimension=dimension,
        max_tokens=_number(node, info, "max_input_length") - longest,
    )


def _identity(node: TeiNode, info: Mapping[str, Any]) -> tuple[str, str]:
    """The model's name, and all that the node tells of what decides a vector."""
    try:
        name = str(info["model_id"])
        kind = info.get("model_type", {"embedding": {"pooling": info.get("model_pooling", "")}})
        if "embedding" not in kind:
            raise NotReady(
                f"engine {node.address} serves {name!r}, a {next(iter(kind), 'model')}, no embedding model: "
                "name a node that serves one",
                reason="NO_EMBEDDING_MODEL",
            )
        pooling = kind["embedding"].get("pooling", "")
        made_of = node.options.get("revision") or str(info.get("model_sha") or "unversioned")[:_SHA_CHARS]
        parts = (made_of, info.get("model_dtype"), pooling)
    except MALFORMED as error:
        raise nonsense(node.address) from error
    return name, "-".join(str(part) for part in parts if part)


def _number(node: TeiNode, info: Mapping[str, Any], name: str) -> int:
    try:
        return int(info[name])
    except MALFORMED as error:
        raise nonsense(node.address) from error


def _open_tokenizer(node: TeiNode, api_key: str | None, closing: ExitStack) -> Tokenizer:
    path = tokenizer_path(node.options)
    if path is not None:
        return FileTokenizer(path)
    remote = NodeTokenizer(node.base_url, address=node.address, api_key=api_key)
    closing.callback(remote.close)
    remote.probe()
    return remote
