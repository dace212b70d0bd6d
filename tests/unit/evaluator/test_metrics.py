"""The evaluator's metrics: each formula on texts small enough to score by hand."""

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit.domain.ids import RequestIds
from servicekit.domain.score import Metric, Score, Unmeasured
from services.evaluator.citations import score_citation_precision
from services.evaluator.feedback import Feedback, FeedbackKind, score_feedback
from services.evaluator.groundedness import score_groundedness
from services.evaluator.refusal import declines, score_answer_length, score_refusal
from services.evaluator.relevance import score_answer_relevance, score_context_relevance
from services.evaluator.scoring import METRICS, score_subject
from services.evaluator.subject import CitedSpan, Ending, Subject, UsedChunk

NOW = datetime(2026, 1, 2, tzinfo=UTC)
TUPLE = "Tuples are immutable sequences, typically used to store collections of heterogeneous data."
LIST = "Lists are mutable sequences, typically used to store collections of homogeneous items."
QUESTION = "Are tuples immutable sequences?"


def about(answer: str, *texts: str, question: str = QUESTION) -> Subject:
    """A subject from texts, its markers citing them."""
    return Subject.of_texts(question, answer, texts)


def test_an_answer_copied_from_its_chunk_is_grounded() -> None:
    """Every word of the answer stands in the chunk, so groundedness is 1."""
    assert score_groundedness(about("Tuples are immutable sequences.", TUPLE)).value == pytest.approx(1.0)


def test_an_invented_answer_is_not_grounded() -> None:
    """Words and numbers that no chunk holds leave groundedness under one half."""
    score = score_groundedness(about("The Eiffel Tower weighs 10,100 tonnes.", TUPLE))
    assert score.value is not None
    assert score.value < 0.5


def test_answer_relevance_is_the_share_of_question_terms_taken_up() -> None:
    """Of the terms tuple, immutable and sequence the answer has two."""
    score = score_answer_relevance(about("They are immutable sequences."))
    assert score.value == pytest.approx(2 / 3)


def test_context_relevance_discounts_by_rank() -> None:
    """A chunk with every term at rank 1 and one with none at rank 2 weigh 1 and 1/log2(3)."""
    score = score_context_relevance(about("Yes.", TUPLE, "Nothing of the kind."))
    assert score.value == pytest.approx(1 / (1 + 1 / math.log2(3)))


def test_context_relevance_goes_by_rank_and_not_by_order() -> None:
    """The same chunks listed the other way round score the same."""
    texts = {"a": TUPLE, "b": "Nothing of the kind."}
    forward = Subject(QUESTION, "Yes.", chunks=(UsedChunk("a", 1), UsedChunk("b", 2)), texts=texts)
    backward = Subject(QUESTION, "Yes.", chunks=(UsedChunk("b", 2), UsedChunk("a", 1)), texts=texts)
    assert score_context_relevance(forward) == score_context_relevance(backward)


def test_citation_precision_counts_supporting_citations() -> None:
    """One citation points to the chunk that says it, the other to one that does not."""
    answer = "Tuples are immutable sequences [1]. Dictionaries preserve insertion order [2]."
    assert score_citation_precision(about(answer, TUPLE, LIST)).value == pytest.approx(0.5)


def test_a_marker_behind_the_full_stop_belongs_to_the_sentence_before() -> None:
    """`Sentence. [1]` cites the sentence that ended, not the one that follows."""
    answer = "Tuples are immutable sequences. [1] Penguins live in Antarctica."
    assert score_citation_precision(about(answer, TUPLE)).value == pytest.approx(1.0)


def test_a_marker_of_no_chunk_leaves_citation_precision_unmeasured() -> None:
    """A citation of chunk 7 among one is of a chunk that cannot be found."""
    score = score_citation_precision(about("Tuples are immutable sequences [7].", TUPLE))
    assert score.unmeasured is Unmeasured.CHUNK_NOT_FOUND


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, but I don't have enough information.",
        "I\u2019m afraid that is beyond me.",
        "We cannot answer that.",
        "The documents do not mention it.",
        "There is not enough context to say.",
    ],
)
def test_a_declining_opening_is_a_refusal(answer: str) -> None:
    """The openings by which models decline are recognised, typographic apostrophes included."""
    assert declines(answer)


@pytest.mark.parametrize(
    "answer",
    ["Tuples are immutable.", "A with statement cannot return a value.", "x" * 300 + " I cannot answer."],
)
def test_an_ordinary_answer_is_no_refusal(answer: str) -> None:
    """`cannot` about a thing, or far behind the opening, declines nothing."""
    assert not declines(answer)


def test_a_recorded_refusal_counts_whatever_its_words() -> None:
    """An interaction that ended refused scores 1 even with an empty answer."""
    assert score_refusal(Subject(QUESTION, "", ending=Ending.REFUSED)).value == 1.0


