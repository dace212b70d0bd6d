"""Bounds of a question and of feedback: each violation names field, value and fix.

Pure; called once per request by `server.py` and `openai_api.py`. Sampling checks itself where it is made.
"""

import asyncio
import re

from servicekit.domain.output_schema import OutputSchema, read_output_schema
from servicekit.domain.prompt import Message
from servicekit.errors import InvalidRequest
from services.gateway.question import Question

MAX_TEXT_CHARS = 8_192
MAX_MESSAGES = 64
MAX_MESSAGE_CHARS = 32_768
MAX_ID_CHARS = 128
MAX_NAME_CHARS = 64
MAX_LABELS = 16
MAX_LABEL_VALUE_CHARS = 256
MAX_TOP_K = 50
_SHOWN_CHARS = 64
_LABEL_KEY = re.compile(r"[a-z0-9_.-]{1,64}")


def validate_question(question: Question) -> None:
    """Return if every field is within its bounds.

    Raises:
        InvalidRequest: for the first field that is not.
    """
    check_text("question.text", question.text, max_chars=MAX_TEXT_CHARS)
    for name in ("idempotency_key", "conversation_id", "end_user_id", "sticky_key"):
        check_id(f"question.{name}", getattr(question, name))
    for name in ("project", "route", "release", "model"):
        check_id(f"question.{name}", getattr(question, name), max_chars=MAX_NAME_CHARS)
    if not 0 <= question.top_k <= MAX_TOP_K:
        raise InvalidRequest(
            f"question.top_k must be 1 to {MAX_TOP_K}, or 0 for the route's default, got {question.top_k}",
            field="question.top_k",
        )
    _check_history(question.history)
    _check_labels(question)


async def read_schema(question: Question) -> OutputSchema | None:
    """The schema that the answer must satisfy, if any; read in a thread, as a large one takes half a second.

    Raises:
        InvalidRequest: it cannot be followed.
    """
    if not question.output_schema:
        return None
    return await asyncio.to_thread(read_output_schema, question.output_schema, field="question.output_schema")


def check_text(field: str, text: str, *, max_chars: int) -> None:
    """A text for people: not blank, bounded. Its content stays out of the message, which may be logged."""
    if not text.strip():
        got = f"{len(text)} blank characters" if text else "an empty text"
        raise InvalidRequest(
            f"{field} must hold 1 to {max_chars} characters that are not all blank, got {got}", field=field
        )
    check_length(field, text, max_chars=max_chars)


def check_length(field: str, text: str, *, max_chars: int) -> None:
    """A bounded text that may be empty."""
    if len(text) > max_chars:
        raise InvalidRequest(
            f"{field} must hold at most {max_chars} characters, got {len(text)}; shorten it", field=field
        )


def check_id(field: str, value: str, *, max_chars: int = MAX_ID_CHARS) -> None:
    """A bounded name or id of printable characters, or empty."""
    check_length(field, value, max_chars=max_chars)
    if not value.isprintable():
        raise InvalidRequest(f"{field} must hold printable characters only, got {shown(value)}", field=field)


def shown(text: str) -> str:
    """The beginning of a value, safe to show in an error message."""
    return ascii(text[:_SHOWN_CHARS])


def _check_history(history: tuple[Message, ...]) -> None:
    if len(history) > MAX_MESSAGES:
        raise InvalidRequest(
            f"question.history must hold at most {MAX_MESSAGES} messages, got {len(history)}; drop the oldest",
            field="question.history",
        )
    for position, message in enumerate(history):
        check_text(f"question.history[{position}].content", message.content, max_chars=MAX_MESSAGE_CHARS)


def _check_labels(question: Question) -> None:
    if len(question.labels) > MAX_LABELS:
        raise InvalidRequest(
            f"question.labels must hold at most {MAX_LABELS} labels, got {len(question.labels)}",
            field="question.labels",
        )
    for key, value in question.labels.items():
        if not _LABEL_KEY.fullmatch(key):
            raise InvalidRequest(
                f"a key of question.labels must be 1 to 64 characters of [a-z0-9_.-], got {shown(key)}",
                field="question.labels",
            )
        check_length(f"question.labels[{key}]", value, max_chars=MAX_LABEL_VALUE_CHARS)
