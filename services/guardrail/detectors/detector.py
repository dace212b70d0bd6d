"""What a detector is: a pure judge of one text, with an id and a version.

Implemented by the modules beside it; collected in `catalogue.py`, run by `judging.py`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from pydantic import BaseModel

from servicekit.domain.grounding import Grounding, ground
from servicekit.domain.verdict import Finding, Span, Surface
from services.guardrail.normalizing import NormalizedText, normalize

Embed = Callable[[Sequence[str]], Sequence[Sequence[float]]]
"""Unit vectors of texts, in order. Blocks: in a worker thread only. Raises BackendUnavailable, BackendTimeout."""


@dataclass(frozen=True)
class Subject:
    """A text to judge: its surface, the text as normalised, and the chunks that should support it.

    `options` are the detector's own, as the policy states them (an instance of its `options_model`); `embed` is None
    where no embedder is configured. `whole` is false for a piece of an answer that has others.
    """

    surface: Surface
    normalized: NormalizedText
    chunk_texts: tuple[str, ...] = ()
    options: BaseModel | None = None
    embed: Embed | None = None
    whole: bool = True

    @property
    def text(self) -> str:
        """The normalised text; findings give places in it."""
        return self.normalized.text

    @property
    def views(self) -> tuple[NormalizedText, ...]:
        """`normalized` first, then the text with disguises taken off, only where that differs."""
        return self.normalized.views

    def in_text(self, view: NormalizedText, span: Span) -> Span:
        """The place in `text` of what a view shows at `span`; a decoded run maps as a whole."""
        return span if view is self.normalized else self.normalized.from_original(view.to_original(span))

    @cached_property
    def grounding(self) -> Grounding | None:
        """Support by the chunks, worked out once; None without chunks."""
        return ground(self.text, [normalize(text).text for text in self.chunk_texts]) if self.chunk_texts else None


class Detector(Protocol):
    """Finds one kind of thing. Pure: the same subject, the same findings; safe in any thread."""

    @property
    def id(self) -> str:
        """Such as `pii.email`; policies and verdicts name it."""
        ...

    @property
    def version(self) -> str:
        """Changes whenever findings could."""
        ...

    @property
    def surfaces(self) -> frozenset[Surface]:
        """Where it makes sense."""
        ...

    @property
    def redacts(self) -> bool:
        """Whether its findings name a span and a kind, so that a policy may have them replaced."""
        ...

    @property
    def options_model(self) -> type[BaseModel] | None:
        """What a policy may state under `options`, every field with a default; None: nothing."""
        ...

    def find(self, subject: Subject) -> Iterable[Finding]:
        """Findings in any order; spans are places in `subject.text`."""
        ...


def embeds(detector: Detector) -> bool:
    """Whether every judgement of it embeds: a class says so by `embeds = True`, and is asked after the cheap ones."""
    return bool(getattr(detector, "embeds", False))


EVERY_SURFACE = frozenset(Surface)
