"""Runs a native server (Kafka, Weaviate) as a process of its own: start, ready, stop by process id, kill.

Blocking; used by `servers.py` (`make servers`) and by tests. In a stack, `supervisor.py` runs the servers instead.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from servicekit.errors import NotReady

_WRAPPER = Path(__file__).with_name("die_with_parent.py")
_READY_WITHIN_S = 60.0
_STOP_WITHIN_S = 30.0
_ASK_AGAIN_S = 0.1
_LOG_TAIL_LINES = 15


class NativeServer(Protocol):
    """What can be run here: `NativeKafka`, `NativeWeaviate`."""

    @property
    def title(self) -> str:
        """Its name for people."""
        ...

    @property
    def data_dir(self) -> Path:
        """All that it keeps."""
        ...

    def prepare(self) -> Sequence[str]:
        """Install what is missing; the command that runs it."""
        ...

    def environment(self) -> Mapping[str, str]:
        """Settings beyond this process's own."""
        ...

    def answers(self) -> bool:
        """Whether it serves clients now."""
        ...


def start_server(native: NativeServer, *, dies_with_us: bool = False) -> "subprocess.Popen[bytes]":
    """Start it in a session of its own and wait until it serves; its log is in its folder (`kafka.log`).

    `dies_with_us` has the kernel end it with the thread that called; it outlives that otherwise.

    Raises:
        NotReady: it can be neither run nor installed here, it ended, or does not answer within 60 s.
    """
    argv = native.prepare()
    if dies_with_us:
        argv = [sys.executable, "-IS", str(_WRAPPER), str(os.getpid()), *argv]
    environment = {**os.environ, **native.environment()}
    log_path = native.data_dir / f"{native.title.lower()}.log"
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            argv, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    give_up = time.monotonic() + _READY_WITHIN_S
    while not native.answers():
        if process.poll() is not None or time.monotonic() > give_up:
            process.kill()
            process.wait()
            raise NotReady(f"{native.title} did not start; the end of {log_path}:\n{_tail(log_path)}")
        time.sleep(_ASK_AGAIN_S)
    return process


@contextlib.contextmanager
def running_server(native: NativeServer) -> Iterator["subprocess.Popen[bytes]"]:
    """A server that serves while the block runs."""
    process = start_server(native, dies_with_us=True)
    try:
        yield process
    finally:
        stop_server(process)


def stop_server(process: "subprocess.Popen[bytes]") -> None:
    """SIGTERM, and SIGKILL after 30 s."""
    process.terminate()
    try:
        process.wait(_STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _tail(log_path: Path) -> str:
    lines = log_path.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_TAIL_LINES:]
    return "\n".join(f"  {line}" for line in lines)
