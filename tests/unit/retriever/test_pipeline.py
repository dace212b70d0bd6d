"""The ingestion pipeline on stores in memory: order, redelivery, retraction, duplicates, guard, fetching, groups."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from servicekit.adapters.memory.embedder import MemoryEmbedder
from servicekit.adapters.memory.vector_store import MemoryVectorStore
from servicekit.domain.verdict import Action
from servicekit.errors import BackendUnavailable, InvalidRequest
from servicekit.ports.clock import SystemClock
from servicekit.ports.content_source import FetchedContent
from servicekit.ports.vector_store import ChunkPlace, DocumentRevision
from servicekit.testing.documents import make_revision
from services.retriever.formats.parsing import ParsedDocument
from services.retriever.index.embedders import TenantEmbedders
from services.retriever.ingestion.chunking import ChunkRules
from services.retriever.ingestion.document import SubmittedDocument
from services.retriever.ingestion.duplicates import DuplicateStep
from services.retriever.ingestion.embedding import embed
from services.retriever.ingestion.fetching import Fetcher
from services.retriever.ingestion.guarding import GuardMode, GuardStep, Judgement
from services.retriever.ingestion.indexing import Indexer, Step
from services.retriever.ingestion.preparing import Preparer, TextChecks
from services.retriever.ingestion.progress import Stage
from services.retriever.ingestion.quality import Decision, Flag
from services.retriever.ingestion.results import IndexResult, Outcome
from services.retriever.ingestion.submission import EventPlace, Fingerprint, read_fingerprint
from services.retriever.ingestion.work import Work
from services.retriever.ingestion.writing import GroupWriter

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TIDES = "The moon pulls the water of the sea towards it, and so the sea rises and falls twice a day. " * 8
LONG = " ".join(f"Station {number} reports wind from the north and a falling tide." for number in range(40))


class _Source:
    """Answers by address; `failures` of an address come first."""

    def __init__(self, answers: Mapping[str, FetchedContent], *, failures: int = 0) -> None:
        self._answers = answers
        self.failures = failures

    async def fetch(self, uri: str, *, max_bytes: int) -> FetchedContent:
        if self.failures:
            self.failures -= 1
            raise BackendUnavailable(f"{uri} answers with status 503", reason="FETCH_UNAVAILABLE")
        return self._answers[uri]


class _Guard:
    """Redacts what holds `secret`, blocks what holds `poison`."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def judge(
        self, tenant: str, texts: Mapping[str, str], *, document_id: str
    ) -> tuple[Mapping[str, Judgement], str]:
        self.asked += texts.values()
        return {key: self._one(text) for key, text in texts.items()}, "1"

    @staticmethod
    def _one(text: str) -> Judgement:
        if "poison" in text:
            return Judgement(Action.BLOCK, "", ("injection.rule",))
        if "secret" in text:
            return Judgement(Action.REDACT, text.replace("secret", "[SECRET_1]"), ("secret.rule",))
        return Judgement(Action.ALLOW, text)


class _NoBinaries:
    async def read(self, content: bytes, *, media_type: str) -> ParsedDocument:
        raise AssertionError(media_type)


def _indexer(
    store: MemoryVectorStore,
    *,
    source: _Source | None = None,
    guard: GuardStep | None = None,
    duplicates: Decision = Decision.FLAG,
    checks: TextChecks | None = None,
    before_write: Step | None = None,
) -> Indexer:
    async def no_wait(_seconds: float) -> None:
        return None

    steps: list[Step] = [Preparer(ChunkRules(), binaries=_NoBinaries(), checks=checks or TextChecks())]
    steps += [guard] if guard else []
    steps += [embed, DuplicateStep(store, decision=duplicates)]
    steps += [before_write] if before_write else []
    return Indexer(
        store=store,
        embedders=TenantEmbedders(store=store, current=MemoryEmbedder()),
        clock=SystemClock(),
        fetch=Fetcher(source or _Source({}), sleep=no_wait),
        steps=steps,
    )


def _place(offset: int, *, partition: int = 0, minutes: int | None = None) -> EventPlace:
    return EventPlace(partition, offset, NOON + timedelta(minutes=offset if minutes is None else minutes))


