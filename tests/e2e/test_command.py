"""The `binnacle` command against a running stack."""

import json
import subprocess
import sys
import time

from tests.e2e.conftest import RunningStack


def test_ask_streams_an_answer_with_citations(stack: RunningStack) -> None:
    """The pieces printed join to the completed answer, which cites the document that holds it."""
    events = stack.binnacle_json("ask", "When does the harbour master open the lock gate?")
    answer = events[-1]["answer"]
    assert events[-1]["event"] == "completed"
    assert "".join(event["text"] for event in events[:-1]) == answer["text"]
    assert "six" in answer["text"]
    assert {citation["document_id"] for citation in answer["citations"]} == {"harbour.md"}


def test_ask_for_people_shows_sources(stack: RunningStack) -> None:
    """Without --json the answer is followed by its sources and its request id."""
    shown = stack.binnacle("ask", "What does a binnacle hold?").stdout
    assert "compass" in shown
    assert "[1]" in shown


def test_search_finds_chunks(stack: RunningStack) -> None:
    """The best chunk is of the document that is about it, in each mode."""
    for mode in ("hybrid", "dense", "sparse"):
        best = stack.binnacle_json("search", "fresh bread baked", "--mode", mode)[0]
        assert best["document_id"] == "galley.html"


def test_ingest_again_changes_nothing(stack: RunningStack, tmp_path) -> None:  # noqa: ANN001  # pytest's own
    """A file that was indexed before is unchanged; a changed one gets a new revision."""
    file = tmp_path / "note.txt"
    file.write_text("The chronometer is wound every morning at eight.", encoding="utf-8")
    outcomes = [stack.binnacle_json("ingest", str(file))[0]["outcome"] for _ in range(2)]
    file.write_text("The chronometer is wound every evening at nine.", encoding="utf-8")
    changed = stack.binnacle_json("ingest", str(file))[0]
    assert outcomes == ["created", "unchanged"]
    assert (changed["outcome"], changed["revision"]) == ("updated", 2)


def test_ingest_tells_of_refused_documents(stack: RunningStack, tmp_path) -> None:  # noqa: ANN001  # pytest's own
    """Binary rubbish is refused with a reason and exit status 6; the rest is indexed."""
    (tmp_path / "rubbish.txt").write_bytes(bytes(range(256)) * 8)
    (tmp_path / "fine.txt").write_text("The bilge pump runs on Mondays.", encoding="utf-8")
    done = stack.binnacle("ingest", str(tmp_path), "--json", check=False)
    results = {line["document_id"]: line for line in map(json.loads, done.stdout.splitlines()) if "outcome" in line}
    assert done.returncode == 6
    assert results["rubbish.txt"]["error"]
    assert results["fine.txt"]["outcome"] == "created"


def test_feedback_is_recorded_and_a_forged_id_is_not_found(stack: RunningStack) -> None:
    """A genuine answer takes feedback at once; a forged request id exits with 3."""
    answer = stack.binnacle_json("ask", "How much does mooring cost?")[-1]["answer"]
    assert stack.binnacle_json("feedback", answer["request_id"], "--up")[0]["feedback_id"]
    forged = answer["request_id"][:-1] + ("a" if answer["request_id"][-1] != "a" else "b")
    assert stack.binnacle("feedback", forged, "--up", check=False).returncode == 3


def test_usage_counts_what_was_asked(stack: RunningStack) -> None:
    """Soon after an answer, usage shows it."""
    stack.binnacle_json("ask", "What lists the remaining error for each heading?")
    deadline = time.monotonic() + 20
    while not any(row["requests"] for row in stack.binnacle_json("usage")):
        assert time.monotonic() < deadline, "usage stayed empty"
        time.sleep(0.3)


def test_status_says_that_everything_serves(stack: RunningStack) -> None:
    """All services serve."""
    (status,) = stack.binnacle_json("status")
    assert status["healthy"], status


def test_env_prints_shell_exports(stack: RunningStack) -> None:
    """A shell can evaluate what `binnacle env` prints."""
    lines = stack.binnacle("env").stdout.splitlines()
    assert all(line.startswith("export ") for line in lines)
    assert {"BINNACLE_TARGET", "OPENAI_BASE_URL"} <= {line.split()[1].partition("=")[0] for line in lines}


def test_tail_prints_decoded_events(stack: RunningStack) -> None:
    """An answered question is on its topic, with its envelope."""
    answer = stack.binnacle_json("ask", "What is baked on Fridays?")[-1]["answer"]
    events = stack.binnacle_json("tail", "interaction", "--from-beginning", "--limit", "1")
    assert events[0]["value"]["request_id"]
    assert events[0]["envelope"]["type"] == "binnacle.events.v1.InteractionCompleted"
    assert answer["request_id"]


def test_a_wrong_key_is_said_and_exits_with_4(stack: RunningStack) -> None:
    """A key that is none is refused, without a trace of it in the output."""
    stack_environ = {**stack.environ, "BINNACLE_API_KEY": "bk_wrong"}

    done = subprocess.run(
        [sys.executable, "-m", "binnacle_client.cli", "ask", "Who?"],
        env=stack_environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 4
    assert "bk_wrong" not in done.stderr + done.stdout


def test_a_closed_pipe_ends_it_quietly(stack: RunningStack) -> None:
    """`binnacle … | head -1` prints no traceback."""
    done = subprocess.run(
        f"{sys.executable} -m binnacle_client.cli tail interaction --from-beginning --limit 3 --json | head -c 1",
        shell=True,
        env=stack.environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "{"
    assert "Traceback" not in done.stderr
