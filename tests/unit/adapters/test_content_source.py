"""Fetching: only below allowed prefixes, after redirects too; bounded in size and time."""

from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit.adapters.http.content_source import HttpContentSource, Prefix, open_content_source, read_prefixes
from servicekit.errors import BackendTimeout, BackendUnavailable, InvalidRequest

ALLOWED = "https://docs.example.org/public/ http://intra:8080"


def _source(answer: Callable[[httpx2.Request], httpx2.Response], *, allowed: str = ALLOWED) -> HttpContentSource:
    client = httpx2.AsyncClient(transport=httpx2.MockTransport(answer), follow_redirects=False)
    return HttpContentSource(client, allowed=read_prefixes(allowed), timeout_s=5)


@pytest.mark.parametrize(
    ("uri", "allowed"),
    [
        ("https://docs.example.org/public/a.pdf", True),
        ("https://DOCS.example.org:443/public/sub/a?x=1", True),
        ("http://intra:8080/anything", True),
        ("https://docs.example.org/publicity", False),
        ("https://docs.example.org/private", False),
        ("https://docs.example.org/public/../private", False),
        ("https://docs.example.org/public/%2e%2e/private", False),
        ("https://docs.example.org/public/%252e%252e/private", False),
        ("https://docs.example.org.evil.example/public/a", False),
        ("https://docs.example.org@evil.example/public/a", False),
        ("https://user:pw@docs.example.org/public/a", False),
        ("https://evil.example\\@docs.example.org/public/a", False),
        ("http://docs.example.org/public/a", False),
        ("http://intra/anything", False),
        ("file:///etc/passwd", False),
        ("ftp://intra:8080/x", False),
        ("", False),
        ("http://[::1", False),
    ],
)
async def test_a_prefix_holds_by_whole_names(uri: str, *, allowed: bool) -> None:
    """Scheme, host, port and path segments count; no spelling leads out of a prefix."""
    source = _source(lambda _: httpx2.Response(200, text="ok"))
    if allowed:
        assert (await source.fetch(uri, max_bytes=10)).content == b"ok"
        return
    with pytest.raises(InvalidRequest, match="FETCH_ALLOWED_PREFIXES") as caught:
        await source.fetch(uri, max_bytes=10)
    assert caught.value.reason == "FETCH_NOT_ALLOWED"


@given(uri=st.text(max_size=60) | st.text(max_size=30).map(lambda rest: f"https://docs.example.org{rest}"))
def test_any_text_is_judged(uri: str) -> None:
    """Whatever stands there, the answer is yes or no."""
    assert Prefix("https://docs.example.org/public").allows(uri) in {True, False}


async def test_nothing_is_allowed_by_default() -> None:
    """Without the setting even the public web is refused."""
    async with open_content_source("", timeout_s=1) as source:
        with pytest.raises(InvalidRequest) as caught:
            await source.fetch("https://example.org/", max_bytes=10)
    assert caught.value.reason == "FETCH_NOT_ALLOWED"


async def test_redirects_stay_within_the_prefixes() -> None:
    """One that leads elsewhere is refused before anything is asked there; one in a circle ends."""
    asked = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(str(request.url))
        where = {"/public/a": "/public/b", "/public/out": "http://169.254.169.254/", "/public/c": "/public/c"}
        path = request.url.path
        return (
            httpx2.Response(302, headers={"location": where[path]}) if path in where else httpx2.Response(200, text="b")
        )

    source = _source(answer)
    assert (await source.fetch("https://docs.example.org/public/a", max_bytes=10)).content == b"b"
    for path, reason in (("out", "FETCH_NOT_ALLOWED"), ("c", "FETCH_FAILED")):
        with pytest.raises(InvalidRequest) as caught:
            await source.fetch(f"https://docs.example.org/public/{path}", max_bytes=10)
        assert caught.value.reason == reason
    assert not any("169.254" in one for one in asked)


@pytest.mark.parametrize(
    ("status", "error"),
    [(404, InvalidRequest), (403, InvalidRequest), (503, BackendUnavailable), (429, BackendUnavailable)],
)
async def test_a_failure_is_for_good_or_for_now(status: int, error: type[Exception]) -> None:
    """What asks to come again later is told apart from what will not change."""
    source = _source(lambda _: httpx2.Response(status))
    with pytest.raises(error, match=str(status)):
        await source.fetch("http://intra:8080/x", max_bytes=10)


async def test_size_is_bounded_and_timeouts_are_told() -> None:
    """More bytes than allowed are not kept; a server that does not answer is for now."""
    with pytest.raises(InvalidRequest, match="more than 10 bytes"):
        await _source(lambda _: httpx2.Response(200, text="x" * 11)).fetch("http://intra:8080/x", max_bytes=10)

    def late(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ReadTimeout("late", request=request)

    with pytest.raises(BackendTimeout):
        await _source(late).fetch("http://intra:8080/x", max_bytes=10)


async def test_files_are_read_below_allowed_folders_only(tmp_path: Path) -> None:
    """A link that leads out is refused, as are folders and what is not there."""
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (inside / "a b.txt").write_text("text", encoding="utf-8")
    (outside / "secret").write_text("secret", encoding="utf-8")
    (inside / "link").symlink_to(outside / "secret")
    async with open_content_source(inside.as_uri(), timeout_s=5) as source:
        assert (await source.fetch((inside / "a b.txt").as_uri(), max_bytes=10)).content == b"text"
        for path, reason in (
            (inside / "link", "FETCH_NOT_ALLOWED"),
            (outside / "secret", "FETCH_NOT_ALLOWED"),
            (inside / "none", "FETCH_FAILED"),
            (inside, "FETCH_FAILED"),
        ):
            with pytest.raises(InvalidRequest) as caught:
                await source.fetch(path.as_uri(), max_bytes=10)
            assert caught.value.reason == reason


@pytest.mark.parametrize("setting", ["example.org", "ftp://x/", "https://", "file://host/x"])
def test_a_prefix_that_is_none_is_refused_at_start(setting: str) -> None:
    """The message names the setting."""
    with pytest.raises(InvalidRequest, match="fetch_allowed_prefixes"):
        read_prefixes(setting)
