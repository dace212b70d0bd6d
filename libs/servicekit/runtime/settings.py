"""Settings of a service: from the environment, frozen, checked at start; a misspelt variable is an error.

Subclassed by `services.*.config`; loaded by `runtime.service.run`.
"""

import difflib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticUndefined
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "BINNACLE_"
SEPARATOR = "__"
METRICS_PORT_OFFSET = 1000


class SettingsError(Exception):
    """The environment does not make valid settings; `lines` has one clear sentence per fault."""

    def __init__(self, lines: tuple[str, ...]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def settings_config(service: str) -> SettingsConfigDict:
    """The configuration of a settings class of `service` (`drift_monitor` → `BINNACLE_DRIFT_MONITOR__…`)."""
    return SettingsConfigDict(
        env_prefix=f"{PREFIX}{service.upper()}{SEPARATOR}",
        frozen=True,
        extra="ignore",
        env_ignore_empty=True,
        validate_default=True,
    )


class ServiceSettings(BaseSettings):
    """What every service can be told. Secrets are named by file or come from the environment, never from flags."""

    host: str = Field(default="127.0.0.1", description="the address to listen on")
    port: int = Field(ge=0, le=65535, description="the gRPC port; 0: a free one")
    metrics_port: int | None = Field(
        default=None, ge=0, le=65535, description="of /metrics and /healthz; unset: port + 1000; 0: a free one"
    )
    event_bus_url: str = Field(default="kafka://127.0.0.1:9092", description="the event bus")
    state_dir: Path = Field(default=Path(".var"), description="the folder for what this service keeps on disk")

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="the least level logged"
    )
    log_format: Literal["auto", "json", "console"] = Field(
        default="auto", description="auto: JSON unless standard error is a terminal"
    )
    otlp_endpoint: str | None = Field(default=None, description="OpenTelemetry collector (gRPC); unset: no spans")

    api_keys_file: Path | None = Field(default=None, description="API keys of direct callers; unset: none accepted")
    token_public_key_file: Path | None = Field(
        default=None, description="PEM key that verifies the gateway's tokens; unset: none accepted"
    )
    token_private_key_file: Path | None = Field(
        default=None, description="PEM key that signs tokens for calls to other services; unset: none are sent"
    )
    jwt_issuer: str | None = Field(default=None, description="issuer whose JWTs are accepted; unset: none")
    jwt_audience: str = Field(default="binnacle", description="audience that those JWTs must name")
    jwt_public_key_file: Path | None = Field(default=None, description="PEM key of the JWT issuer")
    jwt_jwks_file: Path | None = Field(default=None, description="JWKS document of the JWT issuer")
    jwt_tenant_claim: str = Field(default="tenant", description="the claim that names the tenant")

    max_deadline_s: float = Field(
        default=300.0, gt=0, description="a call's deadline at most, and that of a call that names none"
    )
    max_message_bytes: int = Field(
        default=16 * 1024 * 1024, ge=1024, description="of one gRPC message, either way; larger: RESOURCE_EXHAUSTED"
    )
    max_concurrent_rpcs: int = Field(default=2_000, ge=1, description="calls at once; more: RESOURCE_EXHAUSTED")
    slow_reader_s: float = Field(default=20.0, gt=0, description="a stream whose reader takes nothing so long is cut")
    readiness_interval_s: float = Field(default=5.0, gt=0, description="between two pings of the dependencies")
    readiness_timeout_s: float = Field(default=2.0, gt=0, description="for one ping")
    drain_s: float = Field(default=0.5, ge=0, description="between NOT_SERVING and the refusal of new calls")
    grace_s: float = Field(default=10.0, ge=0, description="for calls in flight, once no new one is taken")

    @classmethod
    def service_name(cls) -> str:
        """The service that the prefix names (`drift_monitor`)."""
        return _prefix(cls).removeprefix(PREFIX).removesuffix(SEPARATOR).lower()

    @property
    def chosen_metrics_port(self) -> int:
        """The port of /metrics and /healthz; 0: a free one."""
        if self.metrics_port is not None:
            return self.metrics_port
        return self.port + METRICS_PORT_OFFSET if self.port else 0


SettingsT = TypeVar("SettingsT", bound=ServiceSettings)


def load_settings(settings_type: type[SettingsT], environ: Mapping[str, str] | None = None) -> SettingsT:
    """Read the settings from the environment.

    Raises:
        SettingsError: an unknown variable under the prefix, or values that do not validate; all faults at once.
    """
    faults = list(_unknown_variables(settings_type, os.environ if environ is None else environ))
    try:
        settings = settings_type()  # type: ignore[call-arg]  # the port comes from the environment
    except ValidationError as exc:
        details = exc.errors(include_url=False, include_context=False)
        faults += [_fault(settings_type, detail) for detail in details]
    if faults:
        raise SettingsError(tuple(faults))
    return settings


def describe_settings(settings_type: type[ServiceSettings]) -> str:
    """The text of `--help`: every variable, its default and its meaning."""
    name = settings_type.service_name()
    lines = [
        f"usage: python -m services.{name}",
        "",
        f"Runs the {name} service until SIGTERM or SIGINT. Settings come from the environment:",
        "",
    ]
    for field_name, field in settings_type.model_fields.items():
        lines.append(f"  {variable_of(settings_type, field_name)}")
        lines.append(f"      {field.description or field_name} (default: {_default(field)})")
    return "\n".join(lines)


def variable_of(settings_type: type[ServiceSettings], field_name: str) -> str:
    """The environment variable of a field."""
    return f"{_prefix(settings_type)}{field_name.upper()}"


def _prefix(settings_type: type[ServiceSettings]) -> str:
    return settings_type.model_config.get("env_prefix", "")


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "none: required" if field.default_factory is None else "computed"
    return "unset" if field.default is None else str(field.default)


def _unknown_variables(settings_type: type[ServiceSettings], environ: Mapping[str, str]) -> Iterator[str]:
    known = {variable_of(settings_type, name) for name in settings_type.model_fields}
    for name in sorted(environ):
        if not name.upper().startswith(_prefix(settings_type)) or name.upper() in known:
            continue
        near = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.0)
        yield f"{name} is no setting of {settings_type.service_name()}; did you mean {near[0]}?"


def _fault(settings_type: type[ServiceSettings], detail: ErrorDetails) -> str:
    location = detail["loc"]
    field_name = str(location[0]) if location else ""
    if field_name not in settings_type.model_fields:
        return f"{settings_type.service_name()}: {detail['msg']}"
    variable = variable_of(settings_type, field_name)
    if detail["type"] == "missing":
        return f"{variable} must be set: {settings_type.model_fields[field_name].description}"
    return f"{variable}: {detail['msg']}, got {_shown(settings_type.model_fields[field_name], detail['input'])}"


def _shown(field: FieldInfo, value: Any) -> str:
    return "a secret that is not shown" if field.annotation is SecretStr else repr(value)
