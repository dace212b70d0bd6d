"""What goes into a streamed check and what comes out of it.

Pure; read and written by `convert.py`, used by the modules beside it.
"""

from dataclasses import dataclass, field

from servicekit.domain.verdict import Action, Verdict
from services.guardrail.checking import CheckContext


@dataclass(frozen=True, slots=True)
class StreamStart:
    """What a streamed answer is part of and what it is made from; `restore`: values are wanted back."""

    context: CheckContext
    chunk_texts: tuple[str, ...] = field(default=(), repr=False)
    restore: bool = False


@dataclass(frozen=True, slots=True)
class StreamedText:
    """The next text of an answer; `final` where it is the last."""

    text: str = field(repr=False)
    token_count: int = 1
    final: bool = False


@dataclass(frozen=True, slots=True)
class ReleasedText:
    """Text that may be shown, and how many characters of the answer it stands for; `restored` where it differs."""

    text: str = field(repr=False)
    source_chars: int
    restored: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class FoundVerdicts:
    """What was found; places are those in all the text."""

    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True)
class EndedStream:
    """How it ended, and what it took."""

    action: Action
    policy_version: str
    groundedness: float | None
    first_held_us: int
    first_held_tokens: int
    judging_us: int


StreamEvent = ReleasedText | FoundVerdicts | EndedStream
