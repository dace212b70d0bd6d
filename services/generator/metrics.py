"""Metrics of the generator: declared here, set in `generating.py`. Labels are the aliases of the models file."""

from servicekit.telemetry.metrics import counter, histogram

# One per attempt at an engine, whatever its end.
ATTEMPTS = counter("generator_attempts", meaning="Attempts by model alias and end.", labels=("model", "end"))
# As the engines counted them, or as they were estimated where an engine never told.
TOKENS = counter(
    "generator", meaning="Tokens by model alias and direction.", unit="tokens", labels=("model", "direction")
)
# From the attempt's start, packing included, to its first token.
FIRST_TOKEN_SECONDS = histogram("generator_first_token", meaning="Time to first token.", labels=("model",))
