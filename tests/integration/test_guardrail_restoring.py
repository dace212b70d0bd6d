"""RestoreText through the guardrail's own server: who gets values back, from which store, and what is refused."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fakeredis
import pytest
from prometheus_client import generate_latest
from structlog.testing import capture_logs

from binnacle.guardrail.v1 import guardrail_service_pb2 as rpc
from binnacle.guardrail.v1 import guardrail_service_pb2_grpc as stubs
from binnacle.type.v1 import verdict_pb2
from servicekit.adapters.memory.event_bus import MemoryEventBus
from servicekit.errors import BackendUnavailable, BinnacleError, InvalidRequest, PermissionDenied
from servicekit.rpc.status import to_error
from servicekit.runtime.service import Service, Stack
from servicekit.testing.in_process import Trust, caller, channel_to, running_service
from services.guardrail import bootstrap
from services.guardrail.config import Settings

ADDRESS = "ada@analytical.org"
CONTEXT = rpc.CheckContext(request_id="r-1", conversation_id="c-1")
KEY = "ab" * 32
MAY = ("guard", "restore")


@dataclass
class Running:
    """A running guardrail."""

    stub: Any
    bus: MemoryEventBus

    async def redacted(self, text: str, context: rpc.CheckContext = CONTEXT) -> str:
        """As CheckInput gives it back."""
        response = await self.stub.CheckInput(rpc.CheckInputRequest(text=text, context=context))
        return str(response.text)

    async def restored(self, *texts: str, context: rpc.CheckContext = CONTEXT) -> rpc.RestoreTextResponse:
        """As RestoreText gives them back; errors as ours."""
        try:
            response: rpc.RestoreTextResponse = await self.stub.RestoreText(
                rpc.RestoreTextRequest(texts=texts, context=context)
            )
        except Exception as exc:
            raise to_error(exc, "guardrail") from exc  # type: ignore[arg-type]  # gRPC's
        return response


@asynccontextmanager
async def guardrail(folder: Path, **settings: Any) -> AsyncIterator[Running]:
    """A guardrail; callers name themselves."""
    folder.mkdir(exist_ok=True)
    trust, kept = Trust.create(folder), dict[str, Any]()

    async def build(configured: Settings, stack: Stack) -> Service:
        service = await bootstrap.build(configured, stack)
        kept["bus"] = service.bus
        return service

    values: dict[str, Any] = {"port": 0, "metrics_port": 0, "drain_s": 0, "event_bus_url": "memory://"}
    values |= {"state_dir": folder, "token_public_key_file": trust.public_key_file, "allow_memory_vault": True}
    async with (
        running_service(Settings(**{**values, **settings}), build) as lifecycle,
        channel_to(lifecycle, trust) as channel,
    ):
        yield Running(stubs.GuardrailServiceStub(channel), kept["bus"])


@pytest.fixture
def redis_url() -> Iterator[str]:
    """A server that speaks Redis' protocol."""
    server = fakeredis.TcpFakeServer(("127.0.0.1", 0))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"redis://127.0.0.1:{server.server_address[1]}/0?timeout_s=20"
    server.shutdown()
    server.server_close()
    thread.join()


async def test_values_come_back_for_those_allowed(tmp_path: Path) -> None:
    """Exactly, as often as they are asked for; counts say how many were replaced and how many stayed."""
    async with guardrail(tmp_path) as running:
        with caller(scopes=MAY):
            redacted = await running.redacted(f"I am {ADDRESS} ({ADDRESS.upper()}).")
            assert "nalytical" not in redacted
            response = await running.restored(redacted, "Dear [EMAIL_1], [EMAIL_7].", "")
    assert list(response.texts) == [f"I am {ADDRESS} ({ADDRESS.upper()}).", f"Dear {ADDRESS}, [EMAIL_7].", ""]
    assert (response.restored_count, response.unknown_count) == (3, 1)


