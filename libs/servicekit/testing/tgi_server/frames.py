"""What the two dialects share: a plan with its generation, events, and tokens as TGI writes them.

Pure; used by `generate_format.py` and `openai_format.py`, driven by `answering.py`.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol

from servicekit.testing.tgi_server.counting import Generation
from servicekit.testing.tgi_server.generation import END_OF_SEQUENCE, Plan
from servicekit.testing.tgi_server.refusals import Refusal
from servicekit.testing.tgi_server.tokenizer import Piece, logprob, token_id

_ALTERNATIVES = ("the", " of", " and", " to", " a", " in", ".")


class Format(Protocol):
    """How one generation is written; indexes count from 1."""

    plan: Plan
    generation: Generation

    def frame(self, index: int, piece: Piece) -> bytes:
        """The event of one token."""
        ...

    def end_frames(self) -> bytes:
        """What follows the last token's event."""
        ...

    def error_frame(self, refusal: Refusal) -> bytes:
        """An error inside a stream."""
        ...


def event(body: object) -> bytes:
    """A server-sent event."""
    return b"data:%b\n\n" % encoded(body)


def encoded(body: object) -> bytes:
    """JSON as serde_json writes it: no character beyond ASCII is escaped, U+2028 stands raw in the line."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def token(piece: Piece) -> dict[str, Any]:
    """A generated token."""
    special = piece is END_OF_SEQUENCE
    return {"id": piece.id, "text": piece.text, "logprob": logprob(piece.text), "special": special}


def top_tokens(piece: Piece, wanted: int) -> list[dict[str, Any]]:
    """The likeliest tokens in one's place: itself, then others that are each less likely."""
    others = [text for text in _ALTERNATIVES if text != piece.text][: max(0, wanted - 1)]
    first = [token(piece)] if wanted else []
    return first + [
        {"id": token_id(text), "text": text, "logprob": round(logprob(piece.text) - rank, 4), "special": False}
        for rank, text in enumerate(others, start=1)
    ]


@lru_cache(maxsize=16_384)
def encoded_token(piece_id: int, text: str, special: bool) -> bytes:
    """A generated token's JSON; answers repeat their tokens."""
    return encoded({"id": piece_id, "text": text, "logprob": logprob(text), "special": special})


@lru_cache(maxsize=16_384)
def encoded_text(text: str) -> bytes:
    """A text's JSON."""
    return encoded(text)


def tokens(pieces: Sequence[Piece]) -> list[dict[str, Any]]:
    """Generated tokens."""
    return [token(piece) for piece in pieces]
