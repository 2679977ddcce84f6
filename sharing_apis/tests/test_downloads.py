"""Bytes on their way out (RFC 9110, RFC 9530): ETag, conditions, HEAD, ranges, digests; slow and vanishing clients."""

import asyncio
import base64
import email
import email.policy
import gc
import hashlib
import os
import re
import resource
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import uvicorn
import uvloop
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from hxmlops_sharing.downloads import answer_bytes, attachment
from hxmlops_sharing.folder_store import FolderStore
from hxmlops_sharing.problems import Problem
from hxmlops_sharing.reading import Memory
from hxmlops_sharing.store import BLOCK, Segment, Store, StoreUnavailable
from hxmlops_sharing.zips import Piece

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
    "header",
    ["bytes=5-1", "bytes=-", "bytes=a-b", "lines=1-2", "bytes=0-1,b", "bytes=0-0" + ",5-5" * 100, "bytes=" + "9" * 99],
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
    for other in ('"other"', f"W/{etag}", "Sat, 01 Jan 2050 00:00:00 GMT", "*"):
        assert api.get(URL, headers={"Range": "bytes=0-0", "If-Range": other}).status_code == 200


@pytest.mark.parametrize(
    ("form", "status"), [("{}", 200), ('"other", {}', 200), ("*", 200), ("W/{}", 412), ('"other"', 412), ("other", 412)]
)
def test_if_match(api: httpx.Client, form: str, status: int) -> None:
    etag = api.head(URL).headers["etag"]
    assert api.get(URL, headers={"If-Match": form.format(etag)}).status_code == status


def test_dates_are_no_condition(api: httpx.Client) -> None:
    later = "Sat, 01 Jan 2050 00:00:00 GMT"
    assert api.get(URL, headers={"If-Modified-Since": later, "If-Unmodified-Since": "x"}).status_code == 200


def test_the_digest_is_told(api: httpx.Client) -> None:
    digest = f"sha-256=:{base64.b64encode(hashlib.sha256(BYTES).digest()).decode()}:"
    whole, part, head = api.get(URL), api.get(URL, headers={"Range": "bytes=0-0"}), api.head(URL)
    assert [each.headers.get("repr-digest") for each in (whole, part, head)] == [digest] * 3
    assert [each.headers.get("content-digest") for each in (whole, part, head)] == [digest, None, None]


def test_no_cache_between_keeps_it_for_others(api: httpx.Client) -> None:
    etag = api.head(URL).headers["etag"]
    for headers in ({}, {"Range": "bytes=0-0"}, {"Range": "bytes=0-0,9000-9009"}, {"If-None-Match": etag}):
        answer = api.get(URL, headers=headers)
        assert answer.headers["cache-control"] == "private, no-transform"
        assert answer.headers["vary"] == "Authorization"
        assert answer.headers.get("x-content-type-options") == (None if answer.status_code == 304 else "nosniff")


def parts_of(answer: httpx.Response) -> list[tuple[str, bytes]]:
    """(Content-Range, bytes) of each part, as the standard library's parser sees them."""
    assert answer.status_code == 206
    assert "content-range" not in answer.headers
    text = b"Content-Type: " + answer.headers["content-type"].encode() + b"\r\n\r\n" + answer.content
    message = email.message_from_bytes(text, policy=email.policy.HTTP)
    assert message.is_multipart()
    return [(part["content-range"], bytes(part.get_payload(decode=True))) for part in message.iter_parts()]


def test_several_ranges(api: httpx.Client) -> None:
    wanted = [(0, 3), (5000, 5009), (BLOCK - 5, BLOCK + 5), (len(BYTES) - 3, len(BYTES) - 1)]
    header = "bytes=" + " , ".join(f"{first}-{last}" for first, last in reversed(wanted))
    answer = api.get(URL, headers={"Range": header})
    assert parts_of(answer) == [
        (f"bytes {first}-{last}/{len(BYTES)}", BYTES[first : last + 1]) for first, last in wanted
    ]
    assert answer.headers["content-length"] == str(len(answer.content))
    other = api.get(URL, headers={"Range": header})
    assert other.headers["content-type"] != answer.headers["content-type"], "a boundary that can be foreseen"


def test_ranges_that_overlap_or_are_near_become_one(api: httpx.Client) -> None:
    answer = api.get(
        URL, headers={"Range": "bytes=" + ",".join(f"{first}-{first + 50}" for first in range(0, 1000, 10))}
    )
    assert (answer.headers["content-range"], answer.content) == (f"bytes 0-1040/{len(BYTES)}", BYTES[:1041])


