"""The trace of an answer: one span for each stage, what the model took, and never a text."""

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from servicekit.errors import BackendUnavailable
from servicekit.telemetry import tracing
from servicekit.telemetry.tracing import current_traceparent, span
from services.gateway.question import Question
from tests.unit.gateway.gateway_fakes import ASKER, REDACTED, SECRET, FakeGenerator, Gateway, budget

REDACTED_QUESTION = f"Who is {SECRET}?"
STAGES = ["check_input", "check_retrieved", "generate", "check_output", "record"]


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """What a collector would get."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "tracer", provider.get_tracer("test"))
    yield exporter
    provider.shutdown()


async def _ask(gateway: Gateway, text: str) -> None:
    with span("server"):
        await gateway.answering.answer(Question(text), asker=ASKER, budget=budget())
    await gateway.publishing.drain()


def _stages(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    finished = exporter.get_finished_spans()
    names = [one.name for one in finished]
    assert len(set(names)) == len(names)
    return {one.name: one for one in sorted(finished, key=lambda one: one.start_time or 0) if one.name != "server"}


async def test_each_stage_is_one_span_of_the_request(exported: InMemorySpanExporter) -> None:
    """All stages hang under the request's span; the generation names its model and its tokens."""
    await _ask(Gateway(), "What?")
    stages = _stages(exported)
    [server] = [one for one in exported.get_finished_spans() if one.name == "server"]
    assert sorted(stages) == sorted(STAGES)
    assert {one.parent.span_id for one in stages.values() if one.parent} == {server.context.span_id}
    assert dict(stages["generate"].attributes or {}) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "default",
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 4,
        "gen_ai.response.finish_reasons": ("stop",),
    }


async def test_speculative_search_is_untraced_and_the_repeated_one_is_not(exported: InMemorySpanExporter) -> None:
    """The search on the unjudged question is in no trace, here or at the retriever; the one after redaction is."""
    gateway = Gateway()
    sampled: list[bool] = []

    async def note(_place: str) -> None:
        sampled.append(bool(int(current_traceparent()[-2:], 16) & 1))

    gateway.retriever.hook = note
    await _ask(gateway, REDACTED_QUESTION)
    assert [search["speculative"] for search in gateway.retriever.searches] == [True, False]
    assert sampled == [False, True]
    assert sorted(_stages(exported)) == sorted([*STAGES, "search_chunks"])


async def test_no_text_is_traced(exported: InMemorySpanExporter) -> None:
    """Neither question nor chunk nor answer is found in anything that is exported, not even redacted."""
    await _ask(Gateway(), REDACTED_QUESTION)
    told = "".join(one.to_json() for one in exported.get_finished_spans())
    assert told
    assert not any(text in told for text in (SECRET, REDACTED, "Who is", "Kafka keeps", "offsets"))


async def test_failed_stage_is_marked(exported: InMemorySpanExporter) -> None:
    """A stage that failed says so by the error's class, also where the path goes on."""

    async def fail(_place: str) -> None:
        raise BackendUnavailable("away with secrets")

    gateway = Gateway(generator=FakeGenerator(hook=fail))
    await _ask(gateway, "What?")
    status = _stages(exported)["generate"].status
    assert not status.is_ok
    assert status.description == "BackendUnavailable"


async def test_without_an_exporter_stages_open_no_spans() -> None:
    """Without a collector a stage runs in the request's own span, which costs it nothing."""
    gateway = Gateway()
    seen: set[str] = set()

    async def note(place: str) -> None:
        if place != "search_chunks":
            seen.add(current_traceparent())

    gateway.hook_all(note)
    await _ask(gateway, "What?")
    assert len(seen) == 1
