"""What can be set on the contract server: speed, limits, meaning and faults.

Read by every module here; tests turn the dials in process or over `PUT /dials`.
"""

from dataclasses import dataclass
from enum import StrEnum

DEFAULT_ANSWER = "The documents answer this in their first source [1]."


class Fault(StrEnum):
    """How a generation goes wrong; `fault_after_tokens` says when, where a moment matters.

    `refuse`, `invalid` and `unavailable` answer 429, 422 and 503; `drop` resets the connection before any byte,
    `hang` never sends one, `slow_loris` sends one each `slow_byte_s`. In mid-stream `stall` goes silent, `cut` resets,
    `end_early` ends cleanly without the last frame, `garbage` sends what is no JSON, `error` is 424 (out of memory)
    and `incomplete` 500.
    """

    NONE = "none"
    REFUSE = "refuse"
    INVALID = "invalid"
    UNAVAILABLE = "unavailable"
    DROP = "drop"
    HANG = "hang"
    SLOW_LORIS = "slow_loris"
    STALL = "stall"
    CUT = "cut"
    END_EARLY = "end_early"
    GARBAGE = "garbage"
    ERROR = "error"
    INCOMPLETE = "incomplete"


@dataclass(frozen=True, slots=True)
class Dials:
    """Every dial, by theme; a speed or size of 0 means as fast, or as many, as it goes.

    *Answer.* `output_tokens` repeats `answer` up to that many tokens; `vary_answers` lets a sampled answer depend on
    its seed; `grammar_answer` is given to a grammar instead of a valid instance; `adapters` are the LoRA adapters that
    are loaded, by name, comma-separated. TGI answers for an adapter it does not know from the base model, without a
    word; `refuse_unknown_adapter` makes it 422, as other servers do.

    *Each stream by itself.* `first_token_s`, then `tokens_per_s`, whatever else the server does.

    *Continuous batching*, once a decode step takes time: all sequences of the batch get a token each
    `decode_step_s` + `decode_step_per_sequence_s` times the batch's size; new ones join between steps, after a
    prefill of `prefill_tokens_per_s` by input tokens that are not cached, during which nobody else gets a token.
    At most `max_batch_size` sequences of `max_batch_total_tokens` (input and output they may come to), of which
    `max_batch_prefill_tokens` are prefilled at once; the others queue. The batch's bounds and the prefill hold for
    `tokens_per_s` too.

    *Prefix cache.* `prefix_cache_blocks` blocks of `prefix_block_tokens` tokens are kept, least recently used go.

    *Faults.* `fault` hits `fault_requests` requests (-1: all), each with probability `fault_share`, drawn by
    `fault_seed`; `start_s` answers 503 on every route for that long, `healthy` is what `/health` says;
    `report_usage` is whether the OpenAI routes report usage when asked.
    """

    model: str = "contract/tgi"
    revision: str = "0000000000000000000000000000000000000000"
    api_key: str = ""

    answer: str = DEFAULT_ANSWER
    output_tokens: int = 0
    vary_answers: bool = False
    grammar_answer: str = ""
    grammar_supported: bool = True
    adapters: str = ""
    refuse_unknown_adapter: bool = False

    first_token_s: float = 0.0
    tokens_per_s: float = 0.0
    prefill_tokens_per_s: float = 0.0
    decode_step_s: float = 0.0
    decode_step_per_sequence_s: float = 0.0
    max_batch_size: int = 0
    max_batch_total_tokens: int = 0
    max_batch_prefill_tokens: int = 0
    prefix_cache_blocks: int = 0
    prefix_block_tokens: int = 16

    max_concurrent_requests: int = 512
    max_best_of: int = 2
    max_stop_sequences: int = 4
    max_top_n_tokens: int = 5
    max_client_batch_size: int = 4
    max_input_tokens: int = 4_095
    max_total_tokens: int = 4_096
    report_usage: bool = True

    start_s: float = 0.0
    healthy: bool = True
    fault: Fault = Fault.NONE
    fault_after_tokens: int = 0
    fault_requests: int = -1
    fault_share: float = 1.0
    fault_seed: int = 0
    slow_byte_s: float = 0.05

    @property
    def lockstep(self) -> bool:
        """Whether decode steps take time, so that the batch advances as one."""
        return self.decode_step_s > 0 or self.decode_step_per_sequence_s > 0

    def decode_s(self, batch_size: int) -> float:
        """How long one decode step of so many sequences takes."""
        return self.decode_step_s + self.decode_step_per_sequence_s * batch_size

    def prefill_s(self, new_tokens: int) -> float:
        """How long the prefill of so many tokens takes."""
        return new_tokens / self.prefill_tokens_per_s if self.prefill_tokens_per_s > 0 else 0.0
