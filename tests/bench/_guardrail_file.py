"""Figures of one detector on any file of JSON lines; used by `guardrail_quality.py --file`.

- {"text", "label"} for any detector that judges a text: the label says whether what it looks for is there.
- {"text", "spans"} for `pii`, or one of its kinds such as `pii.email`, and `secret`: {"start", "end", "kind"} each.
- {"context", "answer", "label"} for groundedness: 1 (or a word such as "supported") is an answer that the context, a
  text or a list of texts, supports. What is looked for is the unsupported answer: recall and fpr are of that.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AliasChoices, BaseModel, BeforeValidator, Field, ValidationError, model_validator

from servicekit.domain.verdict import Surface
from tests.bench._guardrail_figures import Figures, JudgedSpans, LabelledSpan, binary_figures, span_figures
from tests.bench._guardrail_pii import KNOWN_KINDS, STRUCTURED, found_spans, kind_named
from tests.bench._guardrail_shipped import Shipped, in_threads, shipped, shipped_ids

GROUNDEDNESS = "groundedness"
PII = "pii"
_SPANS_OF = (PII, "secret")


def _listed(words: str) -> frozenset[str]:
    return frozenset(" ".join(words.split()).split(", "))


_YES = _listed(
    """
    1, true, yes, positive, attack, injection, jailbreak, malicious, unsafe, harmful, toxic, hate, offensive,
    hate speech, spam
    """
)
_NO = _listed(
    """
    0, false, no, negative, benign, safe, harmless, clean, normal, legitimate, neither, non toxic, not toxic,
    none
    """
)
_SUPPORTED = _listed(
    """
    1, true, yes, supported, grounded, faithful, attributable, fully attributable, entailed, entailment,
    consistent, right, correct
    """
)
_UNSUPPORTED = _listed(
    """
    0, false, no, unsupported, not supported, ungrounded, not grounded, unfaithful, hallucinated,
    hallucination, not attributable, not fully attributable, generic, contradicted, contradiction, neutral,
    inconsistent, wrong, incorrect
    """
)


class FileRefusedError(Exception):
    """A file that cannot be measured; the text begins with `file:line:` and names the field."""


def _word(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return " ".join(str(value).strip().lower().replace("_", " ").replace("-", " ").split())


def _one_of(value: Any, yes: frozenset[str], no: frozenset[str]) -> bool:
    word = _word(value)
    if word in yes or word in no:
        return word in yes
    raise ValueError(f"must be one of {', '.join(sorted(yes))} or {', '.join(sorted(no))}, got {value!r}")


def _texts(value: Any) -> Any:
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list):
        return value
    return [entry["text"] if isinstance(entry, dict) and "text" in entry else entry for entry in listed] or [""]


class TextCase(BaseModel):
    """A text, and whether what the detector looks for is in it."""

    text: str
    label: Annotated[bool, BeforeValidator(lambda value: _one_of(value, _YES, _NO))]


class SpanCase(BaseModel):
    """A text, and what stands where in it."""

    class Place(BaseModel):
        """Characters `text[start:end]`."""

        start: int = Field(ge=0, validation_alias=AliasChoices("start", "start_position"))
        end: int = Field(ge=0, validation_alias=AliasChoices("end", "end_position"))
        kind: Annotated[str, BeforeValidator(lambda value: kind_named(str(value).strip()))] = Field(
            validation_alias=AliasChoices("kind", "type", "entity_type", "label")
        )

    text: str = Field(validation_alias=AliasChoices("text", "full_text"))
    spans: list[Place]

    @model_validator(mode="after")
    def _inside(self) -> "SpanCase":
        for place in self.spans:
            if not place.start < place.end <= len(self.text):
                raise ValueError(f"span {place.start}..{place.end} is not inside a text of {len(self.text)} characters")
        return self

    def expected(self) -> tuple[LabelledSpan, ...]:
        """The spans as figures want them."""
        return tuple(LabelledSpan(place.start, place.end, place.kind) for place in self.spans)


class AnswerCase(BaseModel):
    """An answer, the texts it should follow from, and whether it does."""

    context: Annotated[list[str], BeforeValidator(_texts)]
    answer: str
    label: Annotated[bool, BeforeValidator(lambda value: _one_of(value, _SUPPORTED, _UNSUPPORTED))]


_Case = TypeVar("_Case", TextCase, SpanCase, AnswerCase)


def measure_file(path: Path, detector: str, *, surface: Surface | None = None) -> Figures:
    """Figures of the shipped detector on the file's lines.

    Raises:
        FileRefusedError: the detector is unknown, or a line is no case of it.
    """
    if detector == GROUNDEDNESS:
        return _measure_answers(read_cases(path, AnswerCase), shipped(GROUNDEDNESS))
    if detector in _SPANS_OF or detector.startswith(f"{PII}."):
        return measure_spans(read_cases(path, SpanCase), detector)
    one = detectors_of(detector)[0]
    cases = read_cases(path, TextCase)
    scores = one.scores([case.text for case in cases], surface=surface)
    return {"positive": detector, **binary_figures(scores, [case.label for case in cases], one.threshold)}


def read_cases(path: Path, model: type[_Case]) -> list[_Case]:
    """The file's lines; blank ones are passed over, fields that the model does not know too.

    Raises:
        FileRefusedError: the file cannot be read, has no cases, or a line is no case.
    """
    try:
        lines = path.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as exc:
        raise FileRefusedError(f"{path}:1: cannot be read: {exc}") from exc
    cases = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                cases.append(model.model_validate_json(line))
            except ValidationError as exc:
                raise FileRefusedError(f"{path}:{number}: {'; '.join(_problems(exc))}") from exc
    if not cases:
        raise FileRefusedError(f"{path}:1: has no lines; each must hold {', '.join(model.model_fields)}")
    return cases


def detectors_of(name: str) -> list[Shipped]:
    """The detector of this name, or all of `pii`.

    Raises:
        FileRefusedError: there is none.
    """
    found = [shipped(one) for one in shipped_ids() if one == name or one.startswith(f"{name}.")]
    if not found:
        raise FileRefusedError(f"--detector {name}: unknown; known: {PII}, {', '.join(shipped_ids())}")
    return found


def measure_spans(cases: Sequence[SpanCase], name: str) -> Figures:
    """Spans of the kinds that are labelled and that a detector knows, and of the structured ones, labelled or not.

    What the file marks besides is nobody's miss, and counted apart.
    """
    detectors = detectors_of(name)
    labelled = {span.kind for case in cases for span in case.expected()}
    if name == PII:
        kinds = STRUCTURED | (labelled & KNOWN_KINDS)
        places = in_threads(lambda case: tuple(found_spans(case.text, kinds=frozenset(kinds))), cases)
    else:
        places = in_threads(lambda case: _found(detectors[0], case.text), cases)
        kinds = frozenset({kind_named(name.rpartition(".")[2])} | {span.kind for spans in places for span in spans})
    expected = [tuple(span for span in case.expected() if span.kind in kinds) for case in cases]
    judged = [JudgedSpans(*pair) for pair in zip(expected, places, strict=True)]
    others = Counter(span.kind for case in cases for span in case.expected() if span.kind not in kinds)
    return {
        "positive": "a span",
        **span_figures(judged),
        "threshold": {one.id: one.threshold for one in detectors},
        "structured": _of_kinds(judged, STRUCTURED),
        "by_kind": {kind: _of_kinds(judged, {kind}) for kind in sorted(kinds)},
        "kinds_not_counted": dict(others.most_common()),
    }


def _found(detector: Shipped, text: str) -> tuple[LabelledSpan, ...]:
    told = ((finding, finding.span) for finding in detector.find(text))
    return tuple(LabelledSpan(at.start, at.end, finding.kind, finding.score) for finding, at in told if at)


def _of_kinds(texts: Sequence[JudgedSpans], kinds: Collection[str]) -> Figures:
    kept = [
        JudgedSpans(*(tuple(span for span in spans if span.kind in kinds) for spans in (text.expected, text.found)))
        for text in texts
    ]
    figures = span_figures(kept)
    return {name: figures[name] for name in ("recall", "precision", "f1", "fpr", "spans", "interval")}


def _measure_answers(cases: Sequence[AnswerCase], detector: Shipped) -> Figures:
    scores = in_threads(
        lambda case: detector.score(case.answer, surface=Surface.OUTPUT, chunk_texts=case.context), cases
    )
    figures = binary_figures(scores, [not case.label for case in cases], detector.threshold)
    return {"positive": "unsupported", **figures}


def _problems(error: ValidationError) -> Iterator[str]:
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"]) or "line"
        yield f"{where}: {problem['msg'].removeprefix('Value error, ')}"
