"""Starts the drift monitor service; `--help` lists its settings."""

from servicekit.runtime.service import run
from services.drift_monitor.bootstrap import build
from services.drift_monitor.config import Settings

if __name__ == "__main__":
    run(Settings, build)
