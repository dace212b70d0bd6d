"""The OpenAI-compatible door, through the `openai` package and, for what that never sends, bare HTTP."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from structlog.testing import capture_logs

from binnacle.events.v1 import interaction_completed_pb2 as event_pb
from tests.integration.gateway_stack import Backends, RunningGateway, running_gateway

MESSAGES: Any = [{"role": "user", "content": "What is kept?"}]
ANSWER = "Kafka keeps records [1]. They have offsets."


def _client(gateway: RunningGateway) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=gateway.http_url, api_key=gateway.api_key, max_retries=0, timeout=10)


async def _until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


async def test_plain_completion(tmp_path: Path) -> None:
    """A completion has content, usage, a finish reason, and citations in the extra field."""
    async with running_gateway(tmp_path) as gateway, _client(gateway) as client:
        completion = await client.chat.completions.create(model="default", messages=MESSAGES, user="u1")
        (choice,) = completion.choices
        assert (choice.message.content, choice.finish_reason) == (ANSWER, "stop")
        assert completion.usage is not None
        assert (completion.usage.prompt_tokens, completion.usage.total_tokens) == (20, 25)
        assert completion.model_extra is not None
        extra = completion.model_extra["binnacle"]
        assert extra["citations"][0]["document_id"] == "d1"
        assert extra["request_id"] == completion.id
        (record,) = gateway.interactions()
        assert (record.channel, record.end_user_id, record.request_id) == ("http", "u1", completion.id)


async def test_streamed_completion(tmp_path: Path) -> None:
    """Chunks join to the answer, end with one finish reason, and with usage last when asked for."""
    async with running_gateway(tmp_path) as gateway, _client(gateway) as client:
        stream = await client.chat.completions.create(
            model="default", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
        assert deltas[0].role == "assistant"
        assert "".join(delta.content or "" for delta in deltas) == ANSWER
        reasons = [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason]
        assert reasons == ["stop"]
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == 5
        assert chunks[-2].model_extra is not None
        assert chunks[-2].model_extra["binnacle"]["citations"]
        assert len({chunk.id for chunk in chunks}) == 1
        assert gateway.interactions()[0].channel == "http-stream"


async def test_stream_without_usage_has_none(tmp_path: Path) -> None:
    """Usage is streamed only when asked for."""
    async with running_gateway(tmp_path) as gateway, _client(gateway) as client:
        stream = await client.chat.completions.create(model="default", messages=MESSAGES, stream=True)
        assert [chunk.usage async for chunk in stream if chunk.usage is not None] == []


async def test_history_and_settings_reach_the_generator(tmp_path: Path) -> None:
    """System, earlier turns and sampling go along; retrieval can be switched off by the extra body."""
    async with running_gateway(tmp_path) as gateway, _client(gateway) as client:
        await client.chat.completions.create(
            model="default",
            messages=[
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Hello."},
                {"role": "assistant", "content": "Hi."},
                {"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "kept?"}]},
            ],
            temperature=0.5,
            max_tokens=7,
            stop="END",
            seed=3,
            metadata={"page": "faq"},
            extra_body={"binnacle": {"retrieval": False, "project": "shop"}},
        )
        (request,) = gateway.backends.requests("GenerateAnswer")
        assert request.question == "What is kept?"
        assert [message.content for message in request.history] == ["Be brief.", "Hello.", "Hi."]
        sampling = request.sampling
        assert (sampling.temperature, sampling.max_output_tokens, list(sampling.stop), sampling.seed) == (
            0.5,
            7,
            ["END"],
            3,
        )
        assert gateway.backends.requests("SearchChunks") == []
        (record,) = gateway.interactions()
        assert (record.project, dict(record.labels)) == ("shop", {"page": "faq"})


async def test_filter_reaches_the_retriever(tmp_path: Path) -> None:
    """A metadata filter of the extra body is the retriever's filter."""
    condition = {"comparison": {"field": "lang", "operator": "OPERATOR_EQUAL", "values": [{"stringValue": "en"}]}}
    async with running_gateway(tmp_path) as gateway, _client(gateway) as client:
        await client.chat.completions.create(
            model="default", messages=MESSAGES, extra_body={"binnacle": {"filter": condition, "top_k": 3}}
        )
        (search,) = gateway.backends.requests("SearchChunks")
        assert search.filter.comparison.field == "lang"
        assert search.top_k == 3


