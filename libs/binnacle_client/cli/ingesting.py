"""`binnacle ingest`: files and folders into the index, with a bar; what is already there unchanged costs nothing."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from binnacle_client.answers import DocumentInput, IndexedDocument
from binnacle_client.cli.output import console, notes, print_json
from binnacle_client.client import open_client
from binnacle_client.connection import Connection

MEDIA_TYPES = {
    ".txt": "text/plain",
    ".rst": "text/plain",
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".html": "text/html",
    ".htm": "text/html",
}
BATCH_DOCUMENTS = 64
BATCH_BYTES = 1_000_000
_SOME_REFUSED = 6


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--prefix", default="", help="Put before every document id.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each document, then a summary.")
def ingest(paths: tuple[Path, ...], prefix: str, as_json: bool) -> None:
    """Index PATHS: files, or folders with all .txt, .rst, .md and .html files below them.

    Run it again after an interruption, or whenever files have changed: a document is known by its path and its
    content, and one that has not changed is passed over.
    """
    files = list(find_files(paths))
    if not files:
        raise click.UsageError(f"no file ending in {', '.join(sorted(MEDIA_TYPES))} below {', '.join(map(str, paths))}")
    results = asyncio.run(_ingest(files, prefix=prefix, as_json=as_json))
    counts = Counter(result.outcome for result in results)
    chunks = sum(result.chunk_count for result in results)
    if as_json:
        print_json({"documents": len(results), "chunks": chunks, **counts})
    else:
        told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
        console.print(f"{len(results)} documents ({told}), {chunks} chunks", markup=False)
    if counts["refused"]:
        raise click.exceptions.Exit(_SOME_REFUSED)


def find_files(paths: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """(document id, file) for every file that can be indexed, sorted within each path, each file once.

    The id is the file's place below its path; with several paths, a folder's name stands in front of it.

    Raises:
        UsageError: two files would have the same id.
    """
    named: dict[str, Path] = {}
    for path in paths:
        inside = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        for file in inside:
            if file.suffix.lower() not in MEDIA_TYPES or file.resolve() in named.values():
                continue
            name = _place(file, below=path, named=len(paths) > 1)
            if name in named:
                raise click.UsageError(
                    f"{file} and {named[name]} would both be {name!r}: index them apart, each with its own --prefix"
                )
            named[name] = file.resolve()
            yield name, file


def _place(file: Path, *, below: Path, named: bool) -> str:
    if below.is_file():
        return file.name
    place = file.relative_to(below)
    return (below.resolve().name / place if named else place).as_posix()


async def _ingest(files: Sequence[tuple[str, Path]], *, prefix: str, as_json: bool) -> list[IndexedDocument]:
    results: list[IndexedDocument] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=notes, disable=as_json, transient=True) as progress:
        task = progress.add_task("indexing", total=len(files))
        async with open_client(Connection.from_environment()) as binnacle:
            for batch in batches(_document(prefix + name, path) for name, path in files):
                for result in await binnacle.index(batch):
                    results.append(result)
                    _report(result, as_json=as_json)
                progress.advance(task, len(batch))
    return results


def _report(result: IndexedDocument, *, as_json: bool) -> None:
    if as_json:
        print_json(result)
    elif result.outcome == "refused":
        notes.print(f"refused {result.document_id}: {result.error}", markup=False)


def batches(documents: Iterable[DocumentInput]) -> Iterator[list[DocumentInput]]:
    """Group documents so that a call stays small enough to show progress and far below the service's bounds."""
    batch: list[DocumentInput] = []
    size = 0
    for document in documents:
        if batch and (len(batch) == BATCH_DOCUMENTS or size + len(document.content) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(document)
        size += len(document.content)
    if batch:
        yield batch


def _document(name: str, path: Path) -> DocumentInput:
    return DocumentInput(
        document_id=name,
        content=path.read_bytes(),
        title=path.stem.replace("_", " "),
        media_type=MEDIA_TYPES[path.suffix.lower()],
        source_uri=path.resolve().as_uri(),
    )


COMMANDS = (ingest,)
