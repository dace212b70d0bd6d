"""What a search costs through the retriever, against the bare embedding and client call; its recall; and under load.

`python -m tests.bench.search --json [--chunks 100000] [--stores lancedb,weaviate]`. `SearchChunks` (hybrid, top 8, the
default profile: no reranker, no expansion) of a real retriever process over gRPC, and the raw work (the same embedder
in this process, then the store's own client with the same search) take turns query by query; no query comes twice, for
the service remembers vectors. Most of the corpus varies embedded passages (`_search_corpus.py`), and is written through
the store's adapter before the service starts. `recall@10` is of the dense mode, against every cosine computed by numpy.
`p99_ms_during_load`: one caller, while two others index documents without pause; `p99_ms` is the same caller's without.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from binnacle.retriever.v1 import retriever_service_pb2 as rpc
from binnacle.retriever.v1.retriever_service_pb2_grpc import RetrieverServiceStub
from servicekit.adapters.registry import open_embedder
from servicekit.ports.embedder import Embedder
from servicekit.telemetry.logging import configure_logging
from tests.bench._search_corpus import SearchCorpus, load_corpus
from tests.bench._search_lancedb import lancedb_stand
from tests.bench._search_stand import EMBEDDER_URL, TOP_K, RawSearch, Tenants, tell
from tests.bench._search_weaviate import weaviate_stand

Search = Callable[[str], Awaitable[None]]
Stand = Callable[..., AbstractAsyncContextManager[Tenants]]
STANDS: Mapping[str, Stand] = {"lancedb": lancedb_stand, "weaviate": weaviate_stand}
_WARM = 30
_RECALL_QUERIES = 200
_CALLERS = 32
_LOADERS = 2
_DOCUMENTS_A_CALL = 2
_PASSAGES_A_DOCUMENT = 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print; the last line of standard output is one JSON object."""
    options = _parse(arguments)
    configure_logging(service="bench", level="error")
    print(json.dumps(asyncio.run(_bench(options))))
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.search", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--chunks", type=int, default=100_000, help="of the large tenant (default 100000)")
    parser.add_argument("--small", type=int, default=1_000, help="chunks of the small tenant (default 1000)")
    parser.add_argument("--stores", default=",".join(STANDS), help=f"which, with commas (default {','.join(STANDS)})")
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds (default 5)")
    parser.add_argument("--queries", type=int, default=100, help="queries a round and side (default 100)")
    parser.add_argument("--seconds", type=float, default=30.0, help="of the load, and of each rate (default 30)")
    parser.add_argument("--json", action="store_true", help="accepted for the sake of uniformity: JSON is always last")
    options = parser.parse_args(arguments)
    unknown = set(options.stores.split(",")) - set(STANDS)
    if unknown:
        parser.error(f"--stores: {', '.join(sorted(unknown))} is none of {', '.join(STANDS)}")
    return options


async def _bench(options: argparse.Namespace) -> dict[str, Any]:
    result: dict[str, Any] = {}
    async with open_embedder(EMBEDDER_URL) as embedder:
        corpus = await load_corpus(embedder, options.chunks)
        tell(
            f"{len(corpus.texts)} chunks, {len(corpus.passages)} of them embedded passages, the others varied from them"
        )
        for name in options.stores.split(","):
            with tempfile.TemporaryDirectory(prefix="binnacle-bench-") as folder:
                stand = STANDS[name](Path(folder), corpus, small=options.small, model=embedder.model.id)
                async with stand as tenants:
                    result[name] = await _measure(name, tenants, corpus, embedder, options)
    return result


async def _measure(
    name: str, tenants: Tenants, corpus: SearchCorpus, embedder: Embedder, options: argparse.Namespace
) -> dict[str, float]:
    queries = corpus.queries(seed=1)
    rounds, a_round = options.rounds, options.queries
    sides = _sides(tenants.large, tenants.raw_large, embedder)
    large = await _alternate(f"{name}, large", sides, queries, rounds=rounds, a_round=a_round)
    sides = _sides(tenants.small, tenants.raw_small, embedder)
    small = await _alternate(f"{name}, small", sides, queries, rounds=rounds, a_round=a_round)
    recall = await _recall(tenants.large, corpus, queries)
    tell(f"{name}: recall@10 {recall:.4f}")
    quiet = await _timed_searches(tenants.large, queries, seconds=options.seconds)
    async with _load(tenants.large, corpus) as loaded:
        busy = await _timed_searches(tenants.large, queries, seconds=options.seconds)
    tell(f"{name}: p99 {_percentile(quiet, 99):.1f} ms quiet, {_percentile(busy, 99):.1f} under load")
    rate = await _rate(tenants.large, queries, seconds=options.seconds / 3)
    service, raw = (statistics.median(medians) for medians in large)
    # Of each round's pair: what else the machine did in that round met both sides alike.
    ratio = statistics.median(one / other for one, other in zip(*large, strict=True))
    added_ms = statistics.median(one - other for one, other in zip(*small, strict=True))
    return {
        "p50_ms": round(service, 2),
        "p99_ms": round(_percentile(quiet, 99), 2),
        "raw_p50_ms": round(raw, 2),
        "ratio": round(ratio, 3),
        "recall@10": round(recall, 4),
        "p99_ms_during_load": round(_percentile(busy, 99), 2),
        "p50_ms_during_load": round(_percentile(busy, 50), 2),
        "load_chunks_per_s": round(loaded[0] / options.seconds, 1),
        "searches_per_s_32": round(rate, 1),
        "small_tenant_added_ms": round(added_ms, 2),
        "small_tenant_p50_ms": round(statistics.median(small[0]), 2),
        "chunks": options.chunks,
    }


