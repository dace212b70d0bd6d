"""The JSON of TGI's own routes: `/`, `/generate` and `/generate_stream`.

Pure; no space after `data:`, no `[DONE]`, typed errors.
"""

from typing import Any

from servicekit.testing.tgi_server.counting import Generation
from servicekit.testing.tgi_server.frames import encoded_token, event, token, tokens, top_tokens
from servicekit.testing.tgi_server.generation import END_OF_SEQUENCE, Plan
from servicekit.testing.tgi_server.refusals import Refusal
from servicekit.testing.tgi_server.tokenizer import Piece, logprob, token_id

_EMPTY_TAIL = b',"generated_text":null,"details":null}\n\n'


class GenerateFormat:
    """One generation; `details` only where they were asked for."""

    def __init__(self, plan: Plan, generation: Generation) -> None:
        self.plan = plan
        self.generation = generation
        self._last = len(plan.pieces)
        self._top = plan.parameters.top_n_tokens

    def frame(self, index: int, piece: Piece) -> bytes:
        """The frame of a token; the last holds text and, if asked for, details."""
        if index < self._last and not self._top:
            encoded = encoded_token(piece.id, piece.text, piece is END_OF_SEQUENCE)
            return b'data:{"index":%d,"token":%b%b' % (index, encoded, _EMPTY_TAIL)
        body: dict[str, Any] = {"index": index, "token": token(piece)}
        if self._top:
            body["top_tokens"] = top_tokens(piece, self._top)
        last = index == self._last
        body["generated_text"] = self._text() if last else None
        body["details"] = self._stream_details() if last and self.plan.parameters.details else None
        return event(body)

    def end_frames(self) -> bytes:
        """Nothing: the last token's frame was the end."""
        return b""

    def error_frame(self, refusal: Refusal) -> bytes:
        """The body it would have as an answer of its own."""
        return event(refusal.body)

    def whole(self) -> dict[str, Any]:
        """The response of `/generate`."""
        parameters = self.plan.parameters
        body: dict[str, Any] = {"generated_text": self._text()}
        if parameters.details or parameters.decoder_input_details:
            body["details"] = self._details()
        return body

    def sequence(self) -> dict[str, Any]:
        """One of `best_of_sequences`."""
        return {"generated_text": self._text(), **self._details()}

    def _text(self) -> str:
        return (self.plan.prompt if self.plan.parameters.return_full_text else "") + self.plan.text

    def _end(self) -> dict[str, Any]:
        return {
            "finish_reason": self.plan.finish_reason,
            "generated_tokens": self._last,
            "seed": self.plan.seed,
        }

    def _stream_details(self) -> dict[str, Any]:
        return {**self._end(), "input_length": self.plan.input_tokens}

    def _details(self) -> dict[str, Any]:
        prefill = self.plan.input_texts if self.plan.parameters.decoder_input_details else ()
        details: dict[str, Any] = {
            **self._end(),
            # The first token of a prompt follows nothing, so it has no probability.
            "prefill": [
                {"id": token_id(text), "text": text, "logprob": logprob(text) if place else None}
                for place, text in enumerate(prefill)
            ],
            "tokens": tokens(self.plan.pieces),
        }
        if self._top:
            details["top_tokens"] = [top_tokens(piece, self._top) for piece in self.plan.pieces]
        return details
