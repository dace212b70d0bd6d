"""`buf breaking`, as `make check` runs it, passes what is there and fails on a change that would break a consumer."""

import shutil
import subprocess
from pathlib import Path

import pytest

_ROOT = Path(__file__).parent.parent.parent
_BUF = _ROOT / ".tools" / "node_modules" / ".bin" / "buf"
_BASELINE = max((_ROOT / "protos" / "baseline").glob("*.binpb"))
_PROTO = "binnacle/events/v1/feedback_recorded.proto"

pytestmark = pytest.mark.skipif(
    not _BUF.exists() or shutil.which("node") is None, reason="buf is not installed (make check installs it)"
)


def _breaking(protos: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(_BUF), "breaking", str(protos), "--against", str(_BASELINE)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def protos(tmp_path: Path) -> Path:
    """A copy of the protos to change."""
    copy = tmp_path / "protos"
    shutil.copytree(_ROOT / "protos", copy, ignore=shutil.ignore_patterns("gen", "baseline"))
    return copy


def test_the_protos_break_nothing_released(protos: Path) -> None:
    """What is in this source passes."""
    done = _breaking(protos)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_new_field_is_fine(protos: Path) -> None:
    """A field that is added breaks nobody."""
    path = protos / _PROTO
    text = path.read_text(encoding="utf-8")
    head, opening, tail = text.partition("message FeedbackRecorded {\n")
    path.write_text(f"{head}{opening}  // New.\n  string brand_new = 900;\n{tail}", encoding="utf-8")
    assert _breaking(protos).returncode == 0


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ("string request_id = ", "string request_id = 9", "request_id"),
        ("string request_id = ", "bytes request_id = ", "changed type"),
        ("string request_id = ", "string renamed_id = ", "changed name"),
    ],
    ids=["renumbered", "retyped", "renamed"],
)
def test_a_breaking_change_fails(protos: Path, before: str, after: str, complaint: str) -> None:
    """A field renumbered, retyped or renamed is refused, by name."""
    path = protos / _PROTO
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after, 1), encoding="utf-8")
    done = _breaking(protos)
    assert done.returncode != 0
    assert complaint in done.stdout
