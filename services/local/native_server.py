"""Runs a native broker as a process of its own: start, ready, stop by process id, kill.

Blocking; used by `servers.py` (`make servers`) and by tests. In a stack, `supervisor.py` runs the broker instead.
"""

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from servicekit.errors import NotReady
from services.local.native_kafka import NativeKafka

_READY_WITHIN_S = 60.0
_STOP_WITHIN_S = 30.0
_ASK_AGAIN_S = 0.1
_LOG_TAIL_LINES = 15


def start_broker(native: NativeKafka) -> "subprocess.Popen[bytes]":
    """Start it in a session of its own and wait until it serves; its log is `kafka.log` in its folder.

    Raises:
        NotReady: it can be neither run nor installed here, it ended, or does not answer within 60 s.
    """
    argv = native.prepare()
    log_path = native.data_dir / "kafka.log"
    with log_path.open("ab") as log:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    give_up = time.monotonic() + _READY_WITHIN_S
    while not native.answers():
        if process.poll() is not None or time.monotonic() > give_up:
            process.kill()
            process.wait()
            raise NotReady(f"Kafka did not start; the end of {log_path}:\n{_tail(log_path)}")
        time.sleep(_ASK_AGAIN_S)
    return process


@contextlib.contextmanager
def running_broker(native: NativeKafka) -> Iterator["subprocess.Popen[bytes]"]:
    """A broker that serves while the block runs."""
    process = start_broker(native)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _tail(log_path: Path) -> str:
    lines = log_path.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_TAIL_LINES:]
    return "\n".join(f"  {line}" for line in lines)
