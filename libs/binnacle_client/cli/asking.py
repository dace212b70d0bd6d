"""`binnacle ask`, `search` and `feedback`: what a product does, from a terminal."""

import asyncio
import math
from typing import TextIO

import click

from binnacle_client.answers import Answer, AnswerRetracted, AnswerText, Citation, QuestionOptions
from binnacle_client.cli.output import console, print_json, print_table
from binnacle_client.client import Binnacle, open_client
from binnacle_client.connection import Connection

_EXCERPT_CHARS = 160


@click.command()
@click.argument("question")
@click.option("--model", default="", help="Model alias.  [default: the route's]")
@click.option("--route", default="", help="Route.  [default: default]")
@click.option("--conversation", default="", help="Continue this conversation.")
@click.option("--top-k", default=0, help="How many chunks to retrieve.  [default: the route's]")
@click.option("--schema", type=click.File(encoding="utf-8"), help="JSON schema that the answer must satisfy.")
@click.option("--logprobs", is_flag=True, help="Tell how sure the model was (perplexity), where its engine does.")
@click.option("--restore", is_flag=True, help="Put personal data back for its placeholders; needs the scope restore.")
@click.option("--timeout", default=60.0, show_default=True, help="Seconds.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each event.")
def ask(  # one parameter an option
    question: str,
    model: str,
    route: str,
    conversation: str,
    top_k: int,
    schema: TextIO | None,
    logprobs: bool,
    restore: bool,
    timeout: float,
    as_json: bool,
) -> None:
    """Ask QUESTION; the answer is printed as it comes, with its citations."""
    options = QuestionOptions(
        model=model,
        route=route,
        conversation_id=conversation,
        top_k=top_k,
        output_schema=schema.read() if schema else "",
        logprobs=logprobs,
        restore_pii=restore,
    )
    asyncio.run(_ask(question, options, timeout_s=timeout, as_json=as_json))


async def _ask(question: str, options: QuestionOptions, *, timeout_s: float, as_json: bool) -> None:
    async with open_client(Connection.from_environment()) as binnacle:
        async for event in binnacle.stream(question, options, timeout_s=timeout_s):
            match event:
                case AnswerText(text) if as_json:
                    print_json({"event": "token", "text": text})
                case AnswerText(text):
                    console.print(text, end="", markup=False, soft_wrap=True)
                case AnswerRetracted(reason, replacement) if as_json:
                    print_json({"event": "retracted", "reason": reason, "replacement": replacement})
                case AnswerRetracted(reason, replacement):
                    console.print(f"\n— retracted ({reason}) —\n{replacement}", markup=False)
                case Answer() if as_json:
                    print_json({"event": "completed", "answer": event})
                case Answer():
                    _print_sources(event)


def _print_sources(answer: Answer) -> None:
    console.print()
    seen: dict[str, Citation] = {}
    for citation in answer.citations:
        seen.setdefault(citation.marker, citation)
    for marker, citation in seen.items():
        console.print(f"  {marker} {citation.title or citation.document_id}  {citation.source_uri}", markup=False)
    notes = [answer.outcome, f"{answer.input_tokens}+{answer.output_tokens} tokens", answer.request_id]
    if answer.mean_logprob is not None:
        notes.append(f"perplexity {math.exp(-answer.mean_logprob):.2f}")
    console.print("  · ".join([*notes, *answer.degradations]), style="dim", markup=False)


@click.command()
@click.argument("query")
@click.option("--top-k", default=8, show_default=True, help="How many chunks, 1 to 100.")
@click.option("--mode", default="hybrid", show_default=True, type=click.Choice(["hybrid", "dense", "sparse"]))
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each chunk.")
def search(query: str, top_k: int, mode: str, as_json: bool) -> None:
    """Show the chunks that QUERY finds, best first."""

    async def run() -> None:
        async with open_client(Connection.from_environment()) as binnacle:
            chunks = await binnacle.search(query, top_k=top_k, mode=mode)
        if as_json:
            for chunk in chunks:
                print_json(chunk)
        else:
            print_table(
                f"{len(chunks)} chunks",
                ["rank", "score", "document", "text"],
                [
                    [c.rank, f"{c.score:.3f}", c.title or c.document_id, " ".join(c.text.split())[:_EXCERPT_CHARS]]
                    for c in chunks
                ],
            )

    asyncio.run(run())


@click.command()
@click.argument("request_id")
@click.option("--rating", type=click.IntRange(1, 5), help="1 (worst) to 5 (best).")
@click.option("--up/--down", "thumb", default=None, help="Thumb up or down.")
@click.option("--correction", help="What the answer should have been.")
@click.option("--label", help="A category.")
@click.option("--author", default="", help="Who says so, as a pseudonym.")
@click.option("--comment", default="", help="In your own words.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def feedback(  # one parameter an option
    request_id: str,
    rating: int | None,
    thumb: bool | None,
    correction: str | None,
    label: str | None,
    author: str,
    comment: str,
    as_json: bool,
) -> None:
    """Say what you think of the answer REQUEST_ID: exactly one of rating, thumb, correction, label."""
    given = [value for value in (rating, thumb, correction, label) if value is not None]
    if len(given) != 1:
        raise click.UsageError(
            f"give exactly one of --rating, --up/--down, --correction, --label; got {len(given)} of them"
        )

    async def send(binnacle: Binnacle) -> str:
        if rating is not None:
            return await binnacle.rate(request_id, rating=rating, author=author, comment=comment)
        if thumb is not None:
            return await binnacle.thumb(request_id, up=thumb, author=author, comment=comment)
        if correction is not None:
            return await binnacle.correct(request_id, correction=correction, author=author, comment=comment)
        return await binnacle.label(request_id, label=label or "", author=author, comment=comment)

    async def run() -> None:
        async with open_client(Connection.from_environment()) as binnacle:
            feedback_id = await send(binnacle)
        if as_json:
            print_json({"feedback_id": feedback_id, "request_id": request_id})
        else:
            console.print(f"recorded as {feedback_id}", markup=False)

    asyncio.run(run())


COMMANDS = (ask, search, feedback)
