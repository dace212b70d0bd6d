"""The JSON of the OpenAI-compatible routes: `/v1/chat/completions` and `/v1/completions`.

Pure; chunks, a usage chunk when asked for, `[DONE]`. Usage tells cached tokens as OpenAI does, which TGI leaves out.
"""

import time
from typing import Any

from servicekit.testing.tgi_server.counting import Generation
from servicekit.testing.tgi_server.frames import encoded, encoded_text, event, token, top_tokens
from servicekit.testing.tgi_server.generation import END_OF_SEQUENCE, Plan
from servicekit.testing.tgi_server.refusals import Refusal
from servicekit.testing.tgi_server.tokenizer import Piece

DONE = b"data: [DONE]\n\n"
_REASONS = {"eos_token": "stop", "stop_sequence": "stop", "length": "length"}
_FINGERPRINT = "3.3.6-native"
_CHUNK_TAIL = b'},"logprobs":null,"finish_reason":null}],"usage":null}\n\n'


def usage_of(plan: Plan, generation: Generation) -> dict[str, Any]:
    """Tokens of one generation."""
    output_tokens = len(plan.pieces)
    return {
        "prompt_tokens": plan.input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": plan.input_tokens + output_tokens,
        "prompt_tokens_details": {"cached_tokens": generation.cached_tokens},
    }


def head(kind: str, model: str) -> dict[str, Any]:
    """How every body begins."""
    return {
        "object": kind,
        "id": "",
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": _FINGERPRINT,
    }


class ChatFormat:
    """One chat generation."""

    def __init__(
        self, plan: Plan, generation: Generation, *, model: str, include_usage: bool = False, logprobs: bool = False
    ) -> None:
        self.plan = plan
        self.generation = generation
        self._model = model
        self._include_usage = include_usage
        self._logprobs = logprobs
        self._last = len(plan.pieces)
        opening = encoded(head("chat.completion.chunk", model))[:-1]
        self._opening = b'data:%b,"choices":[{"index":0,"delta":{"role":"assistant","content":' % opening

    def frame(self, index: int, piece: Piece) -> bytes:
        """The chunk of one token; the last one says why it ended."""
        content = "" if piece is END_OF_SEQUENCE else piece.text
        if index < self._last and not self._logprobs:
            return self._opening + encoded_text(content) + _CHUNK_TAIL
        choice = {
            "index": 0,
            "delta": {"role": "assistant", "content": content},
            "logprobs": {"content": [self._logprob(piece)]} if self._logprobs else None,
            "finish_reason": _REASONS[self.plan.finish_reason] if index == self._last else None,
        }
        return event({**head("chat.completion.chunk", self._model), "choices": [choice], "usage": None})

    def end_frames(self) -> bytes:
        """The usage chunk and `[DONE]`."""
        if not self._include_usage:
            return DONE
        usage = usage_of(self.plan, self.generation)
        return event({**head("chat.completion.chunk", self._model), "choices": [], "usage": usage}) + DONE

    def error_frame(self, refusal: Refusal) -> bytes:
        """An error inside a stream; this route tells every one of them as 422."""
        return event({"error": {"message": refusal.message, "http_status_code": 422}})

    def whole(self) -> dict[str, Any]:
        """The response without streaming."""
        logprobs = {"content": [self._logprob(piece) for piece in self.plan.pieces]} if self._logprobs else None
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": self.plan.text},
            "logprobs": logprobs,
            "finish_reason": _REASONS[self.plan.finish_reason],
        }
        usage = usage_of(self.plan, self.generation)
        return {**head("chat.completion", self._model), "choices": [choice], "usage": usage}

    def _logprob(self, piece: Piece) -> dict[str, Any]:
        own, top = token(piece), top_tokens(piece, self.plan.parameters.top_n_tokens)
        return {
            "token": own["text"],
            "logprob": own["logprob"],
            "top_logprobs": [{"token": other["text"], "logprob": other["logprob"]} for other in top],
        }


class CompletionFormat:
    """One prompt of a completion: a chunk a token, the last with usage; errors are those of `/generate_stream`."""

    def __init__(self, plan: Plan, generation: Generation, *, model: str, index: int = 0) -> None:
        self.plan = plan
        self.generation = generation
        self._model = model
        self._index = index
        self._last = len(plan.pieces)

    def frame(self, index: int, piece: Piece) -> bytes:
        """The chunk of one token."""
        last = index == self._last
        body = {**head("text_completion", self._model), "choices": [self._choice(piece.text, last=last)]}
        if piece is END_OF_SEQUENCE:
            body["choices"][0]["text"] = ""
        if last:
            body["usage"] = usage_of(self.plan, self.generation)
        return event(body)

    def end_frames(self) -> bytes:
        """Nothing: `[DONE]` follows once every prompt is answered."""
        return b""

    def error_frame(self, refusal: Refusal) -> bytes:
        """The body it would have as an answer of its own."""
        return event(refusal.body)

    def choice(self) -> dict[str, Any]:
        """The whole answer to this prompt."""
        return self._choice(self.plan.text, last=True)

    def _choice(self, text: str, *, last: bool) -> dict[str, Any]:
        reason = _REASONS[self.plan.finish_reason] if last else ""
        return {"index": self._index, "text": text, "logprobs": None, "finish_reason": reason}


def completion_body(model: str, formats: list[CompletionFormat]) -> dict[str, Any]:
    """The response of `/v1/completions` without streaming, its usage summed over the prompts."""
    usages = [usage_of(one.plan, one.generation) for one in formats]
    usage: dict[str, Any] = {
        name: sum(one[name] for one in usages) for name in ("prompt_tokens", "completion_tokens", "total_tokens")
    }
    cached = sum(one["prompt_tokens_details"]["cached_tokens"] for one in usages)
    usage["prompt_tokens_details"] = {"cached_tokens": cached}
    return {**head("text_completion", model), "choices": [one.choice() for one in formats], "usage": usage}