async def _index(indexer: Indexer, text: str, *, name: str = "tides", place: EventPlace | None = None) -> IndexResult:
    document = SubmittedDocument(name, text.encode())
    (result,) = (await indexer.index("acme", [document], path="document", place=place)).results
    return result


@pytest.fixture
def store() -> MemoryVectorStore:
    """An empty store."""
    return MemoryVectorStore()


async def test_an_event_delivered_again_never_undoes_a_newer_one(store: MemoryVectorStore) -> None:
    """After a crash both come again, the older first: the newer content stays throughout, and no revision is added."""
    indexer = _indexer(store)
    await _index(indexer, "First edition.", place=_place(1))
    await _index(indexer, "Second edition.", place=_place(2))
    again = [
        await _index(indexer, text, place=_place(n)) for n, text in ((1, "First edition."), (2, "Second edition."))
    ]
    assert [(one.outcome, one.revision) for one in again] == [(Outcome.UNCHANGED, 2)] * 2
    assert (await store.describe("acme")).version == 2


async def test_an_event_applied_before_a_call_is_not_applied_again_after_it(store: MemoryVectorStore) -> None:
    """What a caller handed in directly is not overwritten by a redelivery of something older."""
    indexer = _indexer(store)
    await _index(indexer, "By event.", place=_place(1))
    await _index(indexer, "By call.")
    assert (await _index(indexer, "By event.", place=_place(1))).outcome is Outcome.UNCHANGED
    assert (await _index(indexer, "By a later event.", place=_place(2))).revision == 3


async def test_a_deleted_document_does_not_come_back_by_redelivery(store: MemoryVectorStore) -> None:
    """The event that made it comes again and changes nothing; a new submission makes it anew."""
    indexer = _indexer(store)
    await _index(indexer, "Short lived.", place=_place(1))
    await indexer.delete("acme", "tides")
    await _index(indexer, "Short lived.", place=_place(1))
    assert (await store.describe("acme")).documents == 0
    late = await _index(indexer, "Waited in the topic meanwhile.", place=_place(2))
    assert late.error is not None
    assert late.error.reason == "DOCUMENT_WITHDRAWN_SINCE"
    afterwards = EventPlace(0, 3, datetime.now(UTC) + timedelta(seconds=1))
    assert (await _index(indexer, "Short lived.", place=afterwards)).outcome is Outcome.CREATED


@pytest.mark.parametrize(
    ("place", "newer"),
    [
        (_place(4), False),
        (_place(5), False),
        (_place(6), True),
        (_place(6, minutes=1), True),  # a producer whose clock is behind
        (_place(0, minutes=9), True),  # a topic that was made anew
        (_place(1, partition=3, minutes=1), True),
    ],
)
def test_newer_is_by_place_or_by_time(place: EventPlace, *, newer: bool) -> None:
    """Only what is older in both ways is passed over; the store keeps both."""
    kept = read_fingerprint(str(Fingerprint("abc", _place(5))))
    assert kept == Fingerprint("abc", _place(5))
    assert kept.place is not None
    assert place.is_newer_than(kept.place) is newer


async def test_retracted_content_does_not_come_back_by_itself(store: MemoryVectorStore) -> None:
    """The same content is refused with a reason; changed content is a new revision that is found."""
    indexer = _indexer(store)
    await _index(indexer, "Withdrawn.")
    await indexer.retract("acme", "tides")
    refused = await _index(indexer, "Withdrawn.")
    assert refused.error is not None
    assert (refused.outcome, refused.error.reason) == (Outcome.REFUSED, "DOCUMENT_RETRACTED")
    assert (await _index(indexer, "Corrected.")).outcome is Outcome.UPDATED


async def test_duplicates_are_told_of(store: MemoryVectorStore) -> None:
    """The same text and nearly the same one name the document that has it; another text does not."""
    indexer = _indexer(store)
    await _index(indexer, LONG, name="one")
    same = await _index(indexer, LONG, name="two")
    near = await _index(indexer, LONG + " One more station.", name="three")
    other = await _index(indexer, TIDES, name="four")
    assert (same.flags, same.duplicate_of) == ((Flag.EXACT_DUPLICATE,), "one")
    assert near.flags == (Flag.NEAR_DUPLICATE,)
    assert (other.flags, other.duplicate_of) == ((), "")
    strict = _indexer(store, duplicates=Decision.REFUSE)
    refused = await _index(strict, LONG, name="five")
    assert refused.error is not None
    assert refused.error.reason == "EXACT_DUPLICATE"


