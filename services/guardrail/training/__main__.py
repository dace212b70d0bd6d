"""Trains a shipped model: `python -m services.guardrail.training NAME --data FOLDER --out services/guardrail/models`.

Needs the extra `guardrail-training`; each model's module stands beside this one.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

_MODELS = {
    "injection": "services.guardrail.training.injection",
    "indirect_injection": "services.guardrail.training.indirect_injection",
    "toxicity": "services.guardrail.training.toxicity",
}
"""Model names and their modules, each with `train(data: Path, out: Path) -> Path`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0 once the artifact is written; its folder goes to standard output."""
    parser = argparse.ArgumentParser(prog="services.guardrail.training", description=__doc__)
    parser.add_argument("name", choices=sorted(_MODELS), help="the model to train")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--out", type=Path, required=True, help="folder of the models; <name> is written in it")
    given = parser.parse_args(arguments)
    if not given.data.is_dir():
        parser.error(f"--data must be a folder of data sets, got {str(given.data)!r}")
    sys.stdout.write(f"{import_module(_MODELS[given.name]).train(given.data, given.out)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
