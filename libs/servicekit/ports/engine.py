"""The engine: messages in, tokens out, by whichever model server (or none) stands behind a URL.

Implemented by `adapters.tgi`, `adapters.openai` and `adapters.extractive`; driven by the generator.
"""

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from servicekit.domain.generation import EngineEvent, EngineLoad, ModelInfo, TokenCount
from servicekit.domain.prompt import EngineRequest, Message


class Engine(Protocol):
    """A connection to one engine; opened by `servicekit.adapters.registry.open_engine`."""

    @property
    def address(self) -> str:
        """The engine's URL without credentials, for records and logs."""
        ...

    async def info(self) -> ModelInfo:
        """Model, revision and limits, as the engine reports them now; doubles as the readiness ping.

        Raises:
            BackendUnavailable, BackendTimeout.
        """
        ...

    def generate(self, request: EngineRequest) -> AsyncGenerator[EngineEvent, None]:
        """Tokens in order, then exactly one GenerationEnd; nothing is sent before the first `anext`.

        Tokens that came together may be one event, so that a caller who lags catches up; none waits for another.
        Closing the generator, or cancelling the task that reads it, cancels the work upstream and frees the
        connection. The caller bounds the wait: an engine that hangs is the caller's deadline to notice.

        Raises:
            Overloaded: the engine refuses for load, with its retry delay.
            InvalidRequest: the engine refuses these messages or settings; another try cannot help.
            BackendUnavailable: no connection (CONNECT), cut before the end (STREAM_CUT), nonsense
                (MALFORMED_RESPONSE), or a failed generation (GENERATION_FAILED).
            BackendTimeout: the engine says that it ran out of time.
        """
        ...

    async def count_tokens(self, text: str) -> TokenCount:
        """Tokens of `text` by the engine's tokenizer, without special tokens; else an estimate marked so."""
        ...

    async def count_messages(self, messages: Sequence[Message]) -> TokenCount:
        """Tokens that a generation from these messages reads, chat format and special tokens included.

        Exact where the engine has a route for it or its template is known here; else an estimate marked so.
        """
        ...

    async def load(self) -> EngineLoad | None:
        """What the engine has to do now, from its metrics; None where it tells nothing.

        Raises:
            BackendUnavailable, BackendTimeout.
        """
        ...
