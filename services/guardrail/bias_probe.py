"""Swaps people's identities in sentences and measures whether the detectors' scores follow: counterfactual fairness.

Run as `python -m services.guardrail.bias_probe [--json]`; also by `tests/bench/_guardrail_bias.py`. Sentences stand in
`bias_sentences.yaml`; thresholds are the packaged policy's.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import yaml

from servicekit.domain.verdict import Surface
from services.guardrail.detectors.catalogue import all_detectors
from services.guardrail.detectors.detector import Detector, Subject
from services.guardrail.normalizing import normalize
from services.guardrail.policy_file import default_policy

PROBED = ("injection", "indirect_injection", "toxicity")
"""Detectors that judge by a model of words. Those of personal data look for names on purpose."""

FINDS_HARM = "toxicity"
"""The one that should find the harmful sentences, and as often for everybody."""

_PERSON, _NAME = "{person}", "{name}"
_Z = 1.959964  # 95 % of a normal distribution
_DIGITS = 4


@dataclass(frozen=True, slots=True)
class Probe:
    """One sentence in all its variants: `axis` says what is swapped, `harmful` whether it should be found."""

    axis: str
    harmful: bool
    variants: Mapping[str, str]


def load_probes() -> tuple[Probe, ...]:
    """Every sentence with every identity of every axis."""
    source = files("services.guardrail").joinpath("bias_sentences.yaml").read_text("utf-8")
    document = yaml.safe_load(source)
    return tuple(
        Probe(axis, kind.startswith("harmful"), {who: _with(sentence, mark, who) for who in identities})
        for group, mark, kinds in (
            ("identities", _PERSON, ("harmless", "harmful")),
            ("names", _NAME, ("harmless_names", "harmful_names")),
        )
        for axis, identities in document[group].items()
        for kind in kinds
        for sentence in document[kind]
    )


def _with(sentence: str, mark: str, who: str) -> str:
    filled = sentence.replace(mark, who)
    return filled[0].upper() + filled[1:]


def probe(detector: Detector, *, threshold: float, probes: Sequence[Probe]) -> dict[str, dict[str, Any]]:
    """Figures by axis, of harmless and of harmful sentences.

    A gap is the distance between the highest and the lowest score of one sentence's variants. A variant is flipped
    where it is told and most of its sentence's variants are not, or the other way round.
    """
    found: dict[str, dict[str, Any]] = {}
    for axis in dict.fromkeys(each.axis for each in probes):
        for harmful in (False, True) if detector.id == FINDS_HARM else (False,):
            asked = [each for each in probes if each.axis == axis and each.harmful == harmful]
            if asked:
                scored = [{who: score(detector, text) for who, text in each.variants.items()} for each in asked]
                found[f"{axis}.{'harmful' if harmful else 'harmless'}"] = _figures(scored, threshold)
    return found


def score(detector: Detector, text: str) -> float:
    """The detector's strongest finding on the first surface that it judges."""
    surface = next(known for known in Surface if known in detector.surfaces)
    options = detector.options_model() if detector.options_model else None
    subject = Subject(surface, normalize(text), options=options)
    return max((finding.score for finding in detector.find(subject)), default=0.0)


def _figures(scored: Sequence[Mapping[str, float]], threshold: float) -> dict[str, Any]:
    gaps = [max(variants.values()) - min(variants.values()) for variants in scored]
    told = [[value >= threshold for value in variants.values()] for variants in scored]
    flips = sum(min(sum(each), len(each) - sum(each)) for each in told)
    count = sum(map(len, told))
    means = {who: sum(variants[who] for variants in scored) / len(scored) for who in scored[0]}
    return {
        "mean_gap": round(sum(gaps) / len(gaps), _DIGITS),
        "max_gap": round(max(gaps), _DIGITS),
        "found": round(sum(map(sum, told)) / count, _DIGITS),
        "flip_rate": round(flips / count, _DIGITS),
        "flip_interval": wilson(flips, count),
        "n": count,
        "highest": max(means, key=lambda who: means[who]),
        "lowest": min(means, key=lambda who: means[who]),
    }


def wilson(count: int, total: int) -> list[float]:
    """Wilson's 95 % interval of a share (Wilson 1927)."""
    share, weight = count / total, _Z * _Z / total
    middle = (share + weight / 2) / (1 + weight)
    reach = _Z * math.sqrt(share * (1 - share) / total + weight / (4 * total)) / (1 + weight)
    return [round(max(0.0, middle - reach), _DIGITS), round(min(1.0, middle + reach), _DIGITS)]


def measure() -> dict[str, dict[str, dict[str, Any]]]:
    """Figures by detector and axis, of those that are shipped."""
    detectors = all_detectors()
    policy = default_policy(detectors)
    probes = load_probes()
    return {
        detector.id: probe(detector, threshold=policy.detectors[detector.id].min_score, probes=probes)
        for detector in detectors
        if detector.id in PROBED
    }


def _lines(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Iterator[str]:
    yield f"{'detector':<20}{'swapped':<24}{'found':>7}{'flips':>8}{'mean gap':>10}{'max gap':>9}  highest / lowest"
    for detector, axes in found.items():
        for axis, figures in axes.items():
            yield (
                f"{detector:<20}{axis:<24}{figures['found']:>7.3f}{figures['flip_rate']:>8.3f}"
                f"{figures['mean_gap']:>10.3f}{figures['max_gap']:>9.3f}  {figures['highest']} / {figures['lowest']}"
            )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table, or one JSON object."""
    parser = argparse.ArgumentParser(prog="services.guardrail.bias_probe", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    given = parser.parse_args(arguments)
    found = measure()
    sys.stdout.write(f"{json.dumps(found)}\n" if given.json else "".join(f"{line}\n" for line in _lines(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
