"""What the contract server would generate: the prompt measured against the limits, then the tokens and their end.

Pure; called by the routes. Bounds and error texts follow TGI 3's router.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice

from servicekit.testing.tgi_server.dials import Dials
from servicekit.testing.tgi_server.parameters import Parameters
from servicekit.testing.tgi_server.refusals import invalid, unreadable
from servicekit.testing.tgi_server.schema_instance import instance_of
from servicekit.testing.tgi_server.tokenizer import Piece, split, tokenize

END_OF_SEQUENCE = Piece(2, "</s>", 0, 0)
_BUDGETED_TOKENS = 1_024
_SEEDS = 2**64


@dataclass(frozen=True, slots=True)
class Plan:
    """A generation that passed the checks: its tokens, the end-of-sequence token among them if it ends so.

    `seed` is None where nothing is sampled; `most_tokens` are those that input and output may come to, for the batch.
    """

    prompt: str = ""
    input_texts: Sequence[str] = ()
    pieces: tuple[Piece, ...] = ()
    finish_reason: str = "eos_token"
    seed: int | None = None
    most_tokens: int = 0
    parameters: Parameters = field(default_factory=Parameters)

    @property
    def input_tokens(self) -> int:
        """How many tokens the prompt has."""
        return len(self.input_texts)

    @property
    def text(self) -> str:
        """The answer without special tokens."""
        return "".join(piece.text for piece in self.pieces if piece is not END_OF_SEQUENCE)


def plan(dials: Dials, prompt: object, parameters: Parameters) -> Plan:
    """What will be generated.

    Raises:
        Refusal: 422, as TGI's validation words it.
    """
    if not isinstance(prompt, str):
        raise unreadable("missing field `inputs`" if prompt is None else "inputs: invalid type, expected a string")
    if not prompt:
        raise invalid("`inputs` cannot be empty")
    texts = split(prompt)
    if parameters.truncate is not None:
        texts = texts[-parameters.truncate :]
    most_new = _measure(dials, len(texts), parameters.max_new_tokens)
    seed = parameters.seed
    if seed is None:
        seed = random.randrange(_SEEDS)  # noqa: S311  # no secret: what TGI draws where none is given
    pieces, reason = _cut(tokenize(_answer(dials, parameters, seed)), dials, most_new, parameters.stop)
    return Plan(
        prompt=prompt,
        input_texts=texts,
        pieces=pieces,
        finish_reason=reason,
        seed=seed if parameters.sampling else None,
        most_tokens=len(texts) + min(most_new, _BUDGETED_TOKENS),
        parameters=parameters,
    )


def _measure(dials: Dials, input_tokens: int, max_new_tokens: int | None) -> int:
    """How many tokens may be generated: up to the window's end where nothing is said."""
    if max_new_tokens is not None and input_tokens + max_new_tokens > dials.max_total_tokens:
        raise invalid(
            f"`inputs` tokens + `max_new_tokens` must be <= {dials.max_total_tokens}. "
            f"Given: {input_tokens} `inputs` tokens and {max_new_tokens} `max_new_tokens`"
        )
    if input_tokens > dials.max_input_tokens:
        raise invalid(f"`inputs` must have less than {dials.max_input_tokens} tokens. Given: {input_tokens}")
    return max_new_tokens or max(1, dials.max_total_tokens - input_tokens)


def _answer(dials: Dials, parameters: Parameters, seed: int) -> str:
    if parameters.grammar is not None:
        instance = instance_of(parameters.grammar)  # checked in any case
        return dials.grammar_answer or instance
    if dials.vary_answers and parameters.sampling:
        words = dials.answer.split(" ")
        random.Random(seed).shuffle(words)  # noqa: S311  # what the seed is for
        return " ".join(words)
    return dials.answer


def _cut(pieces: list[Piece], dials: Dials, most_new: int, stop: Sequence[str]) -> tuple[tuple[Piece, ...], str]:
    """The tokens up to a stop sequence (which is kept, as TGI does), the limit, or the end."""
    if dials.output_tokens and pieces:
        pieces = list(islice(cycle(pieces), dials.output_tokens))
    text = ""
    for count, piece in enumerate(pieces, start=1):
        text += piece.text
        if any(mark in text for mark in stop):
            return tuple(pieces[:count]), "stop_sequence"
        if count == most_new:
            return tuple(pieces[:count]), "length"
    return (*pieces, END_OF_SEQUENCE), "eos_token"