async def test_a_new_revision_is_no_duplicate_of_its_own_document(store: MemoryVectorStore) -> None:
    """A small change of a document is an update and nothing to tell of."""
    indexer = _indexer(store)
    await _index(indexer, LONG)
    assert (await _index(indexer, LONG + " More.")).flags == ()


async def test_quality_checks_flag_or_refuse(store: MemoryVectorStore) -> None:
    """Repetition and an unexpected language are told of, or refused where settings say so."""
    checks = TextChecks(expected_languages=frozenset({"de"}))
    flagged = await _index(_indexer(store, checks=checks), LONG, name="english")
    assert (flagged.language, flagged.flags) == ("en", (Flag.UNEXPECTED_LANGUAGE,))
    strict = TextChecks(boilerplate=Decision.REFUSE, language=Decision.REFUSE, expected_languages=frozenset({"de"}))
    indexer = _indexer(store, checks=strict)
    refused = [await _index(indexer, text, name="strict") for text in ("Home | Contact\n" * 60, LONG)]
    assert [one.error.reason for one in refused if one.error] == ["BOILERPLATE", "UNEXPECTED_LANGUAGE"]


@pytest.mark.parametrize(
    ("mode", "outcomes"),
    [
        (GuardMode.FLAG, [Outcome.CREATED, Outcome.CREATED]),
        (GuardMode.REDACT, [Outcome.CREATED, Outcome.REFUSED]),
        (GuardMode.REFUSE, [Outcome.REFUSED, Outcome.REFUSED]),
    ],
)
async def test_the_guardrail_decides_by_mode(
    store: MemoryVectorStore, mode: GuardMode, outcomes: Sequence[Outcome]
) -> None:
    """Flagged, redacted or refused; what is refused names the detectors; what is stored is the redacted text."""
    indexer = _indexer(store, guard=GuardStep(_Guard(), mode=mode, clock=SystemClock()))
    results = [await _index(indexer, f"It holds a {word}.", name=word) for word in ("secret", "poison")]
    assert [one.outcome for one in results] == outcomes
    assert all(one.flags == (Flag.GUARDED,) for one in results if one.outcome is Outcome.CREATED)
    errors = [one.error for one in results if one.error]
    assert all(error.reason == "GUARDRAIL_BLOCKED" and ".rule" in error.message for error in errors)
    if mode is GuardMode.REDACT:
        found = await store.get_places("acme", [ChunkPlace("secret", 0)])
        assert [chunk.text for chunk in found.values()] == ["It holds a [SECRET_1]."]


async def test_texts_that_passed_are_not_judged_again(store: MemoryVectorStore) -> None:
    """A document that changes in one place is asked about for that place."""
    guard = _Guard()
    indexer = _indexer(store, guard=GuardStep(guard, mode=GuardMode.REFUSE, clock=SystemClock()))
    await _index(indexer, LONG)
    first = len(guard.asked)
    await _index(indexer, LONG + " " + TIDES)
    assert first > 1
    assert len(guard.asked) - first < first + 4
    assert len(set(guard.asked)) == len(guard.asked)


async def test_content_is_fetched_and_typed(store: MemoryVectorStore) -> None:
    """The server's type counts where nothing else is said; an address that recovers is fetched in the end."""
    answers = {"https://example.org/a": FetchedContent(b"<h1>Tides</h1><p>They rise.", "text/html; charset=utf-8")}
    indexer = _indexer(store, source=_Source(answers, failures=2))
    document = SubmittedDocument("a", b"", fetch_uri="https://example.org/a")
    (result,) = (await indexer.index("acme", [document], path="document", place=_place(1))).results
    assert (result.outcome, result.media_type) == (Outcome.CREATED, "text/html")
    failing = _indexer(store, source=_Source(answers, failures=99))
    (refused,) = (await failing.index("acme", [document], path="document", place=_place(2))).results
    assert refused.error is not None
    assert refused.error.reason == "FETCH_FAILED"
    (direct,) = (await indexer.index("acme", [document], path="document")).results
    assert direct.error is not None
    assert direct.error.reason == "FETCH_NOT_HERE"


