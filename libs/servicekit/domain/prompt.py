"""What an engine is asked: messages, the question and chunks behind them, and the sampling settings.

Pure; built by the generator, read by every engine adapter; bounds are checked where a value is made.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from servicekit.domain.chunk import ScoredChunk
from servicekit.errors import InvalidRequest

MAX_OUTPUT_TOKENS = 8_192
MAX_TOP_K = 1_000
MAX_STOP_TEXTS = 4
MAX_STOP_CHARS = 64
MAX_TEMPERATURE = 2.0
MAX_PENALTY = 2.0
MAX_SEED = 2**63 - 1

_T = TypeVar("_T")


class Role(StrEnum):
    """Who said a message."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """Settings of one generation; None leaves a setting to the route, then to the engine.

    Raises:
        InvalidRequest: a value is out of its bounds; the field is named `sampling.<name>`.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    max_output_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None

    def __post_init__(self) -> None:
        _check("temperature", self.temperature, lambda v: 0 <= v <= MAX_TEMPERATURE, "0 to 2")
        _check("top_p", self.top_p, lambda v: 0 < v <= 1, "over 0 and at most 1")
        _check("top_k", self.top_k, lambda v: 1 <= v <= MAX_TOP_K, f"1 to {MAX_TOP_K}")
        _check(
            "max_output_tokens",
            self.max_output_tokens,
            lambda v: 1 <= v <= MAX_OUTPUT_TOKENS,
            f"1 to {MAX_OUTPUT_TOKENS}",
        )
        _check("seed", self.seed, lambda v: 0 <= v <= MAX_SEED, "0 to 2^63 - 1")
        for name in ("frequency_penalty", "presence_penalty"):
            _check(name, getattr(self, name), lambda v: abs(v) <= MAX_PENALTY, "-2 to 2")
        if len(self.stop) > MAX_STOP_TEXTS:
            raise InvalidRequest(
                f"sampling.stop must hold at most {MAX_STOP_TEXTS} texts, got {len(self.stop)}",
                field="sampling.stop",
            )
        for position, text in enumerate(self.stop):
            if not 1 <= len(text) <= MAX_STOP_CHARS:
                raise InvalidRequest(
                    f"sampling.stop[{position}] must be 1 to {MAX_STOP_CHARS} characters, got {len(text)}",
                    field=f"sampling.stop[{position}]",
                )

    def over(self, defaults: "Sampling") -> "Sampling":
        """These settings, with every one that is absent taken from `defaults`."""

        def pick(mine: _T | None, theirs: _T | None) -> _T | None:
            return theirs if mine is None else mine

        return Sampling(
            temperature=pick(self.temperature, defaults.temperature),
            top_p=pick(self.top_p, defaults.top_p),
            top_k=pick(self.top_k, defaults.top_k),
            max_output_tokens=pick(self.max_output_tokens, defaults.max_output_tokens),
            stop=self.stop or defaults.stop,
            seed=pick(self.seed, defaults.seed),
            frequency_penalty=pick(self.frequency_penalty, defaults.frequency_penalty),
            presence_penalty=pick(self.presence_penalty, defaults.presence_penalty),
        )


@dataclass(frozen=True, slots=True)
class PromptRef:
    """The prompt template that an answer was made with; `hash` is the SHA-256 of its text."""

    prompt_id: str
    version: str
    hash: str
    few_shot_set: str = ""


@dataclass(frozen=True, slots=True)
class ContextChunk:
    """A chunk packed into a prompt under the number that the answer cites it by, from 1."""

    number: int
    scored: ScoredChunk


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """One generation: `messages` hold everything a model reads.

    `question` and `context` are the same in parts, for engines that answer without a model; `request_id` is
    the caller's name for the work, for logs of both sides. `output_schema` is a JSON schema as JSON that the answer
    must satisfy, `adapter` a LoRA adapter of the engine; both are empty for none.
    """

    messages: tuple[Message, ...]
    question: str
    context: tuple[ContextChunk, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    request_id: str = ""
    output_schema: str = ""
    adapter: str = ""
    want_logprobs: bool = False


def _check(name: str, value: float | None, holds: Callable[[float], bool], bounds: str) -> None:
    if value is None:
        return
    if not math.isfinite(value) or not holds(value):
        raise InvalidRequest(f"sampling.{name} must be {bounds}, got {value!r}", field=f"sampling.{name}")
