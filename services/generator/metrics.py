"""Metrics of the generator: declared and set here, once an attempt is over. Labels are the models file's aliases."""

from servicekit.domain.generation import Attempt
from servicekit.telemetry.metrics import counter, histogram

# One per attempt at an engine, whatever its end; `choice` is one of the pool's few.
ATTEMPTS = counter(
    "generator_attempts", meaning="Attempts by model alias, choice and end.", labels=("model", "choice", "end")
)
# As the engines counted them, or as they were estimated where an engine never told.
TOKENS = counter(
    "generator", meaning="Tokens by model alias and direction.", unit="tokens", labels=("model", "direction")
)
# In millionths of a US dollar, attempts without an answer included.
COST = counter(
    "generator_cost_microusd", meaning="Cost by model alias, in millionths of a US dollar.", labels=("model",)
)
# From the attempt's start, the wait for a place included, to its first token.
FIRST_TOKEN_SECONDS = histogram("generator_first_token", meaning="Time to first token.", labels=("model",))


def observe_attempt(attempt: Attempt) -> None:
    """Count an attempt that is over."""
    alias, usage = attempt.model_alias, attempt.usage
    ATTEMPTS.labels(alias, attempt.choice, attempt.finish_reason.value).inc()
    TOKENS.labels(alias, "input").inc(usage.input_tokens)
    TOKENS.labels(alias, "output").inc(usage.output_tokens)
    TOKENS.labels(alias, "cached").inc(usage.cached_tokens)
    COST.labels(alias).inc(attempt.cost.microusd)
    if attempt.time_to_first_token_s is not None:
        FIRST_TOKEN_SECONDS.labels(alias).observe(attempt.time_to_first_token_s)
