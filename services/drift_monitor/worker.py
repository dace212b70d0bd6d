"""The laboratory's process: reads questions from standard input, answers on standard output, one at a time.

Started by `laboratory.py`; ends at the end of its input, so it never outlives its parent.
"""

import os
import signal
import sys
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Any, BinaryIO

from services.drift_monitor.frames import pack, read_frame

_NICENESS = 10


def main() -> None:
    """Answer until the input ends. What libraries print goes to standard error, never between frames."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent closes the input
    os.nice(_NICENESS)  # the request path comes first
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    serve(sys.stdin.buffer, answers)


def serve(questions: BinaryIO, answers: BinaryIO) -> None:
    """Answer every question of the stream; an error is an answer too."""
    while (question := read_frame(questions)) is not None:
        try:
            frame = pack({"result": answer_one(question)})
        except Exception as error:  # noqa: BLE001  # whatever goes wrong in a library is told to the parent
            frame = pack({"error": f"{type(error).__name__}: {error}"})
        answers.write(frame)
        answers.flush()


def answer_one(question: Mapping[str, Any]) -> Any:
    """The result of one question: `warm`, `compare` or `report`."""
    match question["ask"]:
        case "warm":
            return bool(_load_tests())
        case "compare":
            return [_load_tests().compare(**asked) for asked in question["comparisons"]]
        case "report":
            return _load_tests().render_report(question["comparisons"])
        case unknown:
            raise ValueError(f"no such question: {unknown!r}")


def _load_tests() -> ModuleType:
    """Evidently takes seconds to import: here, in this process, with the first question that needs it."""
    return import_module("services.drift_monitor.evidently_tests")


if __name__ == "__main__":
    main()
