"""Tells a caller about an answer in the order the contract promises. Used by `answering.py` and `generating.py`."""

from services.gateway.answer import (
    Accepted,
    Answer,
    Completed,
    Emit,
    Retracted,
    Retrieved,
    Token,
    VerdictFound,
)
from services.gateway.record import Interaction
from services.gateway.restoring import Restoring
from services.gateway.standing_in import StandIn


class Telling:
    """Accepted, retrieved, (token | verdict)*, [retracted], completed; each method sends what is due."""

    def __init__(self, emit: Emit, interaction: Interaction, restoring: Restoring) -> None:
        self._emit = emit
        self._interaction = interaction
        self._restoring = restoring
        self._retrieved_told = False
        self._verdicts_told = 0

    async def accepted(self) -> None:
        """The request has an id."""
        await self._emit(Accepted(self._interaction.request_id, self._interaction.accept_time))

    async def retrieved(self) -> None:
        """Retrieval is done, or there will be none; told once."""
        if self._retrieved_told:
            return
        self._retrieved_told = True
        search = self._interaction.search
        version = 0 if search is None else search.corpus_version
        await self._emit(Retrieved(self._interaction.chunks, version))

    async def verdicts(self) -> None:
        """Every verdict not told yet."""
        found = self._interaction.verdicts
        while self._verdicts_told < len(found):
            self._verdicts_told += 1
            await self._emit(VerdictFound(found[self._verdicts_told - 1]))

    async def token(self, text: str, *, restored: str | None = None) -> None:
        """Release text; `restored` is what the caller is told in its place, where that is known already.

        Never known for an answer by a schema: there a value has to stay inside its string (`restoring.py`).
        """
        told = await self._restoring.text(text) if restored is None else restored
        self._interaction.release(text, told=told)
        await self._emit(Token(told))

    async def stand_in(self, instead: StandIn) -> None:
        """Put a text in the answer's place: as its only token, or by retracting what was released."""
        interaction = self._interaction
        interaction.stand_in = instead.text
        interaction.finish_reason = instead.finish_reason
        await self.retrieved()
        await self.verdicts()
        if interaction.released:
            interaction.retracted = True
            await self._emit(Retracted(instead.reason, instead.text))
        else:
            await self._emit(Token(instead.text))

    async def completed(self, answer: Answer) -> None:
        """The record is safe."""
        await self._emit(Completed(answer))


async def tell_again(answer: Answer, accepted: Accepted, emit: Emit) -> None:
    """The events of a recorded answer: what was judged and released then, in one token."""
    await emit(accepted)
    await emit(Retrieved(tuple(use.chunk for use in answer.chunks), answer.corpus_version))
    for verdict in answer.verdicts:
        await emit(VerdictFound(verdict))
    if answer.text:
        await emit(Token(answer.text))
    await emit(Completed(answer))