def test_many_ranges_never_cost_more_than_the_whole(api: httpx.Client) -> None:
    assert api.get(URL, headers={"Range": "bytes=" + ",".join(["0-"] * 100)}).content == BYTES
    every = ",".join(f"{first}-{first + len(BYTES) // 100 - 200}" for first in range(0, len(BYTES), len(BYTES) // 99))
    assert len(api.get(URL, headers={"Range": f"bytes={every}"}).content) <= len(BYTES)


def test_an_empty_file(models: httpx.Client) -> None:
    models.post("/api/v1/model", data={"name": "a", "version": "1"}, files={"file": b""})
    assert models.get(URL).content == b""
    assert models.get(URL, headers={"Range": "bytes=0-"}).status_code == 416


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a_1_files.zip", "attachment; filename=a_1_files.zip"),
        ("a b", "attachment; filename=\"a b\"; filename*=UTF-8''a%20b"),
        ("é", "attachment; filename=\"_\"; filename*=UTF-8''%C3%A9"),
        ('a"; x="', "attachment; filename=\"a__ x__\"; filename*=UTF-8''a%22%3B%20x%3D%22"),
        ("a\r\nSet-Cookie: b", "attachment; filename=\"a__Set-Cookie_ b\"; filename*=UTF-8''a__Set-Cookie%3A%20b"),
        ("../../etc/passwd", "attachment; filename=\".._.._etc_passwd\"; filename*=UTF-8''..%2F..%2Fetc%2Fpasswd"),
        ("gpj\u202eexe", "attachment; filename=\"gpj_exe\"; filename*=UTF-8''gpj_exe"),
        ("\ud800", "attachment; filename=\"_\"; filename*=UTF-8''_"),
    ],
)
def test_any_name_is_safe_in_a_header(name: str, expected: str) -> None:
    assert attachment(name) == expected


def test_memory_is_used_again_once_nobody_looks_at_it() -> None:
    memory = Memory()
    first = memory.take()
    view = memoryview(first)[:10]
    second = memory.take()
    assert second is not first
    del view
    assert {id(memory.take()) for _ in range(9)} == {id(first)}


class Ends:
    """What a download's end was told, and a store to try."""

    def __init__(self, store: Any, segments: tuple[Segment, ...], **options: Any) -> None:
        self.store, self.segments, self.options = store, segments, options
        self.ended: list[tuple[int, bool, str]] = []
        self.event = threading.Event()

    async def end(self, sent: int, complete: bool, ranges: str) -> None:
        self.ended.append((sent, complete, ranges))
        self.event.set()


@contextmanager
def served(ends: Ends) -> Iterator[str]:
    """A server of one object, as ours are served."""
    app = FastAPI()

    @app.api_route("/", methods=["GET", "HEAD"])
    async def get(request: Request) -> Response:
        piece = Piece(sum(segment.size for segment in ends.segments), segments=ends.segments)
        return await answer_bytes(
            request, ends.store, [piece], sha256="sha256:00", media_type="text/plain", end=ends.end, **ends.options
        )

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:  # noqa: ARG001
        assert isinstance(error, Problem)
        return JSONResponse({"slug": error.slug}, error.status_code, error.headers)

    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, http="httptools", lifespan="off", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(server.serve([listening]),))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        tasks = asyncio.run_coroutine_threadsafe(_tasks(), loop).result(10)
        assert not [task for task in tasks if "_watch" in task or "_next" in task], tasks
    finally:
        server.should_exit = True
        thread.join()
        loop.close()
        listening.close()


async def _tasks() -> list[str]:
    await asyncio.sleep(0.05)
    return [repr(task) for task in asyncio.all_tasks()]


def objects(folder: Path, *contents: bytes) -> tuple[Store, tuple[Segment, ...]]:
    """A folder store with these contents."""
    for number, content in enumerate(contents):
        (folder / f"{number}").write_bytes(content)
    return FolderStore(folder), tuple(Segment(f"{number}", len(content)) for number, content in enumerate(contents))


class Scripted:
    """A store that is no folder: gives blocks, or raises what is in their place."""

    def __init__(self, *script: bytes | Exception, size: int | Exception, url: str | None = None) -> None:
        self.script, self.said, self.presigned = script, size, url
        self.closed = 0

    def path(self, location: str) -> None:  # noqa: ARG002
        return None

    async def size(self, location: str) -> int:  # noqa: ARG002
        if isinstance(self.said, Exception):
            raise self.said
        return self.said

    async def read(self, location: str, start: int, stop: int) -> AsyncIterator[bytes]:  # noqa: ARG002
        try:
            for each in self.script:
                if isinstance(each, Exception):
                    raise each
                if not each:
                    await asyncio.sleep(3600)
                yield each
        finally:
            self.closed += 1

    async def url(self, location: str, *, filename: str, media_type: str) -> str | None:
        assert (location, filename, media_type) == ("x", "sha256:00", "text/plain")
        return self.presigned


def test_ranges_across_segments(tmp_path: Path) -> None:
    contents = [b"0123456789", b"", b"abc" * BLOCK, b"xyz"]
    ends = Ends(*objects(tmp_path, *contents))
    whole = b"".join(contents)
    with served(ends) as url:
        assert httpx.get(url).content == whole
        for start, stop in [(0, 10), (9, 11), (0, len(whole)), (10, 3 * BLOCK + 12), (len(whole) - 4, len(whole))]:
            assert httpx.get(url, headers={"Range": f"bytes={start}-{stop - 1}"}).content == whole[start:stop]
        answer = httpx.get(url, headers={"Range": f"bytes=8-11,{len(whole) - 5}-"})
        assert [data for _, data in parts_of(answer)] == [whole[8:12], whole[-5:]]
    assert ends.ended[0] == (len(whole), True, "")
    assert ends.ended[1] == (10, True, "0-9")
    assert ends.ended[-1] == (len(answer.content), True, f"8-11,{len(whole) - 5}-{len(whole) - 1}")


