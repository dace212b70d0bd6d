"""Finds prompt injections and jailbreaks, each stage asked only where those before it are unsure.

Rules of high precision, then words and characters, then the text's vector, then a classifier that the policy may name.
One of `catalogue.py`'s detectors; pure but for the embedder and that classifier.
"""

from collections.abc import Iterator

from servicekit.domain.verdict import Finding, Surface
from services.guardrail.detectors.detector import Subject
from services.guardrail.detectors.injection.classifier import RemoteClassifier
from services.guardrail.detectors.injection.model import InjectionModel
from services.guardrail.detectors.injection.options import InjectionOptions
from services.guardrail.detectors.injection.rules import RuleMatcher, RuleSet, load_rules
from services.guardrail.normalizing import NORMALIZING_VERSION

_STILL_UNSURE = (0.1, 0.95)
"""Probabilities between which a classifier is asked, where the policy names one."""

_MESSAGES = {
    "injection.linear": "Reads like an order to the model, by its words and characters.",
    "injection.embedding": "Reads like an order to the model, by its words and its meaning.",
    "injection.classifier": "A classifier takes it for an order to the model.",
}


class InjectionDetector:
    """Orders to the model where only a question or a document belongs.

    Documents are asked by the rules alone: `indirect_injection` reads their sentences.
    """

    id = "injection"
    surfaces = frozenset({Surface.INPUT, Surface.RETRIEVED})
    redacts = False
    options_model = InjectionOptions

    def __init__(self, rule_set: RuleSet | None = None, model: InjectionModel | None = None) -> None:
        rule_set = rule_set or load_rules()
        self._model = model or InjectionModel.load()
        self._rules = RuleMatcher(rule_set)
        self._classifier = RemoteClassifier()
        self.version = f"{rule_set.version}+{self._model.version}+{NORMALIZING_VERSION}"
        self.threshold = self._model.threshold

    def find(self, subject: Subject) -> Iterator[Finding]:
        """Every rule that matches, and for what users type the model's probability, however low.

        The rule of the latter names the stage that decided.

        Raises:
            BackendUnavailable, BackendTimeout: a stage that was needed gave no answer.
        """
        matched = tuple(self._rules.find(subject))
        yield from matched
        if subject.surface is Surface.INPUT:
            yield self._judged(subject, decided=bool(matched))

    def close(self) -> None:
        """End connections to classifiers; later questions open new ones."""
        self._classifier.close()

    def _judged(self, subject: Subject, *, decided: bool) -> Finding:
        """Once a rule has matched, no later stage is worth its time."""
        reading = self._model.read(subject)
        stage, probability = "injection.linear", reading.probability
        if not decided and subject.embed and self._model.is_unsure(probability):
            stage, probability = "injection.embedding", self._model.with_vector(reading, subject.embed)
        options = subject.options
        if isinstance(options, InjectionOptions) and options.classifier_url and not decided:
            low, high = _STILL_UNSURE
            if low < probability < high:
                probability = self._classifier.probability(reading.text, options)
                stage = "injection.classifier"
        place = subject.in_text(reading.view, reading.span)
        return Finding(stage, round(probability, 4), place, message=_MESSAGES[stage])
