"""The sum over all attempts is what the servers counted, whatever fails, is cancelled, retried or hedged."""

import asyncio
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from itertools import pairwise

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from servicekit.domain.generation import Attempt, FinishReason, TokenEvent
from servicekit.errors import BinnacleError
from servicekit.testing.tgi_server.server import TgiServer, open_tgi_server
from services.generator.generating import Answer, Generator, Spent
from tests.integration.generator_pools import (
    PRICES,
    eager_hedging,
    open_generator,
    question,
    recorded_attempts,
    served_by,
    spent_at,
    url_of,
)

_PATIENCE_S = 20.0
# Slow enough that between a token and the next a cancellation reaches the server.
_TOKENS_PER_S = 12
_OUTPUT_TOKENS = 4
_FAULTS = (
    "none",
    "refuse",
    "unavailable",
    "drop",
    "hang",
    "stall",
    "cut",
    "end_early",
    "garbage",
    "error",
    "incomplete",
)


@dataclass(frozen=True)
class Asking:
    """One request: its length, and after how many tokens its caller goes (None: never)."""

    words: int
    leaves_after: int | None


@dataclass(frozen=True)
class Trouble:
    """How a server fails: after so many tokens, so many requests (-1: all), each first token so late."""

    fault: str
    after: int
    requests: int
    first_token_s: float


_ASKING = st.builds(Asking, st.integers(1, 60), st.none() | st.integers(1, _OUTPUT_TOKENS - 1))
_TROUBLE = st.builds(
    Trouble,
    st.sampled_from(_FAULTS),
    st.sampled_from((0, 0, 2)),
    st.sampled_from((-1, 1, 2)),
    st.sampled_from((0.0, 0.0, 0.3)),
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(_ASKING, min_size=1, max_size=6), st.tuples(_TROUBLE, _TROUBLE, _TROUBLE), st.booleans())
@example(
    [Asking(5, 1)] * 3, (Trouble("hang", 0, -1, 0.0), Trouble("none", 0, -1, 0.0), Trouble("none", 0, -1, 0.0)), True
)
@example(
    [Asking(9, None)] * 4, (Trouble("cut", 2, -1, 0.0), Trouble("none", 0, -1, 0.3), Trouble("drop", 0, 1, 0.0)), True
)
def test_attempts_add_up_to_what_the_servers_counted(
    askings: list[Asking], troubles: tuple[Trouble, Trouble, Trouble], hedging: bool
) -> None:
    """Input, output and money of all attempts, whatever their ends, are those of the servers, exactly."""
    asyncio.run(_reconcile(askings, troubles, hedging=hedging))


async def _reconcile(askings: list[Asking], troubles: tuple[Trouble, ...], *, hedging: bool) -> None:
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(open_tgi_server()) for _ in troubles]
        attempts = stack.enter_context(recorded_attempts())
        stack.enter_context(eager_hedging(0.1))
        generator = await stack.enter_async_context(open_generator(_models(servers, hedging=hedging)))
        for server, trouble in zip(servers, troubles, strict=True):
            server.turn(
                output_tokens=_OUTPUT_TOKENS,
                tokens_per_s=_TOKENS_PER_S,
                first_token_s=trouble.first_token_s,
                fault=trouble.fault,
                fault_after_tokens=trouble.after,
                fault_requests=trouble.requests,
            )
        async with asyncio.timeout(_PATIENCE_S):
            told = await asyncio.gather(*(_ask(generator, asking) for asking in askings))
            for server in servers:
                await server.idle()
    for server in servers:
        assert spent_at(server, attempts) == served_by(server), server.generations()
    _check_money(attempts)
    _check_told(told, attempts)


def _models(servers: list[TgiServer], *, hedging: bool) -> dict[str, object]:
    """Two replicas behind `default`, the third server its fallback."""
    urls = [url_of(server, "tgi") for server in servers]
    replicas = {"urls": urls[:2], "hedging": hedging, "first_token_s": 0.8, "attempt_s": 2.0}
    spare = {"url": urls[2], "first_token_s": 0.8, "attempt_s": 2.0}
    return {
        "extractive_fallback": False,
        "models": {
            "default": {"engines": [replicas], "fallbacks": ["spare"], **PRICES},
            "spare": {"engines": [spare], **PRICES},
        },
    }


async def _ask(generator: Generator, asking: Asking) -> tuple[Attempt, ...]:
    """The attempts that the caller was told of; none if it left."""
    seen = 0
    try:
        async with aclosing(generator.answer(question(asking.words))) as events:
            async for event in events:
                if isinstance(event, Answer | Spent):
                    return event.attempts
                assert isinstance(event, TokenEvent)
                seen += event.token_count
                if asking.leaves_after is not None and seen >= asking.leaves_after:
                    return ()
    except BinnacleError:
        pass
    raise AssertionError("neither an answer nor what was spent")


def _check_money(attempts: list[Attempt]) -> None:
    for attempt in attempts:
        assert attempt.cost.microusd == attempt.usage.input_tokens + 2 * attempt.usage.output_tokens
        if attempt.finish_reason is FinishReason.CANCELLED:
            assert not attempt.usage.estimated


def _check_told(told: list[tuple[Attempt, ...]], attempts: list[Attempt]) -> None:
    """What a caller is told is what was recorded, numbered in order."""
    for mine in told:
        assert all(attempt in attempts for attempt in mine)
        assert all(before.number < after.number for before, after in pairwise(mine))
