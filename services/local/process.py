"""One supervised child process: started, watched, restarted with back-off, stopped by process id.

Used by `supervisor.py`; knows nothing of what it runs.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_WRAPPER = Path(__file__).with_name("die_with_parent.py")
_FIRST_BACKOFF_S = 0.5
_STEADY_AFTER_S = 30.0
_LOG_TAIL_LINES = 15


@dataclass(frozen=True, slots=True)
class Command:
    """What to run: `ready` returns once the process can be used, and may be asked again after a restart."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    ready: Callable[[], Awaitable[bool]]
    stop_grace_s: float = 20.0
    max_backoff_s: float = 10.0
    ready_within_s: float = 60.0


class StartFailed(Exception):  # noqa: N818  # says what happened
    """A process did not become ready; the message ends with the tail of its log."""


class SupervisedProcess:
    """Runs one command until it is stopped; a crash is followed by a restart after 0.5 s, 1 s, … its command's most."""

    def __init__(self, command: Command, *, log_dir: Path, say: Callable[[str], None]) -> None:
        self.command = command
        self.log_path = log_dir / f"{command.name}.log"
        self.restarts = 0
        self._say = say
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """The running process's id; None while there is none."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if running and self._process else None

    async def start(self) -> None:
        """Start and wait until ready.

        Raises:
            StartFailed: it ended, or was not ready in time.
        """
        await self._spawn()
        await self._wait_ready()

    async def watch(self) -> None:
        """Restart the process whenever it ends by itself; returns after `stop`."""
        loop = asyncio.get_running_loop()
        backoff_s = _FIRST_BACKOFF_S
        while not self._stopping.is_set() and self._process is not None:
            started = loop.time()
            status = await self._process.wait()
            if self._stopping.is_set():
                return
            backoff_s = _FIRST_BACKOFF_S if loop.time() - started > _STEADY_AFTER_S else backoff_s
            self._say(
                f"{self.command.name} ended ({_told(status)}); restarting in {backoff_s:g} s, log {self.log_path}"
            )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), backoff_s)
                return
            backoff_s = min(backoff_s * 2, self.command.max_backoff_s)
            self.restarts += 1
            await self._restart()

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL to what is left after the grace."""
        self._stopping.set()
        if self._process is not None:
            await self._end(self._process)

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        if process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), self.command.stop_grace_s)
        except TimeoutError:
            self._say(f"{self.command.name} did not stop within {self.command.stop_grace_s:g} s: killed")
            process.kill()
            await process.wait()

    async def _restart(self) -> None:
        try:
            await self.start()
        except StartFailed as exc:
            if not self._stopping.is_set():
                self._say(str(exc))
        else:
            self._say(f"{self.command.name} is back (process {self.pid}, restart {self.restarts})")

    async def _spawn(self) -> None:
        with self.log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-IS", str(_WRAPPER), str(os.getpid())),
                *self.command.argv,
                env=dict(self.command.env),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if self._stopping.is_set():  # `stop` came while there was no process to end
            await self._end(self._process)

    async def _wait_ready(self) -> None:
        process = self._process
        try:
            async with asyncio.timeout(self.command.ready_within_s):
                while process is not None and process.returncode is None:
                    if await self.command.ready():
                        return
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise StartFailed(self._failure(f"was not ready within {self.command.ready_within_s:g} s")) from None
        raise StartFailed(
            self._failure(f"ended ({_told(process.returncode if process else None)}) before it was ready")
        )

    def _failure(self, what: str) -> str:
        lines = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_TAIL_LINES:]
        return "\n  ".join([f"{self.command.name} {what}; the end of {self.log_path}:", *lines])


def _told(status: int | None) -> str:
    if status is None:
        return "no status"
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
