"""What a policy may state under the injection detector's `options`. Read by `policy_file.py`, used by `detector.py`."""

from ipaddress import ip_address
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator


class InjectionOptions(BaseModel):
    """A classifier of one's own, asked about texts of which the shipped stages are unsure."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    classifier_url: str = Field(
        default="", description="where text-classification answers, such as https://host/predict; empty: none is asked"
    )
    classifier_timeout_ms: int = Field(default=500, ge=1, le=10_000, description="for each step of a question")
    classifier_labels: tuple[str, ...] = Field(
        default=("injection", "jailbreak", "malicious", "unsafe", "label_1"),
        min_length=1,
        description="the labels that mean an attack, upper and lower case alike; their scores are added up",
    )

    @field_validator("classifier_url")
    @classmethod
    def _private(cls, url: str) -> str:
        """The text of a user goes there: encrypted, or not off this machine."""
        if not url:
            return url
        parts = urlsplit(url)
        if parts.scheme == "https" and parts.hostname:
            return url
        if parts.scheme == "http" and parts.hostname and _is_loopback(parts.hostname):
            return url
        raise ValueError(f"classifier_url must be https://… or http:// to this machine, got {url!r}")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
