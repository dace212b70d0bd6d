"""Settings from the environment: defaults, faults in one clear line each, secrets kept out of messages."""

from pathlib import Path

import pytest
from pydantic import Field, SecretStr, ValidationError

from servicekit.runtime.settings import (
    ServiceSettings,
    SettingsError,
    describe_settings,
    load_settings,
    settings_config,
)


class Settings(ServiceSettings):
    """Of a service that exists in this file alone."""

    model_config = settings_config("drift_monitor")
    port: int = 7705
    window_s: float = Field(default=60.0, gt=0, description="length of a window")
    store_password: SecretStr | None = Field(default=None, description="of the store")
    pin: SecretStr = Field(default=SecretStr("1234"), min_length=4, description="a short secret")


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch):  # noqa: ANN201  # a function of the variables to set
    """The faults told for the given variables."""

    def load(**variables: str) -> tuple[str, ...]:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SettingsError) as caught:
            load_settings(Settings)
        return caught.value.lines

    return load


def test_defaults_need_no_environment() -> None:
    """A service starts with nothing set; the metrics port follows the port."""
    settings = load_settings(Settings)
    assert (settings.port, settings.chosen_metrics_port, settings.service_name()) == (7705, 8705, "drift_monitor")


def test_environment_sets_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables under the prefix win; an empty one counts as unset."""
    monkeypatch.setenv("BINNACLE_DRIFT_MONITOR__PORT", "0")
    monkeypatch.setenv("BINNACLE_DRIFT_MONITOR__STATE_DIR", "/var/lib/binnacle")
    monkeypatch.setenv("BINNACLE_DRIFT_MONITOR__OTLP_ENDPOINT", "")
    settings = load_settings(Settings)
    assert (settings.port, settings.chosen_metrics_port) == (0, 0)
    assert settings.state_dir == Path("/var/lib/binnacle")
    assert settings.otlp_endpoint is None


def test_settings_are_frozen() -> None:
    """Nobody changes a setting after the start."""
    with pytest.raises(ValidationError):
        load_settings(Settings).port = 1


def test_misspelt_variable_is_refused_with_the_nearest_name(faults) -> None:  # noqa: ANN001  # the fixture above
    """A variable under the prefix that no setting has stops the start and names the likely one."""
    [line] = faults(BINNACLE_DRIFT_MONITOR__WINDOWS="5")
    assert "BINNACLE_DRIFT_MONITOR__WINDOWS is no setting of drift_monitor" in line
    assert "did you mean BINNACLE_DRIFT_MONITOR__WINDOW_S?" in line


def test_variable_of_another_service_is_none_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other prefixes, Kubernetes' injected ones among them, are ignored."""
    monkeypatch.setenv("BINNACLE_GATEWAY__NONSENSE", "1")
    monkeypatch.setenv("DRIFT_MONITOR_PORT", "tcp://10.0.0.1:7705")
    assert load_settings(Settings).port == 7705


def test_all_faults_are_told_at_once(faults) -> None:  # noqa: ANN001  # the fixture above
    """Each bad value is one line with variable, rule and value."""
    lines = faults(
        BINNACLE_DRIFT_MONITOR__PORT="seventy",
        BINNACLE_DRIFT_MONITOR__WINDOW_S="-1",
        BINNACLE_DRIFT_MONITOR__LOG_LEVEL="loud",
    )
    text = "\n".join(lines)
    assert len(lines) == 3
    for part in ("__PORT: ", "'seventy'", "__WINDOW_S: ", "greater than 0", "__LOG_LEVEL: ", "'loud'"):
        assert part in text


def test_secret_is_not_repeated(faults) -> None:  # noqa: ANN001  # the fixture above
    """A secret that does not validate is not printed."""
    [line] = faults(BINNACLE_DRIFT_MONITOR__PIN="abc")
    assert "__PIN" in line
    assert "abc" not in line


def test_help_explains_every_setting() -> None:
    """Every field has a variable, a default and a meaning."""
    text = describe_settings(Settings)
    for name, field in Settings.model_fields.items():
        assert f"BINNACLE_DRIFT_MONITOR__{name.upper()}" in text
        assert field.description or name == "port"
    assert "length of a window (default: 60.0)" in text
    assert "1234" not in text
