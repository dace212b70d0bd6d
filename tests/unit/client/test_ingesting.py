"""Which files are indexed under which ids, and how they are grouped into calls."""

from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from binnacle_client.answers import DocumentInput
from binnacle_client.cli.ingesting import BATCH_BYTES, BATCH_DOCUMENTS, batches, find_files, media_type_of


def _write(folder: Path, *names: str) -> Path:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x", encoding="utf-8")
    return folder


def test_a_folders_documents_are_named_by_their_place(tmp_path: Path) -> None:
    """One folder: ids are relative to it, and files of other kinds are left out."""
    _write(tmp_path, "a.md", "deep/b.txt", "picture.png")
    assert [name for name, _ in find_files([tmp_path])] == ["a.md", "deep/b.txt"]


def test_several_paths_keep_equal_names_apart(tmp_path: Path) -> None:
    """A README beside a folder with a README of its own: two documents."""
    _write(tmp_path, "README.md", "protos/README.md")
    names = [name for name, _ in find_files([tmp_path / "README.md", tmp_path / "protos"])]
    assert names == ["README.md", "protos/README.md"]


def test_two_files_of_one_id_are_refused_by_name(tmp_path: Path) -> None:
    """What cannot be kept apart is refused, with both files and the way out."""
    _write(tmp_path, "a/docs/x.md", "b/docs/x.md")
    with pytest.raises(click.UsageError, match=r"docs/x\.md.*--prefix"):
        list(find_files([tmp_path / "a" / "docs", tmp_path / "b" / "docs"]))


def test_a_file_named_twice_is_indexed_once(tmp_path: Path) -> None:
    """A folder and a file inside it: no second copy."""
    _write(tmp_path, "docs/x.md")
    assert len(list(find_files([tmp_path / "docs", tmp_path / "docs" / "x.md"]))) == 1


@given(st.lists(st.integers(0, 2 * BATCH_BYTES // 3), max_size=200))
def test_batches_keep_order_and_bounds(sizes: list[int]) -> None:
    """Every document once, in order; no batch beyond the bounds unless one document alone is."""
    documents = [DocumentInput(str(number), bytes(size)) for number, size in enumerate(sizes)]
    grouped = list(batches(documents))
    assert [document for batch in grouped for document in batch] == documents
    for batch in grouped:
        assert 1 <= len(batch) <= BATCH_DOCUMENTS
        assert len(batch) == 1 or sum(len(document.content) for document in batch) <= BATCH_BYTES


@pytest.mark.parametrize(
    ("name", "content", "media_type"),
    [
        ("a.PDF", b"", "application/pdf"),
        ("table.csv", b"", "text/csv"),
        ("events.jsonl", b"", "application/x-ndjson"),
        ("printed", b"%PDF-1.7", "application/pdf"),
        ("notes", b"text", None),
        ("picture.png", b"%PDF-1.7", None),
    ],
)
def test_files_are_typed_by_name_or_begin(tmp_path: Path, name: str, content: bytes, media_type: str | None) -> None:
    """The ending decides; without one, only what is surely a document is taken along."""
    file = tmp_path / name
    file.write_bytes(content)
    assert media_type_of(file) == media_type
