"""Starts the analytics service; `--help` lists its settings."""

from servicekit.runtime.service import run
from services.analytics.bootstrap import build
from services.analytics.config import Settings

if __name__ == "__main__":
    run(Settings, build)
