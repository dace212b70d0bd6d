"""Tests of the secret detector: every kept plugin's patterns run in linear time and find whole credentials."""

import base64
import json

import pytest

from servicekit.domain.verdict import Surface
from services.guardrail.detectors.detector import Subject
from services.guardrail.detectors.secret import SecretDetector
from services.guardrail.normalizing import normalize

DETECTOR = SecretDetector()
KEY_LINES = "\n".join(base64.b64encode(bytes([line] * 48)).decode() for line in range(1, 6))
PEM = f"-----BEGIN RSA PRIVATE KEY-----\n{KEY_LINES}\n-----END RSA PRIVATE KEY-----"


def part(value: object) -> str:
    """One part of a JSON web token."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


JWT = f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part({'sub': '1234567890'})}.c2lnbmF0dXJlLW9mLXRoaXMtdG9rZW4"


def found(text: str) -> list[tuple[str, str]]:
    """Rule and text of every finding."""
    findings = DETECTOR.find(Subject(Surface.INPUT, normalize(text)))
    return [(finding.rule, text[finding.span.start : finding.span.end]) for finding in findings if finding.span]


@pytest.mark.parametrize(
    ("rule", "secret"),
    [
        ("secret.aws", "AKIA" + "IOSFODNN7EXAMPLE"),
        ("secret.github_token", "ghp_" + "a1B2" * 9),
        ("secret.gitlab_token", "glpat-" + "a1B2c3D4e5" * 2),
        ("secret.openai_key", "sk-" + "a1B2c3D4e5" * 2 + "T3BlbkFJ" + "f6G7h8I9j0" * 2),
        ("secret.slack_token", "xoxb-" + "123456789012-" * 2 + "abcdef"),
        ("secret.stripe_key", "sk_live_" + "a1B2c3D4" * 3),
        ("secret.sendgrid_key", "SG." + "a" * 22 + "." + "b" * 43),
        ("secret.jwt", JWT),
        ("secret.private_key", PEM.removeprefix("-----")),
    ],
)
def test_credentials_are_found_whole(rule: str, secret: str) -> None:
    """Each kind is found with all its characters, in the middle of a sentence."""
    lead = "-----" if rule == "secret.private_key" else ""
    assert found(f"use {lead}{secret} here") == [(rule, secret)]


def test_only_the_password_of_a_url_is_found() -> None:
    """The user and host of a connection string stay readable."""
    assert found("postgres://app:hunter2-Xy@db.internal:5432/x") == [("secret.url_credentials", "hunter2-Xy")]


@pytest.mark.parametrize(
    "text",
    [
        "postgres://user:password@host and http://user:<password>@host and ftp://u:***@h",
        "secrets.token_hex() makes a secret; set PASSWORD = os.environ['PASSWORD']",
        "a PEM file begins with -----BEGIN RSA PRIVATE KEY----- and ends with -----END RSA PRIVATE KEY-----",
        "-----BEGIN RSA PRIVATE KEY-----\n... (private key in base64 encoding) ...\n-----END RSA PRIVATE KEY-----",
        "eyJhbGciOiJub3RhdG9rZW4.eyJub3RhdG9rZW4 sk-learn sk_test_123",
        "d41d8cd98f00b204e9800998ecf8427e",
    ],
)
def test_documentation_about_secrets_is_left_alone(text: str) -> None:
    """Placeholders, names of keys, hashes and broken tokens are no credentials."""
    assert found(text) == []


def test_a_key_without_its_end_is_found_to_its_last_line() -> None:
    """A key cut off by a chunk's border is redacted, the prose behind it is not."""
    cut = PEM.split("-----END", maxsplit=1)[0].rstrip()
    ((rule, secret),) = found(f"{cut}\n\nThis is the key.")
    assert rule == "secret.private_key"
    assert secret.endswith(KEY_LINES)
