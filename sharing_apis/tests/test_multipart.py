"""Forms parsed as they arrive: the result is the same wherever the network cuts the body."""

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hxmlops_sharing.incoming import Content, Incoming
from hxmlops_sharing.multipart import FormReader
from hxmlops_sharing.problems import Problem

BOUNDARY = "b0undary"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"


class InMemory:
    """An Incoming that remembers."""

    content: Content
    declared: str | None = None
    waits = True

    def __init__(self) -> None:
        self.data = b""

    async def write(self, data: bytes) -> None:
        self.data += data

    async def finish(self) -> Content:
        return self.content

    async def keep(self) -> bool:
        return True

    async def discard(self) -> None:
        pass


def form(parts: list[tuple[str, bytes]]) -> bytes:
    body = b""
    for name, data in parts:
        body += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + data + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode()


def read(pieces: list[bytes], content_type: str = CONTENT_TYPE) -> tuple[dict[str, str], bytes]:
    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    file = InMemory()
    texts = asyncio.run(FormReader(content_type, {"file": cast(Incoming, file)}).read(body()))
    return texts, file.data


def cut(data: bytes, places: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(place % len(data) for place in places)})
    return [data[start:stop] for start, stop in pairwise(places)]


tricky = st.lists(
    st.sampled_from([b"\r\n", b"--", b"\r", BOUNDARY.encode(), f"\r\n--{BOUNDARY[:-1]}".encode(), b"\0", b"text"])
    | st.binary(max_size=20)
).map(b"".join)


@settings(deadline=None)
@given(
    tricky.filter(lambda data: f"\r\n--{BOUNDARY}".encode() not in b"\r\n" + data), st.text(), st.lists(st.integers(0))
)
def test_a_form_is_the_same_however_it_is_cut(data: bytes, text: str, places: list[int]) -> None:
    body = form([("before", text.encode()), ("file", data), ("after", b"")])
    assert read(cut(body, places)) == ({"before": text, "after": ""}, data)


@settings(deadline=None)
@given(st.binary(max_size=200), st.lists(st.integers(0)))
def test_garbage_is_refused_and_never_an_unexpected_error(garbage: bytes, places: list[int]) -> None:
    body = form([("file", b"x")])[: len(garbage)] + garbage or b"-"
    with pytest.raises(Problem):
        read(cut(body, places))


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        (b"", 400, "the multipart/form-data ends before its last boundary"),
        (form([("file", b"x" * 100)])[:-20], 400, "the multipart/form-data ends before its last boundary"),
        (b"no form at all", 400, "the body is no multipart/form-data"),
        (form([("file", b"x"), ("file", b"y")]), 400, "a part of the form is there twice"),
        (form([("name", b"x")]), 422, "file: field required, as a file"),
        (form([("file", b""), ("name", b"\xff")]), 400, "text fields should be UTF-8"),
        (form([("file", b""), ("a", b"x" * (8 << 20)), ("b", b"x")]), 413, "text fields of more than 8 MiB together"),
        (form([(str(number), b"") for number in range(101)]), 413, "more than 100 parts"),
        (f"--{BOUNDARY}\r\nX: y\r\n\r\n\r\n--{BOUNDARY}--".encode(), 400, "a part of the form has no name"),
        (f"--{BOUNDARY}\r\nX: {'y' * 100_000}\r\n\r\n".encode(), 400, "the body is no multipart/form-data"),
    ],
)
def test_wrong_forms(body: bytes, status: int, detail: str) -> None:
    with pytest.raises(Problem) as refused:
        read([body])
    assert (refused.value.status_code, refused.value.detail) == (status, detail)


@pytest.mark.parametrize("parameters", ["", "; boundary=", "; boundary=" + "x" * 300])
def test_a_boundary_is_required(parameters: str) -> None:
    with pytest.raises(Problem, match="boundary"):
        read([form([])], f"multipart/form-data{parameters}")


def test_a_file_may_come_without_a_file_name_and_before_the_texts() -> None:
    parts: list[tuple[str, Any]] = [("file", b"data"), ("name", b"churn")]
    assert read([form(parts)]) == ({"name": "churn"}, b"data")
