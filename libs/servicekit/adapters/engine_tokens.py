"""Counts a conversation's tokens where no engine is asked: by the model's own files, else by an estimate.

Used by the adapters of remote engines.
"""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from servicekit.adapters.chat_template import UNREADABLE, ChatTemplate, load_chat_template
from servicekit.adapters.tokenizer_file import FileTokenizer
from servicekit.domain.generation import TokenCount
from servicekit.domain.prompt import Message
from servicekit.domain.token_estimate import estimate_tokens
from servicekit.errors import NotReady

# The common formats write a role, two or three marks and a line break around each message, and open the answer.
_TOKENS_PER_MESSAGE = 5
_TOKENS_OF_OPENING = 4
# A text that takes more than a few milliseconds to count is counted beside the event loop.
_LONG_CHARS = 8_000
_CONFIG = "tokenizer_config.json"


def estimate_messages(messages: Sequence[Message]) -> TokenCount:
    """About what a chat template makes of the messages."""
    return with_format(sum(estimate_tokens(message.content) for message in messages), messages)


class LocalTokens:
    """A model's tokenizer and chat template, from files."""

    def __init__(self, tokenizer: FileTokenizer, template: ChatTemplate | None) -> None:
        self._tokenizer = tokenizer
        self._template = template

    async def count(self, text: str, *, special: bool = False) -> TokenCount:
        """Tokens of a text; `special` adds those that the tokenizer puts around a prompt."""
        tokens = (
            await asyncio.to_thread(self._tokenizer.count, text)
            if len(text) > _LONG_CHARS
            else self._tokenizer.count(text)
        )
        return TokenCount(tokens + (self._tokenizer.special_tokens() if special else 0), estimated=False)

    async def count_messages(self, messages: Sequence[Message]) -> TokenCount:
        """Tokens of a conversation by its template, which writes the special tokens too; without one an estimate."""
        if self._template is not None:
            return await self.count(self._template.render(messages))
        counts = [await self.count(message.content) for message in messages]
        return with_format(sum(count.tokens for count in counts), messages)


async def open_local_tokens(options: Mapping[str, str], *, template: ChatTemplate | None = None) -> LocalTokens | None:
    """What a URL's `tokenizer=/path/tokenizer.json` names, with this template, or the one that lies beside the file.

    Raises:
        NotReady: a file cannot be read, or is none of its kind.
    """
    if not options.get("tokenizer"):
        return None
    path = Path(options["tokenizer"])
    tokenizer = await asyncio.to_thread(FileTokenizer, path)
    if template is None:
        template = await asyncio.to_thread(_template_beside, path)
    return LocalTokens(tokenizer, template)


def _template_beside(path: Path) -> ChatTemplate | None:
    """None where the model has none; a bad one is told."""
    try:
        return load_chat_template(path.with_name(_CONFIG))
    except NotReady as error:
        if error.reason == UNREADABLE:
            return None
        raise


def with_format(tokens: int, messages: Sequence[Message]) -> TokenCount:
    """What a chat template makes, by and large, of messages whose texts have so many tokens."""
    return TokenCount(tokens + _TOKENS_PER_MESSAGE * len(messages) + _TOKENS_OF_OPENING, estimated=True)
