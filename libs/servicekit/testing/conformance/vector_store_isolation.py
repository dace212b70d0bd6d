"""That a tenant never sees another's: what hypothesis draws, and the check that every vector store runs on it.

Used by `tests/contract/test_vector_store_isolation.py`; tenants share document ids, words and metadata fields.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

from servicekit.domain.chunk import Chunk, MetadataScalar
from servicekit.domain.filter import All, Any, Comparison, Filter, Not, Operator
from servicekit.errors import InvalidRequest
from servicekit.ports.vector_store import ChunkPlace, DocumentRevision, SearchMode, VectorStore
from servicekit.testing.conformance.vector_store_corpus import query_of
from servicekit.testing.documents import NOON, make_revision, put

_WORDS = ("compass", "needle", "north", "star", "the", "Acme", "beta", "*", "%", "' OR 1=1 --", "é")
_IDS = ("d", "D", "d/1", "x' OR '1'='1", "日本", "*", "a b")
_FIELDS = ("lang", "Lang", "owner", "size")
_TEXT_VALUES = ("en", "EN", "e*", "acme", "beta", "")
_DEPTH = 50

_texts = st.lists(st.sampled_from(_WORDS), min_size=1, max_size=5).map(" ".join)
_metadata = st.dictionaries(st.sampled_from(_FIELDS), st.sampled_from(_TEXT_VALUES), max_size=3)


@dataclass(frozen=True, slots=True)
class Probe:
    """Two tenants' documents (each text is marked by its owner where it is made), and one filter and question."""

    names: tuple[str, str]
    documents: tuple[Mapping[str, Sequence[str]], Mapping[str, Sequence[str]]]
    metadata: tuple[Mapping[str, MetadataScalar], Mapping[str, MetadataScalar]]
    retracted: str
    condition: Filter | None
    question: str


def _conditions() -> st.SearchStrategy[Filter]:
    fields = st.sampled_from((*_FIELDS, "_document_id", "_title", "_source_uri"))
    operators = st.sampled_from(list(Operator))
    values = st.sampled_from((*_TEXT_VALUES, *_IDS))
    leaves = st.builds(lambda field, operator, value: Comparison(field, operator, (value,)), fields, operators, values)
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.builds(Not, inner),
            st.lists(inner, min_size=1, max_size=3).map(lambda some: All(tuple(some))),
            st.lists(inner, min_size=1, max_size=3).map(lambda some: Any(tuple(some))),
        ),
        max_leaves=4,
    )


def probes() -> st.SearchStrategy[Probe]:
    """Pairs of tenants with names that are easily mistaken for each other."""
    names = st.lists(
        st.one_of(st.sampled_from(("acme", "Acme", "acme ", "acme/1", "*", "")), st.text(max_size=12)),
        min_size=2,
        max_size=2,
        unique=True,
    ).map(tuple)
    corpora = st.dictionaries(st.sampled_from(_IDS), st.lists(_texts, min_size=1, max_size=3), min_size=1, max_size=4)
    return st.builds(
        Probe,
        names=names,
        documents=st.tuples(corpora, corpora),
        metadata=st.tuples(_metadata, _metadata),
        retracted=st.sampled_from(_IDS),
        condition=st.none() | _conditions(),
        question=_texts,
    )


async def check_isolation(store: VectorStore, probe: Probe, *, run: str) -> None:
    """Write both tenants' documents, then see that no answer to one holds anything of the other.

    `run` makes the tenants' names new ones in a store that is used again.
    """
    tenants = [f"{run}{name}" for name in probe.names]
    written = [_revisions(probe, number) for number in (0, 1)]
    for tenant, revisions in zip(tenants, written, strict=True):
        await put(store, tenant, revisions)
    if probe.retracted in probe.documents[1]:
        await store.retract_document(tenants[1], probe.retracted, retract_time=NOON)
    hidden = {probe.retracted}
    await _check_one(store, probe, tenant=tenants[0], own=written[0], other=written[1], hidden=set())
    await _check_one(store, probe, tenant=tenants[1], own=written[1], other=written[0], hidden=hidden)


def _revisions(probe: Probe, number: int) -> list[DocumentRevision]:
    return [
        make_revision(
            document_id,
            [f"{text} of owner{number}" for text in texts],
            title=f"owner{number}",
            metadata=probe.metadata[number],
        )
        for document_id, texts in probe.documents[number].items()
    ]


async def _check_one(
    store: VectorStore,
    probe: Probe,
    *,
    tenant: str,
    own: Sequence[DocumentRevision],
    other: Sequence[DocumentRevision],
    hidden: set[str],
) -> None:
    mine = {one.chunk.content_hash: one.chunk for revision in own for one in revision.chunks}
    theirs = [one.chunk for revision in other for one in revision.chunks]
    titles = {revision.document.title for revision in own}
    found = {revision.document.document_id for revision in own} - hidden
    for mode in SearchMode:
        for condition in (None, probe.condition):
            _check_chunks(await _search(store, probe, tenant, mode, condition), mine, found)
    every = [*mine.values(), *theirs]
    places = await store.get_places(tenant, [ChunkPlace(chunk.document_id, chunk.ordinal) for chunk in every])
    _check_chunks(places.values(), mine, found)
    assert set(await store.get_chunks(tenant, [chunk.content_hash for chunk in every])) == set(mine)
    documents = await store.get_documents(tenant, list(_IDS))
    assert set(documents) == {revision.document.document_id for revision in own}
    assert {document.title for document in documents.values()} == titles
    listed = await store.list_documents(tenant, page_size=_DEPTH, include_retracted=True)
    assert [document.document_id for document in listed] == sorted(documents)
    state = await store.describe(tenant)
    assert state.documents == len(found)
    assert set(state.fields) == set(own[0].document.metadata)


async def _search(
    store: VectorStore, probe: Probe, tenant: str, mode: SearchMode, condition: Filter | None
) -> list[Chunk]:
    """What is found; a field that only the other tenant has must be unknown to this one."""
    try:
        hits = await store.search(tenant, query_of(probe.question, mode, top_k=_DEPTH, condition=condition))
    except InvalidRequest as exc:
        assert exc.reason == "UNKNOWN_FILTER_FIELD"  # noqa: PT017  # what is raised is allowed, not awaited
        return []
    return [scored.chunk for scored in hits.chunks]


def _check_chunks(chunks: Iterable[Chunk], mine: Mapping[str, Chunk], found: set[str]) -> None:
    for chunk in chunks:
        assert chunk.document_id in found
        assert chunk.content_hash in mine
        assert chunk.metadata == mine[chunk.content_hash].metadata
        assert chunk.title == mine[chunk.content_hash].title
