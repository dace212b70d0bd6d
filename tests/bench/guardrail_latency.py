"""How long the guardrail takes: each detector, the default policy, the service, and texts that are out to stall it.

Run as `python -m tests.bench.guardrail_latency --json [--rounds N] [--seconds S] [--evil-chars N …]`. Texts are prose
of the Python reference with what a person would put into it, each text another. One thread; the service's figure apart.
"""

import argparse
import asyncio
import json
import pydoc_data.topics
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import cycle
from typing import Any

from servicekit.adapters.registry import open_embedder
from servicekit.domain.verdict import Surface
from services.guardrail.config import Settings
from services.guardrail.detectors.catalogue import all_detectors
from services.guardrail.detectors.detector import Detector, Embed, Subject
from services.guardrail.embedding import BlockingEmbedder
from services.guardrail.judging import Judge
from services.guardrail.normalizing import normalize
from services.guardrail.policy_file import default_policy
from tests.bench import _guardrail_service
from tests.bench._guardrail_evil import evil_inputs

SIZES = (200, 2_000, 20_000)
EMBEDDING_TIMEOUT_S = 30.0
Figures = dict[str, dict[str, float]]
_ASIDES = (
    "Please write to ada@analytical.org or call +44 20 7946 0018. ",
    "My order 4471-B of 12 March has not come; what can I do? ",
    "Résumé attached, naïve question, sorry. ",
    "",
)


def texts(chars: int) -> Iterator[str]:
    """Prose of this length, each text different from the others."""
    reference = "\n".join(pydoc_data.topics.topics.values())
    asides = cycle(_ASIDES)
    for number, place in enumerate(cycle(range(0, len(reference) - chars, 997))):
        yield f"{number}. {next(asides)}{reference[place : place + chars]}"[:chars]


def timed(work: Callable[[str], object], chars: int, rounds: int) -> dict[str, float]:
    """Milliseconds over so many texts; the first few, which fill caches, apart."""
    source = texts(chars)
    for _ in range(3):
        work(next(source))
    taken_ms = []
    for _ in range(rounds):
        text = next(source)
        begin = time.perf_counter()
        work(text)
        taken_ms.append((time.perf_counter() - begin) * 1_000)
    return {
        "p50_ms": round(statistics.median(taken_ms), 3),
        "p99_ms": round(sorted(taken_ms)[min(rounds - 1, int(rounds * 0.99))], 3),
    }


def measure_detector(detector: Detector, embed: Embed | None, rounds: int) -> Figures:
    """One detector, its text read beforehand; against two chunks where it judges the output only."""
    surface = Surface.INPUT if Surface.INPUT in detector.surfaces else Surface.OUTPUT
    chunks = tuple(text for text, _ in zip(texts(1_000), range(5), strict=False)) if surface is Surface.OUTPUT else ()
    options = detector.options_model() if detector.options_model else None
    figures = {}
    for chars in SIZES:
        subjects: dict[str, Subject] = {}

        def find(text: str, subjects: dict[str, Subject] = subjects) -> None:
            list(detector.find(subjects[text]))

        source = texts(chars)
        for _ in range(rounds + 3):
            text = next(source)
            subjects[text] = _read(text, surface, chunks, options=options, embed=embed)
        figures[str(chars)] = timed(find, chars, rounds)
    return figures


def _read(text: str, surface: Surface, chunks: tuple[str, ...], **more: Any) -> Subject:
    subject = Subject(surface, normalize(text), chunks, **more)
    _ = subject.views
    return subject


def measure_reading(rounds: int) -> Figures:
    """Normalising and every view."""
    return {str(chars): timed(lambda text: _read(text, Surface.INPUT, ()), chars, rounds) for chars in SIZES}


def measure_policy(judge: Judge, detectors: Sequence[Detector], surface: Surface, rounds: int) -> Figures:
    """All that the packaged policy asks on a surface, from text to verdicts."""
    policy = default_policy(detectors)
    chunks = tuple(text for text, _ in zip(texts(1_000), range(5), strict=False)) if surface is Surface.OUTPUT else ()
    return {
        str(chars): timed(lambda text: judge.assess(surface, text, policy=policy, chunk_texts=chunks), chars, rounds)
        for chars in SIZES
    }


def measure_evil(judge: Judge, detectors: Sequence[Detector], *, chars: int) -> dict[str, Any]:
    """Every evil text by the whole policy on the surface with the most detectors."""
    policy = default_policy(detectors)
    surface = max(Surface, key=lambda one: sum(one in rule.actions for rule in policy.detectors.values()))
    taken_ms = {}
    for name, make in evil_inputs().items():
        text = make(chars)
        begin = time.perf_counter()
        judge.assess(surface, text, policy=policy)
        taken_ms[name] = round((time.perf_counter() - begin) * 1_000, 1)
        told(f"evil {name}: {taken_ms[name]} ms")
    slowest = max(taken_ms, key=lambda name: taken_ms[name])
    return {
        "inputs": len(taken_ms),
        "chars": chars,
        "slowest_ms": taken_ms[slowest],
        "slowest": slowest,
        "median_ms": round(statistics.median(taken_ms.values()), 1),
        "ms": taken_ms,
    }


@asynccontextmanager
async def opened_embed(url: str) -> AsyncIterator[Embed]:
    """The service's embedder, for threads."""
    async with open_embedder(url) as embedder:
        loop = asyncio.get_running_loop()
        yield BlockingEmbedder(embedder, loop, timeout_s=EMBEDDING_TIMEOUT_S, cache_entries=20_000)


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    detectors = all_detectors()
    rounds = arguments.rounds
    url = Settings.model_fields["embedder_url"].default
    async with opened_embed(url) as embed:

        async def off_loop(work: Callable[..., Any], *given: Any, **named: Any) -> Any:
            return await asyncio.to_thread(lambda: work(*given, **named))

        told("reading and each detector")
        by_detector = {"reading": await off_loop(measure_reading, rounds)}
        for detector in detectors:
            by_detector[detector.id] = await off_loop(measure_detector, detector, embed, rounds)
        told("the whole policy")
        modes = {"rules_and_linear": Judge(detectors), "with_embedding": Judge(detectors, embed=embed)}
        by_surface = {
            surface.value: {
                mode: await off_loop(measure_policy, judge, detectors, surface, rounds) for mode, judge in modes.items()
            }
            for surface in Surface
        }
        evil = [
            await off_loop(measure_evil, modes["with_embedding"], detectors, chars=chars)
            for chars in arguments.evil_chars
        ]
    told("the service")
    service = await _guardrail_service.measure(texts(200), seconds=arguments.seconds) if arguments.seconds else {}
    return {
        "detectors": by_detector,
        "policy": by_surface[Surface.INPUT.value],
        "policy_by_surface": by_surface,
        "checks_per_s": service.get("checks_per_s"),
        "service": service,
        "evil": evil[0],
        "evil_longer": evil[1:],
    }


def told(line: str) -> None:
    """Progress, on standard error."""
    print(f"guardrail: {line}", file=sys.stderr, flush=True)


def main() -> None:
    """One JSON object last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON line last (it is printed anyway)")
    parser.add_argument("--rounds", type=int, default=200, help="texts of each length")
    parser.add_argument("--seconds", type=float, default=10.0, help="of asking the service; 0: leave it out")
    parser.add_argument(
        "--evil-chars",
        type=int,
        nargs="+",
        default=[65_536, 1_000_000],
        help="lengths of the evil texts: what a request may hold, and what no request may",
    )
    print(json.dumps(asyncio.run(run(parser.parse_args()))))


if __name__ == "__main__":
    main()
