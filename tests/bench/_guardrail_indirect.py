"""How well instructions hidden in documents are told from the sentences around them, sentence by sentence.

Part of `guardrail_quality.py`. BIPIA's attacks stand at the start, in the middle and at the end of documents.
"cross_validated/…": BIPIA's own documents, by models that saw neither the attack's category nor the document.
"without_bipia/…": by a model that saw nothing of BIPIA, in its documents and in others. "shipped/…": documents with
nothing planted in them; abstracts, docstrings and the questions over passages trained nothing. "…/with_embedder":
sentences in doubt are compared with the text around them, by the three numbers that are shipped. All scores are
`find`'s, at the shipped threshold.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from servicekit.domain.verdict import Span, Surface
from services.guardrail.detectors.detector import Embed, Subject
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
from services.guardrail.training.planting import Planted, covers_half, drawn, is_planted, planted
from tests.bench._guardrail_figures import Figures, binary_figures
from tests.bench._guardrail_shipped import embed, in_threads, shipped

_FOLDS = 5
_OTHER_DOCUMENTS = ("cranfield", "python_docstrings", "questions_answered")
_ATTACKS_OF_DOCUMENTS = {"bipia_emails": TEXT_ATTACKS, "bipia_code_contexts": CODE_ATTACKS}
_PLANTED_DOCUMENTS, _HARMLESS_DOCUMENTS = 60, 400

Judged = tuple[float, bool]
"""A sentence's score, and whether it was planted."""


def measure(data: Path) -> dict[str, Figures]:
    """Figures by the name of the set; each sentence counts once, a planted instruction is what is looked for."""
    trained = _Trained(data)
    stranger, own = trained.without_bipia(), IndirectInjectionDetector()
    found: dict[str, Figures] = {}
    for embedder, suffix in ((None, ""), (embed(), "/with_embedder")):
        if suffix and embedder is None:
            continue
        for name, file in _ATTACKS_OF_DOCUMENTS.items():
            found[f"cross_validated/{name}{suffix}"] = _figures(_cross_validated(trained, data, name, embedder))
            cases = _cases(data, name, file)
            found[f"without_bipia/{name}{suffix}"] = _figures(_judged(stranger, cases, embedder))
        for name in _OTHER_DOCUMENTS:
            cases = _cases(data, name, TEXT_ATTACKS)
            found[f"without_bipia/{name}{suffix}"] = _figures(_judged(stranger, cases, embedder))
            harmless = drawn(DOCUMENT_SETS[name].read(data), count=_HARMLESS_DOCUMENTS)
            alone = [Planted(text, Span(0, 0)) for text in harmless]
            found[f"shipped/{name}{suffix}"] = _figures(_judged(own, alone, embedder))
    return found


def _cases(data: Path, name: str, file: str) -> list[Planted]:
    instructions = [text for texts in attacks(data, file).values() for text in texts]
    return planted(instructions, drawn(DOCUMENT_SETS[name].read(data), count=_PLANTED_DOCUMENTS))


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


def _cross_validated(trained: _Trained, data: Path, name: str, embedder: Embed | None) -> list[Judged]:
    """Every fifth category in every fifth document, by a model that saw neither these nor their sentences."""
    documents = list(dict.fromkeys(DOCUMENT_SETS[name].read(data)))
    categories = list(attacks(data, _ATTACKS_OF_DOCUMENTS[name]).values())
    judged: list[Judged] = []
    for fold in range(_FOLDS):
        texts = [text for group in categories[fold::_FOLDS] for text in group]
        held = documents[fold::_FOLDS]
        judged += _judged(trained.without({*texts, *sentences(held)}), planted(texts, held), embedder)
    return judged


def _judged(detector: IndirectInjectionDetector, cases: Sequence[Planted], embedder: Embed | None) -> list[Judged]:
    return [pair for case in in_threads(lambda case: _sentences(detector, case, embedder), cases) for pair in case]


def _sentences(detector: IndirectInjectionDetector, case: Planted, embedder: Embed | None) -> list[Judged]:
    """Each sentence of the document: its strongest finding that covers half of it, and whether it was put there."""
    found = list(detector.find(Subject(Surface.RETRIEVED, normalize(case.text), embed=embedder)))
    judged = []
    for piece in pieces(case.text):
        scores = [finding.score for finding in found if finding.span and covers_half(finding.span, piece)]
        judged.append((max(scores, default=0.0), bool(case.place.end) and is_planted(case, piece)))
    return judged


def _figures(judged: Sequence[Judged]) -> Figures:
    threshold = shipped("indirect_injection").threshold
    return binary_figures([score for score, _ in judged], [label for _, label in judged], threshold)
