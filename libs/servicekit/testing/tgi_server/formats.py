"""The JSON of both dialects: TGI's own routes, and the OpenAI-compatible chat route.

Pure; called by `streaming.py` and `server.py`.
"""

import json
from collections.abc import Sequence
from typing import Any

from servicekit.testing.tgi_server.dials import Dials
from servicekit.testing.tgi_server.generation import END_OF_SEQUENCE, Plan, Refusal
from servicekit.testing.tgi_server.tokenizer import Piece

_OPENAI_REASONS = {"eos_token": "stop", "stop_sequence": "stop", "length": "length"}


class GenerateFormat:
    """`/`, `/generate` and `/generate_stream`: no space after `data:`, no `[DONE]`, typed errors."""

    def __init__(self, dials: Dials, plan: Plan) -> None:
        del dials
        self._plan = plan
        self._last = len(plan.pieces)

    def frame(self, index: int, piece: Piece) -> bytes:
        """The frame of token `index`, counted from 1; the last holds text and details."""
        last = index == self._last
        return _event(
            {
                "index": index,
                "token": _token(piece),
                "generated_text": joined(self._plan.pieces) if last else None,
                "details": self._details() if last else None,
            }
        )

    def end_frames(self) -> bytes:
        """Nothing: the last token's frame was the end."""
        return b""

    def error_frame(self, refusal: Refusal) -> bytes:
        """An error inside a stream."""
        return _event(refusal.body)

    def whole(self) -> dict[str, Any]:
        """The response of `/generate`."""
        tokens = [_token(piece) for piece in self._plan.pieces]
        details = {**self._details(), "prefill": [], "tokens": tokens}
        return {"generated_text": joined(self._plan.pieces), "details": details}

    def _details(self) -> dict[str, Any]:
        return {
            "finish_reason": self._plan.finish_reason,
            "generated_tokens": len(self._plan.pieces),
            "seed": self._plan.seed,
            "input_length": self._plan.input_tokens,
        }


class ChatFormat:
    """`/v1/chat/completions`: OpenAI's chunks, a usage chunk when asked for, `[DONE]`."""

    def __init__(self, dials: Dials, plan: Plan, *, include_usage: bool = False) -> None:
        self._model = dials.model
        self._plan = plan
        self._include_usage = include_usage

    def frame(self, index: int, piece: Piece) -> bytes:
        """The chunk of one token; the last one says why it ended."""
        content = "" if piece is END_OF_SEQUENCE else piece.text
        reason = self._reason() if index == len(self._plan.pieces) else None
        choice = {"index": 0, "delta": {"role": "assistant", "content": content}, "finish_reason": reason}
        return _event({**self._head("chat.completion.chunk"), "choices": [choice], "usage": None})

    def end_frames(self) -> bytes:
        """The usage chunk and `[DONE]`."""
        done = b"data: [DONE]\n\n"
        if not self._include_usage:
            return done
        return _event({**self._head("chat.completion.chunk"), "choices": [], "usage": self._usage()}) + done

    def error_frame(self, refusal: Refusal) -> bytes:
        """An error inside a stream; this route tells every one of them as 422."""
        return _event({"error": {"message": refusal.message, "http_status_code": 422}})

    def whole(self) -> dict[str, Any]:
        """The response without streaming."""
        message = {"role": "assistant", "content": joined(self._plan.pieces)}
        choice = {"index": 0, "message": message, "finish_reason": self._reason()}
        return {**self._head("chat.completion"), "choices": [choice], "usage": self._usage()}

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "object": kind,
            "id": "",
            "created": 0,
            "model": self._model,
            "system_fingerprint": "contract",
        }

    def _reason(self) -> str:
        return _OPENAI_REASONS[self._plan.finish_reason]

    def _usage(self) -> dict[str, int]:
        output_tokens = len(self._plan.pieces)
        return {
            "prompt_tokens": self._plan.input_tokens,
            "completion_tokens": output_tokens,
            "total_tokens": self._plan.input_tokens + output_tokens,
        }


Format = GenerateFormat | ChatFormat


def joined(pieces: Sequence[Piece]) -> str:
    """The text without special tokens."""
    return "".join(piece.text for piece in pieces if piece is not END_OF_SEQUENCE)


def _token(piece: Piece) -> dict[str, Any]:
    return {"id": piece.id, "text": piece.text, "logprob": -0.1, "special": piece is END_OF_SEQUENCE}


def _event(body: object) -> bytes:
    # As serde_json does, no character beyond ASCII is escaped: U+2028 stands raw in the line.
    return b"data:%b\n\n" % json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
