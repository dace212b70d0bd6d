"""The span of an attempt, with OpenTelemetry's attributes for generative AI. Used by `accounting.py`."""

from datetime import datetime

from opentelemetry import trace
from opentelemetry.trace import SpanKind
from opentelemetry.util.types import AttributeValue

from servicekit.domain.generation import Attempt
from servicekit.telemetry import genai
from servicekit.telemetry.tracing import tracer

_NANOSECONDS = 1_000_000_000


def trace_attempt(attempt: Attempt, *, started: datetime) -> None:
    """Record an attempt that is over under the running span, where that is recorded.

    Written after the fact: attempts may race, and their tokens are known only in the end.
    """
    if not trace.get_current_span().is_recording():
        return
    start_ns = int(started.timestamp() * _NANOSECONDS)
    name = f"{genai.OPERATION_CHAT} {attempt.model_alias}"
    span = tracer.start_span(name, kind=SpanKind.CLIENT, attributes=_attributes(attempt), start_time=start_ns)
    if attempt.error_reason:
        span.set_status(trace.Status(trace.StatusCode.ERROR, attempt.error_reason))
    span.end(start_ns + int(attempt.duration_s * _NANOSECONDS))


def _attributes(attempt: Attempt) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {
        genai.OPERATION_NAME: genai.OPERATION_CHAT,
        genai.PROVIDER_NAME: attempt.engine.partition(":")[0],
        genai.REQUEST_MODEL: attempt.model_alias,
        genai.RESPONSE_MODEL: attempt.model,
        genai.RESPONSE_FINISH_REASONS: (attempt.finish_reason.value,),
        genai.USAGE_INPUT_TOKENS: attempt.usage.input_tokens,
        genai.USAGE_OUTPUT_TOKENS: attempt.usage.output_tokens,
        "server.address": attempt.engine,
        "binnacle.attempt.number": attempt.number,
        "binnacle.attempt.choice": attempt.choice,
        "binnacle.attempt.cost_microusd": attempt.cost.microusd,
    }
    if attempt.time_to_first_token_s is not None:
        attributes["gen_ai.response.time_to_first_chunk"] = attempt.time_to_first_token_s
    return attributes