@pytest.mark.parametrize("streamed", [False, True])
async def test_block_is_a_content_filter(tmp_path: Path, streamed: bool) -> None:
    """A block ends with finish_reason content_filter, not with an error."""
    messages: Any = [{"role": "user", "content": "BLOCK me"}]
    async with running_gateway(tmp_path) as gateway, _client(gateway) as client:
        if streamed:
            stream = await client.chat.completions.create(model="default", messages=messages, stream=True)
            reasons = [chunk.choices[0].finish_reason async for chunk in stream]
            assert reasons[-1] == "content_filter"
        else:
            completion = await client.chat.completions.create(model="default", messages=messages)
            assert completion.choices[0].finish_reason == "content_filter"


async def test_late_block_marks_the_stream_as_filtered(tmp_path: Path) -> None:
    """Text that was streamed and then blocked ends with content_filter and says that it was retracted."""
    released, places = asyncio.Event(), []

    async def hook(name: str) -> None:
        places.append(name)
        if name == "token" and places.count("token") == 2:
            await released.wait()

    backends = Backends(tokens=("Fine. ", "And ", "BLOCK this. ", "End."), hook=hook)
    async with running_gateway(tmp_path, backends) as gateway, _client(gateway) as client:
        chunks = []
        async for chunk in await client.chat.completions.create(model="default", messages=MESSAGES, stream=True):
            chunks.append(chunk)
            if chunk.choices[0].delta.content == "Fine. ":
                released.set()
        assert chunks[-1].choices[0].finish_reason == "content_filter"
        assert chunks[-1].model_extra is not None
        assert chunks[-1].model_extra["binnacle"]["retracted"]["reason"] == "BLOCKED_OUTPUT"


async def test_models(tmp_path: Path) -> None:
    """The generator's aliases are listed, one can be got, another is not found."""
    async with running_gateway(tmp_path) as gateway, _client(gateway) as client:
        assert [model.id async for model in client.models.list()] == ["default"]
        assert (await client.models.retrieve("default")).id == "default"
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("org/none")


async def test_errors_become_the_packages_exceptions(tmp_path: Path) -> None:
    """Credentials, scopes, bounds and an unknown model become what the package raises for them."""
    async with running_gateway(tmp_path) as gateway, _client(gateway) as client:
        with pytest.raises(openai.AuthenticationError):
            await client.with_options(api_key="bk_wrong").chat.completions.create(model="default", messages=MESSAGES)
        narrow = client.with_options(api_key=gateway.narrow_key)
        with pytest.raises(openai.PermissionDeniedError):
            await narrow.chat.completions.create(model="default", messages=MESSAGES)
        with pytest.raises(openai.NotFoundError, match="nonesuch") as unknown:
            await client.chat.completions.create(model="nonesuch", messages=MESSAGES)
        assert unknown.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError) as absurd:
            await client.chat.completions.create(model="default", messages=MESSAGES, temperature=99)
        assert absurd.value.param == "temperature"
        for streamed in (False, True):
            with pytest.raises(openai.BadRequestError):
                await client.chat.completions.create(model="default", messages=[], stream=streamed)
        assert (await client.chat.completions.create(model="default", messages=MESSAGES)).choices


async def test_overload_carries_a_delay(tmp_path: Path) -> None:
    """Past the bound the status is 429 with a Retry-After."""
    go = asyncio.Event()

    async def hook(name: str) -> None:
        if name == "GenerateAnswer":
            await go.wait()

    async with (
        running_gateway(tmp_path, Backends(hook=hook), max_concurrent_answers=1) as gateway,
        _client(gateway) as client,
    ):
        first = asyncio.ensure_future(client.chat.completions.create(model="default", messages=MESSAGES))
        await _until(lambda: gateway.backends.requests("GenerateAnswer"))
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(model="default", messages=MESSAGES)
        assert int(caught.value.response.headers["retry-after"]) >= 1
        go.set()
        await first


