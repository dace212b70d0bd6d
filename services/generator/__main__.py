"""Starts the generator service. Everything it is made of is wired in `bootstrap.py`."""

from servicekit.runtime.service import run
from services.generator.bootstrap import build
from services.generator.config import Settings

if __name__ == "__main__":
    run(Settings, build)