async def test_others_get_placeholders_or_nothing(tmp_path: Path) -> None:
    """No scope: refused. Another tenant, conversation or request: placeholders stay."""
    async with guardrail(tmp_path) as running:
        with caller(scopes=MAY):
            await running.redacted(f"I am {ADDRESS}.")
            foreign = await running.restored("[EMAIL_1]", context=rpc.CheckContext(conversation_id="c-2"))
            request = await running.restored("[EMAIL_1]", context=rpc.CheckContext(request_id="c-1"))
        with caller(tenant="globex", scopes=MAY):
            other = await running.restored("[EMAIL_1]")
        with caller(scopes=("guard",)), pytest.raises(PermissionDenied):
            await running.restored("[EMAIL_1]")
    assert [list(response.texts) for response in (foreign, request, other)] == [["[EMAIL_1]"]] * 3


async def test_without_a_conversation_the_request_is_one(tmp_path: Path) -> None:
    """Values of a request come back by its id."""
    context = rpc.CheckContext(request_id="r-9")
    async with guardrail(tmp_path) as running:
        with caller(scopes=MAY):
            redacted = await running.redacted(f"I am {ADDRESS}.", context)
            response = await running.restored(redacted, context=context)
    assert list(response.texts) == [f"I am {ADDRESS}."]


async def test_answers_are_restored_only_as_far_as_users_typed(tmp_path: Path) -> None:
    """What the model wrote by itself is redacted for good; what it repeats of the question comes back."""
    async with guardrail(tmp_path) as running:
        with caller(scopes=MAY):
            await running.redacted(f"I am {ADDRESS}.")
            answer = await running.stub.CheckOutput(
                rpc.CheckOutputRequest(text=f"Hello {ADDRESS}, write to boss@corp.org.", context=CONTEXT)
            )
            response = await running.restored(answer.text)
    assert answer.text == "Hello [EMAIL_1], write to [EMAIL_2]."
    assert list(response.texts) == [f"Hello {ADDRESS}, write to [EMAIL_2]."]


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (rpc.RestoreTextRequest(texts=["x"]), "context"),
        (rpc.RestoreTextRequest(context=CONTEXT), "texts"),
        (rpc.RestoreTextRequest(context=CONTEXT, texts=["x"] * 33), "texts"),
        (rpc.RestoreTextRequest(context=CONTEXT, texts=["", "x" * 65_537]), "texts[1]"),
    ],
)
async def test_requests_out_of_bounds_are_refused(tmp_path: Path, request_: Any, field: str) -> None:
    """INVALID_ARGUMENT names the field."""
    async with guardrail(tmp_path) as running:
        with caller(scopes=MAY), pytest.raises(Exception) as failed:  # noqa: PT011  # gRPC's, read below
            await running.stub.RestoreText(request_)
    error = to_error(failed.value, "guardrail")  # type: ignore[arg-type]  # gRPC's
    assert isinstance(error, InvalidRequest)
    assert error.field == field


async def test_replicas_on_redis_share_values(tmp_path: Path, redis_url: str) -> None:
    """What one replica redacts another restores; a third with another key does not."""
    key, other = tmp_path / "vault.key", tmp_path / "other.key"
    key.write_text(f"{KEY}\n", encoding="ascii")
    other.write_text(f"{KEY[::-1]}\n", encoding="ascii")
    shared = {"state_store_url": redis_url, "vault_key_file": key, "allow_memory_vault": False}
    async with (
        guardrail(tmp_path / "1", **shared) as one,
        guardrail(tmp_path / "2", **shared) as two,
        guardrail(tmp_path / "3", **shared | {"vault_key_file": other}) as three,
    ):
        with caller(scopes=MAY):
            redacted = await one.redacted(f"I am {ADDRESS}.")
            assert list((await two.restored(redacted)).texts) == [f"I am {ADDRESS}."]
            assert await two.redacted(f"{ADDRESS} and b@b.org") == "[EMAIL_1] and [EMAIL_2]"
            assert list((await three.restored(redacted)).texts) == [redacted]


