"""A supervised process is started, restarted after a crash, and stopped."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from services.local.process import Command, StartFailed, SupervisedProcess

_SERVE = "import pathlib,sys,time; pathlib.Path(sys.argv[1]).write_text('up'); time.sleep(60)"
_STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {_SERVE}"


def _command(marker: Path, program: str = _SERVE, *, grace_s: float = 5.0) -> Command:
    async def ready() -> bool:
        return marker.exists()

    argv = [sys.executable, "-c", program, str(marker)]
    return Command("child", argv, dict(os.environ), ready, stop_grace_s=grace_s, ready_within_s=20)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


async def _started(process: SupervisedProcess, work: Callable[[], Awaitable[None]]) -> None:
    await process.start()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(process.watch())
        await work()
        await process.stop()


async def test_start_returns_once_ready_and_stop_ends_it(tmp_path: Path) -> None:
    """Start waits for readiness; after stop no process is left."""
    process = SupervisedProcess(_command(tmp_path / "up"), log_dir=tmp_path, say=lambda _: None)

    async def work() -> None:
        assert process.pid is not None

    await _started(process, work)
    assert process.pid is None


async def test_crash_is_followed_by_restart(tmp_path: Path) -> None:
    """A killed process comes back under a new id, and that is said."""
    told: list[str] = []
    process = SupervisedProcess(_command(tmp_path / "up"), log_dir=tmp_path, say=told.append)

    async def work() -> None:
        first = process.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await _until(lambda: process.restarts == 1 and process.pid not in {None, first})
        await _until(lambda: any("is back" in line for line in told))

    await _started(process, work)
    assert any("SIGKILL" in line for line in told)


async def test_early_end_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    """A process that ends before it is ready fails the start, and the message holds what it wrote."""
    command = _command(tmp_path / "never", "import sys; sys.exit('no such port')")
    process = SupervisedProcess(command, log_dir=tmp_path, say=lambda _: None)
    with pytest.raises(StartFailed, match="no such port") as failed:
        await process.start()
    assert "exit status 1" in str(failed.value)


async def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    """After the grace a stubborn process is killed."""
    told: list[str] = []
    command = _command(tmp_path / "up", _STUBBORN, grace_s=0.3)
    process = SupervisedProcess(command, log_dir=tmp_path, say=told.append)

    async def work() -> None:
        return None

    await _started(process, work)
    assert process.pid is None
    assert any("killed" in line for line in told)


async def test_stop_does_not_wait_for_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop during the back-off ends the watch at once, and nothing is started any more."""
    monkeypatch.setattr("services.local.process._FIRST_BACKOFF_S", 60.0)
    told: list[str] = []
    process = SupervisedProcess(_command(tmp_path / "up"), log_dir=tmp_path, say=told.append)
    await process.start()
    watching = asyncio.create_task(process.watch())
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    await _until(lambda: any("restarting in 60 s" in line for line in told))
    async with asyncio.timeout(5):
        await process.stop()
        await watching
    assert process.pid is None


async def test_a_stop_amid_a_restart_leaves_no_process(tmp_path: Path) -> None:
    """A process that is born while its supervisor stops is ended like any other."""
    process = SupervisedProcess(_command(tmp_path / "up"), log_dir=tmp_path, say=lambda _: None)
    starting = asyncio.create_task(process.start())
    await asyncio.sleep(0)
    await process.stop()
    with contextlib.suppress(StartFailed):
        await starting
    assert process.pid is None


_PARENT = """
import asyncio, pathlib, sys
from services.local.process import Command, SupervisedProcess

async def main() -> None:
    marker = pathlib.Path(sys.argv[1])
    async def ready() -> bool:
        return marker.exists()
    program = "import os,pathlib,sys,time; pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(60)"
    command = Command("child", [sys.executable, "-c", program, str(marker)], {}, ready)
    await SupervisedProcess(command, log_dir=marker.parent, say=print).start()
    print("up", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
async def test_a_killed_parent_takes_its_child_along(tmp_path: Path) -> None:
    """After kill -9 of the supervisor no service is left running without it."""
    marker = tmp_path / "pid"
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _PARENT, str(marker), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    assert await parent.stdout.readline() == b"up\n"
    child = int(marker.read_text())
    parent.kill()
    await parent.wait()
    await _until(lambda: not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text())


async def test_starting_runs_nothing_between_fork_and_exec(tmp_path: Path) -> None:
    """A library's fork handlers do not run: in a parent with threads they can wait for ever for what those hold."""
    forked: list[str] = []
    os.register_at_fork(before=lambda: forked.append("before"))
    marker = tmp_path / "up"
    process = SupervisedProcess(_command(marker), log_dir=tmp_path, say=print)

    async def nothing() -> None:
        assert process.pid is not None

    await _started(process, nothing)
    assert forked == []