@pytest.mark.parametrize("streamed", [False, True])
async def test_disconnect_cancels_the_answer(tmp_path: Path, streamed: bool) -> None:
    """A client that goes away is recorded as cancelled, and the generation stops."""

    async def hook(name: str) -> None:
        if name == "token":
            await asyncio.Event().wait()

    backends = Backends(tokens=("Kafka", " keeps"), hook=hook)
    async with running_gateway(tmp_path, backends) as gateway, _client(gateway) as client:
        asking = asyncio.ensure_future(
            client.chat.completions.create(model="default", messages=MESSAGES, stream=streamed)
        )
        await _until(lambda: gateway.backends.requests("GenerateAnswer"))
        asking.cancel()
        await _until(gateway.interactions)
        assert gateway.interactions()[0].outcome == event_pb.INTERACTION_OUTCOME_CANCELLED
        await _until(gateway.backends.cancelled.is_set)


async def test_failure_inside_a_stream_is_its_last_event(tmp_path: Path) -> None:
    """What breaks after text was sent is told inside the stream, which the package raises."""
    released, places = asyncio.Event(), []

    async def hook(name: str) -> None:
        places.append(name)
        if name == "token" and places.count("token") == 2:
            await released.wait()
            raise RuntimeError("broken")

    backends = Backends(tokens=("One. ", "Two. ", "Three. "), hook=hook)
    async with running_gateway(tmp_path, backends) as gateway, _client(gateway) as client:
        stream = await client.chat.completions.create(model="default", messages=MESSAGES, stream=True)
        texts = []
        with pytest.raises(openai.APIError):  # noqa: PT012  # the stream raises as it is read
            async for chunk in stream:
                texts.append(chunk.choices[0].delta.content)
                if texts[-1]:
                    released.set()
        assert "".join(text or "" for text in texts) == "One. Two. "
        assert gateway.interactions()[0].outcome == event_pb.INTERACTION_OUTCOME_FAILED


