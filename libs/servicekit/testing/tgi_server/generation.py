"""What the contract server would generate: parameters checked by TGI's bounds, then the tokens and their end.

Pure; called by `streaming.py` and `server.py`. Bounds and error texts follow TGI 3's router.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from itertools import cycle, islice
from typing import Any

from servicekit.testing.tgi_server.dials import Dials
from servicekit.testing.tgi_server.tokenizer import Piece, tokenize

END_OF_SEQUENCE = Piece(2, "</s>", 0, 0)
_DEFAULT_NEW_TOKENS = 100
_MAX_STOP_SEQUENCES = 4
_MAX_PENALTY = 2.0


class Refusal(Exception):  # noqa: N818  # an answer of the server, not a failure of it
    """An error as TGI words it."""

    def __init__(self, status: HTTPStatus, error_type: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.error_type = error_type
        self.message = message

    @property
    def body(self) -> dict[str, str]:
        """The JSON of `/generate`, and the frame of `/generate_stream`."""
        return {"error": self.message, "error_type": self.error_type}


@dataclass(frozen=True, slots=True)
class Plan:
    """A generation that passed the checks: its tokens, the end-of-sequence token among them if it ends so."""

    input_tokens: int
    pieces: tuple[Piece, ...]
    finish_reason: str
    seed: int | None


def plan(dials: Dials, prompt: object, parameters: Mapping[str, Any]) -> Plan:
    """What will be generated.

    Raises:
        Refusal: 422, as TGI's validation words it.
    """
    if not isinstance(prompt, str) or not prompt:
        raise invalid("`inputs` cannot be empty")
    new_tokens = _check(parameters)
    input_tokens = len(tokenize(prompt))
    if input_tokens > dials.max_input_tokens:
        raise invalid(f"`inputs` must have less than {dials.max_input_tokens} tokens. Given: {input_tokens}")
    if input_tokens + new_tokens > dials.max_total_tokens:
        raise invalid(
            f"`inputs` tokens + `max_new_tokens` must be <= {dials.max_total_tokens}. "
            f"Given: {input_tokens} `inputs` tokens and {new_tokens} `max_new_tokens`"
        )
    pieces, reason = _generate(dials, new_tokens, parameters.get("stop") or ())
    return Plan(input_tokens, pieces, reason, parameters.get("seed"))


def invalid(message: str) -> Refusal:
    """A failed validation."""
    return Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, "validation", f"Input validation error: {message}")


def _check(parameters: Mapping[str, Any]) -> int:
    """Refuse what TGI's validation refuses; return `max_new_tokens`."""
    number = parameters.get
    if number("temperature") is not None and not number("temperature", 0) > 0:
        raise invalid("`temperature` must be strictly positive")
    if number("top_p") is not None and not 0 < number("top_p", 0) < 1:
        raise invalid("`top_p` must be > 0.0 and < 1.0")
    if number("top_k") is not None and not number("top_k", 0) > 0:
        raise invalid("`top_k` must be strictly positive")
    if number("frequency_penalty") is not None and abs(number("frequency_penalty", 0)) > _MAX_PENALTY:
        raise invalid("`frequency_penalty` must be >= -2.0 and <= 2.0")
    if len(number("stop") or ()) > _MAX_STOP_SEQUENCES:
        raise invalid(f"`stop` supports up to {_MAX_STOP_SEQUENCES} stop sequences")
    new_tokens = number("max_new_tokens") or _DEFAULT_NEW_TOKENS
    if not isinstance(new_tokens, int) or new_tokens < 1:
        raise invalid("`max_new_tokens` must be strictly positive")
    return new_tokens


def _generate(dials: Dials, new_tokens: int, stop: Sequence[str]) -> tuple[tuple[Piece, ...], str]:
    pieces = tokenize(dials.answer)
    if dials.output_tokens and pieces:
        pieces = list(islice(cycle(pieces), dials.output_tokens))
    text = ""
    for count, piece in enumerate(pieces, start=1):
        text += piece.text
        if any(mark in text for mark in stop):
            return tuple(pieces[:count]), "stop_sequence"
        if count == new_tokens:
            return tuple(pieces[:count]), "length"
    return (*pieces, END_OF_SEQUENCE), "eos_token"
