"""A guardrail whose streams are driven by a list of texts, for the tests of streamed checks."""

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Self

from servicekit.domain.verdict import Action, Finding, Span, Surface, Verdict
from servicekit.ports.clock import SystemClock
from services.guardrail.checking import CheckContext, Guardrail
from services.guardrail.detectors.catalogue import all_detectors
from services.guardrail.detectors.detector import EVERY_SURFACE, Detector, Subject
from services.guardrail.judging import Judge
from services.guardrail.policy import DetectorPolicy, OnFailure, PoliciesInForce, Policy
from services.guardrail.policy_file import default_policy
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
    """A guardrail around memory, its streams and its decisions; `policy` instead of the packaged one."""

    def __init__(self, detectors: Sequence[Detector] | None = None, policy: Policy | None = None) -> None:
        detectors = all_detectors() if detectors is None else detectors
        self.recorded = Recorded()
        self.workers = Workers(threads=2, queue=64)
        self.policies = Fixed(policy or default_policy(detectors))
        self.vault = make_vault()
        clock = SystemClock()
        self.guardrail = Guardrail(
            judge=Judge(detectors),
            policies=self.policies,
            cache=RetrievedCache(capacity=10),
            workers=self.workers,
            record=self.recorded,
            clock=clock,
            vault=self.vault,
        )
        self.checks = StreamChecks(self.guardrail, clock=clock, turns=4)

    def events(
        self, texts: Sequence[str | asyncio.Event], *, start: StreamStart | None = None, final: bool = True
    ) -> AsyncGenerator[StreamEvent, None]:
        """What comes out where these texts go in, the last of them final."""
        return self.checks.check(start or StreamStart(CONTEXT), given(texts, final=final), left_s=lambda: 30.0)

    async def stream(
        self, texts: Sequence[str | asyncio.Event], *, start: StreamStart | None = None, final: bool = True
    ) -> Streamed:
        """The same, read to its end."""
        streamed = Streamed()
        async with aclosing(self.events(texts, start=start, final=final)) as events:
            async for event in events:
                streamed.events.append(event)
        return streamed

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.workers.__aexit__(None, None, None)


class Fixed(PolicyStore):
    """One policy for all, which a test may change."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(None, detectors=all_detectors())
        self.policy = policy

    def in_force(self, tenant: str, route: str = "") -> PoliciesInForce:
        """The policy."""
        del tenant, route
        return PoliciesInForce(self.policy)


class WordDetector:
    """Finds a word, once `may_answer` is set."""

    version = "1"
    surfaces = EVERY_SURFACE
    options_model = None

    def __init__(self, detector_id: str, word: str, *, redacts: bool) -> None:
        self.id = detector_id
        self.redacts = redacts
        self.texts: list[str] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        self._word = word

    def find(self, subject: Subject) -> Iterator[Finding]:
        """Every place of the word."""
        self.texts.append(subject.text)
        self.may_answer.wait()
        start = subject.text.find(self._word)
        while start >= 0:
            yield Finding(self.id, 0.9, Span(start, start + len(self._word)), "WORD", "The word.")
            start = subject.text.find(self._word, start + 1)


def asking(action: Action, *, on_failure: OnFailure = OnFailure.CLOSED) -> DetectorPolicy:
    """A rule that asks a detector about answers."""
    return DetectorPolicy(actions={Surface.OUTPUT: action}, min_score=0.5, on_failure=on_failure, shadow=False)


async def given(texts: Sequence[str | asyncio.Event], *, final: bool = True) -> AsyncIterator[StreamedText]:
    """The texts as frames; an event among them is waited for."""
    for place, text in enumerate(texts):
        if isinstance(text, asyncio.Event):
            await text.wait()
        else:
            yield StreamedText(text, final=final and place == len(texts) - 1)
