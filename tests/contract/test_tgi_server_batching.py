"""The contract server batches as a model server does: queue, prefill, decode steps and prefix cache take their time."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from servicekit.testing.tgi_server.server import TgiServer, open_tgi_server

_PATIENCE_S = 20.0


@pytest.fixture
async def server() -> AsyncIterator[TgiServer]:
    """A contract server."""
    async with open_tgi_server() as running:
        yield running


@pytest.fixture
async def http(server: TgiServer) -> AsyncIterator[httpx2.AsyncClient]:
    """A plain HTTP client on it."""
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(base_url=server.url, trust_env=False, limits=limits, timeout=_PATIENCE_S) as client:
        yield client


async def _ask(http: httpx2.AsyncClient, identity: str, *, words: int = 1, **parameters: Any) -> None:
    body = {"inputs": " ".join([identity] * words), "parameters": parameters}
    answer = await http.post("/generate", json=body, headers={"x-request-id": identity})
    assert answer.status_code == 200


async def _took(*work: Any) -> float:
    began = time.monotonic()
    await asyncio.gather(*work)
    return time.monotonic() - began


async def test_a_decode_step_serves_the_whole_batch(http: httpx2.AsyncClient, server: TgiServer) -> None:
    """Ten sequences together take hardly longer than one alone, by the step's share per sequence."""
    server.turn(decode_step_s=0.01, output_tokens=20)
    alone_s = await _took(_ask(http, "a"))
    together_s = await _took(*(_ask(http, f"b{number}") for number in range(10)))
    assert alone_s >= 20 * 0.01
    assert together_s < 3 * alone_s
    server.turn(decode_step_s=0.0, decode_step_per_sequence_s=0.002)
    assert await _took(*(_ask(http, f"c{number}") for number in range(10))) >= 19 * 10 * 0.002


async def test_prefill_takes_time_by_input_tokens(http: httpx2.AsyncClient, server: TgiServer) -> None:
    """A longer prompt waits longer for its first token."""
    server.turn(prefill_tokens_per_s=2_000)
    await _ask(http, "short", words=2)
    await _ask(http, "long", words=400)
    (short,), (long,) = server.generations("short"), server.generations("long")
    assert short.first_token_s is not None
    assert long.first_token_s is not None
    assert long.first_token_s >= 400 / 2_000 > short.first_token_s


@pytest.mark.parametrize("speed", [{"tokens_per_s": 100}, {"decode_step_s": 0.01}])
async def test_what_does_not_fit_into_the_batch_queues(
    http: httpx2.AsyncClient, server: TgiServer, speed: dict[str, float]
) -> None:
    """With two places, six requests of the same length take three turns, and the metrics show who waits."""
    server.turn(max_batch_size=2, output_tokens=10, **speed)
    asked = asyncio.gather(*(_ask(http, f"r{number}") for number in range(6)))
    async with asyncio.timeout(_PATIENCE_S):
        while server.counts.open < 6:
            await asyncio.sleep(0)
    text = (await http.get("/metrics")).text
    assert "\ntgi_queue_size 4\n" in text
    assert "\ntgi_batch_current_size 2\n" in text
    await asked
    waits = sorted(server.generations(f"r{number}")[0].queue_s for number in range(6))
    assert waits[1] < 0.09 <= waits[2]
    assert waits[4] >= 0.18


async def test_the_batch_has_a_budget_of_tokens(http: httpx2.AsyncClient, server: TgiServer) -> None:
    """A budget for two sequences lets the third wait; one that is larger than the budget runs alone."""
    server.turn(max_batch_total_tokens=24, tokens_per_s=100, output_tokens=10)
    await asyncio.gather(*(_ask(http, f"r{number}", max_new_tokens=10) for number in range(3)))
    waits = sorted(server.generations(f"r{number}")[0].queue_s for number in range(3))
    assert waits[1] < 0.09 <= waits[2]
    await _ask(http, "large", words=100, max_new_tokens=10)


async def test_a_prefix_that_was_seen_is_not_prefilled_again(http: httpx2.AsyncClient, server: TgiServer) -> None:
    """Whole blocks from the front are cached, the last token never, and what is cached costs no time."""
    server.turn(prefix_cache_blocks=100, prefill_tokens_per_s=1_000)
    prompt = " ".join(str(number) for number in range(160))
    for identity, text in (
        ("cold", prompt),
        ("warm", prompt),
        ("longer", f"{prompt} and more"),
        ("other", f"x {prompt}"),
    ):
        await http.post("/generate", json={"inputs": text}, headers={"x-request-id": identity})
    cached = {one.id: one.cached_tokens for one in server.generations()}
    assert cached == {"cold": 0, "warm": 159, "longer": 160, "other": 0}
    cold, warm = server.generations("cold")[0], server.generations("warm")[0]
    assert cold.first_token_s is not None
    assert warm.first_token_s is not None
    assert warm.first_token_s < 0.16 <= cold.first_token_s
    assert server.counts.cached_tokens == 319
    chat = {"messages": [{"role": "user", "content": prompt}]}
    first = (await http.post("/v1/chat/completions", json=chat)).json()["usage"]
    again = (await http.post("/v1/chat/completions", json=chat)).json()["usage"]
    assert first["prompt_tokens_details"] == {"cached_tokens": 0}
    assert again["prompt_tokens_details"] == {"cached_tokens": again["prompt_tokens"] // 16 * 16}


async def test_the_prefix_cache_forgets_what_was_not_used(http: httpx2.AsyncClient, server: TgiServer) -> None:
    """A cache of four blocks keeps the prompts that came last."""
    server.turn(prefix_cache_blocks=4, prefix_block_tokens=8)
    prompts = [" ".join(f"{mark}{number}" for number in range(17)) for mark in "abc"]
    for prompt in (*prompts, prompts[1], prompts[0]):
        await http.post("/generate", json={"inputs": prompt})
    assert [one.cached_tokens for one in server.generations()] == [0, 0, 0, 16, 0]


async def test_streams_keep_their_own_pace(http: httpx2.AsyncClient, server: TgiServer) -> None:
    """At tokens_per_s a hundred streams take as long as one."""
    server.turn(tokens_per_s=100, first_token_s=0.05, output_tokens=20)
    took_s = await _took(*(_ask(http, f"r{number}") for number in range(100)))
    assert 0.05 + 20 / 100 <= took_s < 2


async def test_metrics_are_prometheus_text_as_tgi_prints_it(http: httpx2.AsyncClient, server: TgiServer) -> None:
    """Counters without `_total`, cumulative histograms, failures by kind."""
    await _ask(http, "fine")
    server.turn(fault="refuse")
    await http.post("/generate", json={"inputs": "x"})
    text = (await http.get("/metrics")).text
    for line in (
        "tgi_request_count 2",
        "tgi_request_success 1",
        "tgi_queue_size 0",
        "tgi_batch_current_size 0",
        "tgi_batch_current_max_tokens 0",
        'tgi_request_failure{err="overloaded"} 1',
        "# TYPE tgi_request_queue_duration histogram",
        'tgi_request_queue_duration_bucket{le="+Inf"} 1',
        "tgi_request_generated_tokens_sum 13",
    ):
        assert line in text.splitlines()