def _sides(stub: RetrieverServiceStub, raw: RawSearch, embedder: Embedder) -> tuple[Search, Search]:
    """A search through the service, and the bare work."""

    async def served(query: str) -> None:
        await stub.SearchChunks(rpc.SearchChunksRequest(query=query, top_k=TOP_K))

    async def bare(query: str) -> None:
        await raw(query, await embedder.embed_query(query), TOP_K)

    return served, bare


async def _alternate(
    name: str, sides: tuple[Search, Search], queries: Iterator[str], *, rounds: int, a_round: int
) -> tuple[list[float], list[float]]:
    """Medians of each round in ms: the service's, the raw work's."""
    for query, _ in zip(queries, range(_WARM), strict=False):
        await sides[0](query)
        await sides[1](query)
    medians: tuple[list[float], list[float]] = ([], [])
    for number in range(1, rounds + 1):
        times: tuple[list[float], list[float]] = ([], [])
        for query, turn in zip(queries, range(a_round), strict=False):
            for side in (0, 1) if turn % 2 else (1, 0):
                times[side].append(await _time_ms(sides[side](query)))
        for side in (0, 1):
            medians[side].append(statistics.median(times[side]))
        tell(f"{name}: round {number} of {rounds}: {medians[0][-1]:.2f} ms, raw {medians[1][-1]:.2f} ms")
    return medians


async def _recall(stub: RetrieverServiceStub, corpus: SearchCorpus, queries: Iterator[str]) -> float:
    found = 0
    for query, _ in zip(queries, range(_RECALL_QUERIES), strict=False):
        request = rpc.SearchChunksRequest(query=query, top_k=10, mode=rpc.SEARCH_MODE_DENSE, include_query_vector=True)
        response = await stub.SearchChunks(request)
        cosines = corpus.vectors @ np.asarray(response.query_vector, dtype=np.float32)
        tenth = np.partition(cosines, -10)[-10]
        numbers = [int(scored.chunk.chunk_id.rpartition("-")[2]) for scored in response.chunks]
        found += sum(bool(cosines[number] >= tenth - 1e-6) for number in numbers)
    return found / (10 * _RECALL_QUERIES)


async def _timed_searches(stub: RetrieverServiceStub, queries: Iterator[str], *, seconds: float) -> list[float]:
    """Latencies in ms of one caller that searches again and again."""
    times = []
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        request = rpc.SearchChunksRequest(query=next(queries), top_k=TOP_K)
        times.append(await _time_ms(stub.SearchChunks(request)))
    return times


async def _rate(stub: RetrieverServiceStub, queries: Iterator[str], *, seconds: float) -> float:
    async with asyncio.TaskGroup() as tasks:
        callers = [tasks.create_task(_timed_searches(stub, queries, seconds=seconds)) for _ in range(_CALLERS)]
    return sum(len(one.result()) for one in callers) / seconds


@asynccontextmanager
async def _load(stub: RetrieverServiceStub, corpus: SearchCorpus) -> AsyncIterator[list[int]]:
    """Callers that index new documents without pause; yields the number of chunks they have indexed."""
    numbers = count()
    indexed = [0]

    async def index() -> None:
        while True:
            documents = [_document(next(numbers), corpus) for _ in range(_DOCUMENTS_A_CALL)]
            try:
                response = await stub.IndexDocuments(rpc.IndexDocumentsRequest(documents=documents), timeout=120)
            except grpc.aio.AioRpcError as exc:
                tell(f"load: {exc.code().name}: {exc.details()}")
                await asyncio.sleep(0.5)
                continue
            indexed[0] += sum(result.chunk_count for result in response.results)

    loaders = [asyncio.ensure_future(index()) for _ in range(_LOADERS)]
    try:
        yield indexed
    finally:
        for loader in loaders:
            loader.cancel()
        await asyncio.wait(loaders)


def _document(number: int, corpus: SearchCorpus) -> rpc.Document:
    size = len(corpus.texts)
    texts = [corpus.texts[(number * 7919 + part * 104_729) % size] for part in range(_PASSAGES_A_DOCUMENT)]
    return rpc.Document(
        document_id=f"load-{number}",
        title=f"Load {number}",
        media_type="text/plain",
        content="\n\n".join(texts).encode(),
    )


async def _time_ms(work: Awaitable[object]) -> float:
    began_s = time.perf_counter()
    await work
    return (time.perf_counter() - began_s) * 1e3


def _percentile(values: Sequence[float], percent: int) -> float:
    return float(np.percentile(np.asarray(values), percent))


if __name__ == "__main__":
    sys.exit(main())
