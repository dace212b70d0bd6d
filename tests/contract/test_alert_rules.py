"""The alert rules ask for metrics that the services expose, under the names they have there."""

import importlib
import pkgutil
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client import REGISTRY

import servicekit.events
import services.analytics

_RULES = Path(__file__).parents[2] / "infra" / "prometheus" / "alerts.yml"
_METRIC = re.compile(r"\bbinnacle_\w+")


def _rules() -> list[dict[str, object]]:
    (group,) = yaml.safe_load(_RULES.read_text())["groups"]
    rules: list[dict[str, object]] = group["rules"]
    return rules


def _exposed() -> set[str]:
    """Names of all samples that the metrics of analytics and of events make."""
    for package in (services.analytics, servicekit.events):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            if module.name.endswith(".metrics"):
                importlib.import_module(module.name)
    names = set()
    for family in REGISTRY.collect():
        names |= {family.name, f"{family.name}_total"} if family.type == "counter" else {family.name}
    return names


@pytest.mark.parametrize("rule", _rules(), ids=lambda rule: str(rule["alert"]))
def test_each_rule_asks_for_metrics_that_exist(rule: dict[str, object]) -> None:
    """A metric that is renamed would silence its alert without a word."""
    asked = set(_METRIC.findall(str(rule["expr"])))
    assert asked
    assert asked <= _exposed()


@pytest.mark.parametrize("rule", _rules(), ids=lambda rule: str(rule["alert"]))
def test_each_rule_says_how_bad_it_is_and_what_to_do(rule: dict[str, object]) -> None:
    """Whoever is woken finds the next step in the alert."""
    labels, annotations = rule["labels"], rule["annotations"]
    assert isinstance(labels, dict)
    assert isinstance(annotations, dict)
    assert labels["severity"] in {"warning", "critical"}
    assert annotations["summary"]
    assert annotations["description"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_prometheus_takes_the_rules() -> None:
    """Prometheus's own checker has nothing to say against them."""
    done = subprocess.run(["promtool", "check", "rules", str(_RULES)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
