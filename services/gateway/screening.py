"""Judges the retrieved chunks and keeps those that may reach the prompt. Called by `answering.py` after retrieval."""

from dataclasses import dataclass, replace

from servicekit.domain.verdict import Action
from servicekit.rpc.deadline import Budget
from services.gateway.backends import Guard
from services.gateway.record import Interaction
from services.gateway.standing_in import MISSING, cause_of, refused

CHECK_SHARE = 0.3
SHORT_OF_TIME = 0.4
FEW_CHUNKS = 3


@dataclass(frozen=True, slots=True)
class Screening:
    """The stage; unjudged chunks are used only where `fail_open` says so."""

    guard: Guard
    fail_open: bool

    async def run(self, interaction: Interaction, work: Budget) -> None:
        """Drop blocked chunks, put redacted texts in, and take fewer chunks when time is short.

        Raises:
            StandIn: the guardrail is away and fails closed.
        """
        if interaction.route.guard and interaction.context_chunks:
            await self._judge(interaction, work)
        if work.remaining_s() < interaction.deadline_granted_s * SHORT_OF_TIME:
            _take_fewer(interaction)

    async def _judge(self, interaction: Interaction, work: Budget) -> None:
        chunks = interaction.context_chunks
        try:
            with interaction.stage("check_retrieved"):
                judgements = await self.guard.check_retrieved(
                    chunks, context=interaction.context, timeout_s=work.remaining_s() * CHECK_SHARE
                )
        except MISSING as error:
            cause = cause_of("GUARDRAIL", error)
            if not self.fail_open:
                raise refused(interaction, cause) from error
            interaction.unguarded = True
            interaction.degrade("unguarded_chunks", cause)
            return
        kept = []
        for chunk, judgement in zip(chunks, judgements, strict=True):
            interaction.note_verdicts(judgement.verdicts, judgement.policy_version)
            if judgement.action is Action.REDACT:
                title = chunk.title if judgement.title is None else judgement.title
                kept.append(replace(chunk, text=judgement.text, title=title))
            elif judgement.action is not Action.BLOCK:
                kept.append(chunk)
        interaction.context_chunks = tuple(kept)


def _take_fewer(interaction: Interaction) -> None:
    if len(interaction.context_chunks) > FEW_CHUNKS:
        interaction.context_chunks = interaction.context_chunks[:FEW_CHUNKS]
        interaction.degrade("fewer_chunks", "TIME_SHORT")
