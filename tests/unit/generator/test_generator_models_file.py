"""The models file is checked at start, and each fault is told by its place."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from servicekit.domain.generation import Usage
from servicekit.errors import InvalidRequest
from services.generator.model_config import parse_models, read_models, single_model
from services.generator.pricing import Price

GOOD = """
price_version: "2030-01"
models:
  default:
    engine_url: extractive://
  llama:
    engine_url: tgi://tgi:8080?template=chatml
    window_tokens: 4096
    input_price_microusd: 150000
    output_price_microusd: 600000
    sampling: {temperature: 0.2, max_output_tokens: 256}
    fallbacks: [default]
"""


def _read(tmp_path: Path, text: str) -> object:
    path = tmp_path / "models.yaml"
    path.write_text(text, "utf-8")
    return read_models(path)


def test_good_file_is_read(tmp_path: Path) -> None:
    """Every setting of an alias arrives."""
    path = tmp_path / "models.yaml"
    path.write_text(GOOD, "utf-8")
    config = read_models(path)
    llama = config.models["llama"]
    assert llama.sampling.sampling().temperature == 0.2
    assert llama.fallbacks == ("default",)
    (engine,) = llama.all_engines()
    assert engine.url == "tgi://tgi:8080?template=chatml"
    price = llama.price_table(engine, config.price_version).at(datetime.now(UTC))
    assert (price.input_microusd, price.cached_microusd, price.version) == (150_000, 150_000, "2030-01")
    assert config.extractive_fallback


def test_without_a_file_there_is_one_model() -> None:
    """The default alias stands on the engine of the settings."""
    assert single_model("tgi://h:1").models["default"].engine_url == "tgi://h:1"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            ("engine_url: extractive://", "engine_uri: extractive://"),
            "models.default.engine_uri: is no setting; did you mean engine_url?",
        ),
        (("fallbacks: [default]", "fallbacks: [gpt]"), "'gpt' is no alias; known: default, llama"),
        (("temperature: 0.2", "temperature: 9"), "sampling.temperature must be 0 to 2"),
        (("temperature: 0.2", "heat: 9"), "models.llama.sampling.heat"),
        (("window_tokens: 4096", "window_tokens: 1"), "models.llama.window_tokens"),
        (("  default:", "  other:"), "is no alias"),
        (("models:", "models: {["), "is no YAML"),
        (('price_version: "2030-01"', "price_version: {a: 1}"), "price_version"),
    ],
)
def test_faults_are_told_by_place(tmp_path: Path, change: tuple[str, str], told: str) -> None:
    """A file that cannot be followed names the file, the place and the fault."""
    with pytest.raises(InvalidRequest) as raised:
        _read(tmp_path, GOOD.replace(*change))
    assert "models.yaml" in raised.value.message
    assert told in raised.value.message


def test_missing_default_is_told(tmp_path: Path) -> None:
    """An empty model must mean something."""
    with pytest.raises(InvalidRequest, match="must name the alias 'default'"):
        _read(tmp_path, "models: {llama: {engine_url: 'tgi://h:1'}}")


def test_missing_file_is_told(tmp_path: Path) -> None:
    """A path to nothing is a fault of the settings."""
    with pytest.raises(InvalidRequest, match="No such file"):
        read_models(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("usage", "microusd"),
    [
        (Usage(0, 0), 0),
        (Usage(1_000_000, 1_000_000), 3_000_000),
        (Usage(1_000_000, 0, cached_tokens=400_000), 640_000),
        (Usage(1, 0), 1),
        (Usage(0, 1), 2),
        (Usage(10, 0, cached_tokens=50), 1),
    ],
)
def test_cost_is_whole_microdollars(usage: Usage, microusd: int) -> None:
    """Input, cached and output tokens are priced apart and rounded once."""
    price = Price(input_microusd=1_000_000, output_microusd=2_000_000, cached_microusd=100_000, version="v")
    assert price.cost(usage).microusd == microusd
    assert price.cost(usage).price_version == "v"


def test_example_file_is_valid() -> None:
    """The file that is shown to operators can be used as it is."""
    config = read_models(Path("services/generator/models.example.yaml"))
    assert config.models["default"].fallbacks == ("spare",)
    assert config.models["extractive"].engine_url == "extractive://"


def test_settings_may_hold_the_models() -> None:
    """Aliases can come from the environment, where their faults name the variable."""
    good = parse_models({"models": {"default": {"engine_url": "extractive://"}}}, file="BINNACLE_GENERATOR__MODELS")
    assert list(good.models) == ["default"]
    with pytest.raises(InvalidRequest, match=r"BINNACLE_GENERATOR__MODELS: models\.default: needs either"):
        parse_models({"models": {"default": {}}}, file="BINNACLE_GENERATOR__MODELS")
