"""`make bench`: runs every benchmark of this folder, one after the other, each in a process of its own."""

import subprocess
import sys
from pathlib import Path


def main() -> int:
    """The number of benchmarks that failed."""
    here = Path(__file__).parent
    names = sorted(path.stem for path in here.glob("*.py") if not path.stem.startswith("_"))
    failed = [
        name
        for name in names
        if subprocess.run([sys.executable, "-m", f"tests.bench.{name}", "--json"], check=False).returncode
    ]
    print(f"{len(names) - len(failed)} benchmarks done, failed: {', '.join(failed) or 'none'}", file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
