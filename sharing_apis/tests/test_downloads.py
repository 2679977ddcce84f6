"""Bytes on their way out (RFC 9110): ETag, conditions, HEAD and ranges."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import httpx2 as httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hxmlops_sharing.downloads import parse_range
from hxmlops_sharing.problems import Problem
from hxmlops_sharing.store import BLOCK

type Start = Callable[..., AbstractContextManager[httpx.Client]]

BYTES = bytes(range(256)) * (3 * BLOCK // 256) + b"end"
URL = "/api/v1/model/by_id/1"


@pytest.fixture(scope="module")
def api(start_in: Start, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A Model Sharing API with one version, for tests that only read."""
    with start_in(tmp_path_factory.mktemp("downloads")) as client:
        client.post("/api/v1/model", data={"name": "a", "version": "1"}, files={"file": BYTES})
        yield client


def test_the_etag_is_the_digest(api: httpx.Client) -> None:
    answer = api.get(URL)
    assert answer.content == BYTES
    assert answer.headers["etag"] == f'"{api.get("/api/v1/model/1/data").json()["sha256"]}"'
    assert answer.headers["content-length"] == str(len(BYTES))
    assert answer.headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}', "*"])
def test_if_none_match(api: httpx.Client, form: str) -> None:
    etag = api.head(URL).headers["etag"]
    answer = api.get(URL, headers={"If-None-Match": form.format(etag)})
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    assert api.get(URL, headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize("path", [URL, "/api/v1/model/1", "/api/v1/model/1/data", "/api/v1/model_catalog", "/health"])
def test_head_answers_as_get_without_a_body(api: httpx.Client, path: str) -> None:
    head, get = api.head(path), api.get(path)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-length", "content-type", "etag"):
        assert head.headers.get(name) == get.headers.get(name)


@pytest.mark.parametrize(
    ("header", "first", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-", 100, len(BYTES)),
        ("bytes=-3", len(BYTES) - 3, len(BYTES)),
        (f"bytes=1-{10**17}", 1, len(BYTES)),
        (f"bytes={BLOCK - 1}-{2 * BLOCK}", BLOCK - 1, 2 * BLOCK + 1),
    ],
)
def test_single_ranges(api: httpx.Client, header: str, first: int, stop: int) -> None:
    answer = api.get(URL, headers={"Range": header})
    assert answer.status_code == 206
    assert answer.content == BYTES[first:stop]
    assert answer.headers["content-range"] == f"bytes {first}-{stop - 1}/{len(BYTES)}"


@pytest.mark.parametrize(
    "header", ["bytes=5-1", "bytes=-", "bytes=a-b", "lines=1-2", "bytes=0-1,5-6", "bytes=" + "9" * 99]
)
def test_other_ranges_are_ignored(api: httpx.Client, header: str) -> None:
    assert api.get(URL, headers={"Range": header}).status_code == 200


@pytest.mark.parametrize("header", [f"bytes={len(BYTES)}-", "bytes=-0"])
def test_a_range_beyond_the_end_is_416(api: httpx.Client, header: str) -> None:
    answer = api.get(URL, headers={"Range": header})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{len(BYTES)}"


def test_if_range_gives_the_whole_when_the_bytes_are_others(api: httpx.Client) -> None:
    etag = api.head(URL).headers["etag"]
    assert api.get(URL, headers={"Range": "bytes=0-0", "If-Range": etag}).status_code == 206
    assert api.get(URL, headers={"Range": "bytes=0-0", "If-Range": '"other"'}).status_code == 200


def test_an_empty_file(models: httpx.Client) -> None:
    models.post("/api/v1/model", data={"name": "a", "version": "1"}, files={"file": b""})
    assert models.get(URL).content == b""
    assert models.get(URL, headers={"Range": "bytes=0-"}).status_code == 416


@settings(deadline=None)
@given(st.integers(0, 20), st.integers(0, 30), st.integers(0, 30))
def test_ranges_are_those_of_slices(size: int, first: int, last: int) -> None:
    data = bytes(range(size))
    for header, expected in (
        (f"bytes={first}-{last}", data[first : last + 1]),
        (f"bytes={first}-", data[first:]),
        (f"bytes=-{last}", data[-last:] if last else b""),
    ):
        if expected:
            assert parse_range(header, size) == (data.index(expected), data.index(expected) + len(expected))
        elif header == f"bytes={first}-{last}" and last < first:
            assert parse_range(header, size) is None
        else:
            with pytest.raises(Problem, match=f"there are {size} bytes"):
                parse_range(header, size)
