"""One check at work: its steps in order, each answered by a detector or given up, whichever thread works on them.

Made by `judging.py`; `workers.py` runs it in a thread and watches it from the event loop. A step that takes too long is
given up with its thread, and another thread goes on behind it. Cheap detectors are asked about all texts first; what
embeds comes last, and is not asked about a text that is blocked already, unless a shadow wants to know.
"""

import time
import traceback
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from threading import Lock

import structlog
from pydantic import BaseModel

from servicekit.domain.verdict import Action, Surface
from servicekit.errors import BackendTimeout, BackendUnavailable, NotReady
from services.guardrail.detectors.detector import Detector, Embed, Subject, embeds
from services.guardrail.metrics import DETECTOR_FAILURES, DETECTOR_SECONDS
from services.guardrail.normalizing import normalize
from services.guardrail.policy import OnFailure
from services.guardrail.stuck import StuckThreads
from services.guardrail.verdicts import Asker, Fault, Located

log = structlog.get_logger()

READING = "reading"
READING_TIMEOUT_S = 5.0
_GROUNDEDNESS = "groundedness"


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """A detector to ask about the text at `place`; without one, the text is read and normalised.

    `position` is the detector's among all: verdicts are listed in that order, whatever was asked first.
    """

    place: int
    timeout_s: float
    detector: Detector | None = None
    askers: tuple[Asker, ...] = ()
    options: BaseModel | None = None
    position: int = -1

    @property
    def name(self) -> str:
        """For logs and metrics."""
        return self.detector.id if self.detector else READING


Answer = tuple[Located, ...] | Fault


@dataclass(slots=True, eq=False)
class Attempt:
    """One thread's work on an examination; `step` is what it is doing now."""

    step: Step | None = None
    begun_s: float = 0.0
    given_up: bool = False


