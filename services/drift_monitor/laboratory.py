"""Evidently behind the `Laboratory` port: a worker process, started on first use and again after it died.

Opened by `bootstrap.py`; nothing of Evidently is ever imported by the serving process.
"""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from json import loads
from typing import Any

import structlog

from servicekit.errors import BackendTimeout, BackendUnavailable
from services.drift_monitor.frames import HEADER_BYTES, body_length, pack
from services.drift_monitor.judging import LABORATORY_FAILED, Comparison, Measured

_WORKER = "services.drift_monitor.worker"
_CLOSE_TIMEOUT_S = 2.0

log = structlog.get_logger()


class WorkerLaboratory:
    """One worker process, one question at a time; a question that fails in transit ends the worker."""

    def __init__(self, *, timeout_s: float, max_report_bytes: int, command: Sequence[str] = ()) -> None:
        self._timeout_s = timeout_s
        self._max_report_bytes = max_report_bytes
        self._command = tuple(command) or (sys.executable, "-m", _WORKER)
        self._process: Process | None = None
        self._turn = asyncio.Lock()

    async def warm_up(self) -> None:
        """Start the worker and have it import what it needs; a failure is only logged, each use tries again."""
        try:
            await self._ask({"ask": "warm"})
        except (BackendUnavailable, BackendTimeout) as error:
            log.warning("laboratory.warm_up_failed", error=error.message)

    async def compare(self, comparisons: Sequence[Comparison]) -> Sequence[Measured]:
        """One result per comparison, in order; see the port."""
        found = await self._ask({"ask": "compare", "comparisons": [_plain(asked) for asked in comparisons]})
        return tuple(Measured(p_value=p_value, effect=effect) for p_value, effect in found)

    async def render_report(self, comparisons: Sequence[Comparison], *, thresholds: Mapping[str, float]) -> bytes:
        """An HTML page of its own; see the port.

        Raises:
            BackendUnavailable: also when the page is larger than a message may be (reason REPORT_TOO_LARGE).
        """
        asked = [
            {
                "signal": comparison.signal,
                "test": comparison.test.value,
                "reference": list(comparison.reference),
                "current": list(comparison.current),
                "threshold": thresholds[comparison.signal],
            }
            for comparison in comparisons
        ]
        html = str(await self._ask({"ask": "report", "comparisons": asked})).encode()
        if len(html) > self._max_report_bytes:
            raise BackendUnavailable(
                f"the report has {len(html)} bytes, more than {self._max_report_bytes}; take smaller windows",
                reason="REPORT_TOO_LARGE",
            )
        return html

    async def close(self) -> None:
        """End the worker: its input closes, and it is killed if that does not do."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _ask(self, question: Mapping[str, Any]) -> Any:
        async with self._turn:
            try:
                async with asyncio.timeout(self._timeout_s):
                    answer = await self._exchange(pack(question))
            except TimeoutError as exc:
                await self._kill()
                raise BackendTimeout(
                    f"the laboratory did not answer within {self._timeout_s} s", reason="LABORATORY_TIMEOUT"
                ) from exc
            except (OSError, ValueError, asyncio.IncompleteReadError) as exc:
                await self._kill()
                raise BackendUnavailable(
                    "the laboratory's process ended; it is started again", reason="LABORATORY_DIED"
                ) from exc
            except asyncio.CancelledError:
                await self._kill()  # its answer would be taken for the next question's
                raise
        if "error" in answer:
            log.error("laboratory.failed", ask=question["ask"], error=answer["error"])
            raise BackendUnavailable("the laboratory could not compute this", reason=LABORATORY_FAILED)
        return answer["result"]

    async def _exchange(self, frame: bytes) -> Any:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(*self._command, stdin=PIPE, stdout=PIPE)
            log.info("laboratory.started", process_id=self._process.pid)
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(frame)
        await stdin.drain()
        length = body_length(await stdout.readexactly(HEADER_BYTES))
        return loads(await stdout.readexactly(length))

    async def _kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@asynccontextmanager
async def open_laboratory(
    *, timeout_s: float, max_report_bytes: int, command: Sequence[str] = ()
) -> AsyncIterator[WorkerLaboratory]:
    """A laboratory whose worker starts with its first question (or `warm_up`) and ends with the context."""
    laboratory = WorkerLaboratory(timeout_s=timeout_s, max_report_bytes=max_report_bytes, command=command)
    try:
        yield laboratory
    finally:
        await laboratory.close()


def _plain(comparison: Comparison) -> dict[str, Any]:
    return {
        "test": comparison.test.value,
        "reference": list(comparison.reference),
        "current": list(comparison.current),
        "resolution": comparison.resolution,
    }
