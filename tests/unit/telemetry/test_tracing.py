"""Trace context: made, passed on, taken over, and never broken by what a caller sends."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from servicekit.telemetry import tracing
from servicekit.telemetry.tracing import configure_tracing, current_trace_id, current_traceparent, span

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_no_trace_outside_of_any_span() -> None:
    """Outside of spans there is nothing to pass on."""
    assert current_traceparent() == ""
    assert current_trace_id() == ""


def test_span_without_exporter_still_correlates() -> None:
    """Without a collector a trace id is made, kept by inner spans, and each span has its own id."""
    with span("outer"):
        outer = current_traceparent()
        with span("inner"):
            inner = current_traceparent()
        assert current_traceparent() == outer
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]", outer)
    assert inner.split("-")[1] == outer.split("-")[1]
    assert inner.split("-")[2] != outer.split("-")[2]


def test_callers_trace_is_continued() -> None:
    """A given parent decides trace id and sampling."""
    with span("served", traceparent=PARENT):
        continued = current_traceparent().split("-")
    assert continued[1] == PARENT.split("-")[1]
    assert continued[2] != PARENT.split("-")[2]
    assert continued[3] == "01"


@given(
    st.one_of(
        st.text(max_size=60),
        st.from_regex(r"\A[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z"),
        st.sampled_from(["00-" + "0" * 32 + "-" + "1" * 16 + "-00", "ff" + PARENT[2:], PARENT + "-x", "\u0660" * 55]),
    )
)
def test_any_traceparent_is_survived(traceparent: str) -> None:
    """Whatever a caller sends, the call runs in a valid trace."""
    with span("served", traceparent=traceparent):
        assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]", current_traceparent())


def test_failure_passes_without_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recorded span of failed work names the error's class alone: its text may hold what was asked."""
    exported = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exported))
    monkeypatch.setattr(tracing, "tracer", provider.get_tracer("test"))
    with pytest.raises(ValueError, match="secret"), span("work", traceparent=PARENT, attributes={"gen_ai.k": 1}):
        raise ValueError("secret question")
    [finished] = exported.get_finished_spans()
    assert f"{finished.context.trace_id:032x}" == PARENT.split("-")[1]
    assert finished.status.description == "ValueError"
    assert finished.events == ()
    provider.shutdown()


def test_nothing_is_configured_without_an_endpoint() -> None:
    """Without an endpoint no exporter is made, and flushing is nothing."""
    flush = configure_tracing(service="x", instance="1", otlp_endpoint=None)
    assert flush is tracing._nothing
    flush()
