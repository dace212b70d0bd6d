"""`python -m tests.integration.vault_process URL NAME`: redacts new values of one conversation until it is killed.

Started by `test_vault_kill.py`; every line says a value and the placeholder that went out for it.
"""

import asyncio
import sys

from servicekit.adapters.redis.state_store import open_state_store
from servicekit.domain.verdict import Span
from servicekit.ports.clock import SystemClock
from services.guardrail.redacting import Found, Redactor, Replaceable
from services.guardrail.sealing import Owner
from services.guardrail.vault import Lifetimes, Vault

KEY = b"k" * 32
OWNER = Owner("acme", "c-1")
LIFETIMES = Lifetimes(conversation_s=60, request_s=60)


async def main(url: str, name: str) -> None:
    """Redact one value after another."""
    async with open_state_store(f"{url}?timeout_s=20") as store:
        redactor = Redactor(Vault(store, [KEY], SystemClock(), lifetimes=LIFETIMES))
        for number in range(300):
            value = f"{name}{number}@x.org"
            found = Found(value, (Replaceable(Span(0, len(value)), "EMAIL"),))
            redacted = await redactor.redact([found], OWNER, remember=True)
            print(value, redacted.texts[0], flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
