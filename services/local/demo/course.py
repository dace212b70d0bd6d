"""The demo's course: index, ask, give feedback, shift, wait for the alert. Drives a running stack as a caller would.

Called by `__main__.py`; every step goes through gRPC by the SDK.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from binnacle_client.answers import Answer, DocumentInput, DriftAlert, QuestionOptions
from binnacle_client.cli.ingesting import batches
from binnacle_client.cli.output import notes
from binnacle_client.client import Binnacle
from services.local.demo.questions import QUESTIONS, SHIFTED_QUESTIONS, DemoQuestion

_ASK_AT_ONCE = 4
_INDEX_AT_ONCE = 2
_ALERT_WITHIN_S = 30.0

_T = TypeVar("_T")


@dataclass(slots=True)
class Course:
    """What happened, as the caller saw it."""

    chunks: int = 0
    refused_documents: int = 0
    answers: list[tuple[DemoQuestion, Answer]] = field(default_factory=list)
    shifted: list[Answer] = field(default_factory=list)
    feedback_ids: list[str] = field(default_factory=list)
    alerts: list[DriftAlert] = field(default_factory=list)


async def run_course(binnacle: Binnacle, documents: Sequence[DocumentInput], *, say: Callable[[str], None]) -> Course:
    """All steps in order; returns once the drift alert came, or after 30 s without one."""
    course = Course()
    with _progress() as progress:
        await _index(binnacle, documents, course, progress)
    say(f"{course.chunks} chunks of {len(documents)} documents can be searched")
    alerted = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        subscription = tasks.create_task(_collect_alerts(binnacle, course, alerted))
        with _progress() as progress:
            await _ask(binnacle, course, progress)
            await _give_feedback(binnacle, course)
            await _shift(binnacle, course, progress)
        say("waiting for the drift alert on the live subscription")
        try:
            async with asyncio.timeout(_ALERT_WITHIN_S):
                await alerted.wait()
        except TimeoutError:
            say(f"no alert within {_ALERT_WITHIN_S:g} s")
        subscription.cancel()
    return course


async def _index(binnacle: Binnacle, documents: Sequence[DocumentInput], course: Course, progress: Progress) -> None:
    bar = progress.add_task("indexing", total=len(documents))
    waiting = deque(batches(documents))

    async def work() -> None:
        while waiting:
            batch = waiting.popleft()
            for result in await binnacle.index(batch):
                course.chunks += result.chunk_count
                course.refused_documents += result.outcome == "refused"
            progress.advance(bar, len(batch))

    await _in_parallel(_INDEX_AT_ONCE, work)


async def _ask(binnacle: Binnacle, course: Course, progress: Progress) -> None:
    async def keep(question: DemoQuestion) -> None:
        answer = await _answer(binnacle, question.text, project="demo")
        course.answers.append((question, answer))

    await _each(QUESTIONS, keep, progress, progress.add_task("asking", total=len(QUESTIONS)))
    course.answers.sort(key=lambda pair: QUESTIONS.index(pair[0]))


async def _shift(binnacle: Binnacle, course: Course, progress: Progress) -> None:
    async def keep(question: str) -> None:
        course.shifted.append(await _answer(binnacle, question, project="demo-shift"))

    await _each(SHIFTED_QUESTIONS, keep, progress, progress.add_task("shifting", total=len(SHIFTED_QUESTIONS)))


async def _answer(binnacle: Binnacle, text: str, *, project: str) -> Answer:
    final: Answer | None = None
    async for event in binnacle.stream(text, QuestionOptions(project=project), timeout_s=30):
        if isinstance(event, Answer):
            final = event
    if final is None:
        raise RuntimeError(f"the stream for {text!r} ended without `completed`")
    return final


async def _give_feedback(binnacle: Binnacle, course: Course) -> None:
    on_topic = [(answer, bool(cited_topics(answer) & question.topics)) for question, answer in course.answers]
    for answer, good in on_topic[:8]:
        course.feedback_ids.append(await binnacle.thumb(answer.request_id, up=good, author="demo"))
    for answer, good in on_topic[8:12]:
        course.feedback_ids.append(await binnacle.rate(answer.request_id, rating=5 if good else 1, author="demo"))


async def _collect_alerts(binnacle: Binnacle, course: Course, alerted: asyncio.Event) -> None:
    async for alert in binnacle.alerts():
        course.alerts.append(alert)
        if alert.state == "firing":
            alerted.set()


async def _each(things: Iterable[_T], work: Callable[[_T], Awaitable[None]], progress: Progress, bar: TaskID) -> None:
    waiting = deque(things)

    async def worker() -> None:
        while waiting:
            await work(waiting.popleft())
            progress.advance(bar)

    await _in_parallel(_ASK_AT_ONCE, worker)


async def _in_parallel(count: int, worker: Callable[[], Coroutine[None, None, None]]) -> None:
    async with asyncio.TaskGroup() as tasks:
        for _ in range(count):
            tasks.create_task(worker())


def cited_topics(answer: Answer) -> frozenset[str]:
    """The topics of the language reference that an answer cites."""
    return frozenset(
        citation.document_id.removeprefix("topic/")
        for citation in answer.citations
        if citation.document_id.startswith("topic/")
    )


def _progress() -> Progress:
    columns = (TextColumn("» {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=notes)
