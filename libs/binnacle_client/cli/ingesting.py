"""`binnacle ingest`: files and folders into the index, with a bar; what is already there unchanged costs nothing."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from binnacle_client.answers import DocumentInput, IndexedDocument
from binnacle_client.cli.output import console, notes, print_json, print_table
from binnacle_client.client import Binnacle, open_client
from binnacle_client.connection import Connection

_WORD_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
MEDIA_TYPES = {
    ".txt": "text/plain",
    ".rst": "text/plain",
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".html": "text/html",
    ".htm": "text/html",
    ".csv": "text/csv",
    ".jsonl": "application/x-ndjson",
    ".ndjson": "application/x-ndjson",
    ".pdf": "application/pdf",
    ".docx": _WORD_TYPE,
}
BATCH_DOCUMENTS = 64
BATCH_BYTES = 1_000_000
MAX_CONTENT_BYTES = 1024 * 1024
FOLLOWED_AT_ONCE = 16
_POLL_S = 0.25
_SOME_REFUSED = 6


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--prefix", default="", help="Put before every document id.")
@click.option(
    "--by-reference",
    is_flag=True,
    help="Have the retriever read the files itself (up to 32 MiB each), where its settings allow their folder.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each document, then a summary.")
def ingest(paths: tuple[Path, ...], prefix: str, by_reference: bool, as_json: bool) -> None:
    """Index PATHS: files, or folders with all text, Markdown, HTML, CSV, JSON lines, PDF and Word files below them.

    Run it again after an interruption, or whenever files have changed: a document is known by its path and its
    content, and one that has not changed is passed over.
    """
    files = list(find_files(paths))
    if not files:
        raise click.UsageError(f"no file ending in {', '.join(sorted(MEDIA_TYPES))} below {', '.join(map(str, paths))}")
    results = asyncio.run(_ingest(files, prefix=prefix, by_reference=by_reference, as_json=as_json))
    counts = Counter(result.outcome for result in results)
    chunks = sum(result.chunk_count for result in results)
    reasons = Counter(result.reason for result in results if result.outcome == "refused")
    if as_json:
        print_json({"documents": len(results), "chunks": chunks, **counts, "reasons": reasons})
    else:
        _summarise(results, counts, chunks=chunks)
    if counts["refused"]:
        raise click.exceptions.Exit(_SOME_REFUSED)


def _summarise(results: Sequence[IndexedDocument], counts: Mapping[str, int], *, chunks: int) -> None:
    refused = [result for result in results if result.outcome == "refused"]
    noted = [result for result in results if result.flags]
    if noted:
        rows = [(one.document_id, ", ".join(one.flags), one.duplicate_of) for one in noted]
        print_table("noticed", ("document", "what", "like"), rows)
    if refused:
        print_table(
            "refused", ("document", "reason", "why"), [(one.document_id, one.reason, one.error) for one in refused]
        )
    told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
    console.print(f"{len(results)} documents ({told}), {chunks} chunks", markup=False)


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
            if media_type_of(file) is None or file.resolve() in named.values():
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


async def _ingest(
    files: Sequence[tuple[str, Path]], *, prefix: str, by_reference: bool, as_json: bool
) -> list[IndexedDocument]:
    results: list[IndexedDocument] = []
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[chunks]} chunks"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=notes, disable=as_json, transient=True) as progress:
        task = progress.add_task("indexing", total=len(files), chunks=0)
        async with open_client(Connection.from_environment()) as binnacle:
            ways = _by_reference if by_reference else _by_content
            async for result in ways(binnacle, files, prefix):
                results.append(result)
                _report(progress, task, results, as_json=as_json)
    return results


def _report(progress: Progress, task: TaskID, results: Sequence[IndexedDocument], *, as_json: bool) -> None:
    progress.update(task, completed=len(results), chunks=sum(result.chunk_count for result in results))
    if as_json:
        print_json(results[-1])


async def _by_content(
    binnacle: Binnacle, files: Sequence[tuple[str, Path]], prefix: str
) -> AsyncIterator[IndexedDocument]:
    """Hand the files in, a batch a call; those that are too large for one are refused here."""
    small = []
    for name, path in files:
        size = path.stat().st_size
        if size <= MAX_CONTENT_BYTES:
            small.append((name, path))
            continue
        problem = f"has {size} bytes, {MAX_CONTENT_BYTES} are the most to hand in: use --by-reference, or split it"
        yield IndexedDocument(prefix + name, "refused", 0, 0, problem, reason="DOCUMENT_TOO_LARGE")
    for batch in batches(_document(prefix + name, path) for name, path in small):
        for result in await binnacle.index(batch):
            yield result


async def _by_reference(
    binnacle: Binnacle, files: Sequence[tuple[str, Path]], prefix: str
) -> AsyncIterator[IndexedDocument]:
    """Submit the files by their addresses, and follow some at a time to their end."""
    for start in range(0, len(files), FOLLOWED_AT_ONCE):
        group = files[start : start + FOLLOWED_AT_ONCE]
        following = [_follow(binnacle, _reference(prefix + name, path)) for name, path in group]
        for done in asyncio.as_completed(following):
            yield await done


async def _follow(binnacle: Binnacle, document: DocumentInput) -> IndexedDocument:
    operation_id = await binnacle.submit(document)
    while True:
        operation = await binnacle.operation(operation_id)
        if operation.result is not None:
            return operation.result
        await asyncio.sleep(_POLL_S)


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
        media_type=media_type_of(path) or "",
        source_uri=path.resolve().as_uri(),
    )


def _reference(name: str, path: Path) -> DocumentInput:
    uri = path.resolve().as_uri()
    return DocumentInput(
        document_id=name,
        title=path.stem.replace("_", " "),
        media_type=media_type_of(path) or "",
        source_uri=uri,
        fetch_uri=uri,
    )


def media_type_of(path: Path) -> str | None:
    """By the name's ending, or, for a name without one, what the file begins with; None: not to be indexed."""
    if path.suffix:
        return MEDIA_TYPES.get(path.suffix.lower())
    try:
        with path.open("rb") as file:
            begin = file.read(8)
    except OSError:
        return None  # what cannot be read was not meant
    return "application/pdf" if begin.startswith(b"%PDF-") else None


COMMANDS = (ingest,)
