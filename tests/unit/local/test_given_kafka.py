"""A Kafka that is given to the stack, and is not there."""

import pytest

from servicekit.errors import InvalidRequest
from services.local import supervisor
from services.local.layout import Layout, choose_ports
from services.local.process import StartFailed


async def _start(data_dir, kafka: str) -> None:  # noqa: ANN001  # pytest's own
    layout = Layout(data_dir, choose_ports({}, free=True), overrides={})
    try:
        async with supervisor.run_stack(layout, say=lambda _line: None, kafka=kafka) as stack:
            pytest.fail(f"it started {list(stack.processes)}")
    except* (StartFailed, InvalidRequest) as failed:
        raise failed.exceptions[0] from None


async def test_absent_kafka_is_said_before_anything_starts(
    tmp_path,  # noqa: ANN001  # pytest's own
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One line names the address; no process has been started and waits for it."""
    monkeypatch.setattr(supervisor, "_KAFKA_WITHIN_S", 0.2)
    with pytest.raises(StartFailed, match=r"127\.0\.0\.1:1 "):
        await _start(tmp_path, "127.0.0.1:1")
    assert not list((tmp_path / "logs").iterdir())


async def test_kafka_address_without_a_port_number_is_refused(tmp_path) -> None:  # noqa: ANN001  # pytest's own
    """A wrong address is the caller's mistake, told at once."""
    with pytest.raises(InvalidRequest, match="host:port"):
        await _start(tmp_path, "kafka:here")