async def test_progress_goes_through_the_stages(store: MemoryVectorStore) -> None:
    """Stages come in their order, chunks are counted to the end."""
    told: list[object] = []

    class _Told:
        async def enter(self, stage: Stage) -> None:
            told.append(stage)

        async def count(self, done: int, total: int) -> None:
            told.append((done, total))

    document = SubmittedDocument("a", TIDES.encode())
    await _indexer(store).index("acme", [document], path="document", progress=_Told())
    assert [one for one in told if isinstance(one, Stage)] == [Stage.PREPARING, Stage.EMBEDDING, Stage.WRITING]
    counts = [one for one in told if isinstance(one, tuple)]
    assert counts[-1][0] == counts[-1][1] > 0


async def test_one_documents_changes_keep_their_order(store: MemoryVectorStore) -> None:
    """However many are in hand at once, revisions count up in the order in which they were begun."""

    async def dawdle(work: Work) -> None:
        await asyncio.sleep(0.02 if b"Edition 0" in work.items[0].document.content else 0)

    indexer = _indexer(store, before_write=dawdle)
    results = await asyncio.gather(*(_index(indexer, f"Edition {n}.", place=_place(n)) for n in range(5)))
    assert [one.revision for one in results] == [1, 2, 3, 4, 5]


async def test_writes_of_several_callers_become_one(store: MemoryVectorStore) -> None:
    """Callers that come together share a commit; a clash of one's metadata fails that one alone."""
    indexer = _indexer(store)
    documents = [SubmittedDocument(f"d{n}", TIDES.encode(), metadata={"n": n}) for n in range(6)]
    reports = await asyncio.gather(*(indexer.index("acme", [one], path="document") for one in documents))
    assert {one.corpus_version for one in reports} == {1}


async def test_a_cancelled_caller_leaves_the_others_to_be_written() -> None:
    """The one who writes for all may go away at any moment; the others' documents are written all the same."""
    entered, written = asyncio.Event(), []

    class _Slow:
        async def replace_documents(self, tenant: str, revisions: Sequence[DocumentRevision], *, model: str) -> int:
            if not entered.is_set():
                entered.set()
                await asyncio.Event().wait()
            written.append(len(revisions))
            return len(written)

    writer = GroupWriter(_Slow(), coming=lambda _tenant: 9, linger_s=0.01)  # type: ignore[arg-type]  # only this
    callers = [asyncio.ensure_future(writer.write("acme", [], model="m")) for _ in range(3)]
    await entered.wait()
    callers[0].cancel()
    assert await asyncio.gather(*callers[1:]) == [1, 1]
    with pytest.raises(asyncio.CancelledError):
        await callers[0]


async def test_a_commit_waits_for_those_on_their_way_and_not_for_no_one() -> None:
    """Who is alone is written at once; who is not is written along with the others, in one commit."""
    written = []

    class _Store:
        async def replace_documents(self, tenant: str, revisions: Sequence[DocumentRevision], *, model: str) -> int:
            written.append(len(revisions))
            return len(written)

    coming = {"alone": 1, "acme": 2}
    writer = GroupWriter(_Store(), coming=coming.__getitem__, linger_s=60.0)  # type: ignore[arg-type]  # only this
    async with asyncio.timeout(5):
        await writer.write("alone", [make_revision("a", ["text"])], model="m")
        first = asyncio.ensure_future(writer.write("acme", [make_revision("b", ["text"])], model="m"))
        await asyncio.sleep(0)
        await writer.write("acme", [make_revision("c", ["text"])], model="m")
        await first
    assert written == [1, 2]


async def test_a_clash_fails_the_caller_whose_it_is() -> None:
    """A refusal by the store is told to those whose documents it is about."""

    class _Picky:
        async def replace_documents(self, tenant: str, revisions: Sequence[DocumentRevision], *, model: str) -> int:
            if any(one.document.document_id == "bad" for one in revisions):
                raise InvalidRequest("metadata clashes", field="metadata")
            return 7

    writer = GroupWriter(_Picky(), coming=lambda _tenant: 9, linger_s=0.01)  # type: ignore[arg-type]  # only this
    calls = [writer.write("acme", [make_revision(one, ["text"])], model="m") for one in ("good", "bad", "fine")]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(one) for one in outcomes] == [int, InvalidRequest, int]
