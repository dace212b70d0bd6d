"""What feedback is sent as, and which key file `binnacle keys` works on."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from binnacle.gateway.v1 import gateway_service_pb2 as gateway
from binnacle_client.cli.keys import keys
from binnacle_client.convert import FeedbackValue, feedback_to_proto


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ({"rating": 4}, gateway.FEEDBACK_KIND_RATING),
        ({"thumbs_up": False}, gateway.FEEDBACK_KIND_THUMBS),
        ({"correction": "At six."}, gateway.FEEDBACK_KIND_CORRECTION),
        ({"label": "off-topic"}, gateway.FEEDBACK_KIND_LABEL),
    ],
)
def test_feedback_says_its_kind_by_its_value(value: FeedbackValue, kind: int) -> None:
    """Each value, a thumb down too, is set under its own kind, with its author and comment."""
    sent = feedback_to_proto("r1", "reviewer-7", "why", **value)
    [name] = value
    assert (sent.request_id, sent.kind, sent.author, sent.comment) == ("r1", kind, "reviewer-7", "why")
    assert sent.WhichOneof("value") == name
    assert getattr(sent, name) == value[name]


def test_keys_are_kept_beside_the_stacks_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With BINNACLE_STACK_FILE a key is made where that stack's services read it; an explicit file still counts."""
    monkeypatch.delenv("BINNACLE_API_KEYS_FILE", raising=False)
    monkeypatch.setenv("BINNACLE_STACK_FILE", str(tmp_path / "stack.json"))
    (tmp_path / "secrets").mkdir()
    made = CliRunner().invoke(keys, ["create", "--tenant", "acme"])
    assert made.exit_code == 0, made.output
    assert (tmp_path / "secrets" / "api_keys.json").is_file()
    other = tmp_path / "other.json"
    made = CliRunner().invoke(keys, ["--file", str(other), "create", "--tenant", "acme"])
    assert made.exit_code == 0, made.output
    assert other.is_file()
    assert "beside the stack's file" in CliRunner().invoke(keys, ["--help"]).output.replace("\n", " ")
