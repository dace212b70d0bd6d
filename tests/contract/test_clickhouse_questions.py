"""Each question of infra/clickhouse/QUESTIONS.md is asked of a filled store, and its answer is what its words say."""

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from servicekit.adapters.clickhouse.analytics_store import open_analytics_store
from servicekit.events.topics import FEEDBACK_RECORDED
from services.analytics.config import Settings
from services.analytics.migrations import migrate, read_migrations
from services.analytics.rollups import RollupKeeper
from tests.analytics_examples import examples, insert
from tests.clickhouse_process import running_front

pytestmark = pytest.mark.slow

_TEXT = (Settings().migrations_dir.parent / "QUESTIONS.md").read_text()
_QUESTION = r"### (.+?)\n\n(?:[^`#][^\n]*\n\n)?```sql\n(.*?)\n```"
_QUESTIONS: Mapping[str, str] = dict(re.findall(_QUESTION, _TEXT, re.DOTALL))
_AT_LEAST = 20

_NOW = datetime.now(UTC).replace(microsecond=0)
_TODAY = _NOW.replace(hour=0, minute=0, second=0)
_RECENT = max(_NOW - timedelta(minutes=10), _TODAY)
_MINUTE = _RECENT.replace(second=0)
_HOUR = _MINUTE.replace(minute=0)
_WHEN_STORED = object()

Rows = Sequence[tuple[object, ...]]
_ANSWERS: Mapping[str, Rows] = {
    "What did yesterday cost, by tenant and model?": [("acme", "large", 1, 0.5)],
    "What does an answer cost, by route and prompt version?": [("support", "4", 2, 350.0), ("support", "5", 1, 300.0)],
    "How long do people wait for the first token?": [("support", "large", 2, 300_000.0, 390_000.0)],
    "Which stage takes the time?": [("generate", 3, 450_000.0, 900_000.0)],
    "What does the cache save?": [("MISS", 2, 1_400_000.0, 1000), ("EXACT_HIT", 1, 5000.0, 0)],
    "How do requests end, hour by hour?": [(_HOUR, "ANSWERED", 3), (_HOUR, "BLOCKED", 1)],
    "In which minutes did errors or blocks exceed a tenth?": [(_MINUTE, 4, 0, 1)],
    "Which engine fails, and why?": [("tgi-1", "ENGINE_TIMEOUT", 1)],
    "How much of each engine's work is retried or hedged?": [
        ("tgi-2", 1, 1, 0, 0, 3000.0),
        ("tgi-1", 1, 0, 0, 40, 0.0),
    ],
    "Why were answers not as good as they could be?": [("fallback_model", "ENGINE_TIMEOUT", 1)],
    "What became of one request?": [
        ("ANSWERED", "", "5", "large", "question r-2", "answer r-2", 1, 1_900_000, ""),
    ],
    "Which documents are cited most?": [("doc-1", "Deadlines", 2)],
    "Which documents are found often and cited never?": [("doc-2", 2)],
    "How many answers cite nothing?": [("support", 3, 1)],
    "What happened to documents, and why were some refused?": [
        ("CREATED", "", 2, 5, 2),
        ("REFUSED", "DOCUMENT_EMPTY", 1, 0, 3),
        ("RETRACTED", "", 1, 0, 4),
    ],
    "Which answers cited one document?": [
        ("r-1", _RECENT, "", "question r-1", [1]),
        ("r-4", _RECENT, "", "question r-4", [1]),
    ],
    "Which documents were retracted, why, and how many answers cite them?": [
        ("doc-1", _RECENT, "out of date", 2, _RECENT),
    ],
    "Which answers were grounded badly, and what was asked?": [(0.25, "question r-2", "answer r-2")],
    "Did the new prompt make answers better?": [
        ("4", "answer_relevance", 1, 0.8),
        ("5", "answer_relevance", 1, 0.4),
        ("4", "groundedness", 1, 0.9),
        ("5", "groundedness", 1, 0.25),
    ],
    "Which variant of an experiment is ahead?": [("a", 1, 700.0, 0.8), ("b", 1, 300.0, 0.4)],
    "How sure was the model of its words?": [("large", "5", 1, 1.649)],
    "How often does an answer cite what it was not given, or break its schema?": [
        ("support", 0, 3, 1, 0),
        ("support", 1, 1, 0, 0),
    ],
    "What do people dislike?": [("wrong", 1, "question r-2", "answer r-2")],
    "Do people agree with a metric?": [(1, 1, 0.4), (5, 1, 0.8)],
    "Which alerts are firing now?": [("one", "refusal_rate", "support", "WARNING", _RECENT)],
    "What does each detector find, and what is done about it?": [("INPUT", "injection", "BLOCK", 1)],
    "What would a rule on trial have blocked?": [("topic", "competitors", 1, "question r-1")],
    "How far behind is storage?": [("binnacle.interaction.completed.v1", _WHEN_STORED, _RECENT)],
    "Which records were lost on a topic before they were read?": [
        ("binnacle.feedback.recorded.v1", 0, 5, 9, "evicted", "sink", _RECENT)
    ],
}


@pytest.fixture(scope="module")
def store_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A store that holds every event twice, with its minutes counted."""
    with running_front(tmp_path_factory.mktemp("front")) as front:
        asyncio.run(_fill(front.store_url))
        yield front.store_url


async def _fill(url: str) -> None:
    async with open_analytics_store(url) as store:
        await migrate(store, read_migrations(Settings().migrations_dir))
        events = examples(now=_RECENT, yesterday=_TODAY - timedelta(days=1))
        for _copy in range(2):
            await insert(store, events, event_time=_RECENT)
        await store.execute(
            "INSERT INTO stream_gaps (topic, partition, first_offset, last_offset, notice_time, reporter) "
            f"VALUES ('{FEEDBACK_RECORDED}', 0, 5, 9, '{_RECENT:%Y-%m-%d %H:%M:%S}', 'sink')"
        )
        keeper = RollupKeeper(store, every_s=1.0, insert_within_s=1.0)
        for rollup in keeper.rollups:
            await keeper.bring_up(rollup)


@pytest.mark.parametrize("question", _QUESTIONS)
async def test_every_question_has_the_answer_that_its_words_promise(store_url: str, question: str) -> None:
    """Asked as it stands in the document, of a store in which every event was stored twice."""
    async with open_analytics_store(store_url) as store:
        rows = [tuple(row.values()) for row in await store.query(_QUESTIONS[question])]
    expected = _ANSWERS[question]
    assert len(rows) == len(expected), rows
    for row, wanted in zip(rows, expected, strict=True):
        assert [_comparable(found, value) for found, value in zip(row, wanted, strict=True)] == list(wanted)


def _comparable(found: object, wanted: object) -> object:
    if wanted is _WHEN_STORED or (isinstance(wanted, float) and found == pytest.approx(wanted)):
        return wanted
    return found


def test_there_are_enough_questions_and_each_has_an_answer() -> None:
    """A question without a checked answer would be a promise that nobody keeps."""
    assert len(_QUESTIONS) >= _AT_LEAST
    assert set(_QUESTIONS) == set(_ANSWERS)
    assert len(_QUESTIONS) == _TEXT.count("```sql")


def test_every_view_is_documented() -> None:
    """Whoever looks for a view finds it in the table of views."""
    migrations = "".join(path.read_text() for path in sorted(Settings().migrations_dir.glob("*.sql")))
    views = set(re.findall(r"\nCREATE OR REPLACE VIEW (\w+)", migrations))
    assert {view for view in views if f"`{view}`" not in _TEXT} == set()
