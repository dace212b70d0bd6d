"""A guardrail whose streams are driven by a list of texts, for the tests of streamed checks."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from servicekit.domain.verdict import Verdict
from servicekit.ports.clock import SystemClock
from services.guardrail.checking import CheckContext, Guardrail
from services.guardrail.detectors.catalogue import all_detectors
from services.guardrail.detectors.detector import Detector
from services.guardrail.judging import Judge
from services.guardrail.policy import Policy
from services.guardrail.policy_store import PolicyStore
from services.guardrail.retrieved_cache import RetrievedCache
from services.guardrail.streaming.checks import StreamChecks
from services.guardrail.streaming.streamed import (
    EndedStream,
    FoundVerdicts,
    ReleasedText,
    StreamedText,
    StreamEvent,
    StreamStart,
)
from services.guardrail.workers import Workers
from tests.unit.guardrail.guardrail_fakes import Recorded, make_vault

CONTEXT = CheckContext("acme", "r-1", "c-1")


@dataclass
class Streamed:
    """What came out of a stream."""

    events: list[StreamEvent] = field(default_factory=list)

    @property
    def released(self) -> list[ReleasedText]:
        """The pieces."""
        return [event for event in self.events if isinstance(event, ReleasedText)]

    @property
    def text(self) -> str:
        """All that was released."""
        return "".join(piece.text for piece in self.released)

    @property
    def restored(self) -> str:
        """All that was released, with values put back."""
        return "".join(piece.restored or piece.text for piece in self.released)

    @property
    def source_chars(self) -> int:
        """How much of the answer that stands for."""
        return sum(piece.source_chars for piece in self.released)

    @property
    def verdicts(self) -> list[Verdict]:
        """All that was found."""
        found = [event for event in self.events if isinstance(event, FoundVerdicts)]
        return [verdict for event in found for verdict in event.verdicts]

    @property
    def ended(self) -> EndedStream:
        """The last event."""
        last = self.events[-1]
        assert isinstance(last, EndedStream)
        return last


class Stand:
    """A guardrail around memory, its streams and its decisions; used as a context manager."""

    def __init__(self, detectors: Sequence[Detector] | None = None, policy: Policy | None = None) -> None:
        detectors = all_detectors() if detectors is None else detectors
        self.recorded = Recorded()
        self.policies = PolicyStore(None, detectors=detectors)
        self.workers = Workers(threads=2, queue=64)
        clock = SystemClock()
        self.guardrail = Guardrail(
            judge=Judge(detectors),
            policies=self.policies if policy is None else Fixed(policy, detectors),
            cache=RetrievedCache(capacity=10),
            workers=self.workers,
            record=self.recorded,
            clock=clock,
            vault=make_vault(),
        )
        self.checks = StreamChecks(self.guardrail, clock=clock, turns=4)

    async def stream(self, texts: Sequence[str], *, start: StreamStart | None = None, final: bool = True) -> Streamed:
        """Send the texts, the last of them final, and read to the end."""
        streamed = Streamed()
        start = start or StreamStart(CONTEXT)
        async for event in self.checks.check(start, given(texts, final=final), left_s=lambda: 30.0):
            streamed.events.append(event)
        return streamed


class Fixed(PolicyStore):
    """One policy for all."""

    def __init__(self, policy: Policy, detectors: Sequence[Detector]) -> None:
        super().__init__(None, detectors=detectors)
        self._policy = policy

    def for_tenant(self, tenant: str, route: str = "") -> Policy:
        """The policy."""
        del tenant, route
        return self._policy


async def given(texts: Sequence[str], *, final: bool = True) -> AsyncIterator[StreamedText]:
    """The texts as frames."""
    for place, text in enumerate(texts):
        yield StreamedText(text, final=final and place == len(texts) - 1)
