"""Starts the gateway. Everything it is made of is chosen in `bootstrap.py`."""

from servicekit.runtime.service import run
from services.gateway.bootstrap import build
from services.gateway.config import Settings

if __name__ == "__main__":
    run(Settings, build)
