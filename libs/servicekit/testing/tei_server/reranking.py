"""The route that ranks texts against a query: `/rerank`. Pure; called by `server.py`.

The model is the cosine of hashed words, squeezed to 0..1 as a node does unless raw scores are asked for.
"""

import math
from typing import Any

from servicekit.adapters.memory.embedder import embed_words
from servicekit.testing.tei_server.dials import Dials
from servicekit.testing.tei_server.refusals import Refusal

_STEEPNESS = 8.0


def rerank(body: dict[str, Any], dials: Dials) -> list[dict[str, Any]]:
    """Index and score of each text, best first."""
    if dials.kind != "reranker":
        raise Refusal("Backend", "model is not a re-ranker model")
    query, texts = body.get("query"), body.get("texts")
    if not isinstance(query, str) or not isinstance(texts, list) or not all(isinstance(one, str) for one in texts):
        raise Refusal("Tokenizer", "`query` must be a string and `texts` a list of strings")
    if not texts:
        raise Refusal("Empty", "`texts` cannot be empty")
    if len(texts) > dials.max_client_batch_size:
        raise Refusal(
            "Validation", f"batch size {len(texts)} > maximum allowed batch size {dials.max_client_batch_size}"
        )
    if not body.get("truncate") and not dials.auto_truncate:
        _check_lengths(query, texts, dials)
    scores = [_score(query, text, raw=bool(body.get("raw_scores"))) for text in texts]
    order = sorted(range(len(texts)), key=lambda index: -scores[index])
    return [{"index": index, "score": scores[index]} for index in order]


def _check_lengths(query: str, texts: list[str], dials: Dials) -> None:
    for text in texts:
        given = len(query.split()) + len(text.split()) + 3
        if given > dials.max_input_length:
            raise Refusal("Validation", f"`inputs` must have less than {dials.max_input_length} tokens. Given: {given}")


def _score(query: str, text: str, *, raw: bool) -> float:
    cosine = sum(a * b for a, b in zip(embed_words(query), embed_words(text), strict=True))
    value = _STEEPNESS * (cosine - 0.5)
    return value if raw else 1.0 / (1.0 + math.exp(-value))
