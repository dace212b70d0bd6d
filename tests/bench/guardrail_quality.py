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
import traceback
from pathlib import Path

import structlog

from servicekit.domain.verdict import Surface
from tests.bench._guardrail_figures import Figures, Measure, skipped
from tests.bench._guardrail_file import FileRefusedError, measure_file
from tests.bench._guardrail_shipped import close

DATA = Path("../shared/data")
PARTS = {
    "injection": "_guardrail_injection",
    "indirect_injection": "_guardrail_indirect",
    "toxicity": "_guardrail_toxicity",
    "topic": "_guardrail_topic",
    "bias": "_guardrail_bias",
    "pii": "_guardrail_pii",
    "groundedness": "_guardrail_groundedness",
    "leak": "_guardrail_leak",
    "reading": "_guardrail_reading",
}
"""What is measured, and the module beside this one whose `measure(data)` does it."""


def measure_all(data: Path, detectors: list[str]) -> dict[str, dict[str, Figures]]:
    """Figures of each detector on each of its sets."""
    found: dict[str, dict[str, Figures]] = {}
    for name in detectors:
        started_s = time.perf_counter()
        found[name] = _measured(name, data)
        _tell(f"{name}: {len(found[name])} sets in {time.perf_counter() - started_s:.1f} s")
    return found


def _measured(name: str, data: Path) -> dict[str, Figures]:
    """A part that fails does not take the others' figures along."""
    if not data.is_dir():
        return {"all": skipped(f"{data} is not there")}
    try:
        measure: Measure = importlib.import_module(f"tests.bench.{PARTS[name]}").measure
        return dict(measure(data))
    except Exception as exc:  # noqa: BLE001  # told in the figures and by the exit status
        traceback.print_exc(file=sys.stderr)
        return {"all": {"failed": f"{type(exc).__name__}: {exc}"}}


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="only the JSON line (it is all there is on stdout)")
    parser.add_argument("--data", type=Path, default=DATA, help="the folder of public sets")
    parser.add_argument("--detector", help="only this one; needed with --file")
    parser.add_argument("--file", type=Path, help="measure the detector on the cases of this file")
    parser.add_argument("--surface", choices=[surface.value for surface in Surface], help="where --file's texts stand")
    asked = parser.parse_args()
    if asked.file and not asked.detector:
        parser.error("--file needs --detector NAME")
    if not asked.file and asked.detector and asked.detector not in PARTS:
        parser.error(f"--detector must be one of {', '.join(PARTS)}, got {asked.detector!r}")
    return asked


def main() -> int:
    """Measure and print one JSON object; 1 where a part fails, 2 for a file that is refused."""
    asked = _read_arguments()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    try:
        return _measure_and_print(asked)
    except FileRefusedError as exc:
        _tell(str(exc))
        return 2
    finally:
        close()


def _measure_and_print(asked: argparse.Namespace) -> int:
    if asked.file:
        surface = Surface(asked.surface) if asked.surface else None
        figures = measure_file(asked.file, asked.detector, surface=surface)
        print(json.dumps({"detector": asked.detector, "file": asked.file.name, **figures}))
        return 0
    found = measure_all(asked.data, [asked.detector] if asked.detector else list(PARTS))
    print(json.dumps(found))
    return int(any("failed" in figures for sets in found.values() for figures in sets.values()))


if __name__ == "__main__":
    sys.exit(main())
