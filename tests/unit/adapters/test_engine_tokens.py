"""Tokens are counted by the model's own files where they are here, and by whichever route a server has."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from servicekit.adapters.engine_tokens import estimate_messages, open_local_tokens
from servicekit.adapters.openai.token_routes import TokenRoutes
from servicekit.domain.prompt import Message, Role
from servicekit.errors import NotReady

_TALK = (Message(Role.SYSTEM, "be brief"), Message(Role.USER, "when and where"))
_MESSAGES = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "when and where"}]


@pytest.fixture
def tokenizer_file(tmp_path: Path) -> Path:
    """A tokenizer of words, which opens a prompt with `<s>`."""
    words = ("<s>", "<u>", "be", "brief", "when", "and", "where", "system", "user", "assistant")
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<u>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    return path


async def test_texts_are_counted_by_the_file(tokenizer_file: Path) -> None:
    """Exactly; with the special tokens of a prompt where they are asked for."""
    local = await open_local_tokens({"tokenizer": str(tokenizer_file)})
    assert local is not None
    count, prompt = await local.count("be brief"), await local.count("be brief", special=True)
    assert (count.tokens, prompt.tokens, count.estimated) == (2, 3, False)


async def test_conversations_are_counted_by_the_template_beside_it(tokenizer_file: Path) -> None:
    """The template writes the special tokens, so the tokenizer adds none."""
    template = "{% for m in messages %} {{ m.role }} {{ m.content }}{% endfor %} assistant"
    tokenizer_file.with_name("tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    local = await open_local_tokens({"tokenizer": str(tokenizer_file)})
    assert local is not None
    count = await local.count_messages(_TALK)
    assert (count.tokens, count.estimated) == (8, False)


async def test_conversations_without_a_template_are_estimated(tokenizer_file: Path) -> None:
    """Texts exactly, the format by and large; the count says that it is an estimate."""
    tokenizer_file.with_name("tokenizer_config.json").write_text("{}")
    local = await open_local_tokens({"tokenizer": str(tokenizer_file)})
    assert local is not None
    count = await local.count_messages(_TALK)
    assert (count.tokens, count.estimated) == (5 + 2 * 5 + 4, True)


async def test_long_text_is_counted_whole(tokenizer_file: Path) -> None:
    """Counted beside the event loop, nothing is cut."""
    local = await open_local_tokens({"tokenizer": str(tokenizer_file)})
    assert local is not None
    assert (await local.count("when and " * 10_000)).tokens == 20_000


async def test_no_file_is_no_counter() -> None:
    """Without the option nothing is read."""
    assert await open_local_tokens({}) is None


async def test_missing_file_is_told(tmp_path: Path) -> None:
    """By its name."""
    with pytest.raises(NotReady, match="absent"):
        await open_local_tokens({"tokenizer": str(tmp_path / "absent.json")})


def test_estimates_grow_with_messages() -> None:
    """More messages are more tokens, always marked as an estimate."""
    counts = [estimate_messages(_TALK[:number]) for number in (1, 2)]
    assert counts[0].tokens < counts[1].tokens
    assert all(count.estimated for count in counts)


class _Server:
    """Answers a few routes, and remembers what was asked."""

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self._answers = answers
        self.asked: list[tuple[str, Mapping[str, Any]]] = []

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        self.asked.append((path, body))
        return self._answers.get(path)


_SERVERS: Mapping[str, Mapping[str, Any]] = {
    "vllm": {"/tokenize": {"count": 7, "max_model_len": 99, "tokens": [0] * 7}},
    "tgi": {
        "/tokenize": [{"id": 1, "text": "", "start": 0, "stop": 0}]
        + [{"id": 2, "text": "a", "start": place, "stop": place + 1} for place in range(7)],
        "/chat_tokenize": {"tokenize_response": [{}] * 7, "templated_text": ""},
    },
    "llama.cpp": {"/tokenize": {"tokens": [1] * 7}, "/apply-template": {"prompt": "written"}},
}


@pytest.mark.parametrize("name", list(_SERVERS))
async def test_each_server_is_asked_by_its_own_routes(name: str) -> None:
    """A first question of one letter tells which it is; texts and conversations are then counted by it."""
    server = _Server(_SERVERS[name])
    routes = TokenRoutes(server.post)
    assert await routes.count_text("when", model="m") == 7
    assert await routes.count_messages(_TALK, model="m") == 7
    assert "when" not in str(server.asked[0])
    assert len([body for _, body in server.asked if "input" in body]) == 1


async def test_vllm_is_sent_its_own_fields() -> None:
    """Texts without special tokens; conversations with the opening of the answer, which is its default."""
    server = _Server(_SERVERS["vllm"])
    routes = TokenRoutes(server.post)
    await routes.count_text("when", model="m")
    await routes.count_messages(_TALK, model="m")
    assert [body for _, body in server.asked[1:]] == [
        {"model": "m", "prompt": "when", "add_special_tokens": False},
        {"model": "m", "messages": _MESSAGES},
    ]


async def test_server_without_a_route_is_not_asked_again() -> None:
    """A vendor that counts nothing is asked once in a while, not for every prompt."""
    server = _Server({})
    routes = TokenRoutes(server.post)
    for _ in range(3):
        assert await routes.count_text("when", model="m") is None
        assert await routes.count_messages(_TALK, model="m") is None
    assert len(server.asked) == 2
