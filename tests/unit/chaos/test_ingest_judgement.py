"""The judgement of a search during fault runs of ingestion, and what is planned for them."""

from binnacle.events.v1 import document_indexed_pb2 as events
from binnacle.type.v1.chunk_pb2 import Chunk
from tests.chaos.ingest_aims import Aim, Victim, plan
from tests.chaos.ingest_documents import Act, write_scripts
from tests.chaos.ingest_documents import text_of as edition_text
from tests.chaos.ingest_events import Told
from tests.chaos.ingest_judging import Known, judge, judge_together


def _chunks(edition: int, *, revision: int, size: int = 400, overlap: int = 50) -> list[Chunk]:
    text = edition_text("d", edition)
    made = []
    for ordinal, start in enumerate(range(0, len(text) - overlap, size - overlap)):
        chunk = Chunk(chunk_id=f"{revision}/{ordinal}", document_id="d", revision=revision, ordinal=ordinal)
        chunk.text = text[start : start + size]
        chunk.span.start, chunk.span.end = start, start + len(chunk.text)
        made.append(chunk)
    return made


def test_one_whole_edition_has_no_fault() -> None:
    """In any order, with overlaps; the edition is told by its text, whatever its revision's number."""
    findings = judge("d", list(reversed(_chunks(2, revision=5))), editions=3)
    assert (findings.edition, findings.faults) == (2, ())
    assert judge("d", [], editions=3).edition == 0


def test_mixed_partial_and_doubled_answers_are_faults() -> None:
    """Two revisions, a hole, a chunk twice: each is named by its kind."""
    whole = _chunks(1, revision=1)
    for chunks, kind in (
        (whole[:1] + _chunks(2, revision=2)[1:], "mixed_revisions"),
        (whole[:1] + whole[2:], "mixed_revisions"),
        (whole[:-1], "mixed_revisions"),
        ([*whole, whole[0]], "duplicate_chunks"),
    ):
        assert kind in {found for found, _ in judge("d", chunks, editions=2).faults}, kind
    together = judge_together([*whole[:2], *_chunks(2, revision=2)[:1]])
    assert [kind for kind, _ in together] == ["mixed_revisions"]
    assert list(judge_together(whole)) == []


def test_what_is_known_binds_only_while_nothing_changes() -> None:
    """A document must be found once it was seen, until it is being withdrawn, and not after that was acknowledged."""
    known = Known("d")
    known.submitting(1)
    known.seen(1, since=known.changes)
    assert known.visible
    began = known.changes
    known.withdrawing()
    known.seen(1, since=began)
    known.seen(1, since=known.changes)
    assert (known.visible, known.hidden) == (False, False)
    known.withdrawn()
    assert known.hidden
    known.submitting(2)
    assert (known.visible, known.hidden) == (False, False)


def test_what_was_never_told_is_named() -> None:
    """Each revision needs an event, and so does a withdrawal; an unchanged outcome tells of its revision."""
    script = next(one for one in write_scripts(1, documents=8) if one.ends_as is Act.RETRACT)
    told = Told()
    name = script.document_id
    told.take(events.DocumentIndexed(document_id=name, revision=1, outcome=events.DOCUMENT_OUTCOME_CREATED))
    told.take(events.DocumentIndexed(document_id=name, revision=3, outcome=events.DOCUMENT_OUTCOME_UNCHANGED))
    assert told.missing(script, revision=3) == [
        f"{name}: revision 2 was not told",
        f"{name}: that it was to retract was not told",
    ]
    told.take(events.DocumentIndexed(document_id=name, revision=2, outcome=events.DOCUMENT_OUTCOME_UPDATED))
    told.take(events.DocumentIndexed(document_id=name, revision=3, outcome=events.DOCUMENT_OUTCOME_RETRACTED))
    assert told.missing(script, revision=3) == []


def test_plans_repeat_and_meet_every_aim() -> None:
    """A seed is a plan; consecutive seeds meet all aims, and the broker dies in some runs."""
    aims = (Aim.EMBED, Aim.WRITE, Aim.PUBLISH)
    assert plan(7, aims=aims) == plan(7, aims=aims)
    planned = [fault for seed in range(30) for fault in plan(seed, aims=aims)]
    assert {fault.aim for fault in planned if fault.aim} == set(aims)
    assert {fault.victim for fault in planned} == set(Victim)
