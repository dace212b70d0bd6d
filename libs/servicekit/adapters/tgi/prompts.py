"""Writes messages as the one text that TGI's generate routes read, in the format that the URL names.

Called by `engine.py`.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from servicekit.adapters.chat_template import ChatTemplate, load_chat_template
from servicekit.domain.prompt import Message, Role
from servicekit.errors import InvalidRequest

_NAMES = {Role.SYSTEM: "System", Role.USER: "User", Role.ASSISTANT: "Assistant"}


class Form(StrEnum):
    """How messages are written: `plain` for models without a chat format, `chatml`, or by the `engine` itself."""

    PLAIN = "plain"
    CHATML = "chatml"
    ENGINE = "engine"


@dataclass(frozen=True, slots=True)
class Prompts:
    """A form, or a model's own template."""

    form: Form
    template: ChatTemplate | None = None

    @property
    def by_engine(self) -> bool:
        """Whether the engine writes them."""
        return self.form is Form.ENGINE

    @property
    def bos(self) -> str:
        """The token that the template opens a prompt with; empty for none."""
        return self.template.bos if self.template is not None else ""

    def render(self, messages: Sequence[Message]) -> str:
        """The messages in order, and the opening of the assistant's answer."""
        if self.template is not None:
            return self.template.render(messages)
        if self.form is Form.CHATML:
            turns = "".join(f"<|im_start|>{m.role.value}\n{_defused(m.content)}<|im_end|>\n" for m in messages)
            return f"{turns}<|im_start|>{Role.ASSISTANT.value}\n"
        turns = "".join(f"{_NAMES[m.role]}: {m.content}\n\n" for m in messages)
        return f"{turns}{_NAMES[Role.ASSISTANT]}:"


async def open_prompts(options: Mapping[str, str]) -> Prompts:
    """What the URL's `template` option says; a path is read.

    Raises:
        InvalidRequest: it is neither a form nor a path.
        NotReady: the file has no template, or a bad one.
    """
    named = options.get("template", Form.PLAIN.value)
    if named in set(Form):
        return Prompts(Form(named))
    if "/" not in named:
        raise InvalidRequest(
            f"template must be {', '.join(Form)} or the path of a tokenizer_config.json, got {named!r}",
            field="engine_url",
        )
    return Prompts(Form.PLAIN, await asyncio.to_thread(load_chat_template, Path(named)))


def _defused(content: str) -> str:
    """The content, unable to open or close a turn: the tokenizer reads its marks wherever they stand."""
    return content.replace("<|im_", "<| im_")
