"""What an engine gives back: tokens, an end with usage, and what each attempt took and cost.

Pure; made by engine adapters and the generator, carried by the gateway into the interaction's record.
"""

from dataclasses import dataclass
from enum import StrEnum


class FinishReason(StrEnum):
    """Why a generation ended."""

    STOP = "stop"
    LENGTH = "length"
    CONTENT_FILTER = "content_filter"
    CANCELLED = "cancelled"
    ERROR = "error"
    DEADLINE = "deadline"


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens by the engine's tokenizer; `estimated` where the engine reports none.

    `cached_tokens` are those of `input_tokens` that a prefix cache served.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    estimated: bool = False

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            self.estimated or other.estimated,
        )


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """A piece of the answer and how many of the model's tokens it holds (at least 0).

    The text may be empty: a special token's, or one that is held back as it may begin a stop text; the token counts.
    `logprobs` are those of its tokens, where they were asked for and the engine tells them.
    """

    text: str
    token_count: int = 1
    logprobs: tuple["TokenLogprob", ...] = ()


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token's text, and the natural logarithm of its probability (at most 0)."""

    text: str
    logprob: float


@dataclass(frozen=True, slots=True)
class GenerationEnd:
    """The last event of a generation that the engine finished.

    `refused` says that the engine declined for want of support in the chunks (extractive engine).
    """

    finish_reason: FinishReason
    usage: Usage
    refused: bool = False


EngineEvent = TokenEvent | GenerationEnd


@dataclass(frozen=True, slots=True)
class TokenCount:
    """A number of tokens; `estimated` where the engine has no tokenizer route."""

    tokens: int
    estimated: bool


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What an engine serves; `revision` is empty where the engine reports none.

    Prompt and answer together fit into `max_total_tokens`, the prompt alone into `max_input_tokens`. At most
    `max_concurrent_requests` are worked on or wait at once; 0 where the engine does not tell.
    """

    model: str
    revision: str
    max_input_tokens: int
    max_total_tokens: int
    max_concurrent_requests: int = 0


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """What an engine has to do at this moment: requests that wait, and those in its running batch."""

    queued_requests: int
    running_requests: int


@dataclass(frozen=True, slots=True)
class Cost:
    """Money in millionths of a US dollar, and the version of the price table that gave it."""

    microusd: int
    price_version: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at one engine, whatever its end; `number` counts from 1, times are in seconds.

    `engine` is its address without credentials; `time_to_first_token_s` is None when no token came;
    `error_reason` is UPPER_SNAKE, empty when the attempt succeeded. `choice` says why this replica of a pool (empty
    without one), `queue_s` how much of the duration was spent waiting for a place.
    """

    number: int
    model_alias: str
    model: str
    revision: str
    engine: str
    usage: Usage
    cost: Cost
    duration_s: float
    time_to_first_token_s: float | None
    finish_reason: FinishReason
    error_reason: str = ""
    adapter: str = ""
    choice: str = ""
    queue_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Degradation:
    """Something left out so that an answer could be given: the rung taken, and the UPPER_SNAKE cause."""

    rung: str
    cause: str
