"""How well instructions hidden in documents are told from the sentences around them, sentence by sentence.

Part of `guardrail_quality.py`. BIPIA's attacks stand at the start, in the middle and at the end of documents.
"cross_validated/…": BIPIA's own documents, by models that saw neither the attack's category nor the document.
"without_bipia/…": by a model that saw nothing of BIPIA, in its documents and in others. "shipped/…": documents with
nothing in them that trained nothing. All scores are `find`'s, at the shipped threshold.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from servicekit.domain.verdict import Span, Surface
from services.guardrail.detectors.detector import Subject
from services.guardrail.detectors.indirect_injection import IndirectInjectionDetector
from services.guardrail.instruction_marks import marked
from services.guardrail.normalizing import normalize
from services.guardrail.pieces import pieces
from services.guardrail.text_model import LinearTextModel
from services.guardrail.training.document_sets import CODE_ATTACKS, DOCUMENT_SETS, TEXT_ATTACKS, attacks, sentences
from services.guardrail.training.fitting import Example, calibrate, fit, matrix_of, out_of_fold
from services.guardrail.training.indirect_injection import (
    BIPIA_ATTACKS,
    BIPIA_DOCUMENTS,
    RECIPE,
    folds_of,
    load_examples,
)
from tests.bench._guardrail_figures import Figures, binary_figures
from tests.bench._guardrail_shipped import in_threads, shipped

_FOLDS = 5
_OTHER_DOCUMENTS = ("cranfield", "python_docstrings", "mtrag_passages")
_DOCUMENTS_OF_ATTACKS = {"bipia_emails": TEXT_ATTACKS, "bipia_code_contexts": CODE_ATTACKS}
_DRAWN_DOCUMENTS = 60
_SEED = 5


@dataclass(frozen=True, slots=True)
class Injected:
    """A document with an instruction put into it at `place`."""

    text: str
    place: Span


def measure(data: Path) -> dict[str, Figures]:
    """Figures by the name of the set; each sentence counts once, an inserted instruction is what is looked for."""
    trained = _Trained(data)
    found: dict[str, Figures] = {}
    for name, file in _DOCUMENTS_OF_ATTACKS.items():
        found[f"cross_validated/{name}"] = _cross_validated(trained, data, name, file)
    stranger = trained.without_bipia()
    for name, file in {**_DOCUMENTS_OF_ATTACKS, **dict.fromkeys(_OTHER_DOCUMENTS[:2], TEXT_ATTACKS)}.items():
        documents = _drawn(list(DOCUMENT_SETS[name].read(data)))
        everything = [text for texts in attacks(data, file).values() for text in texts]
        found[f"without_bipia/{name}"] = _figures(stranger, injected(everything, documents))
    for name in _OTHER_DOCUMENTS[:2]:
        texts = sentences(DOCUMENT_SETS[name].read(data), at_most=3_000)
        scores = shipped("indirect_injection").scores(texts, surface=Surface.RETRIEVED)
        found[f"shipped/{name}"] = binary_figures(scores, [False] * len(texts), shipped("indirect_injection").threshold)
    return found


class _Trained:
    """The training's examples, read once, and detectors of models that saw only some of them."""

    def __init__(self, data: Path) -> None:
        self.examples = load_examples(data)
        self._matrix = matrix_of((marked(example.text) for example in self.examples), RECIPE.features)
        folds = folds_of(self.examples, data)
        self._calibration = calibrate(out_of_fold(self._matrix, self.examples, folds, RECIPE), self.examples)

    def without_bipia(self) -> IndirectInjectionDetector:
        return self.without(
            {example.text for example in self.examples if example.source in (*BIPIA_ATTACKS, *BIPIA_DOCUMENTS)}
        )

    def without(self, texts: set[str]) -> IndirectInjectionDetector:
        """The shipped detector with weights that were fitted without these texts, calibrated as shipped."""
        kept = [place for place, example in enumerate(self.examples) if example.text not in texts]
        seen: list[Example] = [self.examples[place] for place in kept]
        fitted = fit(self._matrix[np.array(kept)], seen, RECIPE).calibrated(self._calibration)
        own = LinearTextModel.load("indirect_injection")
        return IndirectInjectionDetector(replace(own, weights=fitted.weights.astype(np.float32), bias=fitted.bias))


def injected(texts: Sequence[str], documents: Sequence[str]) -> list[Injected]:
    """Each instruction in three documents, in turn: before it, after it, and between two of its sentences."""
    return [
        _put(text, documents[(3 * number + position) % len(documents)], position)
        for number, text in enumerate(texts)
        for position in range(3)
    ]


def _put(text: str, document: str, position: int) -> Injected:
    if position == 0:
        return Injected(f"{text}\n{document}", Span(0, len(text)))
    if position == 1:
        return Injected(f"{document}\n{text}", Span(len(document) + 1, len(document) + 1 + len(text)))
    places = pieces(document)
    middle = places[len(places) // 2].start
    return Injected(f"{document[:middle]}{text} {document[middle:]}", Span(middle, middle + len(text)))


def _cross_validated(trained: _Trained, data: Path, name: str, file: str) -> Figures:
    """Every fifth category with every fifth document, by a model that saw neither these nor their like."""
    documents = list(dict.fromkeys(DOCUMENT_SETS[name].read(data)))
    categories = list(attacks(data, file).values())
    scores: list[float] = []
    labels: list[bool] = []
    for fold in range(_FOLDS):
        texts = [text for group in categories[fold::_FOLDS] for text in group]
        held = documents[fold::_FOLDS]
        detector = trained.without({*texts, *sentences(held)})
        for score, label in _judged(detector, injected(texts, held)):
            scores.append(score)
            labels.append(label)
    return binary_figures(scores, labels, shipped("indirect_injection").threshold)


def _figures(detector: IndirectInjectionDetector, cases: Sequence[Injected]) -> Figures:
    judged = list(_judged(detector, cases))
    threshold = shipped("indirect_injection").threshold
    return binary_figures([score for score, _ in judged], [label for _, label in judged], threshold)


def _judged(detector: IndirectInjectionDetector, cases: Sequence[Injected]) -> Iterator[tuple[float, bool]]:
    for judged in in_threads(lambda case: _sentences(detector, case), cases):
        yield from judged


def _sentences(detector: IndirectInjectionDetector, case: Injected) -> list[tuple[float, bool]]:
    """Each sentence of the document: the strongest finding that covers half of it, and whether it was put there."""
    found = list(detector.find(Subject(Surface.RETRIEVED, normalize(case.text))))
    judged = []
    for piece in pieces(case.text):
        scores = [finding.score for finding in found if finding.span and _covers_half(finding.span, piece)]
        inside = _covers_half(case.place, piece) or _covers_half(piece, case.place)
        judged.append((max(scores, default=0.0), inside))
    return judged


def _covers_half(cover: Span, span: Span) -> bool:
    return 2 * (min(cover.end, span.end) - max(cover.start, span.start)) >= span.end - span.start


def _drawn(documents: list[str]) -> list[str]:
    if len(documents) <= _DRAWN_DOCUMENTS:
        return documents
    drawn = np.random.Generator(np.random.PCG64(_SEED)).choice(len(documents), _DRAWN_DOCUMENTS, replace=False)
    return [documents[int(place)] for place in sorted(drawn)]
