"""How often the drift monitor alerts on traffic that does not drift, and how soon on traffic that does.

Run as `python -m tests.bench.drift_false_alarms --json`; needs `../shared/data/drift`.
"""

import argparse
import asyncio
import json
import random
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from services.drift_monitor import evidently_tests
from services.drift_monitor.alerts import Alert, AlertBook, Segment
from services.drift_monitor.judging import Comparison, Measured, Strictness
from services.drift_monitor.monitor import DriftMonitor
from services.drift_monitor.traffic import ObservedRequest
from services.drift_monitor.windows import WindowSizes

QUESTIONS = Path(__file__).parents[2] / "../shared/data/drift/nq_open_first_1800.jsonl"
SEGMENT = Segment("bench", "default")
SHIFT_AFTER = 50
SHIFTED = 24


class ManualClock:
    """A clock that the stream moves."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        """The stream's time."""
        return self.time

    def monotonic_s(self) -> float:
        """The stream's time in seconds."""
        return self.time.timestamp()


class InProcessLaboratory:
    """Evidently without the worker process."""

    async def compare(self, comparisons: Sequence[Comparison]) -> Sequence[Measured]:
        """One result per comparison."""
        return [
            Measured(
                *evidently_tests.compare(
                    test=asked.test.value,
                    reference=asked.reference,
                    current=asked.current,
                    resolution=asked.resolution,
                )
            )
            for asked in comparisons
        ]

    async def render_report(self, comparisons: Sequence[Comparison], *, thresholds: Mapping[str, float]) -> bytes:
        """Not needed here."""
        raise NotImplementedError


def stationary_values(question: str, dice: random.Random) -> dict[str, float]:
    """One request: the length of a real question, and the other signals from fixed distributions."""
    return {
        "question_words": len(question.split()),
        "answer_words": round(dice.lognormvariate(4, 0.5)),
        "retrieval_top_score": dice.betavariate(8, 3),
        "groundedness": min(1.0, dice.betavariate(9, 1) + 0.1),
        "answer_relevance": dice.betavariate(5, 3),
        "context_relevance": dice.betavariate(4, 4),
        "latency_ms": dice.lognormvariate(5, 0.6),
        "cost_microusd": dice.lognormvariate(3, 0.4),
        "refused": float(dice.random() < 0.05),
        "blocked": float(dice.random() < 0.02),
        "guardrail_found": float(dice.random() < 0.08),
    }


def shifted_values(question: str, dice: random.Random) -> dict[str, float]:
    """A question that the corpus does not answer: the context fits less."""
    values = stationary_values(question, dice)
    values["context_relevance"] = dice.betavariate(2, 9)
    values["retrieval_top_score"] = dice.betavariate(4, 7)
    return values


async def run_stream(
    stream: Sequence[Mapping[str, float]], *, sizes: WindowSizes, strictness: Strictness
) -> tuple[int, list[tuple[int, Alert]]]:
    """Judge after every request, the most looks there can be; windows tested, and alerts with their request."""
    clock, place, alerts = ManualClock(), 0, list[tuple[int, Alert]]()

    def on_change(alert: Alert) -> None:
        if alert.state.value == "firing":
            alerts.append((place, alert))

    monitor = DriftMonitor(
        sizes=sizes,
        strictness=strictness,
        laboratory=InProcessLaboratory(),
        book=AlertBook(clock=clock, on_change=on_change),
    )
    for place, values in enumerate(stream):  # on_change reads where the stream stands
        clock.time += timedelta(seconds=1)
        monitor.observe_request(ObservedRequest(f"{place:06}", SEGMENT, clock.time, values))
        await monitor.judge_changed()
    return (len(stream) - sizes.reference_size) // sizes.current_size, alerts


async def measure(*, repeats: int, seed: int, alpha: float, min_effect: float) -> dict[str, object]:
    """Alarms per window on stationary streams, and requests until an alert after a shift."""
    dice = random.Random(seed)
    questions = [json.loads(line)["question"] for line in QUESTIONS.read_text().splitlines()]
    sizes = WindowSizes(span=timedelta(days=30))
    strictness = Strictness(alpha=alpha, min_effect=min_effect)
    windows, false_alarms, by_signal, delays = 0, 0, dict[str, int](), list[int]()
    for _ in range(repeats):
        dice.shuffle(questions)
        stream = [stationary_values(question, dice) for question in questions[:430]]
        tested, alerts = await run_stream(stream, sizes=sizes, strictness=strictness)
        windows += tested
        false_alarms += len(alerts)
        for _, alert in alerts:
            by_signal[alert.signal] = by_signal.get(alert.signal, 0) + 1
        shifted = stream[:SHIFT_AFTER] + [shifted_values(question, dice) for question in questions[:SHIFTED]]
        _, alerts = await run_stream(shifted, sizes=sizes, strictness=strictness)
        after = [place - SHIFT_AFTER + 1 for place, _ in alerts if place >= SHIFT_AFTER]
        delays.append(after[0] if after else -1)
    found = sorted(delay for delay in delays if delay > 0)
    return {
        "windows": windows,
        "false_alarms": false_alarms,
        "false_alarms_per_window": round(false_alarms / windows, 5),
        "false_alarms_by_signal": by_signal,
        "shifts": len(delays),
        "shifts_found": len(found),
        "requests_to_alert_p50": found[len(found) // 2] if found else None,
    }


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="only the JSON object (it is all there is)")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--alpha", type=float, default=Strictness().alpha)
    parser.add_argument("--min-effect", type=float, default=Strictness().min_effect)
    asked = parser.parse_args()
    started_s = time.monotonic()
    found = asyncio.run(measure(repeats=asked.repeats, seed=asked.seed, alpha=asked.alpha, min_effect=asked.min_effect))
    print(json.dumps({**found, "seconds": round(time.monotonic() - started_s, 1)}))  # its result


if __name__ == "__main__":
    main()
