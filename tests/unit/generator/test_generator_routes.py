"""Engines are chosen by weight and repeatably; settings in force and prices in force are decided by the route."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit.domain.prompt import Sampling
from servicekit.errors import InvalidRequest
from services.generator.model_config import read_models
from services.generator.opening import route_of
from services.generator.pricing import ALWAYS, Price, PriceTable
from services.generator.routes import EngineRoute, Route, order

FREE = PriceTable(((ALWAYS, Price()),))
EXAMPLE = Path("services/generator/models.example.yaml")


def _engines(*weights: float) -> tuple[EngineRoute, ...]:
    return tuple(EngineRoute(f"tgi://h{place}:1", FREE, weight) for place, weight in enumerate(weights))


def _route(**fields: object) -> Route:
    return Route("a", _engines(1), **{"sampling": Sampling(), "prompt_id": "p", **fields})  # type: ignore[arg-type]  # by name


def test_requests_begin_by_weight() -> None:
    """Each engine begins its share of many requests, one without weight none."""
    engines = _engines(7, 0, 3)
    first = Counter(order(engines, alias="a", request_id=f"r{number}")[0] for number in range(5_000))
    assert first.keys() == {0, 2}
    assert 0.67 < first[0] / 5_000 < 0.73


@given(st.text(min_size=1), st.lists(st.sampled_from([0.0, 1.0, 2.5]), min_size=1, max_size=6).filter(any))
def test_order_is_repeatable_and_whole(request_id: str, weights: list[float]) -> None:
    """The same request goes the same way; after the first the others follow as written, each once."""
    engines = _engines(*weights)
    places = order(engines, alias="a", request_id=request_id)
    assert places == order(engines, alias="a", request_id=request_id)
    assert sorted(places) == list(range(len(weights)))
    assert list(places[1:]) == sorted(places[1:])
    assert engines[places[0]].weight > 0


def test_aliases_choose_apart() -> None:
    """The choice at one alias says nothing about the choice at another."""
    engines = _engines(1, 1)
    same = sum(
        order(engines, alias="a", request_id=f"r{n}") == order(engines, alias="b", request_id=f"r{n}")
        for n in range(2_000)
    )
    assert 850 < same < 1_150


def test_deterministic_route_is_greedy_with_a_pinned_seed() -> None:
    """Whatever the caller asks for, such a route answers greedily, and says so."""
    route = _route(sampling=Sampling(seed=7, max_output_tokens=9), deterministic=True)
    asked = Sampling(temperature=1.5, top_p=0.5, top_k=3, seed=1)
    told = route.sampling_for(asked, request_id="r", max_total_tokens=4_096)
    assert told == Sampling(temperature=0.0, seed=7, max_output_tokens=9)


def test_seed_per_request_is_the_requests() -> None:
    """A repeat of a request has its seed, another request another, and a caller's own seed stays."""
    route = _route(seed_per_request=True)
    seeds = [route.sampling_for(Sampling(), request_id=f"r{n}", max_total_tokens=4_096).seed for n in (1, 1, 2)]
    assert seeds[0] == seeds[1] != seeds[2]
    assert route.sampling_for(Sampling(seed=5), request_id="r1", max_total_tokens=4_096).seed == 5


@pytest.mark.parametrize(("asked", "window", "told"), [(None, 4_096, 512), (100, 4_096, 100), (900, 1_000, 500)])
def test_output_tokens_in_force(asked: int | None, window: int, told: int) -> None:
    """The answer has at most half the window, and 512 tokens where nobody says how many."""
    sampling = _route().sampling_for(Sampling(max_output_tokens=asked), request_id="r", max_total_tokens=window)
    assert sampling.max_output_tokens == told


def test_price_in_force_is_that_of_the_time() -> None:
    """A price holds from its time until the next one's; the oldest before its time too."""
    start = datetime(2030, 1, 1, tzinfo=UTC)
    table = PriceTable(tuple((start + timedelta(days=30 * n), Price(version=str(n))) for n in range(3)))
    moments = (-1, 0, 29, 30, 59, 60, 999)
    assert [table.at(start + timedelta(days=day)).version for day in moments] == ["0", "0", "0", "1", "1", "2", "2"]


def test_example_routes_have_what_the_file_says() -> None:
    """Engines in order with their own bounds, adapters and prices."""
    config = read_models(EXAMPLE)
    route = route_of("pooled", config.models["pooled"], config.price_version)
    assert [engine.address for engine in route.engines] == [
        "tgi://tgi-headless:8080",
        "openai://vllm-1:8000/v1",
        "openai://vendor.example/v1",
    ]
    assert [engine.weight for engine in route.engines] == [9, 1, 0]
    assert [engine.first_token_s for engine in route.engines] == [10, 20, 20]
    assert [engine.adapter for engine in route.engines] == ["support-lora", "", ""]
    then = datetime(2030, 8, 1, tzinfo=UTC)
    assert [engine.prices.at(then).version for engine in route.engines] == ["2030-07", "vllm-2030", "2030-07"]
    assert route.seed_per_request
    assert route_of("repeatable", config.models["repeatable"], "v").deterministic


BAD = """\
models:
  default:
    engines:
      - url: tgi://a:1
        weight: 1
    prices:
      - {version: "1", from: 2030-01-01T00:00:00Z}
      - {version: "2", from: 2030-02-01T00:00:00Z}
"""


@pytest.mark.parametrize(
    ("change", "line", "told"),
    [
        (("weight: 1", "weight: -1"), 5, "models.default.engines.0.weight"),
        (("weight: 1", "weight: 0"), 2, "a weight over 0"),
        (("weight: 1", "wait: 1"), 5, "engines.0.wait: is no setting"),
        (("url: tgi://a:1", "adapter: x"), 4, "exactly one of url, urls and dns"),
        (('version: "2"', 'version: "1"'), 2, "two prices have the version 1"),
        (("2030-02-01T00:00:00Z", "soon"), 8, "prices.1.from"),
        (("2030-02-01", "2030-01-01"), 2, "two prices have the from"),
        (("    prices:", "    input_price_microusd: 3\n    prices:"), 2, "prices replaces input_price_microusd"),
        (("    prices:", "    engine_url: x://\n    prices:"), 2, "either engine_url or engines"),
        (
            ("    prices:", "    deterministic: true\n    sampling: {temperature: 1}\n    prices:"),
            2,
            "deterministic means temperature 0",
        ),
        (("    prices:", "    sampling: {seed: often}\n    prices:"), 6, "sampling.seed"),
    ],
)
def test_faults_are_told_by_line(tmp_path: Path, change: tuple[str, str], line: int, told: str) -> None:
    """What cannot be followed names the file, the line, the place and the fault."""
    path = tmp_path / "models.yaml"
    path.write_text(BAD, "utf-8")
    assert read_models(path).models
    path.write_text(BAD.replace(*change), "utf-8")
    with pytest.raises(InvalidRequest) as raised:
        read_models(path)
    assert f"models.yaml, line {line}: " in raised.value.message
    assert told in raised.value.message
