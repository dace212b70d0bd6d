"""`binnacle documents`, `retract`, `affected` and `delete`: what is indexed, what is withdrawn, whom it concerns."""

import asyncio
from datetime import UTC, datetime

import click

from binnacle_client.answers import AffectedAnswer, AffectedAnswers, DocumentState
from binnacle_client.cli.moments import read_moment
from binnacle_client.cli.output import console, notes, print_json, print_table
from binnacle_client.client import Binnacle, open_client
from binnacle_client.connection import Connection
from servicekit.errors import BinnacleError

_FIRST_FEW = 10
_TIME = "%Y-%m-%d %H:%M:%SZ"


@click.command()
@click.option("--retracted", is_flag=True, help="Retracted documents too, with the time of it.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each document.")
def documents(retracted: bool, as_json: bool) -> None:
    """List documents, in the order of their ids."""

    async def run() -> list[DocumentState]:
        found = []
        async with open_client(Connection.from_environment()) as binnacle:
            async for document in binnacle.documents(include_retracted=retracted):
                if as_json:
                    print_json(document)
                found.append(document)
        return found

    found = asyncio.run(run())
    if not as_json:
        columns = ["document", "revision", "chunks", "indexed", *(["retracted"] if retracted else []), "title"]
        print_table(f"{len(found)} documents", columns, [_document_row(one, retracted=retracted) for one in found])


def _document_row(document: DocumentState, *, retracted: bool) -> list[object]:
    when = [_told(document.retract_time)] if retracted else []
    indexed = _told(document.index_time)
    return [document.document_id, document.revision, document.chunk_count, indexed, *when, document.title]


@click.command()
@click.argument("document_id", metavar="DOC")
@click.option("--reason", default="", help="Why; recorded as given: no personal data.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def retract(document_id: str, reason: str, as_json: bool) -> None:
    """Withdraw DOC: hidden from every search at once, its texts kept; says which answers cited it.

    Changed content brings it back as a new revision; the very same content does not. `binnacle delete` erases.
    """

    async def run() -> tuple[int, AffectedAnswers | None]:
        async with open_client(Connection.from_environment()) as binnacle:
            revision = await binnacle.retract(document_id, reason=reason)
            return revision, await _affected_or_note(binnacle, document_id)

    revision, affected = asyncio.run(run())
    if as_json:
        told = {"cited_by": affected.total, "answers": affected.answers} if affected else {"cited_by": None}
        print_json({"document_id": document_id, "revision": revision, **told})
        return
    console.print(f"retracted {document_id}, revision {revision}", markup=False)
    if affected is not None:
        _print_affected(document_id, affected)


async def _affected_or_note(binnacle: Binnacle, document_id: str) -> AffectedAnswers | None:
    """The document is retracted by now: that analytics is away must not look like a failure of it."""
    try:
        return await binnacle.affected_answers(document_id, limit=_FIRST_FEW)
    except BinnacleError as exc:
        notes.print(
            f"it is not known which answers cited it ({exc.message} [{exc.reason}]); ask later: "
            f"binnacle affected {document_id}",
            markup=False,
        )
        return None


@click.command()
@click.argument("document_id", metavar="DOC")
@click.option("--revision", default=0, help="Only answers with this revision.  [default: any]")
@click.option("--since", metavar="TIME", help="14:00 or 2026-05-01T14:00, UTC.  [default: as far back as records go]")
@click.option("--uncited", is_flag=True, help="Answers too that had it in their prompt without citing it.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1), help="At most this many.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each answer, then the total.")
def affected(document_id: str, revision: int, since: str | None, uncited: bool, limit: int, as_json: bool) -> None:
    """Name the answers that cite DOC, newest first: whom to tell after a retraction.

    An answer of the last seconds may not be stored yet.
    """
    start = read_moment(since, latest=datetime.now(UTC), option="--since") if since else None

    async def run() -> AffectedAnswers:
        async with open_client(Connection.from_environment()) as binnacle:
            return await binnacle.affected_answers(
                document_id, revision=revision, start=start, include_uncited=uncited, limit=limit
            )

    found = asyncio.run(run())
    if as_json:
        for answer in found.answers:
            print_json(answer)
        print_json({"document_id": document_id, "total": found.total})
    else:
        _print_affected(document_id, found)


def _print_affected(document_id: str, found: AffectedAnswers) -> None:
    shown = len(found.answers)
    heading = f"{found.total} answers with {document_id}"
    if not found.total:
        console.print(heading, markup=False)
        return
    newest = f", the newest {shown}" if shown < found.total else ""
    columns = ["answered", "request", "route", "end user", "revisions", "cited"]
    print_table(heading + newest, columns, [_answer_row(answer) for answer in found.answers])


def _answer_row(answer: AffectedAnswer) -> list[object]:
    revisions = ", ".join(map(str, answer.revisions))
    cited = "yes" if answer.cited else "no"
    return [_told(answer.answer_time), answer.request_id, answer.route, answer.end_user_id, revisions, cited]


@click.command()
@click.argument("document_id", metavar="DOC")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object; implies --yes.")
def delete(document_id: str, yes: bool, as_json: bool) -> None:
    """Erase DOC with all its revisions; what cited it can no longer be read. `binnacle retract` only hides."""
    if not yes and not as_json:
        click.confirm(f"Erase {document_id} with all its revisions?", abort=True)

    async def run() -> None:
        async with open_client(Connection.from_environment()) as binnacle:
            await binnacle.delete(document_id)

    asyncio.run(run())
    if as_json:
        print_json({"document_id": document_id, "deleted": True})
    else:
        console.print(f"deleted {document_id}", markup=False)


def _told(moment: datetime | None) -> str:
    return moment.strftime(_TIME) if moment else ""


COMMANDS = (documents, retract, affected, delete)
