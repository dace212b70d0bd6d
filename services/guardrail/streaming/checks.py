"""Checks of answers that are still being made, each with one decision at its end. Called by `server.py`.

Between a stream (`stream.py`) and the service: its policy, which holds to its end, the worker threads, of which streams
take turns, the conversation's placeholders, and the record.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing

import structlog

from servicekit.domain.verdict import Surface
from servicekit.errors import BackendUnavailable, BinnacleError, Overloaded
from servicekit.ports.clock import Clock
from services.guardrail.checking import Guardrail
from services.guardrail.judging import Assessment
from services.guardrail.metrics import STREAM_FIRST_HELD_SECONDS, STREAM_FIRST_HELD_TOKENS
from services.guardrail.pseudonyms import may_hold_placeholder
from services.guardrail.redacting import Found
from services.guardrail.streaming.roles import Role, roles_of
from services.guardrail.streaming.stream import Stream
from services.guardrail.streaming.streamed import EndedStream, StreamedText, StreamEvent, StreamStart
from services.guardrail.streaming.window import Piece

log = structlog.get_logger()

_OVERLOAD_PAUSE_S = 0.02
_MOST_SEEN_CHARS = 65_536
LeftS = Callable[[], float | None]
"""Seconds that the caller still waits; None: no bound."""


class StreamChecks:
    """Judges streams; `turns` of their pieces are with the worker threads at once, the others wait."""

    def __init__(self, guardrail: Guardrail, *, clock: Clock, turns: int) -> None:
        self._guardrail = guardrail
        self._clock = clock
        self._turns = asyncio.Semaphore(turns)

    async def check(
        self, start: StreamStart, texts: AsyncIterator[StreamedText], *, left_s: LeftS
    ) -> AsyncGenerator[StreamEvent, None]:
        """Released text and verdicts, then how it ended. One decision is recorded, whatever the end.

        Raises:
            BinnacleError: whatever the texts raise; a text could not be judged in time.
            BackendUnavailable: the decision could not be recorded.
        """
        means = _Means(self._guardrail, start, self._clock, self._turns, left_s)
        stream = Stream(means)
        recorded = False

        async def end() -> EndedStream:
            nonlocal recorded
            recorded = True
            await self._record(stream, means)
            return _ended(stream, means)

        try:
            async with aclosing(stream.events(texts, end)) as events:
                async for event in events:
                    yield event
        finally:
            if not recorded:
                await self._record_broken(stream, means)

    async def _record(self, stream: Stream, means: "_Means") -> None:
        if stream.figures.first_held_s is not None:
            STREAM_FIRST_HELD_SECONDS.observe(stream.figures.first_held_s)
            STREAM_FIRST_HELD_TOKENS.observe(stream.figures.first_held_tokens)
        await self._guardrail.record_output(
            stream.told.kept,
            means.in_force.policy,
            means.start.context,
            chars=stream.chars,
            judging_s=stream.figures.judging_s,
            deadline_s=means.left_s(),
        )

    async def _record_broken(self, stream: Stream, means: "_Means") -> None:
        """The caller is gone, or has an error already: it is told nothing more."""
        try:
            await self._record(stream, means)
        except BackendUnavailable as exc:
            log.warning("stream.decision_not_recorded", reason=exc.reason)


class _Means:
    """What `stream.Means` asks for, for one stream."""

    def __init__(
        self, guardrail: Guardrail, start: StreamStart, clock: Clock, turns: asyncio.Semaphore, left_s: LeftS
    ) -> None:
        self._guardrail = guardrail
        self._clock = clock
        self._turns = turns
        self._typed = ""
        self.start = start
        self.left_s = left_s
        self.in_force = guardrail.in_force(start.context)

    def asks(self, role: Role) -> bool:
        """Whether the policy has any detector of this role."""
        asked = self._guardrail.asked(Surface.OUTPUT, self.in_force)
        return any(role in roles_of(detector) for detector in asked)

    async def assess(self, text: str, role: Role) -> Assessment:
        """What the detectors of a role find; a stream that has begun waits for its turn."""
        async with self._turns:
            while True:
                try:
                    (assessment,) = await self._guardrail.assess(
                        Surface.OUTPUT,
                        (text,),
                        in_force=self.in_force,
                        chunk_texts=self.start.chunk_texts,
                        deadline_s=self.left_s(),
                        only=lambda detector: role in roles_of(detector),
                    )
                except Overloaded:
                    await asyncio.sleep(_OVERLOAD_PAUSE_S)
                else:
                    return assessment

    async def redact(self, piece: Piece) -> str:
        """The piece with what was found replaced; placeholders that the model wrote before are not given out."""
        if may_hold_placeholder(piece.text) and len(self._typed) < _MOST_SEEN_CHARS:
            self._typed += piece.text
        if not piece.replaceable:
            return piece.text
        found = (Found(self._typed, ()), Found(piece.text, piece.replaceable))
        return (await self._guardrail.redact(found, self.start.context))[1]

    async def restore(self, text: str) -> str:
        """The text with values put back; empty where it is the same, not wanted, or the vault is away."""
        if not self.start.restore or not may_hold_placeholder(text):
            return ""
        try:
            restored = (await self._guardrail.restore([text], self.start.context)).texts[0]
        except BinnacleError as exc:
            log.warning("stream.not_restored", reason=exc.reason)
            return ""
        return "" if restored == text else restored

    def now_s(self) -> float:
        """The time, of a clock that only goes forward."""
        return self._clock.monotonic_s()


def _ended(stream: Stream, means: _Means) -> EndedStream:
    figures = stream.figures
    return EndedStream(
        action=stream.told.action,
        policy_version=means.in_force.policy.version,
        groundedness=figures.groundedness,
        first_held_us=round((figures.first_held_s or 0.0) * 1e6),
        first_held_tokens=figures.first_held_tokens,
        judging_us=round(figures.judging_s * 1e6),
    )
