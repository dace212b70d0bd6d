"""Ctrl-C while the stack starts: it stops at once, and cleanly."""

import signal
import subprocess
import sys
import time
from pathlib import Path


def test_an_interrupt_is_heard_while_the_stack_starts(tmp_path: Path) -> None:
    """What has started by then is stopped; the rest is never started."""
    log = tmp_path / "supervisor.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.local", "--free-ports", "--data", str(tmp_path / "data")],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        give_up = time.monotonic() + 30
        while b"broker is ready" not in log.read_bytes():
            assert time.monotonic() < give_up
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
    told = log.read_text(encoding="utf-8")
    assert told.endswith("» stopped\n")
    assert "Binnacle is up" not in told
