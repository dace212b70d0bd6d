"""How well searches find what was judged relevant, through the real SearchChunks.

`python -m tests.bench.retrieval_quality --corpus DIR --json` (TREC format, as Cranfield's) or `--squad FILE` (each
paragraph a document, its questions the queries); with both, the second stands under `squad`. A retriever of its own, in
this process behind real gRPC, indexes the documents through IndexDocuments and answers each query in four ways:

- `dense`, `sparse`, `hybrid`: that mode with the default profile; `hybrid_rerank`: with `rerank`;
- `bm25_library`: bm25s (its own defaults: Lucene's BM25, k1 1.5, b 0.75; English stop words, Snowball stems) over whole
  documents, title before text;
- `exact_dense`: the same embedder over the same chunks, every cosine computed by numpy.

A document's score is that of its best chunk. A search returns at most 100 chunks, so `recall@100` counts the documents
among those 100 chunks, `mean_documents` of them; no second request asks for more. Measures by ir-measures (trec_eval).
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import grpc

from binnacle.retriever.v1 import retriever_service_pb2 as rpc
from binnacle.type.v1 import chunk_pb2
from servicekit.adapters.registry import open_embedder
from servicekit.telemetry.logging import configure_logging
from servicekit.testing.in_process import caller
from tests.bench._collections import Collection, CollectionDocument, read_squad, read_trec
from tests.bench._reference_rankings import IndexedText, rank_by_bm25, rank_by_cosine
from tests.bench._relevance import Run, measure
from tests.integration.retriever_stack import Retriever, make_document, make_filter, running_retriever

DEFAULT_CORPUS = Path(__file__).parents[3] / "shared" / "data" / "retrieval" / "cranfield"
DEFAULT_QUERIES = 2_000
TOP_K = 100
WAYS: Mapping[str, Mapping[str, Any]] = {
    "dense": {"mode": rpc.SEARCH_MODE_DENSE},
    "sparse": {"mode": rpc.SEARCH_MODE_SPARSE},
    "hybrid": {},
    "hybrid_rerank": {"rerank": True},
}
_EMBEDDER_URL = "onnx://minilm?precision=int8"
_CONCURRENCY = 4
_DOCUMENTS_A_CALL = 32
_BYTES_A_CALL = 1_000_000
_DOCUMENTS_A_LISTING = 8
_CALL_S = 300.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print; the last line of standard output is one JSON object."""
    options = _parse(arguments)
    configure_logging(service="retriever", level="warning")
    collections = [
        *([read_trec(options.corpus)] if options.corpus else ()),
        *([read_squad(options.squad)] if options.squad else ()),
    ]
    results = [asyncio.run(_measure(one.sample(options.queries), options.store)) for one in collections]
    if not results:
        print(f"no collection: give --corpus or --squad ({DEFAULT_CORPUS} is not there)", file=sys.stderr)
        results = [{"skipped": "no collection"}]
    print(json.dumps({**results[0], **({"squad": results[1]} if len(results) > 1 else {})}))
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.retrieval_quality",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--corpus", type=Path, help="a folder in TREC format (default: Cranfield, where it is there)")
    parser.add_argument("--squad", type=Path, help="a file in SQuAD format")
    parser.add_argument("--store", default="lancedb", help="lancedb (default), memory, or a store's URL (weaviate://…)")
    parser.add_argument(
        "--queries", type=int, default=DEFAULT_QUERIES, help="at most so many, evenly chosen; 0: all (default 2000)"
    )
    parser.add_argument("--json", action="store_true", help="accepted for the sake of uniformity: JSON is always last")
    options = parser.parse_args(arguments)
    if options.corpus is None and options.squad is None and DEFAULT_CORPUS.is_dir():
        options.corpus = DEFAULT_CORPUS
    return options