@dataclass
class Examination:
    """The steps of one check and what came of them. `run` is for threads, the rest for who watches them."""

    surface: Surface
    texts: Sequence[str]
    steps: Sequence[Step]
    stuck: StuckThreads
    chunk_texts: tuple[str, ...] = ()
    embed: Embed | None = None
    whole: bool = True
    answers: dict[Step, Answer] = field(default_factory=dict)
    groundedness: dict[int, float | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._waiting = deque(self.steps)
        self._shortest_s = min((step.timeout_s for step in self.steps), default=READING_TIMEOUT_S)
        self._subjects: dict[int, Subject] = {}
        self._unreadable: dict[int, Fault] = {}
        self._blocked: set[int] = set()
        self._closed = False
        self._lock = Lock()

    @property
    def chars(self) -> int:
        """Of all that is judged."""
        return sum(map(len, self.texts)) + sum(map(len, self.chunk_texts))

    @property
    def finished(self) -> bool:
        """Whether no step is left to begin."""
        return not self._waiting or self._closed

    def run(self, attempt: Attempt) -> None:
        """Take step after step until none is left, or this thread has been given up."""
        while (step := self._begin(attempt)) is not None:
            if not self._finish(attempt, step, self._fault_beforehand(step) or self._ask(step)):
                return

    def patience_s(self, attempt: Attempt) -> float:
        """How long nothing can be overdue from now on."""
        step = attempt.step
        if step is None:
            return self._shortest_s
        return min(self._shortest_s, attempt.begun_s + step.timeout_s - time.monotonic())

    def give_up_overdue(self, attempt: Attempt) -> bool:
        """Give up the step that has taken too long, and the thread with it; whether there was one."""
        with self._lock:
            step = attempt.step
            if step is None or attempt.given_up or time.monotonic() < attempt.begun_s + step.timeout_s:
                return False
            attempt.given_up = True
            self._record(step, Fault.TIMEOUT)
            self.stuck.add(step.name)
        log.error("detector.timed_out", detector=step.name, surface=self.surface.value, timeout_s=step.timeout_s)
        DETECTOR_FAILURES.labels(step.name).inc()
        return True

    def close(self) -> None:
        """Begin nothing more: nobody waits any longer."""
        with self._lock:
            self._closed = True

    def answer(self, step: Step) -> Answer:
        """What came of a step; a timeout where it was not reached."""
        return self.answers.get(step, Fault.TIMEOUT)

    def _begin(self, attempt: Attempt) -> Step | None:
        with self._lock:
            attempt.step = None
            while self._waiting and not self._closed:
                step = self._waiting.popleft()
                if self._is_spared(step):
                    self.answers[step] = ()
                    continue
                attempt.step, attempt.begun_s = step, time.monotonic()
                return step
            return None

    def _is_spared(self, step: Step) -> bool:
        """A blocked text goes nowhere: no embedding for it, unless a shadow compares."""
        return (
            step.place in self._blocked
            and step.detector is not None
            and embeds(step.detector)
            and not any(asker.shadow for asker in step.askers)
        )

    def _finish(self, attempt: Attempt, step: Step, answer: Answer) -> bool:
        """Keep the answer; false where this thread's was given up meanwhile."""
        DETECTOR_SECONDS.labels(step.name).observe(time.monotonic() - attempt.begun_s)
        with self._lock:
            attempt.step = None
            if attempt.given_up:
                self.stuck.remove(step.name)
                return False
            if not self._closed:
                self._record(step, answer)
            return not self._closed

    def _record(self, step: Step, answer: Answer) -> None:
        self.answers[step] = answer
        if step.detector is None and isinstance(answer, Fault):
            self._unreadable[step.place] = answer
        if any(_blocks(asker, answer) for asker in step.askers):
            self._blocked.add(step.place)

    def _fault_beforehand(self, step: Step) -> Fault | None:
        """The fault of a step that need not be tried: its text cannot be read, or too many threads hang in it."""
        if step.place in self._unreadable:
            return self._unreadable[step.place]
        return None if self.stuck.may_ask(step.name) else Fault.TIMEOUT

    def _ask(self, step: Step) -> Answer:
        try:
            if step.detector is None:
                self._subjects[step.place] = self._read(step.place)
                return ()
            subject = self._subjects[step.place]
            if step.options is not None:
                subject = replace(subject, options=step.options)
            answer = _located(step.detector, subject)
            if step.detector.id == _GROUNDEDNESS and not step.askers[0].candidate:
                self.groundedness[step.place] = subject.grounding.score if subject.grounding else None
        except Exception as exc:  # noqa: BLE001  # whatever a detector does, the policy decides what it means
            return self._fault(step, exc)
        return answer

    def _read(self, place: int) -> Subject:
        subject = Subject(
            self.surface, normalize(self.texts[place]), self.chunk_texts, embed=self.embed, whole=self.whole
        )
        _ = subject.views  # worked out once, here, and by none of those who look at them
        return subject

    def _fault(self, step: Step, error: Exception) -> Fault:
        """Logs neither the error's text nor values: they may hold what is judged. What is missing was told at start."""
        DETECTOR_FAILURES.labels(step.name).inc()
        if isinstance(error, NotReady):
            return Fault.MISSING
        frames = traceback.extract_tb(error.__traceback__)
        log.error(
            "detector.failed",
            detector=step.name,
            surface=self.surface.value,
            error=type(error).__name__,
            place=f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "",
        )
        if isinstance(error, BackendTimeout):
            return Fault.TIMEOUT
        return Fault.MISSING if isinstance(error, BackendUnavailable) else Fault.FAILED


def _blocks(asker: Asker, answer: Answer) -> bool:
    if asker.shadow:
        return False
    if isinstance(answer, Fault):
        return asker.rule.on_failure is OnFailure.CLOSED
    return asker.action is Action.BLOCK and any(one.finding.score >= asker.rule.min_score for one in answer)


def _located(detector: Detector, subject: Subject) -> tuple[Located, ...]:
    findings: Iterable[Located] = (
        Located(finding, subject.normalized.to_original(finding.span) if finding.span else None)
        for finding in detector.find(subject)
    )
    return tuple(findings)
