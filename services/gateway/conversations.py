"""Conversations: the last turns of each, kept in the state store under the tenant.

Read by `answering.py` before a question, appended to by `publishing.py` once its record is safe.
"""

import json

import structlog

from servicekit.domain.prompt import Message, Role
from servicekit.ports.state_store import StateStore

MAX_KEPT_MESSAGES = 32
TTL_S = 24 * 3600.0
_APPEND_ATTEMPTS = 5

log = structlog.get_logger()


class Conversations:
    """A conversation begins with its first turn and ends `TTL_S` after its last."""

    def __init__(self, store: StateStore) -> None:
        self._store = store

    async def messages(self, conversation_id: str, *, tenant: str) -> tuple[Message, ...]:
        """The kept messages, oldest first; none for a conversation that is new or over."""
        found = await self._store.get(_key(tenant, conversation_id))
        return () if found is None else _decode(found)

    async def append(self, conversation_id: str, *, tenant: str, query: str, answer: str) -> None:
        """Add one turn; turns that end at the same time are both kept, in the order they were written."""
        key = _key(tenant, conversation_id)
        turn = (Message(Role.USER, query), Message(Role.ASSISTANT, answer))
        for _ in range(_APPEND_ATTEMPTS):
            found = await self._store.get(key)
            kept = ((_decode(found) if found is not None else ()) + turn)[-MAX_KEPT_MESSAGES:]
            if await self._store.swap(key, expected=found, value=_encode(kept), ttl_s=TTL_S):
                return
        log.warning("conversation.turn_lost", attempts=_APPEND_ATTEMPTS)


def _key(tenant: str, conversation_id: str) -> str:
    return f"conversation:{tenant}:{conversation_id}"


def _encode(messages: tuple[Message, ...]) -> bytes:
    return json.dumps([[message.role, message.content] for message in messages]).encode()


def _decode(value: bytes) -> tuple[Message, ...]:
    return tuple(Message(Role(role), content) for role, content in json.loads(value))
