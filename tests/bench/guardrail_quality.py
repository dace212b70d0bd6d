"""How well the shipped detectors tell what they look for from what they should leave alone.

Run as `python -m tests.bench.guardrail_quality --data ../shared/data --json` for the public sets, one JSON line
`{detector: {set: figures}}`, or with `--file FILE.jsonl --detector NAME` for any file (see `_guardrail_file.py`).
Every text goes through the shipped detectors with the packaged policy's thresholds and options.
"""

import argparse
import importlib
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import structlog

from tests.bench._guardrail_figures import Figures, Measure, skipped

DATA = Path("../shared/data")
PARTS = {
    "injection": "_guardrail_injection",
    "indirect_injection": "_guardrail_indirect",
    "toxicity": "_guardrail_toxicity",
    "bias": "_guardrail_bias",
    "pii": "_guardrail_pii",
    "groundedness": "_guardrail_groundedness",
}
"""What is measured, and the module beside this one whose `measure(data)` does it."""


def measure_all(data: Path, detectors: list[str]) -> dict[str, dict[str, Figures]]:
    """Figures of each detector on each of its sets."""
    found: dict[str, dict[str, Figures]] = {}
    for name in detectors:
        started_s = time.perf_counter()
        found[name] = dict(_measure(PARTS[name])(data))
        _tell(f"{name}: {len(found[name])} sets in {time.perf_counter() - started_s:.1f} s")
    return found


def _measure(module: str) -> Measure:
    measure: Measure = importlib.import_module(f"tests.bench.{module}").measure
    return measure


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="only the JSON line (it is all there is on stdout)")
    parser.add_argument("--data", type=Path, default=DATA, help="the folder of public sets")
    parser.add_argument("--detector", choices=sorted(PARTS), help="only this one; needed with --file")
    return parser.parse_args()


def main() -> int:
    """Measure and print one JSON object."""
    asked = _read_arguments()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    found: dict[str, Any]
    if not asked.data.is_dir():
        found = {name: {"all": skipped(f"{asked.data} is not there")} for name in PARTS}
    else:
        found = measure_all(asked.data, [asked.detector] if asked.detector else list(PARTS))
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