async def _measure(collection: Collection, store: str) -> dict[str, Any]:
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="binnacle-bench-") as folder, _tenant():
        url = {"lancedb": None, "memory": "memory://"}.get(store, store)
        async with running_retriever(Path(folder), embedder_url=_EMBEDDER_URL, vector_store_url=url) as retriever:
            refused = await _index(retriever, collection.documents)
            indexed_s = time.monotonic() - began_s
            _tell(f"{collection.name}: {len(collection.documents)} documents indexed in {indexed_s:.0f} s")
            runs: dict[str, Run] = {}
            for way, fields in WAYS.items():
                runs[way] = await _search_all(retriever, collection, fields)
                _tell(f"{way}: {measure(collection.qrels, runs[way])}")
            chunks = await _list_chunks(retriever, collection.documents)
    found = [len(documents) for documents in runs["hybrid"].values()]
    runs["bm25_library"] = rank_by_bm25(collection)
    async with open_embedder(_EMBEDDER_URL) as embedder:
        runs["exact_dense"] = await rank_by_cosine(collection, chunks, embedder)
    return {
        **{way: measure(collection.qrels, run) for way, run in runs.items()},
        "collection": collection.name,
        "documents": len(collection.documents),
        "chunks": len(chunks),
        "refused": refused,
        "queries": len(collection.queries),
        "mean_documents": round(sum(found) / max(1, len(found)), 1),
        "store": store,
        "indexing_s": round(indexed_s, 1),
        "seconds": round(time.monotonic() - began_s, 1),
    }


def _tenant() -> AbstractContextManager[object]:
    return caller(tenant=f"bench-{time.time_ns():x}")


async def _index(retriever: Retriever, documents: Sequence[CollectionDocument]) -> dict[str, str]:
    """Index all of them; returns why some were refused, by id."""
    refused: dict[str, str] = {}
    batch: list[rpc.Document] = []
    for place, document in enumerate(documents, start=1):
        batch.append(make_document(document.document_id, document.text, title=document.title[:512]))
        size = sum(len(one.content) for one in batch)
        if len(batch) == _DOCUMENTS_A_CALL or size > _BYTES_A_CALL or place == len(documents):
            request = rpc.IndexDocumentsRequest(documents=batch)
            response = await retriever.stub.IndexDocuments(request, timeout=_CALL_S)
            for result in response.results:
                if result.outcome == rpc.INDEX_OUTCOME_REFUSED:
                    refused[result.document_id] = result.error_reason
            batch = []
    return refused


async def _search_all(retriever: Retriever, collection: Collection, fields: Mapping[str, Any]) -> Run:
    run: Run = {}
    waiting = iter(collection.queries.items())

    async def work() -> None:
        for key, query in waiting:
            answer = await _search(retriever, rpc.SearchChunksRequest(query=query, top_k=TOP_K, **fields))
            best: dict[str, float] = {}
            for one in answer.chunks:
                document_id = one.chunk.document_id
                best[document_id] = max(one.score, best.get(document_id, one.score))
            if answer.degradations:
                raise SystemExit(f"a search degraded: {', '.join(answer.degradations)}")
            run[key] = best

    async with asyncio.TaskGroup() as tasks:
        for _ in range(_CONCURRENCY):
            tasks.create_task(work())
    return run


async def _search(retriever: Retriever, request: rpc.SearchChunksRequest) -> rpc.SearchChunksResponse:
    try:
        return await retriever.stub.SearchChunks(request, timeout=_CALL_S)
    except grpc.aio.AioRpcError as error:
        raise SystemExit(f"SearchChunks failed: {error.code()} {error.details()}") from error


async def _list_chunks(retriever: Retriever, documents: Sequence[CollectionDocument]) -> list[IndexedText]:
    """The chunks that the service made, asked for document by document; of a very long document the first 100."""
    chunks: list[IndexedText] = []
    for start in range(0, len(documents), _DOCUMENTS_A_LISTING):
        ids = [one.document_id for one in documents[start : start + _DOCUMENTS_A_LISTING]]
        found = await _chunks_of(retriever, ids)
        if len(found) == TOP_K and len(ids) > 1:
            found = [chunk for one in ids for chunk in await _chunks_of(retriever, [one])]
        chunks += found
    return chunks


async def _chunks_of(retriever: Retriever, ids: Sequence[str]) -> list[IndexedText]:
    condition = make_filter("_document_id", chunk_pb2.OPERATOR_IN, ids)
    request = rpc.SearchChunksRequest(query="a", mode=rpc.SEARCH_MODE_DENSE, filter=condition, top_k=TOP_K)
    answer = await _search(retriever, request)
    return [IndexedText.of(one.chunk) for one in answer.chunks]


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
