"""The demo's verdict: the caller's counts held against ClickHouse's, as one line of JSON and as a table.

Pure but for printing; called by `__main__.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from binnacle_client.answers import Answer
from services.local.demo.course import Course, cited_topics
from services.local.demo.questions import DemoQuestion
from services.local.demo.readback import Counts

_MIN_CHUNKS = 2_000
_MIN_QUESTIONS = 30
_MIN_ON_TOPIC = 24
_MIN_CITED_SHARE = 0.9
_MIN_FEEDBACK = 5
_SHOWN_ANSWERS = 3


@dataclass(frozen=True, slots=True)
class Summary:
    """All figures of one demo; `failures` says which of them do not agree."""

    figures: dict[str, Any]
    failures: tuple[str, ...]


def summarize(course: Course, counts: Counts, *, demo_seconds: float) -> Summary:
    """Count, compare, judge."""
    answered = sum(answer.outcome == "answered" and bool(answer.text) for _, answer in course.answers)
    cited = sum(bool(answer.citations) for _, answer in course.answers)
    questions, shifted = len(course.answers), len(course.shifted)
    on_topic = sum(is_on_topic(question, answer) for question, answer in course.answers)
    asked = questions + shifted
    figures = {
        "chunks": course.chunks,
        "questions": questions,
        "answered": answered,
        "cited": cited,
        "on_topic": on_topic,
        "shift_questions": shifted,
        "interactions": counts.interactions,
        "evaluations": counts.evaluations,
        "feedback": counts.feedback,
        "alerts": counts.alerts,
        "gaps": counts.gaps,
        "demo_seconds": round(demo_seconds, 1),
    }
    checks = (
        (course.chunks >= _MIN_CHUNKS, f"chunks: {course.chunks}, at least {_MIN_CHUNKS} expected"),
        (not course.refused_documents, f"documents refused: {course.refused_documents}"),
        (questions >= _MIN_QUESTIONS, f"questions: {questions}, at least {_MIN_QUESTIONS} expected"),
        (answered == questions, f"answered: {answered} of {questions}"),
        (cited >= _MIN_CITED_SHARE * questions, f"cited: {cited} of {questions}"),
        (on_topic >= _MIN_ON_TOPIC, f"on topic: {on_topic}, at least {_MIN_ON_TOPIC} expected"),
        (counts.interactions == asked, f"interactions: {counts.interactions} stored, {asked} asked"),
        (counts.evaluations >= asked, f"evaluations: {counts.evaluations} stored, at least {asked} expected"),
        (counts.evaluated_interactions == asked, f"interactions evaluated: {counts.evaluated_interactions} of {asked}"),
        (
            counts.feedback == len(course.feedback_ids) >= _MIN_FEEDBACK,
            f"feedback: {counts.feedback} stored, {len(course.feedback_ids)} given",
        ),
        (bool(course.alerts), "alerts: none came on the live subscription"),
        (counts.alerts >= 1, f"alerts: {counts.alerts} stored"),
        (counts.gaps == 0, f"gaps: {counts.gaps}"),
    )
    return Summary(figures, tuple(told for holds, told in checks if not holds))


def is_on_topic(question: DemoQuestion, answer: Answer) -> bool:
    """Whether the answer cites a topic that is expected to answer the question."""
    return bool(cited_topics(answer) & question.topics)


def show(summary: Summary, course: Course, counts: Counts, *, console: Console) -> None:
    """Three answers in full, the table, what fired, and what does not agree."""
    _show_answers(course.answers[:_SHOWN_ANSWERS], console)
    missed = [question.text for question, answer in course.answers if not is_on_topic(question, answer)]
    table = Table(title="What the stack did, read back from ClickHouse", title_justify="left", box=None)
    table.add_column("what")
    table.add_column("count", justify="right")
    for name, value in {**summary.figures, "guardrail decisions": counts.verdicts}.items():
        table.add_row(name.replace("_", " "), str(value))
    console.print(table)
    if missed:
        console.print("Not answered from an expected topic: " + " · ".join(missed), markup=False)
    for alert in course.alerts[:_SHOWN_ANSWERS]:
        console.print(
            f"Alert on the live subscription: {alert.signal} in {alert.segment} {alert.state}, mean "
            f"{alert.reference_mean:.3g} → {alert.current_mean:.3g}, {alert.effect:.1f} standard deviations",
            markup=False,
        )
    for failure in summary.failures:
        console.print(f"DOES NOT AGREE  {failure}", markup=False, style="bold red")


def _show_answers(answers: Sequence[tuple[DemoQuestion, Answer]], console: Console) -> None:
    for question, answer in answers:
        console.print(f"\nQ  {question.text}", markup=False, style="bold")
        console.print(f"A  {answer.text}", markup=False)
        for marker, title in {c.marker: f"{c.title}  {c.source_uri}" for c in answer.citations}.items():
            console.print(f"   {marker} {title}", markup=False, style="dim")
    console.print()
