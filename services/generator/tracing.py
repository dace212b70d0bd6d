"""The span around an attempt, with OpenTelemetry's attributes for generative AI. Used by `generating.py`."""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.trace import SpanKind

from servicekit.telemetry import genai
from servicekit.telemetry.tracing import span
from services.generator.attempting import Trial


@contextmanager
def attempt_span(trial: Trial) -> Iterator[None]:
    """Open the span; what the attempt took is written on it when it ends."""
    alias = trial.model.route.alias
    provider = trial.model.engine.address.partition(":")[0]
    attributes = {
        genai.OPERATION_NAME: genai.OPERATION_CHAT,
        genai.REQUEST_MODEL: alias,
        genai.PROVIDER_NAME: provider,
    }
    with span(f"{genai.OPERATION_CHAT} {alias}", kind=SpanKind.CLIENT, attributes=attributes) as opened:
        try:
            yield
        finally:
            attempt = trial.attempt()
            opened.set_attribute(genai.RESPONSE_MODEL, attempt.model)
            opened.set_attribute(genai.RESPONSE_FINISH_REASONS, (attempt.finish_reason.value,))
            opened.set_attribute(genai.USAGE_INPUT_TOKENS, attempt.usage.input_tokens)
            opened.set_attribute(genai.USAGE_OUTPUT_TOKENS, attempt.usage.output_tokens)
