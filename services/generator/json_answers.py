"""Answers that must satisfy a JSON schema: held against it once whole, and cited from within their strings.

Called by `generating.py`. Reading and checking are done in a thread: a large schema takes half a second.
"""

import asyncio
import re

from servicekit.domain.generation import FinishReason
from servicekit.domain.output_schema import OutputSchema, read_output_schema
from servicekit.errors import BackendUnavailable
from services.generator.attempting import Trial

OUTPUT_INVALID = "OUTPUT_INVALID"

# Without its closing quote where the answer was cut off: to look for that from every quote would take quadratic time.
_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)


async def read_schema(text: str) -> OutputSchema | None:
    """The schema that was asked for, if any.

    Raises:
        InvalidRequest: it cannot be followed; names the field `output_schema`.
    """
    return await asyncio.to_thread(read_output_schema, text) if text else None


async def check_answer(schema: OutputSchema | None, text: str, trial: Trial) -> None:
    """Return if the finished answer satisfies the schema, or there is none.

    Raises:
        BackendUnavailable: OUTPUT_INVALID; the attempt has failed by it, though not the replica.
    """
    if schema is None:
        return
    wrong = await asyncio.to_thread(schema.violation, text)
    if wrong is None:
        return
    message = f"engine {trial.address} gave an answer that does not satisfy output_schema: {wrong}"
    if trial.end is not None and trial.end.finish_reason is FinishReason.LENGTH:
        message += "; it was cut off at sampling.max_output_tokens, raise that"
    error = BackendUnavailable(message, reason=OUTPUT_INVALID)
    await trial.fail(error)
    raise error


def citable(text: str) -> str:
    """The answer with all but its strings blanked, so that a list of numbers cites nothing; as long as before."""
    blanked, end = [], 0
    for match in _STRING.finditer(text):
        blanked += [" " * (match.start() - end), match[0]]
        end = match.end()
    return "".join([*blanked, " " * (len(text) - end)])
