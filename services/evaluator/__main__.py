"""Starts the evaluator service; `--help` lists its settings."""

from servicekit.runtime.service import run
from services.evaluator.bootstrap import build
from services.evaluator.config import Settings

if __name__ == "__main__":
    run(Settings, build)
