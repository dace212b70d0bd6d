"""Renders messages into the one text that TGI's generate routes read.

Pure; called by `engine.py`, which chooses the format by the URL's `template` option.
"""

from collections.abc import Sequence
from enum import StrEnum

from servicekit.domain.prompt import Message, Role

_NAMES = {Role.SYSTEM: "System", Role.USER: "User", Role.ASSISTANT: "Assistant"}


class Template(StrEnum):
    """How messages are written: `plain` for models without a chat format, or `chatml`."""

    PLAIN = "plain"
    CHATML = "chatml"


def render(messages: Sequence[Message], template: Template) -> str:
    """The messages in order, and the opening of the assistant's answer."""
    if template is Template.CHATML:
        turns = "".join(f"<|im_start|>{m.role.value}\n{_defused(m.content)}<|im_end|>\n" for m in messages)
        return f"{turns}<|im_start|>{Role.ASSISTANT.value}\n"
    turns = "".join(f"{_NAMES[m.role]}: {m.content}\n\n" for m in messages)
    return f"{turns}{_NAMES[Role.ASSISTANT]}:"


def _defused(content: str) -> str:
    """The content, unable to open or close a turn: the tokenizer reads its marks wherever they stand."""
    return content.replace("<|im_", "<| im_")
