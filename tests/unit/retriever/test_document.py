"""The checks that a document must pass, each refusal with field, value and fix."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit.domain.chunk import MetadataScalar
from servicekit.errors import InvalidRequest
from services.retriever.ingestion.document import SubmittedDocument, check_document, hash_document


def _document(**changes: object) -> SubmittedDocument:
    values: dict[str, object] = {"document_id": "guide", "content": b"Some text."} | changes
    return SubmittedDocument(**values)  # type: ignore[arg-type]  # spelled at each call


@pytest.mark.parametrize(
    ("changes", "field", "reason"),
    [
        ({"document_id": ""}, "document_id", "INVALID_DOCUMENT_ID"),
        ({"document_id": "x" * 257}, "document_id", "INVALID_DOCUMENT_ID"),
        ({"document_id": "a\nb"}, "document_id", "INVALID_DOCUMENT_ID"),
        ({"title": "t" * 513}, "title", "TOO_LONG"),
        ({"source_uri": "u" * 2_049}, "source_uri", "TOO_LONG"),
        ({"media_type": "image/png"}, "media_type", "UNKNOWN_MEDIA_TYPE"),
        ({"content": b""}, "content", "EMPTY_DOCUMENT"),
        ({"content": b" \n\t "}, "content", "EMPTY_DOCUMENT"),
        ({"content": b"x" * (1024 * 1024 + 1)}, "content", "DOCUMENT_TOO_LARGE"),
        ({"content": b"caf\xe9"}, "content", "NOT_UTF8"),
        ({"content": b"text\0more"}, "content", "BINARY_CONTENT"),
        ({"content": b"\x01\x02\x03 text"}, "content", "BINARY_CONTENT"),
        ({"metadata": {f"k{n}": 1 for n in range(33)}}, "metadata", "TOO_MANY_METADATA_FIELDS"),
        ({"metadata": {"a b": 1}}, "metadata", "INVALID_METADATA"),
        ({"metadata": {"_title": 1}}, "metadata", "INVALID_METADATA"),
        ({"metadata": {"x": "v" * 1_025}}, "metadata", "INVALID_METADATA"),
        ({"metadata": {"x": float("nan")}}, "metadata", "INVALID_METADATA"),
    ],
)
def test_what_cannot_be_indexed_is_refused(changes: dict[str, object], field: str, reason: str) -> None:
    """The refusal names the field as the request calls it."""
    with pytest.raises(InvalidRequest) as caught:
        check_document(_document(**changes), path="documents[3]")
    assert caught.value.field == f"documents[3].{field}"
    assert caught.value.reason == reason
    assert caught.value.message.startswith("documents[3].")


@pytest.mark.parametrize(
    "changes",
    [
        {"content": "\ufeffBOM and ünïcode 👩\u200d🚀".encode()},
        {"content": b"form\x0cfeed and tab\t in a text of some length"},
        {"media_type": "Text/Markdown; charset=utf-8"},
        {"document_id": "https://example.org/a?b=c#d e"},
        {"metadata": {"n": 2**63 - 1, "f": -0.5, "b": False, "s": ""}},
    ],
)
def test_what_is_fine_passes(changes: dict[str, object]) -> None:
    """Unusual is not wrong."""
    check_document(_document(**changes))


def test_the_hash_covers_everything_that_was_given() -> None:
    """A change of any part is a change of the document; the order of metadata is none."""
    changes: list[dict[str, object]] = [
        {},
        {"content": b"Other"},
        {"title": "T"},
        {"source_uri": "u"},
        {"media_type": "text/markdown"},
        {"metadata": {"a": 1}},
        {"metadata": {"a": True}},
        {"metadata": {"a": "1"}},
        {"metadata": {"a": 1.0}},
    ]
    assert len({hash_document(_document(**change)) for change in changes}) == len(changes)
    assert hash_document(_document(metadata={"a": 1, "b": 2})) == hash_document(_document(metadata={"b": 2, "a": 1}))
    assert hash_document(_document(media_type="text/plain")) == hash_document(_document())


@given(
    content=st.binary(max_size=300),
    document_id=st.text(max_size=20),
    metadata=st.dictionaries(
        st.text(max_size=5), st.one_of(st.text(max_size=5), st.floats(), st.integers(), st.booleans())
    ),
)
def test_any_bytes_are_either_fine_or_refused(
    content: bytes, document_id: str, metadata: dict[str, MetadataScalar]
) -> None:
    """No input makes the checks fail in another way."""
    try:
        check_document(_document(content=content, document_id=document_id, metadata=metadata))
    except InvalidRequest as refused:
        named = refused.field
    else:
        named = "nothing to name"
    assert named
