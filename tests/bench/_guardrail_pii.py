"""Personal data and secrets: spans found against spans labelled, by kind, and alarms on documentation.

Used by `guardrail_quality.py`; every span comes from the shipped detectors at the packaged policy's thresholds.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from pydoc_data import topics
from typing import Any

from servicekit.domain.verdict import Surface
from tests.bench._guardrail_figures import Figures, JudgedSpans, LabelledSpan, skipped, span_figures
from tests.bench._guardrail_shipped import in_threads, shipped, shipped_ids

_SYNTHETIC = "pii/synth_dataset_v2.json"
_CONVERSATIONS = "conversations/mtrag_un_first_200.jsonl"
_DOCUMENTS = "retrieval/cranfield/cran.all.1400.xml"
_SECRET_DETECTOR = "secret"

# What others call the kinds that our placeholders name (Presidio's and common data sets' names, in capitals).
_KINDS = {
    "EMAIL_ADDRESS": "EMAIL",
    "PHONE_NUMBER": "PHONE",
    "PHONENUMBER": "PHONE",
    "TELEPHONE": "PHONE",
    "TELEPHONENUM": "PHONE",
    "CREDIT_CARD": "CARD",
    "CREDITCARD": "CARD",
    "CREDITCARDNUMBER": "CARD",
    "CREDIT_CARD_NUMBER": "CARD",
    "IBAN_CODE": "IBAN",
    "US_SSN": "SSN",
    "SOCIALNUM": "SSN",
    "SOCIAL_SECURITY_NUMBER": "SSN",
    "IP_ADDRESS": "IP",
    "IPV4": "IP",
    "IPV6": "IP",
    "DOMAIN_NAME": "URL",
    "MAC_ADDRESS": "MAC",
    "CRYPTO": "WALLET",
    "BITCOINADDRESS": "WALLET",
    "ETHEREUMADDRESS": "WALLET",
    "US_DRIVER_LICENSE": "LICENSE",
    "DRIVER_LICENSE": "LICENSE",
    "DRIVERLICENSE": "LICENSE",
    "DRIVERLICENSENUM": "LICENSE",
    "US_PASSPORT": "PASSPORT",
    "PASSPORT_NUMBER": "PASSPORT",
    "US_BANK_NUMBER": "ACCOUNT",
    "BANK_ACCOUNT": "ACCOUNT",
    "ACCOUNTNUM": "ACCOUNT",
    "ACCOUNTNUMBER": "ACCOUNT",
    "DATE_OF_BIRTH": "BIRTH",
    "DATEOFBIRTH": "BIRTH",
    "DOB": "BIRTH",
    "PERSON": "NAME",
    "US_ITIN": "ID",
    "UK_NHS": "ID",
    "UK_NINO": "ID",
    "ES_NIF": "ID",
    "ES_NIE": "ID",
    "IT_FISCAL_CODE": "ID",
    "PL_PESEL": "ID",
    "FI_PERSONAL_IDENTITY_CODE": "ID",
    "SG_NRIC_FIN": "ID",
    "AU_TFN": "ID",
    "AU_MEDICARE": "ID",
    "IN_AADHAAR": "ID",
    "IN_PAN": "ID",
    "NATIONAL_ID": "ID",
    "IDCARDNUM": "ID",
    "TAX_ID": "ID",
    "API_KEY": "SECRET",
    "PASSWORD": "SECRET",
}
KNOWN_KINDS = frozenset(_KINDS.values())
STRUCTURED = frozenset({"EMAIL", "PHONE", "CARD", "IBAN", "SSN", "IP", "URL"})
"""What a form gives away; always looked for, labelled or not."""

_SYNTHETIC_KINDS = ("EMAIL", "PHONE", "CARD", "IBAN", "SSN", "IP", "URL", "LICENSE", "NAME")


def measure(data: Path) -> dict[str, Figures]:
    """Structured kinds together and each alone; then texts of documentation, where every finding counts as false."""
    figures: dict[str, Figures] = {}
    if (data / _SYNTHETIC).is_file():
        rows = json.loads((data / _SYNTHETIC).read_text("utf-8"))
        figures["synth_structured"] = figures_of_rows(rows, kinds=STRUCTURED)
        figures |= {f"synth_{kind.lower()}": figures_of_rows(rows, kinds={kind}) for kind in _SYNTHETIC_KINDS}
    else:
        figures["synth_structured"] = skipped(f"{data / _SYNTHETIC} is not there")
    for name, texts in _documentation(data).items():
        figures[f"alarms_{name}"] = figures_of_texts([(text, ()) for text in texts], kinds=None)
        figures[f"alarms_{name}_secrets"] = figures_of_texts([(text, ()) for text in texts], kinds={"SECRET"})
    return figures


def figures_of_rows(rows: Sequence[Mapping[str, Any]], *, kinds: Iterable[str] | None = None) -> Figures:
    """Figures of rows with a text and its spans, by our spelling or by Presidio's.

    Without `kinds`, those are counted that occur among the labels and that a detector here knows, and the structured
    ones; labels of other kinds (cities, titles) are nobody's miss.
    """
    texts = [(_text(row), _labelled(row)) for row in rows]
    if kinds is None:
        kinds = STRUCTURED | ({span.kind for _, spans in texts for span in spans} & KNOWN_KINDS)
    return figures_of_texts(texts, kinds=frozenset(kinds))


def figures_of_texts(texts: Sequence[tuple[str, Sequence[LabelledSpan]]], *, kinds: Iterable[str] | None) -> Figures:
    """Figures of texts and what is in them; only `kinds` are counted, or all that the policy acts on."""
    counted = None if kinds is None else frozenset(kinds)

    def judged(case: tuple[str, Sequence[LabelledSpan]]) -> JudgedSpans:
        text, expected = case
        return JudgedSpans(
            expected=tuple(span for span in expected if counted is None or span.kind in counted),
            found=tuple(found_spans(text, kinds=counted)),
        )

    return span_figures(in_threads(judged, texts))


def found_spans(text: str, *, kinds: frozenset[str] | None) -> list[LabelledSpan]:
    """What the shipped detectors tell of a text that a user typed; a place told twice counts as its strongest kind."""
    found = [span for detector in _asked(kinds) for span in _told(detector, text)]
    kept: list[LabelledSpan] = []
    for span in sorted(found, key=lambda one: (-(one.end - one.start), -one.score, one.start)):
        if not any(span.start < other.end and other.start < span.end for other in kept):
            kept.append(span)
    return [span for span in kept if kinds is None or span.kind in kinds]


def _asked(kinds: frozenset[str] | None) -> list[str]:
    """All detectors of personal data that the policy acts on, and those it does not where their kind is asked for."""
    return [
        name
        for name in shipped_ids()
        if (name.startswith("pii.") or name == _SECRET_DETECTOR)
        and (name not in _CONSULTED or (kinds is not None and _CONSULTED[name] in kinds))
    ]


_CONSULTED = {"pii.url": "URL", "pii.name": "NAME"}
"""Detectors that the packaged policy only tells of, or leaves off: asked for their own kind alone."""


def _told(name: str, text: str) -> list[LabelledSpan]:
    told = [(finding, finding.span) for finding in shipped(name).find(text, surface=Surface.INPUT) if finding.span]
    return [LabelledSpan(span.start, span.end, finding.kind, finding.score) for finding, span in told]


def _text(row: Mapping[str, Any]) -> str:
    return str(row["text"] if "text" in row else row["full_text"])


def _labelled(row: Mapping[str, Any]) -> list[LabelledSpan]:
    return [
        LabelledSpan(
            int(span["start"] if "start" in span else span["start_position"]),
            int(span["end"] if "end" in span else span["end_position"]),
            kind_named(str(next(span[key] for key in ("type", "entity_type", "label", "kind") if key in span))),
        )
        for span in row["spans"]
    ]


def kind_named(name: str) -> str:
    """Our name of a kind that others call otherwise; their own where we have none."""
    spelled = name.upper().replace("-", "_").replace(" ", "_").removeprefix("B_").removeprefix("I_")
    return _KINDS.get(spelled, spelled)


def _documentation(data: Path) -> dict[str, list[str]]:
    """Texts in which nothing, or nearly nothing, is anybody's."""
    found = {"pydoc": list(topics.topics.values())}
    if (data / _DOCUMENTS).is_file():
        found["cranfield"] = (data / _DOCUMENTS).read_text("utf-8").split("</doc>")
    if (data / _CONVERSATIONS).is_file():
        lines = (data / _CONVERSATIONS).read_text("utf-8").splitlines()
        found["mtrag"] = [context["text"] for line in lines for context in json.loads(line)["contexts"]]
    return found
