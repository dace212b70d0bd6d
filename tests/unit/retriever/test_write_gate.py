"""The write gate: many writes at once, none while a switch is made, and nobody waits for ever."""

import asyncio

import pytest

from services.retriever.index import write_gate
from services.retriever.index.write_gate import WriteGate


async def test_a_switch_waits_for_writes_and_holds_new_ones_back() -> None:
    """Writes under way end first; one that comes meanwhile begins after the switch; other tenants go on."""
    gate = WriteGate()
    seen: list[str] = []
    first_may_end = asyncio.Event()

    async def write(name: str, tenant: str = "acme", *, until: asyncio.Event | None = None) -> None:
        async with gate.writing(tenant):
            seen.append(f"{name} begins")
            if until is not None:
                await until.wait()
            seen.append(f"{name} ends")

    async def switch() -> None:
        async with gate.still("acme"):
            seen.append("switch")
            await asyncio.sleep(0)
            seen.append("switched")

    async with asyncio.TaskGroup() as group:
        group.create_task(write("first", until=first_may_end))
        await asyncio.sleep(0)
        group.create_task(switch())
        await asyncio.sleep(0)
        group.create_task(write("second"))
        group.create_task(write("other", "globex"))
        await asyncio.sleep(0)
        first_may_end.set()
    assert seen[0] == "first begins"
    assert seen.index("other ends") < seen.index("first ends") < seen.index("switch")
    assert seen[-4:] == ["switch", "switched", "second begins", "second ends"]


async def test_the_gate_opens_again_where_writes_do_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that hangs costs the switch, not the writes behind it."""
    monkeypatch.setattr(write_gate, "MAX_WAIT_S", 0.01)
    gate = WriteGate()
    async with gate.writing("acme"):
        with pytest.raises(TimeoutError):
            async with gate.still("acme"):
                pytest.fail("a write is under way")
        async with asyncio.timeout(1), gate.writing("acme"):
            pass
