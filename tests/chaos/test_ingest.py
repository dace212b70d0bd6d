"""Two fault runs of ingestion: the short form of `python -m tests.chaos.ingest --runs 50`."""

import json
import subprocess
import sys

import pytest

from services.local.native_install import obstacle

_RUNS = 2


@pytest.mark.servers
@pytest.mark.timeout(600)
def test_kills_lose_double_and_mix_nothing() -> None:
    """The retriever dies at two steps and at random while it is written and searched; every answer was right."""
    if reason := obstacle():
        pytest.skip(reason)
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos.ingest", "--runs", str(_RUNS), "--seed", "3", "--json"],
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["runs"] == _RUNS
    assert report["kills"] >= 2 * _RUNS
    assert report["submitted"] > 0
    assert report["searches"] > 0