BAD_BODIES: list[tuple[bytes, str | None]] = [
    (b"", None),
    (b"{", None),
    (b"[]", None),
    (b"\xff\xfe", None),
    (b"[" * 100_000, None),
    (b'{"messages": "hi"}', "messages"),
    (b'{"messages": [1]}', "messages[0]"),
    (b'{"messages": [{"role": "tool", "content": "x"}]}', "messages[0].role"),
    (b'{"messages": [{"role": "user", "content": ""}]}', "messages"),
    (b'{"messages": [{"role": "user", "content": 5}]}', "messages[0].content"),
    (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', None),
    (b'{"messages": [{"role": "assistant", "content": "x"}]}', "messages"),
    (b'{"messages": [{"role": "user", "content": "x"}], "tempratur": 1}', "tempratur"),
    (b'{"messages": [{"role": "user", "content": "x"}], "n": 2}', "n"),
    (b'{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}', "temperature"),
    (b'{"messages": [{"role": "user", "content": "x"}], "temperature": 1' + b"0" * 400 + b"}", "temperature"),
    (b'{"messages": [{"role": "user", "content": "x"}], "seed": 1' + b"0" * 40 + b"}", "seed"),
    (b'{"messages": [{"role": "user", "content": "x"}], "max_tokens": -1}', "max_tokens"),
    (b'{"messages": [{"role": "user", "content": "x"}], "tools": [{}]}', "tools"),
    (b'{"messages": [{"role": "user", "content": "x"}], "metadata": {"a": 1}}', "metadata"),
    (b'{"messages": [{"role": "user", "content": "x"}], "binnacle": {"guard": false}}', "binnacle"),
    (b'{"messages": [{"role": "user", "content": "x"}], "binnacle": {"top_k": 99}}', "binnacle.top_k"),
    (b'{"messages": [{"role": "user", "content": "x"}], "binnacle": {"filter": {"x": 1}}}', "binnacle.filter"),
    (b'{"messages": [{"role": "user", "content": "x"}], "binnacle": {"route": "none"}}', "binnacle.route"),
    (b'{"messages": [{"role": "user", "content": "' + b"x" * 9_000 + b'"}]}', "messages"),
    (b'{"messages": [{"role": "user", "content": "' + b"x" * 3_000_000 + b'"}]}', None),
]


async def test_bad_bodies_are_bad_requests(tmp_path: Path) -> None:
    """Every bad body is a 400 in OpenAI's shape that names its parameter, and the next request works."""
    async with running_gateway(tmp_path) as gateway:
        headers = {"authorization": f"Bearer {gateway.api_key}", "content-type": "application/json"}
        async with httpx.AsyncClient(base_url=gateway.http_url, headers=headers, timeout=10) as client:
            for body, param in BAD_BODIES:
                response = await client.post("/chat/completions", content=body)
                assert response.status_code == 400, (body[:100], response.text)
                error = response.json()["error"]
                assert set(error) == {"message", "type", "param", "code"}
                assert (error["type"], error["param"]) == ("invalid_request_error", param), body[:100]
                assert response.headers["x-request-id"]
                good = json.dumps({"model": "default", "messages": MESSAGES})
                assert (await client.post("/chat/completions", content=good)).status_code == 200


async def test_body_that_dawdles_is_a_bad_request(tmp_path: Path) -> None:
    """A body whose rest does not come in time is the client's fault, told as such, and no error of ours."""
    async with running_gateway(tmp_path, slow_reader_s=0.2) as gateway:
        reader, writer = await _half_a_body(gateway)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ")
        writer.close()


async def test_client_that_leaves_amid_its_body_is_no_error(tmp_path: Path) -> None:
    """Hanging up before the body's end is noted, not logged as a failure; a whole exchange is noted as neither."""
    async with running_gateway(tmp_path) as gateway, _client(gateway) as client:
        with capture_logs() as lines:
            _, writer = await _half_a_body(gateway)
            writer.close()
            await _until(lambda: any(line["event"] == "http.disconnected" for line in lines))
        assert not [line for line in lines if line["log_level"] == "error"]
        with capture_logs() as lines:
            await client.chat.completions.create(
                model="default", messages=MESSAGES, extra_headers={"connection": "close"}
            )
            await client.models.list()
        assert not [line for line in lines if line["event"] == "http.disconnected"]


async def _half_a_body(gateway: RunningGateway) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    url = httpx.URL(gateway.http_url)
    assert url.port is not None
    reader, writer = await asyncio.open_connection(url.host, url.port)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: here\r\nauthorization: Bearer {gateway.api_key}\r\n"
        'content-type: application/json\r\ncontent-length: 500\r\n\r\n{"messages"'
    )
    writer.write(head.encode())
    await writer.drain()
    return reader, writer


async def test_unknown_paths_and_methods_have_openai_shape(tmp_path: Path) -> None:
    """What is not served is told in the same shape."""
    async with running_gateway(tmp_path) as gateway, httpx.AsyncClient(base_url=gateway.http_url) as client:
        for response in (await client.get("/none"), await client.get("/chat/completions")):
            assert response.status_code in (404, 405)
            assert response.json()["error"]["code"] == "unknown_url"


async def test_idempotency_key_header(tmp_path: Path) -> None:
    """A repeat under the header's key is the same completion; another body is refused."""
    async with running_gateway(tmp_path) as gateway, _client(gateway) as client:
        headers = {"Idempotency-Key": "k"}
        first = await client.chat.completions.create(model="default", messages=MESSAGES, extra_headers=headers)
        again = await client.chat.completions.create(model="default", messages=MESSAGES, extra_headers=headers)
        assert first.id == again.id
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(
                model="default", messages=MESSAGES, temperature=1, extra_headers=headers
            )
        assert caught.value.param == "Idempotency-Key"
