"""Prints the median and the longest source file, and fails when one outgrows its room.

Run by `make lint`; generated code is left out.
"""

import statistics
import sys
from pathlib import Path

MAX_LINES = 400
ROOTS = ("services", "libs")


def measure(root: Path) -> dict[Path, int]:
    """Lines of every hand-written, non-empty Python file below `root`'s source folders."""
    files = (path for folder in ROOTS for path in sorted((root / folder).rglob("*.py")))
    counted = {path.relative_to(root): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    return {path: lines for path, lines in counted.items() if lines}


def main() -> int:
    """Report and judge; the exit status is the number of files that are too long, at most 1."""
    sizes = measure(Path(__file__).parent.parent)
    longest = max(sizes, key=lambda path: sizes[path])
    print(
        f"files: {len(sizes)}, lines: {sum(sizes.values())}, median {statistics.median(sizes.values()):.0f}, "
        f"longest {sizes[longest]} ({longest})"
    )
    too_long = [f"{path}: {lines} lines, at most {MAX_LINES}" for path, lines in sizes.items() if lines > MAX_LINES]
    print("\n".join(too_long), file=sys.stderr)
    return min(len(too_long), 1)


if __name__ == "__main__":
    sys.exit(main())
