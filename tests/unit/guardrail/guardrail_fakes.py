"""Fakes for the guardrail's tests: a detector that does as it is told, and a guardrail around memory."""

import threading
from collections.abc import Iterable

from pydantic import BaseModel

from servicekit.adapters.memory.state_store import MemoryStateStore
from servicekit.domain.verdict import Finding
from servicekit.ports.clock import Clock
from servicekit.ports.state_store import StateStore
from servicekit.testing.clocks import FakeClock
from services.guardrail.checking import Decision
from services.guardrail.detectors.detector import EVERY_SURFACE, Subject
from services.guardrail.vault import Lifetimes, Vault

VAULT_KEY = bytes(range(32))


def make_vault(
    store: StateStore | None = None, *, clock: Clock | None = None, keys: Iterable[bytes] = (VAULT_KEY,)
) -> Vault:
    """A vault in memory; one of several replicas where they are given the same store."""
    clock = clock or FakeClock()
    lifetimes = Lifetimes(conversation_s=24 * 3600, request_s=3600)
    return Vault(store or MemoryStateStore(clock=clock), keys, clock, lifetimes=lifetimes)


class ToldDetector:
    """Finds what it was given, or raises it; counts how often it was asked."""

    version = "1"
    surfaces = EVERY_SURFACE
    redacts = True
    options_model: type[BaseModel] | None = None

    def __init__(self, detector_id: str, findings: Iterable[Finding] | Exception = ()) -> None:
        self.id = detector_id
        self.findings = findings
        self.asked = 0

    def find(self, subject: Subject) -> Iterable[Finding]:
        """What it was told."""
        self.asked += 1
        if isinstance(self.findings, Exception):
            raise self.findings
        return self.findings


class HangingDetector(ToldDetector):
    """Comes back only when it is released."""

    def __init__(self, detector_id: str) -> None:
        super().__init__(detector_id)
        self.begun = threading.Semaphore(0)
        self.release = threading.Event()

    def find(self, subject: Subject) -> Iterable[Finding]:
        """Nothing, after its release."""
        self.asked += 1
        self.begun.release()
        self.release.wait()
        return ()


class Recorded:
    """Takes decisions in, or raises."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []
        self.error: Exception | None = None

    async def __call__(self, decision: Decision, left_s: float | None) -> None:
        """Keep the decision."""
        if self.error:
            raise self.error
        self.decisions.append(decision)
