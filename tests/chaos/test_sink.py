"""Five fault runs: the short form of `python -m tests.chaos.sink --runs 100`."""

import json
import subprocess
import sys

import pytest

from services.local.native_install import obstacle

_RUNS = 5


@pytest.mark.servers
@pytest.mark.timeout(900)
def test_nothing_is_lost_or_doubled_by_kills() -> None:
    """Sink, broker, ClickHouse and gateway die in every run; what callers were promised is stored and counted once."""
    if reason := obstacle():
        pytest.skip(reason)
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos.sink", "--runs", str(_RUNS), "--json"],
        capture_output=True,
        text=True,
        timeout=880,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["runs"] == _RUNS
    assert report["lost"] == 0
    assert report["stored"] == report["distinct"] == report["rollup"] >= report["acknowledged"] > 0
    assert report["kills"] >= 4 * _RUNS
