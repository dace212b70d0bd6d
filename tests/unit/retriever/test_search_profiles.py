"""Search profiles: read from YAML, strict, telling the place of a fault; requests win over them."""

from pathlib import Path

import pytest

from servicekit.domain.fusion import FusionMethod
from servicekit.errors import InvalidRequest
from servicekit.ports.vector_store import SearchMode
from services.retriever.search import profiles as search_profiles
from services.retriever.search.profiles import SearchProfile, read_profiles
from services.retriever.search.request import SearchRequest, plan_search

FILE = """
profiles:
  default: {dense_weight: 0.6}
  support:
    mode: sparse
    fusion: ranked
    top_k: 12
    score_floor: 0.2
    rerank: true
    mmr_relevance: 0.7
    neighbours: 1
    candidates: 30
"""


def write(folder: Path, source: str) -> Path:
    """The source as a file."""
    path = folder / "profiles.yaml"
    path.write_text(source, encoding="utf-8")
    return path


def test_without_a_file_there_is_the_default_alone() -> None:
    """The built-in profile is hybrid, eight chunks, nothing more."""
    name, profile = read_profiles(None).choose("anything")
    assert (name, profile) == ("default", SearchProfile())
    assert (profile.mode, profile.dense_weight, profile.top_k, profile.rerank) == (SearchMode.HYBRID, 0.45, 8, False)


def test_a_profile_leaves_the_rest_to_the_files_default(tmp_path: Path) -> None:
    """What `support` does not state is as in the file's `default`, and unknown names are `default`."""
    profiles = read_profiles(write(tmp_path, FILE))
    name, support = profiles.choose("support")
    assert name == "support"
    assert (support.mode, support.fusion, support.dense_weight) == (SearchMode.SPARSE, FusionMethod.RANKED, 0.6)
    assert profiles.choose("")[0] == profiles.choose("nobody")[0] == "default"


def test_the_request_wins_over_its_profile(tmp_path: Path) -> None:
    """Fields that are stated count, also where they are 0 or false; the others are the profile's."""
    profiles = read_profiles(write(tmp_path, FILE))
    plan = plan_search(SearchRequest("q", profile="support"), profiles)
    assert (plan.top_k, plan.rerank, plan.neighbours, plan.score_floor, plan.mmr_relevance) == (12, True, 1, 0.2, 0.7)
    stated = SearchRequest(
        "q", profile="support", rerank=False, neighbours=0, score_floor=0.0, mmr_relevance=1.0, dense_weight=0.0
    )
    plan = plan_search(stated, profiles)
    assert (plan.rerank, plan.neighbours, plan.score_floor, plan.dense_weight) == (False, 0, 0.0, 0.0)
    assert not plan.diversify


@pytest.mark.parametrize(
    ("request_", "depth"),
    [
        (SearchRequest("q"), 8),
        (SearchRequest("q", rerank=True), 50),
        (SearchRequest("q", rerank=True, top_k=80), 80),
        (SearchRequest("q", mmr_relevance=0.5), 50),
        (SearchRequest("q", mmr_relevance=0.5, top_k=20), 80),
        (SearchRequest("q", mmr_relevance=1.0), 8),
    ],
)
def test_later_stages_choose_among_more_chunks(request_: SearchRequest, depth: int) -> None:
    """The reranker sees 50, diversity four times what is wanted; without them only `top_k` are found."""
    assert plan_search(request_, read_profiles(None)).depth == depth


def test_several_queries_are_each_ranked_deeper() -> None:
    """Repeated wordings count once; each ranking is at least 50 deep for the fusion."""
    plan = plan_search(SearchRequest("q", alternative_queries=("r", "q")), read_profiles(None))
    assert (plan.queries, plan.depth, plan.ranking_depth) == (("q", "r"), 8, 50)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("profiles: {a: {colour: red}}", "profiles.a.colour"),
        ("profiles: {a: {mode: fast}}", "profiles.a.mode"),
        ("profiles: {a: {top_k: 0}}", "profiles.a.top_k"),
        ("profiles: {a: {top_k: 200}}", "got 200"),
        ("profiles: {a: {dense_weight: 1.5}}", "profiles.a.dense_weight"),
        ("profiles: {a: {rerank: 1}}", "profiles.a.rerank"),
        ("profiles: {a: {mmr_relevance: .nan}}", "profiles.a.mmr_relevance"),
        ("profiles: {a: {neighbours: 4}}", "profiles.a.neighbours"),
        ("profiles: {'': {}}", "profiles."),
        ("routes: {}", "profiles"),
        ("[]", "the file"),
        ("profiles: [", "is no YAML"),
    ],
)
def test_a_fault_is_told_by_file_and_place(tmp_path: Path, source: str, told: str) -> None:
    """The message names the file, the profile and the setting; the error names the setting of the retriever."""
    path = write(tmp_path, source)
    with pytest.raises(InvalidRequest) as caught:
        read_profiles(path)
    assert str(path) in caught.value.message
    assert told in caught.value.message
    assert caught.value.field == "profiles_file"


def test_a_file_that_is_not_there_is_told() -> None:
    """The path stands in the message."""
    with pytest.raises(InvalidRequest, match=r"/nowhere/profiles\.yaml"):
        read_profiles(Path("/nowhere/profiles.yaml"))


def test_the_example_states_the_built_in_default() -> None:
    """The file that operators copy is valid, and its `default` is what holds without it."""
    profiles = read_profiles(Path(search_profiles.__file__).with_name("profiles.example.yaml"))
    assert profiles.choose("default")[1] == SearchProfile()
    assert profiles.choose("parts")[1].mode is SearchMode.SPARSE
    assert profiles.choose("handbook")[1].neighbours == 1
