"""Starts the retriever service; `--help` lists its settings."""

from servicekit.runtime.service import run
from services.retriever.bootstrap import build
from services.retriever.config import Settings

if __name__ == "__main__":
    run(Settings, build)
