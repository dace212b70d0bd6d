"""What an engine must do that reaches a server, held against what the contract server saw.

Subclasses provide `engine`, `server` and `lost_engine` (nobody listens).
"""

import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest

from servicekit.domain.generation import EngineLoad, FinishReason, TokenEvent
from servicekit.domain.prompt import Message, Role
from servicekit.errors import BackendUnavailable
from servicekit.ports.engine import Engine
from servicekit.testing.conformance.engine import (
    GREEDY,
    PATIENCE_S,
    SCHEMA,
    EngineConformance,
    collect,
    end_of,
    harbour_request,
    text_of,
    tokens_of,
)
from servicekit.testing.tgi_server.counting import End
from servicekit.testing.tgi_server.server import TgiServer

_LONG_TOKENS = 60


class RemoteEngineConformance(EngineConformance):
    """All of the port's contract."""

    async def test_answer_ends_by_itself(self, engine: Engine, server: TgiServer) -> None:
        """The model's own end is a stop, and the end-of-sequence token is counted."""
        events = await collect(engine, harbour_request())
        assert end_of(events).finish_reason is FinishReason.STOP
        assert text_of(events) == server.dials.answer

    async def test_usage_agrees_with_the_server(self, engine: Engine, server: TgiServer) -> None:
        """The usage told is what the server counted."""
        usages = [end_of(await collect(engine, harbour_request())).usage for _ in range(3)]
        assert sum(usage.input_tokens for usage in usages) == server.counts.input_tokens
        assert sum(usage.output_tokens for usage in usages) == server.counts.output_tokens

    @pytest.mark.parametrize("stop", [(), ("source",), ("no such text",)])
    async def test_events_add_up_to_the_usage(self, engine: Engine, stop: tuple[str, ...]) -> None:
        """Every token is counted as it comes: special ones and those held back for a stop text too."""
        events = await collect(engine, harbour_request(replace(GREEDY, stop=stop)))
        assert tokens_of(events) == end_of(events).usage.output_tokens

    @pytest.mark.parametrize("question", ["When?", "Größe 日本語, \u2028 and 'quotes'?", "a " * 500])
    async def test_messages_count_what_a_generation_reads(self, engine: Engine, question: str) -> None:
        """Counting ahead gives the very number that the usage tells afterwards."""
        request = replace(harbour_request(), messages=(Message(Role.SYSTEM, "Answer."), Message(Role.USER, question)))
        ahead = await engine.count_messages(request.messages)
        assert (ahead.tokens, ahead.estimated) == (end_of(await collect(engine, request)).usage.input_tokens, False)

    async def test_tokens_are_counted_by_the_server(self, engine: Engine) -> None:
        """A text's tokens are those of the model's tokenizer."""
        count = await engine.count_tokens("one two, three")
        assert (count.tokens, count.estimated) == (4, False)

    async def test_load_counts_what_runs(self, engine: Engine, server: TgiServer) -> None:
        """A generation under way is in the load, and gone afterwards."""
        server.turn(output_tokens=_LONG_TOKENS, tokens_per_s=200)
        async with aclosing(engine.generate(harbour_request())) as events:
            await anext(events)
            assert await engine.load() == EngineLoad(0, 1)
        await asyncio.wait_for(server.idle(), PATIENCE_S)
        assert await engine.load() == EngineLoad(0, 0)

    async def test_schema_reaches_the_server(self, engine: Engine, server: TgiServer) -> None:
        """The answer is the server's for the schema."""
        server.turn(grammar_answer='{"open": true}')
        assert text_of(await collect(engine, replace(harbour_request(), output_schema=SCHEMA))) == '{"open": true}'

    async def test_adapter_reaches_the_server(self, engine: Engine, server: TgiServer) -> None:
        """An adapter is asked for by name; without one the model itself answers."""
        server.turn(adapters="maritime,legal")
        await collect(engine, replace(harbour_request(), adapter="maritime"))
        await collect(engine, harbour_request())
        assert [one.adapter for one in server.generations()] == ["maritime", ""]

    async def test_every_token_has_its_probability(self, engine: Engine) -> None:
        """As many as tokens were counted, the end-of-sequence token's among them."""
        events = await collect(engine, replace(harbour_request(), want_logprobs=True))
        told = [one for event in events if isinstance(event, TokenEvent) for one in event.logprobs]
        assert len(told) == tokens_of(events) == end_of(events).usage.output_tokens
        assert any(one.logprob < 0 for one in told)

    @pytest.mark.parametrize(("given", "sent"), [("r-1", "r-1"), ("r 1\r\nx: y\u2028", "r1x:y"), ("", None)])
    async def test_request_id_is_sent(self, engine: Engine, server: TgiServer, given: str, sent: str | None) -> None:
        """The caller's name for the work stands in the server's log; what no header can hold is left out."""
        await collect(engine, replace(harbour_request(), request_id=given))
        assert server.last_headers.get("x-request-id") == sent

    async def test_text_arrives_as_it_was_sent(self, engine: Engine, server: TgiServer) -> None:
        """No character of an answer is lost or changed, line separators of Unicode included."""
        answer = 'naïve \u2028 Größe \x85 日本語 \u2029 "quoted" 👩‍🚀 data: [DONE] \\ \t end'
        server.turn(answer=answer)
        events = await collect(engine, harbour_request(replace(GREEDY, max_output_tokens=256)))
        assert text_of(events) == answer

    async def test_connections_are_reused(self, engine: Engine, server: TgiServer) -> None:
        """Answers read to their end leave the connection to the next."""
        for _ in range(5):
            await collect(engine, harbour_request())
        assert server.connections_made == 1

    async def test_many_streams_run_at_once(self, engine: Engine, server: TgiServer) -> None:
        """No bound of the client's makes one stream wait for another."""
        server.turn(output_tokens=8, first_token_s=1.5)
        await asyncio.gather(*(collect(engine, harbour_request()) for _ in range(150)))
        assert server.counts.most_open == 150
        assert all(one.end is End.COMPLETED for one in server.generations())

    async def test_nobody_listening_is_unavailable(self, lost_engine: Engine) -> None:
        """A closed port is BackendUnavailable, whatever is asked."""
        messages = harbour_request().messages
        for attempt in (
            collect(lost_engine, harbour_request()),
            lost_engine.info(),
            lost_engine.load(),
            lost_engine.count_messages(messages),
        ):
            with pytest.raises(BackendUnavailable) as raised:
                await attempt
            assert raised.value.reason == "CONNECT"
