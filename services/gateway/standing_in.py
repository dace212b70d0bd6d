"""What stands in the place of an answer: a guardrail's block, or an honest refusal when something is missing.

Pure; raised by the stages of the path, told to the caller by `answering.py`.

What happens when a backend is away or too slow (`guard_failure` = closed, the default):

    guardrail, input or chunks   honest refusal; nothing unjudged reaches an engine
    guardrail, output            honest refusal; what was released before is retracted
    retriever                    honest refusal; no model answers from memory in the documents' name
    generator, before any text   honest refusal (its own fallbacks, the extractive one last, are behind it)
    generator, after some text   the request fails with the generator's error: the text cannot be made whole
    state store                  the conversation's history is left out (`no_history`)
    event bus                    the request fails with EVENT_NOT_RECORDED

A refusal is an answer: status OK, outcome REFUSED, the rung and its cause among the degradations.
"""

from servicekit.domain.generation import FinishReason
from servicekit.errors import BackendTimeout, BackendUnavailable
from services.gateway.answer import Outcome
from services.gateway.record import Interaction

BLOCKED_TEXT = "This request was stopped by a safety policy and has no answer."
REFUSAL_TEXT = "I cannot answer this reliably right now."

Missing = BackendUnavailable | BackendTimeout
"""What a stage gets in place of a result when its backend is away or too slow."""

MISSING = (BackendUnavailable, BackendTimeout)


class StandIn(Exception):  # noqa: N818  # an end of the path, not an error
    """Ends the path: `text` is the answer, `reason` (UPPER_SNAKE) says why."""

    def __init__(self, outcome: Outcome, *, text: str, reason: str, finish_reason: FinishReason) -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.text = text
        self.reason = reason
        self.finish_reason = finish_reason


def blocked(reason: str) -> StandIn:
    """A guardrail blocked a text; `reason` is one of BLOCKED_INPUT, BLOCKED_OUTPUT, REDACTION_BROKE_SCHEMA."""
    return StandIn(Outcome.BLOCKED, text=BLOCKED_TEXT, reason=reason, finish_reason=FinishReason.CONTENT_FILTER)


def refused(interaction: Interaction, cause: str) -> StandIn:
    """The last rung: an honest refusal, noted as a degradation of the interaction."""
    interaction.degrade("honest_refusal", cause)
    return StandIn(Outcome.REFUSED, text=REFUSAL_TEXT, reason=cause, finish_reason=FinishReason.STOP)


def cause_of(backend: str, error: Missing) -> str:
    """The UPPER_SNAKE cause of a degradation, such as RETRIEVER_TIMEOUT; OUTPUT_INVALID is the engines' fault."""
    if error.reason == "OUTPUT_INVALID":
        return error.reason
    return f"{backend}_{'TIMEOUT' if isinstance(error, BackendTimeout) else 'UNAVAILABLE'}"
