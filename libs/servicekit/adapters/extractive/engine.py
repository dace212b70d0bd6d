"""An engine without a model: it answers with sentences of the retrieved chunks, each cited, or refuses.

Opened by the registry for `extractive://`; also the last fallback when every model server is down.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager

from servicekit.adapters.engine_schema import unsupported
from servicekit.adapters.extractive.selection import Quote, choose
from servicekit.adapters.stop_texts import StopTexts
from servicekit.domain.generation import (
    EngineEvent,
    FinishReason,
    GenerationEnd,
    ModelInfo,
    TokenCount,
    TokenEvent,
    Usage,
)
from servicekit.domain.prompt import EngineRequest, Message
from servicekit.errors import InvalidRequest

REFUSAL = "I could not find an answer in the documents."
_INFO = ModelInfo("binnacle/extractive", "1", max_input_tokens=32_768, max_total_tokens=40_960)


@asynccontextmanager
async def open_engine(url: str, *, api_key: str | None = None) -> AsyncIterator["ExtractiveEngine"]:
    """There is nothing to connect to; a key is ignored."""
    del api_key
    if url.removeprefix("extractive:").strip("/"):
        raise InvalidRequest(f"the extractive engine takes no address, got {url!r}", field="engine_url")
    yield ExtractiveEngine()


class ExtractiveEngine:
    """Deterministic; a token is a word. Sampling has no effect but for the limit and the stop texts."""

    @property
    def address(self) -> str:
        """Its URL."""
        return "extractive://"

    async def info(self) -> ModelInfo:
        """What it is; the revision changes whenever the choice of sentences does."""
        return _INFO

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineEvent, None]:
        """Word by word; `refused` where no chunk says enough of the question."""
        _check(request)
        quotes = choose(request.question, request.context)
        answer = " ".join(map(cited, quotes)) or REFUSAL
        sent = sum(_words(message.content) for message in request.messages)
        stops = StopTexts(request.sampling.stop)
        limit = request.sampling.max_output_tokens
        count = 0
        reason = FinishReason.STOP
        for piece in _pieces(answer):
            if count == limit:
                reason = FinishReason.LENGTH
                break
            count += 1
            yield TokenEvent(stops.feed(piece))
            if stops.reached:
                break
        if rest := stops.rest():
            yield TokenEvent(rest, 0)
        yield GenerationEnd(reason, Usage(sent, count), refused=not quotes)

    async def count_tokens(self, text: str) -> TokenCount:
        """Words, which is what it counts in everything."""
        return TokenCount(_words(text), estimated=False)

    async def count_messages(self, messages: Sequence[Message]) -> TokenCount:
        """The words of all of them; there is no format around them."""
        return TokenCount(sum(_words(message.content) for message in messages), estimated=False)

    async def load(self) -> None:
        """Nothing waits for it."""


def _check(request: EngineRequest) -> None:
    """What takes a model is refused."""
    if request.output_schema:
        raise unsupported("output_schema", "output schemas")
    if request.adapter:
        raise unsupported("adapter", "adapters")


def cited(quote: Quote) -> str:
    """The sentence with its marker before the mark that ends it."""
    body = quote.text.rstrip(".!?:")
    end = quote.text[len(body) :] or "."
    return f"{body} [{quote.number}]{end}"


def _pieces(answer: str) -> list[str]:
    """Words with the blank before them; joined, they are the answer."""
    first, *others = answer.split(" ")
    return [first, *(f" {word}" for word in others)]


def _words(text: str) -> int:
    return len(text.split())
