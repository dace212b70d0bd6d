"""Counts a conversation's tokens where no engine counts them: an estimate, chat format included.

Pure; used by the adapters of remote engines.
"""

from collections.abc import Sequence

from servicekit.domain.generation import TokenCount
from servicekit.domain.prompt import Message
from servicekit.domain.token_estimate import estimate_tokens

# The common formats write a role, two or three marks and a line break around each message, and open the answer.
_TOKENS_PER_MESSAGE = 5
_TOKENS_OF_OPENING = 4


def estimate_messages(messages: Sequence[Message]) -> TokenCount:
    """About what a chat template makes of the messages."""
    tokens = sum(estimate_tokens(message.content) + _TOKENS_PER_MESSAGE for message in messages)
    return TokenCount(tokens + _TOKENS_OF_OPENING, estimated=True)
