"""What every engine must do; inherited by the contract test of each adapter, which supplies it."""

import asyncio
from contextlib import aclosing
from dataclasses import dataclass

import pytest

from servicekit.domain.chunk import Chunk, ScoredChunk
from servicekit.domain.generation import EngineEvent, FinishReason, GenerationEnd, TokenEvent
from servicekit.domain.prompt import ContextChunk, EngineRequest, Message, Role, Sampling
from servicekit.errors import (
    BackendUnavailable,
    BinnacleError,
    InvalidRequest,
    Overloaded,
)
from servicekit.ports.engine import Engine
from servicekit.testing.tgi_server.dials import Fault
from servicekit.testing.tgi_server.server import TgiServer

_PATIENCE_S = 10.0
_LIMIT_TOKENS = 3
_LONG_TOKENS = 60
_HARBOUR = (
    "The harbour opens at six in the morning. Ships report to the harbour master by radio before they enter. "
    "The fee for a berth is paid at the office. The harbour closes at ten in the evening."
)


def harbour_request(
    sampling: Sampling | None = None, *, question: str = "When does the harbour open?"
) -> EngineRequest:
    """A question with one chunk that answers it."""
    chunk = Chunk("c1", "d1", 1, "0" * 64, _HARBOUR, title="Harbour rules", end=len(_HARBOUR))
    return EngineRequest(
        messages=(
            Message(Role.SYSTEM, f"Answer from the documents.\n[1] {_HARBOUR}"),
            Message(Role.USER, question),
        ),
        question=question,
        context=(ContextChunk(1, ScoredChunk(chunk, 1, 1.0)),),
        sampling=sampling or Sampling(max_output_tokens=64),
    )


async def collect(engine: Engine, request: EngineRequest) -> list[EngineEvent]:
    """Every event of one generation, within a bound."""
    async with asyncio.timeout(_PATIENCE_S), aclosing(engine.generate(request)) as events:
        return [event async for event in events]


def text_of(events: list[EngineEvent]) -> str:
    """The answer."""
    return "".join(event.text for event in events if isinstance(event, TokenEvent))


def end_of(events: list[EngineEvent]) -> GenerationEnd:
    """The last event."""
    end = events[-1]
    assert isinstance(end, GenerationEnd)
    return end


async def _drain(engine: Engine, seen: list[EngineEvent]) -> None:
    """Add the events to `seen` as they come, so that they are known when an error ends them."""
    async with aclosing(engine.generate(harbour_request())) as events:
        async for event in events:
            seen.append(event)  # noqa: PERF401  # a comprehension would lose them


@dataclass(frozen=True)
class FaultCase:
    """A fault of the contract server, and how it must be told."""

    fault: Fault
    after_tokens: int
    error: type[BinnacleError]
    reason: str


FAULTS = (
    FaultCase(Fault.REFUSE, 0, Overloaded, "ENGINE_OVERLOADED"),
    FaultCase(Fault.INVALID, 0, InvalidRequest, "ENGINE_REFUSED"),
    FaultCase(Fault.UNAVAILABLE, 0, BackendUnavailable, "ENGINE_UNHEALTHY"),
    FaultCase(Fault.DROP, 0, BackendUnavailable, "STREAM_CUT"),
    FaultCase(Fault.CUT, 3, BackendUnavailable, "STREAM_CUT"),
    FaultCase(Fault.END_EARLY, 3, BackendUnavailable, "STREAM_CUT"),
    FaultCase(Fault.GARBAGE, 3, BackendUnavailable, "MALFORMED_RESPONSE"),
    FaultCase(Fault.ERROR, 3, BackendUnavailable, "GENERATION_FAILED"),
)


