"""What can be set on the embeddings contract server, and what it counts. Read by every route; turned by tests."""

from dataclasses import dataclass
from enum import StrEnum


class Fault(StrEnum):
    """How a request goes wrong."""

    NONE = "none"
    OVERLOADED = "overloaded"
    BACKEND = "backend"
    TOKENIZER = "tokenizer"
    UNHEALTHY = "unhealthy"
    DROP = "drop"
    HANG = "hang"
    GARBAGE = "garbage"
    TOO_FEW = "too_few"
    ZEROS = "zeros"


@dataclass(frozen=True, slots=True)
class Dials:
    """What is served, its limits, its speed and its faults.

    `kind` is `embedding`, `reranker` or `classifier`; `delay_s` goes before each answer to `/embed` and `/rerank`;
    `offsets_in_bytes` is how `/tokenize` counts; `fault_requests` is how many requests the fault hits, -1 all of them;
    `api_key` is asked for where it is set.
    """

    model: str = "contract/word-hash"
    revision: str = "0000000000000000000000000000000000000000"
    dtype: str = "float32"
    kind: str = "embedding"
    pooling: str = "mean"
    dimension: int = 64
    max_concurrent_requests: int = 512
    max_input_length: int = 256
    max_batch_tokens: int = 16_384
    max_client_batch_size: int = 32
    auto_truncate: bool = False
    offsets_in_bytes: bool = True
    delay_s: float = 0.0
    fault: Fault = Fault.NONE
    fault_requests: int = -1
    api_key: str = ""


@dataclass(slots=True)
class Counts:
    """What was asked; `most_open` is how many requests were in hand at once at most."""

    requests: int = 0
    embedded: int = 0
    reranked: int = 0
    tokenized: int = 0
    refused: int = 0
    open: int = 0
    most_open: int = 0
