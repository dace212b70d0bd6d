"""Judges the input and, at the same time, searches on the unjudged question.

Called by `answering.py` as the first stage. What the early search found is used only when the guard changed
nothing; after a redaction the search is repeated, so that every recorded stage saw exactly the recorded text.
The early search is in no trace: what is not judged yet leaves none.
Of a history that came with the question every turn is judged, whoever spoke: an assistant's may repeat what a user
typed, and nothing proves that one of ours said it. System messages are the product's own instructions and pass.
"""

from contextlib import nullcontext
from dataclasses import dataclass, replace

from servicekit.domain.prompt import Message, Role
from servicekit.domain.verdict import Action
from servicekit.rpc.deadline import Budget
from servicekit.telemetry.tracing import untraced
from services.gateway.backends import Guard, Judgement, Retriever, SearchResult
from services.gateway.grouping import task_group
from services.gateway.question import RetrievalMode
from services.gateway.record import Interaction
from services.gateway.routes import retrieval_mode
from services.gateway.standing_in import MISSING, Missing, blocked, cause_of, refused

CHECK_SHARE = 0.3
SEARCH_SHARE = 0.5

Judgements = tuple[Judgement, ...]


@dataclass(frozen=True, slots=True)
class Speculation:
    """The stage; `speculative` is off where the embedder is remote and would see the unjudged question."""

    guard: Guard
    retriever: Retriever
    speculative: bool
    fail_open: bool

    async def run(self, interaction: Interaction, work: Budget) -> None:
        """Set the interaction's question, history and chunks.

        Raises:
            StandIn: the input was blocked, or a backend is away and the path cannot go on without it.
        """
        mode = retrieval_mode(interaction.route, interaction.question)
        raw = interaction.question.text
        found: SearchResult | Missing | None = None
        if not interaction.route.guard:
            interaction.asked = raw
        elif self.speculative and mode is not RetrievalMode.NONE:
            judged, found = await self._judge_and_search(interaction, work)
            self._settle(interaction, judged)
        else:
            self._settle(interaction, await self._judge(interaction, work))
        if mode is RetrievalMode.NONE:
            return
        if found is None or interaction.asked != raw:
            found = await self._search(interaction, interaction.asked or raw, work, speculative=False)
        if isinstance(found, MISSING):
            raise refused(interaction, cause_of("RETRIEVER", found))
        interaction.search = found
        for cause in found.degradations:
            interaction.degrade("simpler_search", cause)
        interaction.context_chunks = found.chunks

    async def _judge_and_search(
        self, interaction: Interaction, work: Budget
    ) -> tuple[Judgements | Missing, SearchResult | Missing | None]:
        async with task_group() as group:
            search = group.create_task(self._search(interaction, interaction.question.text, work, speculative=True))
            judged = await self._judge(interaction, work)
            if not self._goes_on(judged, interaction):
                search.cancel()
        return judged, None if search.cancelled() else search.result()

    def _goes_on(self, judged: Judgements | Missing, interaction: Interaction) -> bool:
        """Whether the early search can still be of use."""
        if isinstance(judged, MISSING):
            return self.fail_open
        return judged[0].text == interaction.question.text and not _has_block(judged)

    async def _judge(self, interaction: Interaction, work: Budget) -> Judgements | Missing:
        """The judgement of the question, then of each turn in a history that the caller gave."""
        texts = [interaction.question.text]
        texts += [message.content for message in interaction.question.history if _is_turn(message)]
        timeout_s = work.remaining_s() * CHECK_SHARE
        check, context = self.guard.check_input, interaction.context
        try:
            with interaction.stage("check_input"):
                if len(texts) == 1:
                    return (await check(texts[0], context=context, timeout_s=timeout_s),)
                async with task_group() as group:
                    tasks = [group.create_task(check(text, context=context, timeout_s=timeout_s)) for text in texts]
                return tuple(task.result() for task in tasks)
        except MISSING as error:
            return error

    async def _search(
        self, interaction: Interaction, query: str, work: Budget, *, speculative: bool
    ) -> SearchResult | Missing:
        question, route = interaction.question, interaction.route
        try:
            with untraced() if speculative else nullcontext(), interaction.stage("search_chunks"):
                return await self.retriever.search(
                    query,
                    top_k=question.top_k or route.top_k,
                    mode=retrieval_mode(route, question),
                    where=question.filter,
                    speculative=speculative,
                    profile=question.route,
                    timeout_s=work.remaining_s() * SEARCH_SHARE,
                )
        except MISSING as error:
            return error

    def _settle(self, interaction: Interaction, judged: Judgements | Missing) -> None:
        """Take the judged texts over into the interaction, or end the path."""
        if isinstance(judged, MISSING):
            cause = cause_of("GUARDRAIL", judged)
            if not self.fail_open:
                raise refused(interaction, cause)
            interaction.unguarded = True
            interaction.degrade("unguarded_input", cause)
            interaction.asked = interaction.question.text
            return
        for judgement in judged:
            interaction.note_verdicts(judgement.verdicts, judgement.policy_version)
        if _has_block(judged):
            raise blocked("BLOCKED_INPUT")
        interaction.asked = judged[0].text
        interaction.history = _with_contents(interaction.history, [judgement.text for judgement in judged[1:]])


def _has_block(judged: Judgements) -> bool:
    return any(judgement.action is Action.BLOCK for judgement in judged)


def _is_turn(message: Message) -> bool:
    return message.role is not Role.SYSTEM


def _with_contents(history: tuple[Message, ...], contents: list[str]) -> tuple[Message, ...]:
    if not contents:
        return history
    judged = iter(contents)
    return tuple(replace(message, content=next(judged)) if _is_turn(message) else message for message in history)
