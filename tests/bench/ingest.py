"""How much of the embedder's speed is left once documents go the whole way: `python -m tests.bench.ingest --json`.

Documents are submitted as events and come out searchable; the bare embedder does the very same chunk texts. Both take
turns, round by round, so that other work on the machine meets both alike; the figures are medians over the rounds. The
retriever's peak memory is read after the first round and after all of them.

Targets: ratio >= 0.85, and the peak after ten times as many documents hardly above that after once as many.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from pydoc_data.topics import topics

from binnacle.events.v1.document_submitted_pb2 import DocumentSubmitted
from servicekit.adapters.registry import open_embedder
from servicekit.ports.embedder import Embedder
from services.retriever.formats.plain_text import parse_plain_text
from services.retriever.ingestion.chunking import ChunkRules, cut
from tests.bench._ingest_stand import EMBEDDER_URL, Stand, running_stand

ROUNDS = 10
WITHIN_S = 600.0


def make_documents(round_number: int, *, count: int, words: int) -> list[DocumentSubmitted]:
    """Documents of paragraphs from Python's language reference, none like another."""
    chance = random.Random(round_number)
    paragraphs = [one for text in topics.values() for one in text.split("\n\n") if len(one.split()) > 8]
    documents = []
    for number in range(count):
        parts: list[str] = []
        while sum(len(part.split()) for part in parts) < words:
            parts.append(chance.choice(paragraphs))
        name = f"round {round_number} document {number}"
        documents.append(DocumentSubmitted(document_id=name, title=name, content="\n\n".join(parts).encode()))
    return documents


def chunk_texts(documents: Sequence[DocumentSubmitted], embedder: Embedder) -> list[str]:
    """What the retriever embeds for them."""
    texts = []
    for document in documents:
        parsed = parse_plain_text(document.content.decode())
        pieces = cut(parsed, embedder.tokenizer, rules=ChunkRules())
        texts += [f"{document.title}\n{parsed.text[piece.start : piece.end]}" for piece in pieces]
    return texts


async def measure_round(stand: Stand, documents: Sequence[DocumentSubmitted]) -> tuple[float, int]:
    """Chunks a second from the first submission to the last report, and the chunks."""
    names = [document.document_id for document in documents]
    started_s = time.perf_counter()
    submitting = asyncio.ensure_future(stand.submit(documents))
    ended_s = await stand.wait_for(names, within_s=WITHIN_S)
    await submitting
    chunks = sum(stand.told[name].chunk_count for name in names)
    refused = [stand.told[name].error_reason for name in names if stand.told[name].error_reason]
    if refused:
        raise RuntimeError(f"{len(refused)} documents were refused: {refused[0]}")
    return chunks / (ended_s - started_s), chunks


async def measure_embedder(embedder: Embedder, texts: Sequence[str]) -> float:
    """Chunks a second of the embedder alone."""
    started_s = time.perf_counter()
    await embedder.embed_documents(texts)
    return len(texts) / (time.perf_counter() - started_s)


async def measure(folder: Path, *, rounds: int, documents: int, words: int) -> dict[str, float]:
    """All rounds."""
    pipeline, bare, peaks, cpu = [], [], [], []
    async with open_embedder(EMBEDDER_URL) as embedder, running_stand(folder) as stand:
        warm = make_documents(-1, count=4, words=words)
        await measure_round(stand, warm)
        await measure_embedder(embedder, chunk_texts(warm, embedder))
        for number in range(rounds):
            batch = make_documents(number, count=documents, words=words)
            before_s = stand.cpu_s()
            speed, chunks = await measure_round(stand, batch)
            cpu.append((stand.cpu_s() - before_s) / chunks)
            pipeline.append(speed)
            peaks.append(stand.peak_rss_mb())
            texts = chunk_texts(batch, embedder)
            started_s = time.process_time()
            bare.append(await measure_embedder(embedder, texts))
            bare_cpu_ms = (time.process_time() - started_s) / len(texts) * 1000
            print(
                f"round {number}: {chunks} chunks, {speed:.1f}/s, embedder {bare[-1]:.1f}/s, "
                f"cpu {cpu[-1] * 1000:.1f} and {bare_cpu_ms:.1f} ms a chunk, peak {peaks[-1]:.0f} MB",
                file=sys.stderr, flush=True,
            )  # fmt: skip
    ratios = [one / other for one, other in zip(pipeline, bare, strict=True)]
    return {
        "chunks_per_s": round(statistics.median(pipeline), 1),
        "embedder_chunks_per_s": round(statistics.median(bare), 1),
        "ratio": round(statistics.median(ratios), 3),
        "peak_rss_mb_1x": round(peaks[0]),
        "peak_rss_mb_10x": round(peaks[-1]),
        "cpu_ms_a_chunk": round(statistics.median(cpu) * 1000, 2),
        "documents": rounds * documents,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--documents", type=int, default=60, help="in a round")
    parser.add_argument("--words", type=int, default=1_200, help="of a document")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="binnacle-ingest-") as folder:
        figures = asyncio.run(measure(Path(folder), rounds=given.rounds, documents=given.documents, words=given.words))
    print(json.dumps(figures) if given.json else "\n".join(f"{name:24} {value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