async def test_replicas_that_redact_one_conversation_at_once_agree(tmp_path: Path, redis_url: str) -> None:
    """Every value has one placeholder, no placeholder two values, and all of them come back."""
    key = tmp_path / "vault.key"
    key.write_text(f"{KEY}\n", encoding="ascii")
    shared = {"state_store_url": redis_url, "vault_key_file": key}
    texts = [f"{number % 7}@x.org" for number in range(42)]
    async with guardrail(tmp_path / "1", **shared) as one, guardrail(tmp_path / "2", **shared) as two:
        with caller(scopes=MAY):
            said = await asyncio.gather(*((one, two)[place % 2].redacted(text) for place, text in enumerate(texts)))
            back = await two.restored(*sorted(set(said)))
    pairs = set(zip(texts, said, strict=True))
    assert len(pairs) == len({text for text, _ in pairs}) == len({name for _, name in pairs}) == 7
    assert set(zip(back.texts, sorted(set(said)), strict=True)) == pairs


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"allow_memory_vault": False}, "ALLOW_MEMORY_VAULT"),
        ({"state_store_url": "redis://127.0.0.1:1/0"}, "VAULT_KEY_FILE"),
        ({"state_store_url": "redis://127.0.0.1:1/0", "vault_key_file": "/nowhere/keys"}, "/nowhere/keys"),
    ],
)
async def test_a_vault_that_would_lose_values_is_refused_at_start(
    tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    """Memory that was not asked for, and a shared store without a shared key."""
    with pytest.raises(InvalidRequest, match=said):
        async with guardrail(tmp_path, **settings):
            pass


@pytest.mark.parametrize(("mode", "action"), [("open", "ACTION_REDACT"), ("closed", "ACTION_BLOCK")])
async def test_while_the_store_is_away_a_verdict_says_so(
    tmp_path: Path, unused_tcp_port: int, mode: str, action: str
) -> None:
    """Redaction goes on unless it fails closed; restoring is UNAVAILABLE; no value is in the logs or the events."""
    key = tmp_path / "vault.key"
    key.write_text(f"{KEY}\n", encoding="ascii")
    url = f"redis://127.0.0.1:{unused_tcp_port}/0?timeout_s=0.5"
    with capture_logs() as logs:
        async with guardrail(tmp_path, state_store_url=url, vault_key_file=key, vault_failure=mode) as running:
            with caller(scopes=MAY):
                request = rpc.CheckInputRequest(text=f"I am {ADDRESS}.", context=CONTEXT)
                response = await running.stub.CheckInput(request)
                harmless = await running.stub.CheckInput(rpc.CheckInputRequest(text="Hello.", context=CONTEXT))
                with pytest.raises(BinnacleError) as failed:
                    await running.restored("[EMAIL_1]")
    assert verdict_pb2.Action.Name(response.action) == action
    assert response.verdicts[-1].rule == "vault.not_kept"
    assert response.text.startswith("I am [EMAIL_x") or mode == "closed"
    assert harmless.action == verdict_pb2.ACTION_ALLOW
    assert isinstance(failed.value, BackendUnavailable)
    assert any(line["event"] == "vault.unavailable" for line in logs)
    assert "analytical" not in f"{logs}{[event.message for event in running.bus.published]}"


async def test_no_value_is_written_down(tmp_path: Path) -> None:
    """Neither logs, events, metrics nor files of a redaction and its restoring hold what was typed."""
    with capture_logs() as logs:
        async with guardrail(tmp_path) as running:
            with caller(scopes=MAY):
                await running.restored(await running.redacted(f"I am {ADDRESS}."))
    written = f"{logs}{[event.message for event in running.bus.published]}".encode()
    written += generate_latest() + b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert b"analytical" not in written
    assert (tmp_path / "vault.key").stat().st_mode & 0o077 == 0