class EngineConformance:
    """Subclasses provide the fixture `engine`, whose answers have several tokens."""

    async def test_info_names_the_model_and_its_window(self, engine: Engine) -> None:
        """An engine says what it serves and how much fits."""
        info = await engine.info()
        assert info.model
        assert 0 < info.max_input_tokens <= info.max_total_tokens

    async def test_tokens_come_first_then_one_end(self, engine: Engine) -> None:
        """The end is the last event and the only one of its kind, with usage."""
        events = await collect(engine, harbour_request())
        assert text_of(events).strip()
        assert [isinstance(event, GenerationEnd) for event in events].count(True) == 1
        end = end_of(events)
        assert end.finish_reason is FinishReason.STOP
        assert end.usage.input_tokens > 0
        assert end.usage.output_tokens > 0

    async def test_events_add_up_to_the_usage(self, engine: Engine) -> None:
        """What the events count is what the end tells: special tokens and those held back for a stop text too."""
        for stop in ((), ("source",), ("no such text",)):
            events = await collect(engine, harbour_request(Sampling(max_output_tokens=64, stop=stop)))
            assert sum(event.token_count for event in events if isinstance(event, TokenEvent)) == (
                end_of(events).usage.output_tokens
            )

    async def test_output_limit_is_kept(self, engine: Engine) -> None:
        """A limit on the output ends the answer there, and says so."""
        end = end_of(await collect(engine, harbour_request(Sampling(max_output_tokens=_LIMIT_TOKENS))))
        assert end.finish_reason is FinishReason.LENGTH
        assert end.usage.output_tokens <= _LIMIT_TOKENS

    async def test_stop_text_ends_the_answer_and_is_not_in_it(self, engine: Engine) -> None:
        """A stop text cuts the answer before itself."""
        whole = text_of(await collect(engine, harbour_request()))
        mark = whole[8:14]
        cut = await collect(engine, harbour_request(Sampling(max_output_tokens=64, stop=(mark,))))
        assert text_of(cut) == whole[: whole.index(mark)]
        assert end_of(cut).finish_reason is FinishReason.STOP

    async def test_leaving_early_frees_the_engine(self, engine: Engine) -> None:
        """A generation closed after its first event leaves the engine ready for the next."""
        async with aclosing(engine.generate(harbour_request())) as events:
            assert isinstance(await anext(events), TokenEvent)
        assert text_of(await collect(engine, harbour_request()))

    async def test_generations_do_not_mix(self, engine: Engine) -> None:
        """Concurrent generations each get their own whole answer."""
        alone = text_of(await collect(engine, harbour_request()))
        many = await asyncio.gather(*(collect(engine, harbour_request()) for _ in range(20)))
        assert {text_of(events) for events in many} == {alone}

    async def test_longer_texts_count_more_tokens(self, engine: Engine) -> None:
        """Counting grows with the text, and nothing has none."""
        assert (await engine.count_tokens("")).tokens == 0
        short, long = await engine.count_tokens("a berth"), await engine.count_tokens("a berth " * 50)
        assert 0 < short.tokens < long.tokens

    async def test_address_is_the_url(self, engine: Engine) -> None:
        """The address can be logged: a URL with a scheme and no credentials."""
        assert "://" in engine.address
        assert "@" not in engine.address


class RemoteEngineConformance(EngineConformance):
    """For engines that reach a server: subclasses also provide `server` and `lost_engine` (nobody listens)."""

    @pytest.mark.parametrize("case", FAULTS, ids=lambda case: str(case.fault))
    async def test_fault_has_its_error_and_the_next_request_works(
        self, engine: Engine, server: TgiServer, case: FaultCase
    ) -> None:
        """Each way to fail is told by type and reason, after the tokens that did come."""
        server.turn(fault=case.fault, fault_after_tokens=case.after_tokens, fault_requests=1)
        seen: list[EngineEvent] = []
        with pytest.raises(case.error) as raised:
            await _drain(engine, seen)
        assert raised.value.reason == case.reason
        assert len(seen) == case.after_tokens
        assert text_of(await collect(engine, harbour_request()))

    @pytest.mark.parametrize(("fault", "after_tokens"), [(Fault.HANG, 0), (Fault.STALL, 2)])
    async def test_silence_ends_with_the_callers_timeout(
        self, engine: Engine, server: TgiServer, fault: Fault, after_tokens: int
    ) -> None:
        """An engine that says nothing is left when the caller's time is up, and learns of it."""
        server.turn(fault=fault, fault_after_tokens=after_tokens, fault_requests=1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(_drain(engine, []), 0.3)
        await asyncio.wait_for(server.idle(), _PATIENCE_S)
        assert server.counts.cancelled == 1

    async def test_closing_cancels_at_the_server(self, engine: Engine, server: TgiServer) -> None:
        """A generation that is left early stops at the server too."""
        server.turn(output_tokens=_LONG_TOKENS, tokens_per_s=200)
        async with aclosing(engine.generate(harbour_request())) as events:
            await anext(events)
        await asyncio.wait_for(server.idle(), _PATIENCE_S)
        assert server.counts.cancelled == 1
        assert server.counts.output_tokens < _LONG_TOKENS

    async def test_usage_agrees_with_the_server(self, engine: Engine, server: TgiServer) -> None:
        """The usage told is what the server counted."""
        usages = [end_of(await collect(engine, harbour_request())).usage for _ in range(3)]
        assert sum(usage.input_tokens for usage in usages) == server.counts.input_tokens
        assert sum(usage.output_tokens for usage in usages) == server.counts.output_tokens

    async def test_text_arrives_as_it_was_sent(self, engine: Engine, server: TgiServer) -> None:
        """No character of an answer is lost or changed, line separators of Unicode included."""
        answer = 'naïve \u2028 Größe \x85 日本語 \u2029 "quoted" 👩‍🚀 data: [DONE] \\ \t end'
        server.turn(answer=answer)
        assert text_of(await collect(engine, harbour_request(Sampling(max_output_tokens=256)))) == answer

    async def test_nobody_listening_is_unavailable(self, lost_engine: Engine) -> None:
        """A closed port is BackendUnavailable for generation and for information."""
        for attempt in (collect(lost_engine, harbour_request()), lost_engine.info()):
            with pytest.raises(BackendUnavailable) as raised:
                await attempt
            assert raised.value.reason == "CONNECT"
