"""Distributed traces: W3C trace context everywhere, OpenTelemetry spans where an OTLP endpoint is configured.

Without an endpoint no span is recorded, yet trace ids are made and passed on, so that logs and events correlate.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, TraceFlags
from opentelemetry.util.types import AttributeValue

TRACEPARENT = "traceparent"
_TRACEPARENT_CHARS = 55
_EXPORT_S = 5

tracer = trace.get_tracer("binnacle")


def configure_tracing(*, service: str, instance: str, otlp_endpoint: str | None) -> Callable[[], None]:
    """Export spans to `otlp_endpoint` (gRPC, `http://host:4317`), or record none; returns what flushes them."""
    if otlp_endpoint is None:
        return _nothing
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415  # only when configured
        OTLPSpanExporter,
    )
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415  # only when configured
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415  # only when configured
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415  # only when configured

    resource = Resource.create(
        {"service.name": service, "service.namespace": "binnacle", "service.instance.id": instance}
    )
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    insecure = not otlp_endpoint.startswith("https://")
    exporter = OTLPSpanExporter(endpoint=otlp_endpoint, insecure=insecure, timeout=_EXPORT_S)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return provider.shutdown


def _nothing() -> None:
    """Flush nothing."""


@contextmanager
def span(
    name: str,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    attributes: Mapping[str, AttributeValue] | None = None,
    traceparent: str | None = None,
) -> Iterator[Span]:
    """A span around a piece of work; a child of `traceparent` if given, else of the running span.

    An exception passes through and marks the span as failed, without its text: texts may hold what was asked.
    """
    parent = _parse(traceparent) if traceparent is not None else trace.get_current_span().get_span_context()
    parent_context = trace.set_span_in_context(NonRecordingSpan(parent)) if parent.is_valid else otel_context.Context()
    started = tracer.start_span(name, parent_context, kind=kind, attributes=attributes)
    if not started.is_recording() and not _is_new(started, parent):
        started = NonRecordingSpan(_child_of(parent))
    token = otel_context.attach(trace.set_span_in_context(started))
    try:
        yield started
    except BaseException as exc:
        started.set_status(trace.Status(trace.StatusCode.ERROR, type(exc).__name__))
        raise
    finally:
        otel_context.detach(token)
        started.end()


@contextmanager
def part(name: str) -> Iterator[Span]:
    """A span around a part of the running one, where that is recorded; else nothing is opened, at next to no cost."""
    running = trace.get_current_span()
    if not running.is_recording():
        yield running
        return
    with span(name) as opened:
        yield opened


@contextmanager
def untraced() -> Iterator[None]:
    """Work within the running trace of which no span is recorded, here or at a callee."""
    running = trace.get_current_span().get_span_context()
    hidden = SpanContext(running.trace_id, running.span_id, is_remote=False, trace_flags=TraceFlags(0))
    token = otel_context.attach(trace.set_span_in_context(NonRecordingSpan(hidden)))
    try:
        yield
    finally:
        otel_context.detach(token)


class LatePart:
    """A part that is worked on now and then: opened with its first piece, ended by `end`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._span: Span | None = None

    @contextmanager
    def piece(self) -> Iterator[None]:
        """Work on it; a failure marks the part as failed, without its text."""
        if self._span is None and trace.get_current_span().is_recording():
            self._span = tracer.start_span(self._name)
        if self._span is None:
            yield
            return
        try:
            with trace.use_span(self._span, record_exception=False, set_status_on_exception=False):
                yield
        except BaseException as exc:
            self._span.set_status(trace.Status(trace.StatusCode.ERROR, type(exc).__name__))
            raise

    def end(self) -> None:
        """End the part, if it was begun."""
        if self._span is not None:
            self._span.end()


def current_traceparent() -> str:
    """The running span as a W3C `traceparent`, or the empty string outside of any."""
    running = trace.get_current_span().get_span_context()
    if not running.is_valid:
        return ""
    return f"00-{running.trace_id:032x}-{running.span_id:016x}-{running.trace_flags:02x}"


def current_trace_id() -> str:
    """The running trace's id in hexadecimal, or the empty string outside of any."""
    running = trace.get_current_span().get_span_context()
    return f"{running.trace_id:032x}" if running.is_valid else ""


def _is_new(started: Span, parent: SpanContext) -> bool:
    made = started.get_span_context()
    return made.is_valid and made.span_id != parent.span_id


def _child_of(parent: SpanContext) -> SpanContext:
    trace_id = parent.trace_id if parent.is_valid else random.getrandbits(128) or 1  # an id, no secret
    # A trace begun here is marked as sampled, so that a callee that has a collector records its part.
    flags = parent.trace_flags if parent.is_valid else TraceFlags(TraceFlags.SAMPLED)
    span_id = random.getrandbits(64) or 1  # an id, no secret
    return SpanContext(trace_id, span_id, is_remote=False, trace_flags=flags)


def _parse(traceparent: str) -> SpanContext:
    """The span context of a version-00 header; an invalid one gives the invalid context, as W3C asks."""
    parts = traceparent.split("-")
    if len(traceparent) != _TRACEPARENT_CHARS or [len(part) for part in parts] != [2, 32, 16, 2]:
        return trace.INVALID_SPAN_CONTEXT
    if parts[0] == "ff" or not set(traceparent) <= set("0123456789abcdef-"):
        return trace.INVALID_SPAN_CONTEXT
    flags = TraceFlags(int(parts[3], 16) & TraceFlags.SAMPLED)
    return SpanContext(int(parts[1], 16), int(parts[2], 16), is_remote=True, trace_flags=flags)
