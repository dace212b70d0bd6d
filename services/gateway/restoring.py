"""Puts what end users typed back into answers, for callers who may have it and asked for it.

Used by `telling.py` for text as it is released and by `answering.py` for answers told again. What is recorded, kept as
history and kept for repeats stays redacted: only what is told is restored. Where the guardrail's vault is away, or a
value breaks the answer's schema, the answer keeps its placeholders and says so.
"""

import asyncio
import json
from dataclasses import replace
from typing import Any

import re2

from servicekit.domain.generation import Degradation
from servicekit.domain.output_schema import OutputSchema
from servicekit.errors import BinnacleError, PermissionDenied
from servicekit.rpc.deadline import Budget
from services.gateway.answer import Answer
from services.gateway.backends import CheckContext, Guard
from services.gateway.question import Asker, Question
from services.gateway.record import Interaction
from services.gateway.release import Piece, relocate
from services.gateway.standing_in import MISSING, cause_of

RUNG = "not_restored"
BROKEN = "RESTORING_BROKE_SCHEMA"
SHARE = 0.5
MAX_TEXTS = 32
# What could be one; the guardrail knows which are.
_PLACEHOLDER = re2.compile(r"\[[A-Z][A-Z0-9_]*_[0-9]+[a-z]?\]")


def check_may_restore(question: Question, asker: Asker) -> None:
    """Refuse to restore for whoever may not have it.

    Raises:
        PermissionDenied: `restore_pii` without the scope.
    """
    if question.restore_pii and not asker.may_restore:
        raise PermissionDenied(
            "question.restore_pii needs a credential with the scope 'restore'; ask for a key that carries it, or "
            "leave the field out",
            reason="SCOPE_MISSING",
            metadata={"scope": "restore", "subject": asker.subject},
        )


class Restoring:
    """Restores the text of one answer as it is released; notes once where it cannot."""

    def __init__(self, guard: Guard, interaction: Interaction, budget: Budget) -> None:
        self._guard = guard
        self._interaction = interaction
        self._budget = budget
        self._given_up = not interaction.question.restore_pii

    async def text(self, text: str) -> str:
        """What the caller is told for a text that is recorded."""
        if self._given_up or not may_hold_placeholder(text):
            return text
        interaction = self._interaction
        restored, cause = await _restored(
            self._guard, text, interaction.output_schema, interaction.context, self._budget
        )
        if cause:
            self._given_up = True
            interaction.degrade(RUNG, cause)
        return restored


async def restore_answer(
    guard: Guard, answer: Answer, *, route: str, schema: OutputSchema | None, budget: Budget
) -> Answer:
    """A recorded answer as it is told to a caller who may have the values."""
    if not may_hold_placeholder(answer.text):
        return answer
    context = CheckContext(answer.request_id, answer.conversation_id, route)
    restored, cause = await _restored(guard, answer.text, schema, context, budget)
    if cause:
        return replace(answer, degradations=(*answer.degradations, Degradation(RUNG, cause)))
    citations = relocate(answer.citations, [Piece(answer.text, restored)])
    return replace(answer, text=restored, citations=citations)


def may_hold_placeholder(text: str) -> bool:
    """Whether it is worth asking the guardrail."""
    return "[" in text and _PLACEHOLDER.search(text) is not None


async def _restored(
    guard: Guard, text: str, schema: OutputSchema | None, context: CheckContext, budget: Budget
) -> tuple[str, str]:
    """The text restored and an empty cause, or the text as it was and why."""
    timeout_s = budget.remaining_s() * SHARE
    try:
        if schema is None:
            return (await guard.restore_text([text], context=context, timeout_s=timeout_s))[0], ""
        return await _within_json(guard, text, schema, context, timeout_s)
    except MISSING as error:
        return text, cause_of("VAULT", error)
    except BinnacleError as error:
        return text, error.reason


async def _within_json(
    guard: Guard, text: str, schema: OutputSchema, context: CheckContext, timeout_s: float
) -> tuple[str, str]:
    """Restore inside the document's strings, so that no value can end one; the schema must hold as before."""
    try:
        document = json.loads(text)
        found = [string for string in _strings(document) if may_hold_placeholder(string)]
    except (ValueError, RecursionError):
        return text, BROKEN
    values: dict[str, str] = {}
    for start in range(0, len(found), MAX_TEXTS):
        some = found[start : start + MAX_TEXTS]
        values |= zip(some, await guard.restore_text(some, context=context, timeout_s=timeout_s), strict=True)
    restored = json.dumps(_replaced(document, values), ensure_ascii=False)
    if await asyncio.to_thread(schema.violation, restored) is not None:
        return text, BROKEN
    return restored, ""


def _strings(node: Any) -> list[str]:
    """Every string of the document but its keys, each once. Walked without recursion: depth costs no stack."""
    found: dict[str, None] = {}
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            found[one] = None
        elif isinstance(one, dict):
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
    return list(found)


def _replaced(node: Any, values: dict[str, str]) -> Any:
    if isinstance(node, str):
        return values.get(node, node)
    if isinstance(node, list):
        return [_replaced(one, values) for one in node]
    if isinstance(node, dict):
        return {key: _replaced(one, values) for key, one in node.items()}
    return node
