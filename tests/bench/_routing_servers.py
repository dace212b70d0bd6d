"""Contract servers over HTTP for the routing benchmark, each with a TGI engine, in this process and in real time.

An oracle may look into them. The servers and the client share the process, so that no clock differs.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

from servicekit.adapters.registry import open_engine
from servicekit.ports.engine import Engine
from servicekit.testing.tgi_server.answering import Answer
from servicekit.testing.tgi_server.counting import End, Stage
from servicekit.testing.tgi_server.dials import Dials
from servicekit.testing.tgi_server.scheduling import Sequence as Generation
from servicekit.testing.tgi_server.server import TgiServer, open_tgi_server
from servicekit.testing.tgi_server.tokenizer import split
from tests.bench._routing_foresight import Queued, first_token_in_s, new_tokens
from tests.bench._routing_policies import Spent, TellsAll

# As long as any request may ask for, so that each ends at its own `max_output_tokens`.
_ANSWER_TOKENS = 2_000


class WatchedServer:
    """A contract server that an oracle may look into."""

    def __init__(self, server: TgiServer) -> None:
        self._server = server
        self._machine = server._machine

    @property
    def dials(self) -> Dials:
        """How it is set."""
        return self._server.dials

    @property
    def spent(self) -> Spent:
        """What it did so far."""
        read = [one for one in self._server.generations() if one.stage is not Stage.QUEUED]
        wasted = [one for one in read if one.end is not End.COMPLETED]
        return Spent(
            sum(one.input_tokens for one in read),
            sum(one.cached_tokens for one in read),
            sum(one.input_tokens - one.cached_tokens + one.output_tokens for one in wasted),
        )

    def exact_wait_s(self, prompt: str, now_s: float) -> float:
        """When such a prompt would have its first token; what is under way now is taken to be over."""
        scheduler = self._machine.scheduler()
        return first_token_in_s(
            self.dials,
            busy_s=0.0,
            batch_left=[self._left(one) for one in scheduler.batch],
            queue=[self._queued(_answer(one)._plan.input_texts, self._left(one)) for one in scheduler.waiting],
            mine=self._queued(split(f"User: {prompt}"), 1),
        )

    @staticmethod
    def _left(generation: Generation) -> int:
        answer = _answer(generation)
        return len(answer._plan.pieces) - answer._generation.output_tokens

    def _queued(self, texts: Sequence[str], output_tokens: int) -> Queued:
        new = new_tokens(texts, self._machine._cache, self.dials.prefix_block_tokens)
        return Queued(len(texts), new, output_tokens)


def _answer(generation: Generation) -> Answer:
    """Whose tokens they are."""
    owner = getattr(generation.admitted, "__self__", None)
    assert isinstance(owner, Answer)
    return owner


@asynccontextmanager
async def open_servers(dials: Sequence[Dials]) -> AsyncIterator[tuple[list[Engine], dict[str, TellsAll]]]:
    """An engine for each, and what an oracle sees of them by address."""
    async with AsyncExitStack() as stack:
        engines: list[Engine] = []
        servers: dict[str, TellsAll] = {}
        for one in dials:
            server = await stack.enter_async_context(open_tgi_server(replace(one, output_tokens=_ANSWER_TOKENS)))
            engine = await stack.enter_async_context(open_engine(server.url.replace("http://", "tgi://")))
            engines.append(engine)
            servers[engine.address] = WatchedServer(server)
        yield engines, servers
