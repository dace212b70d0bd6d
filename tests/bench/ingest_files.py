"""A thousand real files of this machine, ingested by reference: `python -m tests.bench.ingest_files --json`.

Documentation that ships with the operating system and with Python packages, mixed by type, whatever state it is in.
Every file must come out indexed or refused with a reason; `unexplained` counts the others, and must be 0.
"""

import argparse
import asyncio
import json
import os
import random
import sys
import sysconfig
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from binnacle.events.v1.document_indexed_pb2 import (
    DOCUMENT_OUTCOME_REFUSED,
    DOCUMENT_OUTCOME_UNCHANGED,
    DocumentIndexed,
)
from binnacle.events.v1.document_submitted_pb2 import DocumentSubmitted
from tests.bench._ingest_stand import running_stand

ROOTS = ("/usr/share", "/usr/lib/python3", sysconfig.get_path("purelib"), sysconfig.get_path("stdlib"))
SUFFIXES = (".md", ".html", ".htm", ".txt", ".rst", ".csv", ".jsonl", ".pdf", ".docx")
# Of the common types; rare ones are taken whole, and however large they are.
MAX_BYTES = 60_000
RARE = frozenset({".pdf", ".docx", ".jsonl"})
WITHIN_S = 3_600.0
_MAX_CANDIDATES = 200_000


def find_files(roots: Sequence[str], *, count: int, max_bytes: int) -> list[Path]:
    """So many files, as evenly over the types as there are; the same ones each time."""
    by_type: dict[str, list[Path]] = defaultdict(list)
    for path in _candidates(roots):
        suffix = path.suffix.lower()
        if suffix in RARE or path.stat().st_size <= max_bytes:
            by_type[suffix].append(path)
    chance = random.Random(0)
    for paths in by_type.values():
        paths.sort()
        chance.shuffle(paths)
    chosen: list[Path] = []
    while len(chosen) < count and any(by_type.values()):
        for suffix in sorted(by_type):
            if by_type[suffix] and len(chosen) < count:
                chosen.append(by_type[suffix].pop())
    return chosen


def _candidates(roots: Sequence[str]) -> Iterator[Path]:
    seen = 0
    for root in roots:
        for folder, _, names in os.walk(root):
            for name in names:
                path = Path(folder, name)
                if path.suffix.lower() in SUFFIXES and path.is_file() and not path.is_symlink():
                    seen += 1
                    yield path
                if seen >= _MAX_CANDIDATES:
                    return


async def measure(folder: Path, files: Sequence[Path], roots: Sequence[str]) -> dict[str, object]:
    """Submit all of them, and wait until each is told of."""
    documents = [
        DocumentSubmitted(document_id=str(path), title=path.stem, source_uri=path.as_uri(), fetch_uri=path.as_uri())
        for path in files
    ]
    allowed = " ".join(Path(root).resolve().as_uri() for root in roots)
    async with running_stand(folder, fetch_allowed_prefixes=allowed, expected_languages="en") as stand:
        started_s = time.perf_counter()
        submitting = asyncio.ensure_future(stand.submit(documents))
        try:
            await stand.wait_for([one.document_id for one in documents], within_s=WITHIN_S)
        except TimeoutError:
            print(f"only {len(stand.told)} of {len(files)} were told of", file=sys.stderr)
        elapsed_s = time.perf_counter() - started_s
        await submitting
        return summarise(files, stand.told) | {"seconds": round(elapsed_s), "peak_rss_mb": round(stand.peak_rss_mb())}


def summarise(files: Sequence[Path], told: dict[str, DocumentIndexed]) -> dict[str, object]:
    """Counts by outcome, reason, type and flag."""
    results = [told[str(path)] for path in files if str(path) in told]
    refused = [one for one in results if one.outcome == DOCUMENT_OUTCOME_REFUSED]
    unchanged = [one for one in results if one.outcome == DOCUMENT_OUTCOME_UNCHANGED]
    by_type: dict[str, Counter[str]] = defaultdict(Counter)
    for path in files:
        one = told.get(str(path))
        kind = "missing" if one is None else one.error_reason or "indexed"
        by_type[path.suffix.lower()][kind] += 1
    return {
        "files": len(files),
        "indexed": len(results) - len(refused) - len(unchanged),
        "unchanged": len(unchanged),
        "chunks": sum(one.chunk_count for one in results),
        "refused": dict(Counter(one.error_reason for one in refused)),
        "flags": dict(Counter(flag for one in results for flag in one.flags)),
        "languages": dict(Counter(one.language or "?" for one in results).most_common(12)),
        "by_type": {kind: dict(counts) for kind, counts in sorted(by_type.items())},
        "unexplained": len(files) - len(results) + sum(1 for one in refused if not one.error_reason),
    }


def main() -> None:
    """Measure and print; the exit status says whether everything is explained."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--files", type=int, default=1_000)
    parser.add_argument("--max-bytes", type=int, default=MAX_BYTES, help="of a file of a common type")
    parser.add_argument("--root", action="append", help="where to look; default: where documentation usually is")
    given = parser.parse_args()
    roots = given.root or list(ROOTS)
    files = find_files(roots, count=given.files, max_bytes=given.max_bytes)
    with tempfile.TemporaryDirectory(prefix="binnacle-ingest-files-") as folder:
        figures = asyncio.run(measure(Path(folder), files, roots))
    print(json.dumps(figures) if given.json else "\n".join(f"{name:12} {value}" for name, value in figures.items()))
    sys.exit(bool(figures["unexplained"]))


if __name__ == "__main__":
    main()