def test_bytes_that_are_not_in_memory(tmp_path: Path) -> None:
    data = os.urandom(9 * BLOCK + 5)
    ends = Ends(*objects(tmp_path, data))
    descriptor = os.open(tmp_path / "0", os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    with served(ends) as url:
        assert httpx.get(url).content == data


def test_lost_or_shortened_bytes_are_said(tmp_path: Path) -> None:
    store, segments = objects(tmp_path, b"0123456789")
    for broken in (Segment("9", 10), Segment("0", 11)):
        ends = Ends(store, (*segments, broken))
        with served(ends) as url:
            answer = httpx.get(url)
            assert (answer.status_code, answer.json()) == (500, {"slug": "damaged"})
            assert httpx.get(url, headers={"Range": "bytes=2-3"}).content == b"23"


@pytest.mark.parametrize(
    "store",
    [
        Scripted(size=StoreUnavailable("gone")),
        Scripted(size=OSError(5, "broken")),
        Scripted(StoreUnavailable("gone"), size=9),
        Scripted(OSError(5, "broken"), size=9),
    ],
)
def test_a_store_that_fails_before_the_first_byte_is_503(store: Scripted) -> None:
    with served(Ends(store, (Segment("x", 9),))) as url:
        answer = httpx.get(url)
        assert (answer.status_code, answer.json()) == (503, {"slug": "store-unavailable"})


@pytest.mark.parametrize("error", [StoreUnavailable("gone"), EOFError("short"), OSError(5, "broken")])
def test_a_store_that_fails_later_cuts_the_connection(error: Exception) -> None:
    ends = Ends(Scripted(b"0123", error, size=9), (Segment("x", 9),))
    with served(ends) as url, pytest.raises(httpx.RemoteProtocolError):
        httpx.get(url)
    assert ends.ended == [(4, False, "")]


def test_blocks_of_a_store_come_in_order() -> None:
    store = Scripted(*[bytes([number]) * 100_000 for number in range(50)], size=5_000_000)
    ends = Ends(store, (Segment("x", 5_000_000),))
    with served(ends) as url:
        assert httpx.get(url).content == b"".join(bytes([number]) * 100_000 for number in range(50))
    assert store.closed == 1


def test_clients_may_be_sent_to_the_store() -> None:
    there = "https://s3.example/x?signature=1"

    async def begin() -> dict[str, str]:
        return {"X-HXMLOps-Receipt": "/1"}

    ends = Ends(Scripted(size=9, url=there), (Segment("x", 9),), redirect=True, begin=begin)
    with served(ends) as url:
        answer = httpx.get(url, headers={"Range": "bytes=0-1"})
        assert (answer.status_code, answer.headers["location"]) == (307, there)
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-hxmlops-receipt"] == "/1"
        assert httpx.head(url).status_code == 200
        assert httpx.get(url, headers={"If-None-Match": "*"}).status_code == 304
        assert httpx.get(url, headers={"If-Match": '"x"'}).status_code == 412
    assert ends.ended == [(0, False, "0-1")]


def test_what_is_in_several_places_is_not_sent_elsewhere() -> None:
    store = Scripted(b"x" * 9, size=9, url="https://s3.example/x")
    with served(Ends(store, (Segment("x", 9), Segment("x", 9)), redirect=True)) as url:
        assert httpx.get(url, headers={"Range": "bytes=0-8"}).content == b"x" * 9


@pytest.mark.parametrize("kind", ["folder", "other"])
def test_a_client_that_goes_away_stops_the_reading(tmp_path: Path, kind: str) -> None:
    size = 64 * BLOCK
    if kind == "folder":
        (tmp_path / "x").touch()
        os.truncate(tmp_path / "x", size)
        store: Any = FolderStore(tmp_path)
    else:
        store = Scripted(b"1" * BLOCK, b"", size=size)
    ends = Ends(store, (Segment("x", size),))
    with served(ends) as url:
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(5):
            ends.event.clear()
            with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                assert client.recv(100)
            assert ends.event.wait(10), "still reading for nobody"
        assert all(sent < size and not complete for sent, complete, _ in ends.ended), ends.ended
        gc.collect()
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1
    if kind == "other":
        assert store.closed == 5


def test_slow_clients_cost_little_memory(tmp_path: Path) -> None:
    size = 512 * BLOCK
    (tmp_path / "x").touch()
    os.truncate(tmp_path / "x", size)
    ends = Ends(FolderStore(tmp_path), (Segment("x", size),))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with served(ends) as url, socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(4096)
        threading.Event().wait(0.3)
        length = re.search(rb"content-length: (\d+)", head)
        assert length is not None
        assert int(length[1]) == size
        received, buffer = len(head.partition(b"\r\n\r\n")[2]), bytearray(BLOCK)
        while got := client.recv_into(buffer):
            received += got
        assert received == size
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown_mib < 60
