"""The routes that embed and tokenise: `/embed`, `/v1/embeddings`, `/tokenize`. Pure; called by `server.py`.

The model is words hashed into a vector, so that texts which share words are near each other.
"""

import array
import base64
from typing import Any

from servicekit.adapters.memory.embedder import WordTokenizer, embed_words
from servicekit.testing.tei_server.dials import Dials
from servicekit.testing.tei_server.refusals import Refusal

SPECIAL_TOKENS = 2
_TOKENIZER = WordTokenizer()
_FIRST_ID, _LAST_ID = 101, 102


def read_inputs(given: Any, dials: Dials) -> list[str]:
    """The texts of a request, one or several, none of them empty."""
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise Refusal("Tokenizer", "`inputs` must be a string or a list of strings")
    if not texts or not all(texts):
        raise Refusal("Empty", "`inputs` cannot be empty")
    if len(texts) > dials.max_client_batch_size:
        raise Refusal(
            "Validation", f"batch size {len(texts)} > maximum allowed batch size {dials.max_client_batch_size}"
        )
    return texts


def embed(texts: list[str], dials: Dials, *, truncate: bool, normalize: bool = True) -> list[list[float]]:
    """A vector for each text, of what the model reads of it."""
    vectors = [embed_words(_cut(text, dials, truncate=truncate))[: dials.dimension] for text in texts]
    return [[value * (1 if normalize else 3) for value in vector] for vector in vectors]


def tokenize(texts: list[str], dials: Dials, *, add_special_tokens: bool) -> list[list[dict[str, Any]]]:
    """The tokens of each text, special ones without a place."""
    return [_tokens(text, dials, add_special_tokens=add_special_tokens) for text in texts]


def openai_body(texts: list[str], vectors: list[list[float]], *, model: str, encoding: str) -> dict[str, Any]:
    """The answer of the OpenAI-compatible route, in floats or in base64."""
    used = sum(_TOKENIZER.count(text) + SPECIAL_TOKENS for text in texts)
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "embedding": _encoded(vector, encoding), "index": index}
            for index, vector in enumerate(vectors)
        ],
        "model": model,
        "usage": {"prompt_tokens": used, "total_tokens": used},
    }


def _encoded(vector: list[float], encoding: str) -> list[float] | str:
    return base64.b64encode(array.array("f", vector).tobytes()).decode() if encoding == "base64" else vector


def _cut(text: str, dials: Dials, *, truncate: bool) -> str:
    offsets = _TOKENIZER.offsets(text)
    room = dials.max_input_length - SPECIAL_TOKENS
    if len(offsets) <= room:
        return text
    if not truncate and not dials.auto_truncate:
        given = len(offsets) + SPECIAL_TOKENS
        raise Refusal("Validation", f"`inputs` must have less than {dials.max_input_length} tokens. Given: {given}")
    return text[: offsets[room - 1][1]]


def _tokens(text: str, dials: Dials, *, add_special_tokens: bool) -> list[dict[str, Any]]:
    pieces = []
    passed = position = 0
    for start, stop in _TOKENIZER.offsets(text):
        position += len(text[passed:start].encode())
        length = len(text[start:stop].encode())
        places = (position, position + length) if dials.offsets_in_bytes else (start, stop)
        passed, position = stop, position + length
        pieces.append({"id": 1_000, "text": text[start:stop], "special": False, "start": places[0], "stop": places[1]})
    if not add_special_tokens:
        return pieces
    first, last = (
        {"id": token, "text": name, "special": True, "start": None, "stop": None}
        for token, name in ((_FIRST_ID, "[CLS]"), (_LAST_ID, "[SEP]"))
    )
    return [first, *pieces, last]
