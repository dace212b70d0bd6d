"""What can be set on the contract server, and what it counts.

Read by every route; tests turn the dials in process or over `PUT /dials`, and reconcile with `GET /counts`.
"""

from dataclasses import dataclass
from enum import StrEnum

DEFAULT_ANSWER = "The documents answer this in their first source [1]."


class Fault(StrEnum):
    """How a generation goes wrong; `fault_after_tokens` says when, where a moment matters."""

    NONE = "none"
    REFUSE = "refuse"
    INVALID = "invalid"
    UNAVAILABLE = "unavailable"
    DROP = "drop"
    HANG = "hang"
    STALL = "stall"
    CUT = "cut"
    END_EARLY = "end_early"
    GARBAGE = "garbage"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Dials:
    """Speed, limits and faults.

    `tokens_per_s` 0 means as fast as it goes; `output_tokens` repeats the answer up to that many tokens;
    `report_usage` is whether the chat route reports usage; `fault_requests` is how many requests the fault
    hits, -1 all of them.
    """

    model: str = "contract/tgi"
    revision: str = "0000000000000000000000000000000000000000"
    answer: str = DEFAULT_ANSWER
    output_tokens: int = 0
    tokens_per_s: float = 0.0
    first_token_s: float = 0.0
    max_concurrent_requests: int = 512
    max_input_tokens: int = 4_095
    max_total_tokens: int = 4_096
    report_usage: bool = True
    fault: Fault = Fault.NONE
    fault_after_tokens: int = 0
    fault_requests: int = -1


@dataclass(slots=True)
class Counts:
    """What was served; `cancelled` are the generations whose caller hung up before their end."""

    requests: int = 0
    generations: int = 0
    completed: int = 0
    cancelled: int = 0
    failed: int = 0
    refused: int = 0
    open: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
