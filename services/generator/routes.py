"""How an alias is served: its engines in order, where a request begins, and the settings in force.

Pure; made by `opening.py` from the models file, followed by `models.py` and `generating.py`.
"""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

from servicekit.domain.prompt import Sampling
from services.generator.pricing import PriceTable

DEFAULT_OUTPUT_TOKENS = 512
_SEEDS = 2**31
_HASHES = 2**64


@dataclass(frozen=True, slots=True)
class EngineRoute:
    """One engine of an alias; `address` names it in records where no replica was reached.

    `first_token_s` bounds the wait for a first token while others could stand in, `attempt_s` the whole attempt;
    `retries` is how many further replicas of it are tried.
    """

    address: str
    prices: PriceTable
    weight: float = 1.0
    adapter: str = ""
    first_token_s: float = 20.0
    attempt_s: float = 300.0
    retries: int = 2


@dataclass(frozen=True, slots=True)
class Route:
    """How an alias is served; `window_tokens` narrows what its engines report."""

    alias: str
    engines: tuple[EngineRoute, ...]
    sampling: Sampling
    prompt_id: str
    fallbacks: tuple[str, ...] = ()
    window_tokens: int | None = None
    extractive: bool = False
    seed_per_request: bool = False
    deterministic: bool = False

    def sampling_for(self, asked: Sampling, *, request_id: str, max_total_tokens: int) -> Sampling:
        """The settings in force: the caller's over the route's, the seed and the room for output decided."""
        sampling = asked.over(self.sampling)
        if self.deterministic:
            # Greedy is temperature 0 alone: a top_p or top_k would have nothing to choose from.
            sampling = replace(sampling, temperature=0.0, top_p=None, top_k=None, seed=self.sampling.seed or 0)
        elif sampling.seed is None and self.seed_per_request:
            sampling = replace(sampling, seed=_hash("seed", request_id) % _SEEDS)
        most = min(sampling.max_output_tokens or DEFAULT_OUTPUT_TOKENS, max(1, max_total_tokens // 2))
        return replace(sampling, max_output_tokens=most)


def order(engines: Sequence[EngineRoute], *, alias: str, request_id: str) -> tuple[int, ...]:
    """The places of the engines in the order in which they are tried.

    The first is chosen by weight, by a hash of the request's id so that a repeat goes the same way; the others follow
    as they stand.
    """
    total = sum(engine.weight for engine in engines)
    point = _hash(alias, request_id) / _HASHES * total
    first = 0
    for place, engine in enumerate(engines):
        if engine.weight:
            first = place
            point -= engine.weight
            if point < 0:
                break
    return (first, *(place for place in range(len(engines)) if place != first))


def _hash(purpose: str, request_id: str) -> int:
    """Evenly spread; the same for the same request, and by chance for one without an id."""
    text = f"{purpose}\0{request_id or secrets.token_hex(16)}"
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8])
