"""The worker process behind the laboratory: frames, answers, death and return; and Evidently itself, once."""

import io
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit.errors import BackendTimeout, BackendUnavailable
from services.drift_monitor.frames import MAX_FRAME_BYTES, body_length, pack, read_frame
from services.drift_monitor.judging import Comparison, Test
from services.drift_monitor.laboratory import WorkerLaboratory, open_laboratory
from services.drift_monitor.worker import serve

# A worker that answers from a script: its answers are Python expressions over the question `q`.
_FAKE_WORKER = """
import sys, json
from services.drift_monitor.frames import pack, read_frame
while (q := read_frame(sys.stdin.buffer)) is not None:
    {body}
    sys.stdout.buffer.write(pack({answer}))
    sys.stdout.buffer.flush()
"""

BINARY = Comparison("blocked", Test.PROPORTIONS_Z, [0.0] * 28 + [1.0] * 2, [1.0] * 9 + [0.0], 0.2)
SHIFTED = Comparison("latency_ms", Test.KOLMOGOROV_SMIRNOV, [float(n) for n in range(30)], [100.0] * 9 + [90.0], 25.0)
STEADY = Comparison("question_words", Test.KOLMOGOROV_SMIRNOV, [5.0, 6.0, 7.0] * 10, [5.0, 6.0, 7.0, 6.0] * 3, 1.0)


def command(answer: str, body: str = "pass") -> tuple[str, ...]:
    """The command line of a fake worker."""
    return (sys.executable, "-c", _FAKE_WORKER.format(answer=answer, body=body))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(messages=st.lists(json_values.filter(lambda value: value is not None), max_size=5), cut=st.integers(0, 3))
def test_frames_come_out_as_they_went_in(messages: list[object], cut: int) -> None:
    """Any messages, in order, and a frame cut short is the end."""
    stream = io.BytesIO(b"".join(pack(message) for message in messages) + pack("lost")[: 3 + cut])
    for message in messages:
        assert read_frame(stream) == message
    assert read_frame(stream) is None


def test_an_absurd_length_is_refused() -> None:
    """A header that announces gigabytes is an error, not an allocation."""
    with pytest.raises(ValueError, match="at most"):
        body_length(b"\xff\xff\xff\xff")
    assert body_length(MAX_FRAME_BYTES.to_bytes(4, "big")) == MAX_FRAME_BYTES


def test_a_question_that_cannot_be_answered_gets_an_error() -> None:
    """The worker survives what it does not understand."""
    answers = io.BytesIO()
    serve(io.BytesIO(pack({"ask": "dance"}) + pack({})), answers)
    answers.seek(0)
    assert "no such question" in read_frame(answers)["error"]
    assert "KeyError" in read_frame(answers)["error"]


async def test_answers_come_back_in_order() -> None:
    """One result per comparison."""
    answer = '{"result": [[len(c["reference"]), c["resolution"]] for c in q["comparisons"]]}'
    async with open_laboratory(timeout_s=10, max_report_bytes=100, command=command(answer)) as laboratory:
        found = await laboratory.compare([BINARY, SHIFTED])
    assert [(one.p_value, one.effect) for one in found] == [(30, 0.2), (30, 25.0)]


async def test_a_worker_that_dies_is_started_again() -> None:
    """The question that it took with it fails, the next one is answered."""
    dies_on_reports = 'sys.exit(1) if q["ask"] == "report" else None'
    async with open_laboratory(
        timeout_s=10, max_report_bytes=100, command=command('{"result": []}', dies_on_reports)
    ) as laboratory:
        with pytest.raises(BackendUnavailable) as caught:
            await laboratory.render_report([], thresholds={})
        assert caught.value.reason == "LABORATORY_DIED"
        assert await laboratory.compare([]) == ()


async def test_a_worker_that_hangs_is_given_up() -> None:
    """After the timeout the worker is killed and the caller told."""
    async with open_laboratory(
        timeout_s=0.3, max_report_bytes=100, command=command("{}", "sys.stdin.buffer.read()")
    ) as laboratory:
        with pytest.raises(BackendTimeout):
            await laboratory.compare([BINARY])


async def test_a_report_beyond_its_bound_is_refused() -> None:
    """The message says what to do."""
    async with open_laboratory(
        timeout_s=10, max_report_bytes=100, command=command('{"result": "x" * 101}')
    ) as laboratory:
        with pytest.raises(BackendUnavailable, match="smaller windows") as caught:
            await laboratory.render_report([], thresholds={})
    assert caught.value.reason == "REPORT_TOO_LARGE"


async def test_a_failing_warm_up_is_no_failure_of_the_service() -> None:
    """It is tried again with the first question."""
    laboratory = WorkerLaboratory(timeout_s=5, max_report_bytes=1, command=("/nonexistent",))
    await laboratory.warm_up()
    with pytest.raises(BackendUnavailable):
        await laboratory.render_report([], thresholds={})
    await laboratory.close()


@pytest.mark.slow
async def test_evidently_judges_and_reports() -> None:
    """The real worker tells shifted from steady samples, and writes a page of its own."""
    async with open_laboratory(timeout_s=60, max_report_bytes=8 * 1024 * 1024) as laboratory:
        await laboratory.warm_up()
        binary, shifted, steady = await laboratory.compare([BINARY, SHIFTED, STEADY])
        html = await laboratory.render_report(
            [BINARY, SHIFTED, STEADY], thresholds=dict.fromkeys(("blocked", "latency_ms", "question_words"), 0.001)
        )
    assert binary.p_value < 1e-4
    assert binary.effect > 2
    assert shifted.p_value < 1e-6
    assert shifted.effect > 3  # 84.5 ms of 25 ms resolution, the deviation being 8.7
    assert steady.p_value > 0.5
    assert steady.effect < 0.5
    assert html.lstrip().startswith(b"<")
    assert b"latency_ms" in html
    assert b"blocked" in html


def test_evidently_stays_out_of_the_serving_process() -> None:
    """Wiring the service imports neither Evidently nor pandas."""
    code = (
        "import services.drift_monitor.bootstrap, sys; "
        "sys.exit(bool({'evidently', 'pandas', 'scipy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
