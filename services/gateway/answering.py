"""Answers one question: claims its key, walks the path step by step, records it whatever its end, then completes.

Called by `server.py` and `openai_api.py` alike. Every accepted request leads to exactly one InteractionCompleted: the
record is closed once, at the end of `_answer_recorded`, and published by a task that outlives the call.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from servicekit.domain.generation import FinishReason
from servicekit.domain.ids import RequestIds
from servicekit.domain.output_schema import OutputSchema
from servicekit.errors import BackendTimeout, BackendUnavailable, BinnacleError
from servicekit.ports.clock import Clock
from servicekit.ports.event_bus import OutgoingEvent
from servicekit.rpc.deadline import Budget
from servicekit.telemetry.correlation import name_request
from services.gateway.admission import Admission
from services.gateway.answer import Accepted, Answer, Emit, Outcome, emit_nothing
from services.gateway.backends import Guard
from services.gateway.conversations import Conversations
from services.gateway.generating import Generating
from services.gateway.idempotency import Claim, Idempotency
from services.gateway.observing import observe
from services.gateway.publishing import Afterwards, Publishing, not_recorded
from services.gateway.question import Asker, Question
from services.gateway.record import Interaction
from services.gateway.restoring import Restoring, check_may_restore, restore_answer
from services.gateway.routes import Route, pick_route
from services.gateway.screening import Screening
from services.gateway.speculation import Speculation
from services.gateway.standing_in import StandIn
from services.gateway.telling import Telling, tell_again
from services.gateway.validation import read_schema, validate_question

RESERVE_S = 0.5
RESERVE_FRACTION = 0.2
CLAIM_SLACK_S = 30.0
MIN_ACK_WAIT_S = 0.05
WITH_ANSWER = frozenset({Outcome.ANSWERED, Outcome.BLOCKED, Outcome.REFUSED})


@dataclass(frozen=True, slots=True)
class Stages:
    """The stages of the path, in their order."""

    speculation: Speculation
    screening: Screening
    generating: Generating


@dataclass(frozen=True, slots=True)
class Answering:
    """The gateway's one way to answer; `event_of` encodes the record (`events.py`)."""

    stages: Stages
    guard: Guard
    routes: Mapping[str, Route]
    ids: RequestIds
    admission: Admission
    idempotency: Idempotency
    conversations: Conversations
    publishing: Publishing
    event_of: Callable[[Interaction], OutgoingEvent]
    clock: Clock

    async def answer(self, question: Question, *, asker: Asker, budget: Budget, emit: Emit = emit_nothing) -> Answer:
        """The answer, its record acknowledged; events go to `emit` on the way, `Completed` last.

        Raises:
            InvalidRequest, PermissionDenied, Conflict, Overloaded: it was not accepted; nothing is recorded of it.
            BinnacleError: the request failed; its record says with which reason.
            BackendUnavailable: EVENT_NOT_RECORDED, the record was not acknowledged.
        """
        validate_question(question)
        check_may_restore(question, asker)
        schema = await read_schema(question)
        route = pick_route(self.routes, question)
        if budget.expired:
            raise BackendTimeout("the deadline was over before the request arrived", reason="DEADLINE_EXCEEDED")
        with self.admission.slot():
            request_id = self.ids.new(asker.tenant)
            claim = await self._claim(question, asker, request_id, budget)
            if isinstance(claim, Answer):
                return await self._answer_again(claim, question, schema, budget, emit)
            name_request(request_id)
            interaction = Interaction(
                question=question,
                asker=asker,
                route=route,
                request_id=request_id,
                clock=self.clock,
                deadline_granted_s=budget.remaining_s(),
                output_schema=schema,
            )
            return await self._answer_recorded(interaction, budget, emit, claim)

    async def _claim(self, question: Question, asker: Asker, request_id: str, budget: Budget) -> Claim | Answer | None:
        if not question.idempotency_key:
            return None
        return await self.idempotency.claim(
            question.idempotency_key,
            tenant=asker.tenant,
            fingerprint=question.fingerprint,
            request_id=request_id,
            in_flight_s=budget.remaining_s() + CLAIM_SLACK_S,
        )

    async def _answer_again(
        self, recorded: Answer, question: Question, schema: OutputSchema | None, budget: Budget, emit: Emit
    ) -> Answer:
        answer = replace(recorded, replayed=True)
        if question.restore_pii and recorded.outcome is Outcome.ANSWERED:
            answer = await restore_answer(self.guard, answer, route=question.route, schema=schema, budget=budget)
        name_request(answer.request_id)
        await tell_again(answer, Accepted(answer.request_id, self.clock.now()), emit)
        return answer

    async def _answer_recorded(
        self, interaction: Interaction, budget: Budget, emit: Emit, claim: Claim | None
    ) -> Answer:
        tell = Telling(emit, interaction, Restoring(self.guard, interaction, budget))
        failure: BaseException | None = None
        try:
            await self._answer_in_time(interaction, budget, tell)
        except BaseException as caught:  # noqa: BLE001  # every end is recorded, cancellation among them
            failure = _close_failed(interaction, caught, budget)
        publication = self.publishing.begin(self.event_of(interaction), afterwards=self._aftermath(interaction, claim))
        observe(interaction)
        if failure is not None and not isinstance(failure, Exception):
            raise failure
        with interaction.stage("record"):
            await _acknowledged(publication, budget)
        if failure is not None:
            raise failure
        answer = interaction.told_answer()
        await tell.completed(answer)
        return answer

    async def _answer_in_time(self, interaction: Interaction, budget: Budget, tell: Telling) -> None:
        """Walk the path within the budget, less what is held back for the record."""
        reserve_s = min(RESERVE_S, budget.remaining_s() * RESERVE_FRACTION)
        work = budget.less(reserve_s)
        async with asyncio.timeout(work.timeout_s()):
            await tell.accepted()
            try:
                await self._walk(interaction, work, tell)
                refused = interaction.generated is not None and interaction.generated.refused
                outcome = Outcome.REFUSED if refused else Outcome.ANSWERED
            except StandIn as instead:
                await tell.stand_in(instead)
                outcome = instead.outcome
        interaction.close(outcome)

    async def _walk(self, interaction: Interaction, work: Budget, tell: Telling) -> None:
        """The path of one answer, step by step."""
        await self._recall(interaction)
        await self.stages.speculation.run(interaction, work)
        await tell.retrieved()
        await self.stages.screening.run(interaction, work)
        await tell.verdicts()
        await self.stages.generating.run(interaction, work, tell)

    async def _recall(self, interaction: Interaction) -> None:
        """The history the caller gave, else the kept conversation."""
        question = interaction.question
        interaction.conversation_id = question.conversation_id
        interaction.history = question.history
        if question.history or not question.conversation_id:
            return
        try:
            interaction.history = await self.conversations.messages(
                question.conversation_id, tenant=interaction.asker.tenant
            )
        except BackendUnavailable:
            interaction.degrade("no_history", "STATE_STORE_UNAVAILABLE")

    def _aftermath(self, interaction: Interaction, claim: Claim | None) -> Afterwards | None:
        """What follows the record: the answer is kept for repeats, the turn for the conversation."""
        keeps_turn = bool(interaction.conversation_id) and interaction.is_turn
        if claim is None and not keeps_turn:
            return None

        async def settle(recorded: bool) -> None:
            if claim is not None and recorded and interaction.outcome in WITH_ANSWER:
                await claim.settle(interaction.answer())
            elif claim is not None:
                await claim.abandon()
            if recorded and keeps_turn:
                await self.conversations.append(
                    interaction.conversation_id,
                    tenant=interaction.asker.tenant,
                    query=interaction.asked or "",
                    answer=interaction.text,
                )

        return settle


