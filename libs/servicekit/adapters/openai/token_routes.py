"""Asks a server behind the OpenAI API to count tokens, by whichever route of its own it has for it.

Used by `engine.py`. OpenAI's API has none; vLLM, SGLang, TGI, llama.cpp and llama-cpp-python each have one, and
tell themselves apart by their answer to a first question of one letter.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from typing import Any

from servicekit.domain.prompt import Message

NO_ROUTE = frozenset({400, 401, 403, 404, 405, 415, 422, 501})
NO_ROUTE_TTL_S = 600.0
# Every server's name of the text; each reads its own, and none minds the others'.
_PROBE = {"prompt": "a", "inputs": "a", "content": "a", "input": "a"}

Post = Callable[[str, dict[str, Any]], Awaitable[Any]]


class Dialect(StrEnum):
    """Whose routes they are."""

    VLLM = "vllm"
    TGI = "tgi"
    LLAMA = "llama.cpp"
    LLAMA_PYTHON = "llama-cpp-python"


class TokenRoutes:
    """Finds the dialect once; a server without a route is asked again after ten minutes.

    `post` sends JSON to a path beside the API and returns the answer's, None where there is no such route.
    """

    def __init__(self, post: Post) -> None:
        self._post = post
        self._dialect: Dialect | None = None
        self._ask_at_s = 0.0

    async def count_text(self, text: str, *, model: str) -> int | None:
        """Tokens of a text without special ones; None where nobody counts."""
        match await self._find(model):
            case Dialect.VLLM:
                body = {"model": model, "prompt": text, "add_special_tokens": False}
                return _count_of(await self._post("/tokenize", body))
            case Dialect.TGI:
                tokens = await self._post("/tokenize", {"inputs": text, "add_special_tokens": False})
                # It adds the special tokens of a prompt to any text: they cover no character.
                return sum(1 for token in tokens if token["start"] < token["stop"])
            case Dialect.LLAMA:
                return _count_of(await self._post("/tokenize", {"content": text, "add_special": False}))
            case Dialect.LLAMA_PYTHON:
                # Its tokenizer opens every text with the beginning-of-sequence token, as a prompt is.
                counted = _count_of(await self._post("/extras/tokenize/count", {"model": model, "input": text}))
                opened = _count_of(await self._post("/extras/tokenize/count", {"model": model, "input": ""}))
                return None if counted is None or opened is None else counted - opened
            case None:
                return None

    async def count_messages(self, messages: Sequence[Message], *, model: str) -> int | None:
        """Tokens of a conversation, its format included; None where nobody counts them."""
        told = [{"role": message.role.value, "content": message.content} for message in messages]
        match await self._find(model):
            case Dialect.VLLM:
                return _count_of(await self._post("/tokenize", {"model": model, "messages": told}))
            case Dialect.TGI:
                answer = await self._post("/chat_tokenize", {"model": "tgi", "messages": told})
                return None if answer is None else len(answer["tokenize_response"])
            case Dialect.LLAMA:
                applied = await self._post("/apply-template", {"messages": told})
                if applied is None:
                    return None
                body = {"content": applied["prompt"], "add_special": True, "parse_special": True}
                return _count_of(await self._post("/tokenize", body))
            case Dialect.LLAMA_PYTHON | None:
                return None

    async def _find(self, model: str) -> Dialect | None:
        if self._dialect is None and time.monotonic() >= self._ask_at_s:
            self._dialect = _dialect_of(await self._post("/tokenize", {"model": model, **_PROBE}))
            if self._dialect is None and _count_of(await self._post("/extras/tokenize/count", _PROBE)) is not None:
                self._dialect = Dialect.LLAMA_PYTHON
            if self._dialect is None:
                self._ask_at_s = time.monotonic() + NO_ROUTE_TTL_S
        return self._dialect


def _dialect_of(answer: Any) -> Dialect | None:
    if isinstance(answer, list):
        return Dialect.TGI
    if isinstance(answer, dict) and isinstance(answer.get("count"), int):
        return Dialect.VLLM
    return Dialect.LLAMA if isinstance(answer, dict) and isinstance(answer.get("tokens"), list) else None


def _count_of(answer: Any) -> int | None:
    """The number, told or to be counted."""
    if not isinstance(answer, dict):
        return None
    count = answer.get("count", answer.get("tokens"))
    return len(count) if isinstance(count, list) else count if isinstance(count, int) else None
