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
        ("secret.anthropic_key", "sk-ant-" + "api03-" + "aB3_" * 23),
        ("secret.openai_key", "sk-proj-" + "a1B2c3D4e5" * 5),
        ("secret.google_api_key", "AI" + "za" + "a1B2c" * 7),
        ("secret.huggingface_token", "hf_" + "aBcDe" * 6 + "fGhI"),
        ("secret.github_token", "github_pat_" + "a1B2c3D4e5f" * 2 + "_" + "a1" * 29 + "b"),
        ("secret.gitlab_token", "gldt-" + "a1B2c3D4e5" * 2),
        ("secret.digitalocean_token", "dop_v1_" + "0a1b2c3d" * 8),
        ("secret.slack_token", "https://hooks.slack.com/" + "services/T0000AAAA/B0000AAAA/" + "a1B2c3" * 4),
        ("secret.age_key", "AGE-SECRET-KEY-1" + ("QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L" * 2)[:58]),
        ("secret.binnacle_key", "bk_" + "a1B2c3D4e5-" * 3 + "abcdefghij"),
        ("secret.databricks_token", "dapi" + "0a1b2c3d" * 4),
        ("secret.docker_token", "dckr_pat_" + "a1B2c3D4e5-" * 2 + "abcde"),
    ],
)
def test_credentials_are_found_whole(rule: str, secret: str) -> None:
    """Each kind is found with all its characters, in the middle of a sentence."""
    lead = "-----" if rule == "secret.private_key" else ""
    assert found(f"use {lead}{secret} here") == [(rule, secret)]


def test_only_the_password_of_a_url_is_found() -> None:
    """The user and host of a connection string stay readable."""
    assert found("postgres://app:hunter2-Xy@db.internal:5432/x") == [("secret.url_credentials", "hunter2-Xy")]


def test_a_signed_address_loses_its_signature_only() -> None:
    """The signature of an Azure address is its credential; where it leads stays readable."""
    signature = "sig=" + "a1B2c3D4e5" * 4 + "%3D"
    text = f"https://x.blob.core.windows.net/c?sv=2022-11-02&ss=b&{signature} is shared"
    assert found(text) == [("secret.azure_sas", signature)]


@pytest.mark.parametrize(
    ("rule", "text", "secret"),
    [
        ("secret.assigned", "password = hunter2-Xy", "hunter2-Xy"),
        ("secret.assigned", "DB_PASSWORD='s9F!kd02ls'", "s9F!kd02ls"),
        ("secret.assigned", "api_key: a8f5f167f44f4964e6c998dee827110c", "a8f5f167f44f4964e6c998dee827110c"),
        ("secret.told", "my password is Tr0ub4dor&3.", "Tr0ub4dor&3"),
        ("secret.told", "the passphrase for backups is correct-horse-9-battery", "correct-horse-9-battery"),
        ("secret.bearer", "Authorization: Bearer abc123def456ghi789", "abc123def456ghi789"),
    ],
)
def test_values_under_a_secrets_name_are_found(rule: str, text: str, secret: str) -> None:
    """What is assigned to a password or a key, or told of one, is found without its name."""
    assert found(text) == [(rule, secret)]


def test_an_encoded_credential_is_found() -> None:
    """A key in Base64 is read in the view that decodes it; the encoded run is what is redacted."""
    encoded = base64.b64encode(("the key is ghp_" + "aZ1bY2cX3dW4eV5fU6gT7hS8iR9jQ0kP1lO2").encode()).decode()
    assert found(f"look: {encoded}") == [("secret.github_token", encoded)]


@pytest.mark.parametrize(
    "text",
    [
        "password: str | None = None; token = os.environ['TOKEN']; api_key=config.api_key; PASSWORD = getpass()",
        "password: your-password-123; api_key = <token-1234567>; secret_key=SECRET_KEY",
        "password is required and must be 8 characters; the token is invalid",
        "bk_short, hf_transfer, sk-learn, AIza, dapi, glpat-",
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