def _close_failed(interaction: Interaction, caught: BaseException, budget: Budget) -> BaseException:
    """Close the record by what ended the path; returns what the caller is to get."""
    if isinstance(caught, asyncio.CancelledError):
        outcome = Outcome.DEADLINE if budget.expired else Outcome.CANCELLED
        interaction.finish_reason = FinishReason(outcome)
        interaction.close(outcome, error_reason="DEADLINE_EXCEEDED" if budget.expired else "CANCELLED")
        return caught
    if isinstance(caught, TimeoutError | BackendTimeout):
        interaction.finish_reason = FinishReason.DEADLINE
        interaction.close(Outcome.DEADLINE, error_reason="DEADLINE_EXCEEDED")
        late = BackendTimeout(
            f"no answer within the deadline of {interaction.deadline_granted_s:.3g} s; grant more time",
            reason="DEADLINE_EXCEEDED",
        )
        late.__cause__ = caught
        return late
    interaction.finish_reason = FinishReason.ERROR
    reason = caught.reason if isinstance(caught, BinnacleError) else "INTERNAL"
    interaction.close(Outcome.FAILED, error_reason=reason)
    return caught


async def _acknowledged(publication: asyncio.Task[None], budget: Budget) -> None:
    """Wait for the acknowledgement as long as the caller does; the publication goes on without us."""
    try:
        async with asyncio.timeout(max(budget.remaining_s(), MIN_ACK_WAIT_S)):
            await asyncio.shield(publication)
    except TimeoutError as error:
        raise not_recorded() from error
