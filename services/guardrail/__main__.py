"""Starts the guardrail service. Run as `python -m services.guardrail`."""

from servicekit.runtime.service import run
from services.guardrail.bootstrap import build
from services.guardrail.config import Settings

if __name__ == "__main__":
    run(Settings, build)