def test_groundedness_of_a_refusal_is_unmeasured() -> None:
    """A refusal states nothing that chunks could support."""
    score = score_groundedness(about("I cannot answer this.", TUPLE))
    assert score.unmeasured is Unmeasured.REFUSED


def test_answer_length_counts_words() -> None:
    """Words are what blank space parts."""
    assert score_answer_length(about("One two  three.")).value == 3.0


@pytest.mark.parametrize("ending", list(Ending))
def test_every_ending_yields_every_metric(ending: Ending) -> None:
    """Whatever became of the interaction, there is one score per metric, with a value or a reason."""
    scores = score_subject(Subject(QUESTION, "", ending=ending))
    assert [score.metric for score in scores] == list(METRICS)


def test_a_blocked_interaction_is_unmeasured_as_blocked() -> None:
    """Metrics of an answer that was never given say why."""
    scores = {score.metric: score for score in score_subject(Subject(QUESTION, "x", ending=Ending.BLOCKED))}
    assert scores[Metric.GROUNDEDNESS].unmeasured is Unmeasured.BLOCKED
    assert scores[Metric.REFUSAL].unmeasured is Unmeasured.BLOCKED


def test_an_erased_chunk_leaves_its_metrics_unmeasured() -> None:
    """Without the text of one chunk neither groundedness nor context relevance nor its citation is guessed."""
    subject = Subject(
        QUESTION,
        "Tuples are immutable sequences [1].",
        chunks=(UsedChunk("a", 1), UsedChunk("b", 2)),
        citations=(CitedSpan(31, 34, "a"),),
        texts={"b": LIST},
        missing={"a": Unmeasured.CHUNK_ERASED},
    )
    reasons = {score.metric: score.unmeasured for score in score_subject(subject)}
    assert reasons[Metric.GROUNDEDNESS] is Unmeasured.CHUNK_ERASED
    assert reasons[Metric.CONTEXT_RELEVANCE] is Unmeasured.CHUNK_ERASED
    assert reasons[Metric.CITATION_PRECISION] is Unmeasured.CHUNK_ERASED
    assert reasons[Metric.ANSWER_RELEVANCE] is None


@given(question=st.text(max_size=60), answer=st.text(max_size=200), texts=st.lists(st.text(max_size=80), max_size=3))
def test_shares_stay_between_0_and_1_whatever_the_text(question: str, answer: str, texts: list[str]) -> None:
    """No text makes a metric raise or leave its range."""
    for score in score_subject(Subject.of_texts(question, answer, texts)):
        if score.value is not None and score.metric != Metric.ANSWER_LENGTH:
            assert 0.0 <= score.value <= 1.0


def feedback(kind: FeedbackKind, value: float | None, request_id: str = "r") -> Feedback:
    """One piece of feedback."""
    return Feedback("f", request_id, kind, value, NOW)


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (FeedbackKind.RATING, 1.0, 0.0),
        (FeedbackKind.RATING, 3.0, 0.5),
        (FeedbackKind.RATING, 5.0, 1.0),
        (FeedbackKind.RATING, 99.0, 1.0),
        (FeedbackKind.THUMBS, -1.0, 0.0),
        (FeedbackKind.THUMBS, 1.0, 1.0),
        (FeedbackKind.CORRECTION, None, 0.0),
    ],
)
def test_feedback_is_scaled_to_0_and_1(kind: FeedbackKind, value: float | None, expected: float) -> None:
    """Ratings, thumbs and corrections share one scale, and an absurd rating stays on it."""
    score = score_feedback(feedback(kind, value))
    assert (score.metric, score.value) == (f"feedback.{kind.value}", expected)


def test_a_label_is_feedback_without_a_number() -> None:
    """Labels have no order, so they are recorded as unmeasured."""
    assert score_feedback(feedback(FeedbackKind.LABEL, None)).unmeasured is Unmeasured.NOT_NUMERIC


def test_feedback_tells_the_time_of_its_request_from_the_id() -> None:
    """A signed request id holds the time it was made, so a repeat of the event has the same one."""
    before = datetime.now(UTC)
    request_id = RequestIds([b"k" * 32]).new("acme")
    told = feedback(FeedbackKind.RATING, 5.0, request_id).interaction_time
    assert before - timedelta(seconds=1) <= told <= datetime.now(UTC) + timedelta(seconds=1)


@pytest.mark.parametrize("request_id", ["", "nonsense", "2e4f0f63-5f7c-4b06-9f3c-0b9ff0a1b2c3-tag"])
def test_an_id_without_time_falls_back_to_the_feedbacks(request_id: str) -> None:
    """What is no time-ordered id gives the time of the feedback itself."""
    assert feedback(FeedbackKind.RATING, 5.0, request_id).interaction_time == NOW


def test_a_score_has_a_value_or_a_reason() -> None:
    """Neither and both are refused where the score is made."""
    with pytest.raises(ValueError, match="value or a reason"):
        Score("m", "1", None)
    with pytest.raises(ValueError, match="value or a reason"):
        Score("m", "1", 1.0, Unmeasured.BLOCKED)
