"""How a pool learns of its replicas: who is there, what they serve, what they have to do."""

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest

from servicekit.domain.generation import EngineLoad
from servicekit.domain.prompt import Message, Role
from servicekit.errors import BackendUnavailable, InvalidRequest
from services.generator.pool.discovery import DnsDiscovery
from services.generator.pool.opening import running
from services.generator.pool.replica_pool import ReplicaPool
from tests.pool_stand import INFO, SetDiscovery, SetEngine, connect_error, work
from tests.virtual_time import LoopClock, run_virtually


def virtually(main: Coroutine[Any, Any, None]) -> None:
    """In virtual time, and never for ever."""
    run_virtually(asyncio.wait_for(main, 10_000))


def addresses(pool: ReplicaPool) -> list[str]:
    """In order."""
    return [status.address for status in pool.statuses()]


def test_info_is_what_all_replicas_can_do() -> None:
    """The narrowest window, and all places together."""

    async def main() -> None:
        wide = SetEngine("set://0", info=replace(INFO, max_concurrent_requests=8))
        narrow = SetEngine("set://1", info=replace(INFO, max_total_tokens=2_048, max_concurrent_requests=4))
        info = await ReplicaPool([wide, narrow], clock=LoopClock()).info()
        assert (info.max_total_tokens, info.max_concurrent_requests) == (2_048, 12)

    virtually(main())


def test_one_replica_that_answers_is_enough() -> None:
    """A ping returns while another refuses, and raises when all do."""

    async def main() -> None:
        up, down = SetEngine("set://0"), SetEngine("set://1")
        down.error = connect_error()
        pool = ReplicaPool([down, up], clock=LoopClock())
        await pool.ping()
        async with pool.lease(work(), within_s=1) as lease:
            assert lease.engine is up
        up.error = connect_error()
        with pytest.raises(BackendUnavailable) as error:
            await pool.ping()
        assert error.value.reason == "CONNECT"

    virtually(main())


def test_a_replica_that_serves_another_model_is_kept_out() -> None:
    """The majority's model and revision is the pool's; the other is told of and gets nothing."""

    async def main() -> None:
        engines = [SetEngine(f"set://{n}") for n in range(3)]
        engines[0].told = replace(INFO, revision="r2")
        pool = ReplicaPool(engines, clock=LoopClock())
        assert (await pool.refresh()).revision == "r1"
        told = [(status.state.value, status.last_error_reason) for status in pool.statuses()]
        assert told == [("ejected", "MODEL_MISMATCH"), ("healthy", ""), ("healthy", "")]
        for _ in range(20):
            async with pool.lease(work(), within_s=1) as lease:
                assert lease.engine is not engines[0]

    virtually(main())


def test_counting_asks_another_replica_when_one_cannot() -> None:
    """Any healthy one will do."""

    async def main() -> None:
        down, up = SetEngine("set://0"), SetEngine("set://1")
        pool = ReplicaPool([down, up], clock=LoopClock())
        await pool.refresh()
        down.error = connect_error()
        assert (await pool.count_tokens("two words")).tokens == 2
        assert (await pool.count_messages([Message(Role.USER, "hi")])).tokens == 1
        up.error = connect_error()
        with pytest.raises(BackendUnavailable):
            await pool.count_tokens("two words")

    virtually(main())


def test_loads_are_asked_for_only_while_there_is_traffic() -> None:
    """About twice a second after work came, never otherwise; ListModels tells them."""

    async def main() -> None:
        engine = SetEngine("set://0")
        engine.queue = EngineLoad(3, 5)
        async with running(ReplicaPool([engine], clock=LoopClock())) as pool:
            await asyncio.sleep(60)
            assert engine.loads_asked == 0
            async with pool.lease(work(), within_s=1):
                pass
            await asyncio.sleep(60)
            assert 7 <= engine.loads_asked <= 14
            status = pool.statuses()[0]
            assert (status.queued_requests, status.running_requests) == (3, 5)

    virtually(main())


def test_replicas_come_and_go_with_discovery() -> None:
    """A new address gets work within a round; one that went gets none, and is closed once its work is over."""

    async def main() -> None:
        names = SetDiscovery({"set://a", "set://b"})
        async with running(ReplicaPool(clock=LoopClock(), discovery=names)) as pool:
            await pool.ping()
            assert addresses(pool) == ["set://a", "set://b"]
            async with AsyncExitStack() as stack:
                held = await stack.enter_async_context(pool.lease(work(), within_s=1, avoid=frozenset({"set://b"})))
                names.urls = {"set://b", "set://c"}
                await asyncio.sleep(20)
                assert addresses(pool) == ["set://b", "set://c"]
                assert not names.opened["set://a"].closed
                held.received(5)
            await asyncio.sleep(20)
            assert names.opened["set://a"].closed
        assert all(engine.closed for engine in names.opened.values())

    virtually(main())


def test_replicas_stay_while_discovery_fails() -> None:
    """A resolver that is away takes nobody out."""

    async def main() -> None:
        names = SetDiscovery({"set://a"})
        async with running(ReplicaPool(clock=LoopClock(), discovery=names)) as pool:
            await pool.ping()
            names.error = BackendUnavailable("no", reason="DNS")
            await asyncio.sleep(60)
            assert addresses(pool) == ["set://a"]

    virtually(main())


def test_a_replica_that_did_not_answer_at_first_joins_later() -> None:
    """It is asked again every few seconds."""

    async def main() -> None:
        up, late = SetEngine("set://0"), SetEngine("set://1")
        late.error = connect_error()
        async with running(ReplicaPool([up, late], clock=LoopClock())) as pool:
            await pool.ping()
            late.error = None
            await asyncio.sleep(5)
            async with pool.lease(work(), within_s=1, avoid=frozenset({"set://0"})) as lease:
                assert lease.engine is late

    virtually(main())


async def test_dns_names_every_address_of_the_host() -> None:
    """As URLs with the port and the options of the one given."""
    urls = await DnsDiscovery("tgi://localhost:8080?tls=false", lambda url: AsyncExitStack()).find()  # type: ignore[arg-type,return-value]  # never opened
    assert "tgi://127.0.0.1:8080?tls=false" in urls


async def test_a_name_that_does_not_resolve_is_unavailable() -> None:
    """With DNS as the reason."""
    with pytest.raises(BackendUnavailable) as error:
        await DnsDiscovery("tgi://nowhere.invalid:80", lambda url: AsyncExitStack()).find()  # type: ignore[arg-type,return-value]  # never opened
    assert error.value.reason == "DNS"


def test_a_dns_url_cannot_ask_for_tls() -> None:
    """Replicas found by DNS are reached by address, for which no certificate holds: it is said at start."""
    with pytest.raises(InvalidRequest, match="no certificate"):
        DnsDiscovery("tgi://tgi:8080?tls=true", lambda url: AsyncExitStack())  # type: ignore[arg-type,return-value]  # never opened


def test_a_dns_url_needs_a_port() -> None:
    """Addresses alone do not say where to connect."""
    with pytest.raises(InvalidRequest, match="needs host and port"):
        DnsDiscovery("tgi://tgi", lambda url: AsyncExitStack())  # type: ignore[arg-type,return-value]  # never opened
