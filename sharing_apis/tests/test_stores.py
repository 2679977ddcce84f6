"""What every store does, and what the one on S3 does when the server, the line or the disk fails."""

import asyncio
import contextlib
import errno
import os
import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import s3_server
from certificates import make_certificates
from s3_server import BUCKET, S3Server, on_s3

from hxmlops_sharing import s3_store
from hxmlops_sharing.folder_store import FolderStore
from hxmlops_sharing.s3_store import S3Store
from hxmlops_sharing.settings import Settings
from hxmlops_sharing.store import BLOCK, Segment, Store, StoreError, StoreUnavailable, Writer

pytestmark = pytest.mark.anyio

MIB = 1 << 20
SOME = random.Random(7).randbytes(24 * MIB + 3)  # noqa: S311 - test data


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """As the servers run."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="module")
def on_loopback(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server.running(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
async def bucket(on_loopback: S3Server, request: pytest.FixtureRequest) -> AsyncIterator[S3Store]:
    """A store below a prefix of the test's own."""
    async with opened(on_loopback, prefix=request.node.name) as store:
        yield store


@pytest.fixture(params=["folder", pytest.param("s3", marks=on_s3)])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    if request.param == "folder":
        folder = FolderStore(tmp_path / "store")
        await folder.open()
        yield folder
        await folder.close()
    else:
        server = request.getfixturevalue("on_loopback")
        async with opened(server, prefix=tmp_path.name) as bucket:
            yield bucket


@contextlib.asynccontextmanager
async def opened(server: S3Server, *, prefix: str = "", **given: Any) -> AsyncIterator[S3Store]:
    store = S3Store(settings(server, **{"store": f"s3://{BUCKET}/{prefix}"} | given))
    await store.open()
    yield store
    await store.close()


def settings(server: S3Server, **given: Any) -> Settings:
    return Settings(**{"kind": "model", "auth": "none", "database": "unused"} | server.settings | given)


async def put(store: Store, content: bytes) -> Segment:
    writer = store.writer()
    await fill(writer, content)
    segment = await writer.finish()
    writer.keep()
    return segment


async def fill(writer: Writer, content: bytes) -> None:
    for at in range(0, len(content), BLOCK):
        await writer.write(content[at : at + BLOCK])


async def got(store: Store, segment: Segment, start: int = 0, stop: int | None = None) -> bytes:
    return b"".join(
        [block async for block in store.read(segment.location, start, segment.size if stop is None else stop)]
    )


async def listed(store: Store, older_than_s: float = 0) -> list[Segment]:
    return sorted([each async for each in store.list(older_than_s=older_than_s)], key=lambda each: each.location)


def below(store: S3Store, keys: list[str]) -> list[str]:
    """Those of the store's objects, among keys of the bucket."""
    above = f"{store.prefix}/objects/"
    return [key.removeprefix(f"{store.prefix}/") for key in keys if key.startswith(above)]


@pytest.mark.parametrize("size", [0, 1, BLOCK, 5 * MIB, 5 * MIB + 1, len(SOME)])
async def test_what_was_written_is_read(store: Store, size: int) -> None:
    segment = await put(store, SOME[:size])
    assert segment.size == size == await store.size(segment.location)
    assert re.fullmatch(r"objects/([0-9a-f]{2})/\1[0-9a-f]{30}", segment.location)
    assert await got(store, segment) == SOME[:size]
    path = store.path(segment.location)
    assert path is None or path.read_bytes() == SOME[:size]


async def test_ranges_are_read_in_blocks(store: Store) -> None:
    segment = await put(store, SOME)
    for start, stop in ((0, 1), (MIB - 1, MIB + 1), (8 * MIB, 17 * MIB + 5), (len(SOME) - 1, len(SOME)), (5, 5)):
        assert await got(store, segment, start, stop) == SOME[start:stop]
    blocks = [len(block) async for block in store.read(segment.location, 0, segment.size)]
    assert max(blocks) <= 2 * BLOCK


async def test_a_reader_may_stop_early(store: Store) -> None:
    segment = await put(store, SOME)
    blocks = store.read(segment.location, 0, segment.size)
    first = await anext(blocks)
    await blocks.aclose()  # type: ignore[attr-defined]
    assert first == SOME[: len(first)]


async def test_too_few_bytes_are_an_error(store: Store) -> None:
    segment = await put(store, b"four")
    for start, stop in ((0, 5), (3, 9), (4, 5), (700, 800)):
        with pytest.raises(EOFError, match=segment.location):
            await got(store, segment, start, stop)


async def test_nothing_is_nowhere(store: Store) -> None:
    nothing = Segment("objects/00/" + 32 * "0", 1)
    assert await store.size(nothing.location) is None
    await store.remove(nothing.location)
    with pytest.raises(FileNotFoundError):
        await got(store, nothing)


@pytest.mark.parametrize("size", [0, 3, 20 * MIB])
@pytest.mark.parametrize("finished", [True, False])
async def test_discarded_bytes_are_gone(store: Store, size: int, *, finished: bool) -> None:
    writer = store.writer()
    await writer.discard()
    writer = store.writer()
    await fill(writer, SOME[:size])
    if finished:
        segment = await writer.finish()
    await writer.discard()
    await writer.discard()
    assert await listed(store) == []
    assert not finished or await store.size(segment.location) is None


async def test_kept_bytes_stay(store: Store) -> None:
    writer = store.writer()
    await writer.write(b"kept")
    segment = await writer.finish()
    writer.keep()
    assert await got(store, segment) == b"kept"


async def test_what_is_being_written_is_not_listed(store: Store) -> None:
    kept = [await put(store, content) for content in (b"", b"one", SOME)]
    begun, ended = store.writer(), store.writer()
    await fill(begun, SOME)
    await ended.write(b"some")
    await ended.finish()
    assert await listed(store) == sorted(kept, key=lambda each: each.location)
    await begun.discard()
    await ended.discard()
    for segment in kept:
        await store.remove(segment.location)
        await store.remove(segment.location)
    assert await listed(store) == []


async def test_many_at_once(store: Store) -> None:
    contents = [bytes([number]) * (number * MIB + number) for number in range(12)]
    segments = await asyncio.gather(*(put(store, content) for content in contents))
    assert len({segment.location for segment in segments}) == 12
    assert await asyncio.gather(*(got(store, segment) for segment in segments)) == contents


async def test_check_of_a_sound_store(store: Store) -> None:
    await store.check()


async def test_a_cancelled_upload_leaves_nothing(store: Store) -> None:
    writer = store.writer()
    upload = asyncio.create_task(fill(writer, SOME))
    await asyncio.sleep(0.02)
    upload.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await upload
    await writer.discard()
    assert await listed(store) == []


async def test_urls(store: Store) -> None:
    segment = await put(store, SOME[:1000])
    url = await store.url(segment.location, filename='a "b"/ü.onnx', media_type="application/x-some")
    if isinstance(store, FolderStore):
        assert url is None
        return
    assert url is not None
    async with httpx.AsyncClient() as client:
        whole = await client.get(url)
        part = await client.get(url, headers={"Range": "bytes=10-19"})
        forged = await client.get(url.replace(segment.location, "objects/00/0"))
    assert (whole.status_code, whole.content) == (200, SOME[:1000])
    assert whole.headers["content-type"] == "application/x-some"
    assert whole.headers["content-disposition"].endswith("; filename*=UTF-8''a%20%22b%22%2F%C3%BC.onnx")
    assert (part.status_code, part.content) == (206, SOME[10:20])
    assert forged.status_code == 403


@on_s3
async def test_an_unfinished_upload_is_aborted(bucket: S3Store, on_loopback: S3Server) -> None:
    writer = bucket.writer()
    await fill(writer, SOME)
    assert below(bucket, on_loopback.objects()) == []
    await writer.discard()
    assert below(bucket, on_loopback.objects() + on_loopback.unfinished()) == []


@on_s3
async def test_what_a_killed_server_left_is_listed_and_removed(bucket: S3Store, on_loopback: S3Server) -> None:
    location = "objects/ab/ab" + 30 * "0"
    on_loopback.client().create_multipart_upload(Bucket=BUCKET, Key=f"{bucket.prefix}/{location}")
    assert await listed(bucket, older_than_s=60) == []
    assert await listed(bucket) == [Segment(location, 0)]
    await bucket.remove(location)
    assert await listed(bucket) == []
    assert below(bucket, on_loopback.unfinished()) == []


@on_s3
async def test_age_is_by_the_clock_of_the_server(bucket: S3Store, on_loopback: S3Server) -> None:
    segment = await put(bucket, b"old")
    assert await listed(bucket, older_than_s=60) == []
    path = on_loopback.data / BUCKET / bucket.prefix / segment.location
    os.utime(path, (time.time() - 100, time.time() - 100))
    assert await listed(bucket, older_than_s=60) == [segment]
    assert await listed(bucket, older_than_s=200) == []


@on_s3
async def test_a_long_upload_of_another_server_is_not_listed(
    bucket: S3Store, on_loopback: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = bucket.writer()
    monkeypatch.setattr(s3_store, "_BEAT_S", 0)
    await fill(writer, SOME)
    monkeypatch.setattr(s3_store, "_BEAT_S", 300)
    async with opened(on_loopback, store=f"s3://{BUCKET}/{bucket.prefix}") as other:
        assert await listed(other) == []
        segment = await writer.finish()
        writer.keep()
        assert await listed(other) == []
        for beat in (on_loopback.data / BUCKET / bucket.prefix / "writing").iterdir():
            os.utime(beat, (time.time() - 1000, time.time() - 1000))
        assert await listed(other) == [segment]
        assert not [key for key in on_loopback.objects() if key.startswith(f"{bucket.prefix}/writing/")]


@on_s3
async def test_stores_with_other_prefixes_are_apart(on_loopback: S3Server) -> None:
    async with opened(on_loopback, prefix="one") as one, opened(on_loopback, prefix="one/two") as two:
        segment = await put(one, b"one")
        assert await listed(two) == []
        assert await two.size(segment.location) is None


@on_s3
async def test_an_object_has_a_largest_size(bucket: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_store, "LARGEST", 2 * MIB)
    writer = bucket.writer()
    with pytest.raises(OSError, match="larger than an object may be"):
        await fill(writer, SOME)
    await writer.discard()


@on_s3
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"s3_secret_key": "not-this-one"}, "S3_ACCESS_KEY: .* refuses it .*403 SignatureDoesNotMatch.*: set it and"),
        ({"s3_access_key": "UNKNOWN"}, "S3_ACCESS_KEY: .* refuses it .*: set it and"),
        ({"s3_secret_key": ""}, "S3_ACCESS_KEY and HXMLOPS_SHARING_S3_SECRET_KEY belong together"),
        ({"store": "s3://nowhere"}, "STORE: .* has no bucket nowhere: make it, or name another"),
        ({"store": "s3://no"}, "STORE names no bucket: write s3://BUCKET"),
        ({"store": "s3://artifacts/a/../b"}, "STORE: the prefix is more than names of letters"),
        ({"store": "s3://artifacts/a?b"}, "STORE: the prefix is more than names of letters"),
        ({"s3_region": "elsewhere"}, "S3_REGION: bucket artifacts is in another region: name that one"),
        ({"s3_endpoint": "http://127.0.0.1:9"}, "S3_ENDPOINT: http://127.0.0.1:9: S3 cannot be reached: start the"),
        ({"s3_endpoint": "ftp://127.0.0.1"}, "S3_ENDPOINT is not a URL"),
        ({"s3_endpoint": "http://user:word@127.0.0.1"}, "S3_ENDPOINT is not a URL"),
    ],
)
async def test_what_is_wrong_is_said_at_the_start(on_loopback: S3Server, given: dict[str, str], said: str) -> None:
    with pytest.raises(StoreError, match=f"^HXMLOPS_SHARING_{said}") as refused:
        await S3Store(settings(on_loopback, **given)).open()
    assert "\n" not in str(refused.value)
    assert on_loopback.secret_key not in str(refused.value)
    assert "Signature=" not in str(refused.value)


@on_s3
async def test_certificates_are_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificates = make_certificates(tmp_path / "certificates")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "ca.pem"))
    with s3_server.running(tmp_path, certificates=certificates) as server:
        async with opened(server) as store:
            segment = await put(store, SOME)
            assert await got(store, segment) == SOME
            assert await listed(store) == [segment]
        monkeypatch.delenv("SSL_CERT_FILE")
        with pytest.raises(StoreError, match="its certificate is not trusted here: name the file of its CA in SSL_C"):
            await S3Store(settings(server)).open()


@on_s3
async def test_the_environment_of_others_changes_nothing(
    on_loopback: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of-another")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    monkeypatch.setenv("AWS_REGION", "of-another")
    async with opened(on_loopback, prefix="environment") as store:
        assert await got(store, await put(store, SOME)) == SOME


@on_s3
async def test_a_lost_bucket_is_not_taken_for_lost_objects(tmp_path: Path) -> None:
    with s3_server.running(tmp_path) as server:
        async with opened(server) as store:
            segment = await put(store, b"some")
            (server.data / BUCKET).rename(server.data / "moved")
            for ask in (lambda: store.size(segment.location), store.check, lambda: got(store, segment)):
                with pytest.raises(StoreUnavailable, match="NoSuchBucket"):
                    await ask()
            (server.data / "moved").rename(server.data / BUCKET)
            assert await store.size(segment.location) == 4


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits of time that a test can wait for."""
    monkeypatch.setattr(s3_store, "_REQUEST_S", 1.5)
    monkeypatch.setattr(s3_store, "_COMPLETE_S", 1.5)
    monkeypatch.setattr(s3_store, "_STALLED_S", 3)
    monkeypatch.setattr(s3_store, "_DISCARD_S", 3)
    monkeypatch.setitem(s3_store._RETRY, "max_retries", 2)


async def finished(writer: Writer, content: bytes) -> Segment:
    await fill(writer, content)
    return await writer.finish()


@on_s3
@pytest.mark.usefixtures("impatient")
async def test_a_server_killed_during_an_upload(tmp_path: Path) -> None:
    with s3_server.running(tmp_path) as server:
        async with opened(server) as store:
            writer = store.writer()
            await fill(writer, SOME)
            server.kill()
            with pytest.raises(StoreUnavailable, match=r"cannot be reached|broke off"):
                await finished(writer, SOME)
            with pytest.raises(StoreUnavailable):
                await store.check()
            await writer.discard()
            server.start()
            assert await store.size("objects/00/" + 32 * "0") is None
            (left,) = await listed(store)
            await store.remove(left.location)
            assert server.objects() == ["probe/clock"]
            assert server.unfinished() == []
            assert await got(store, await put(store, SOME)) == SOME


@on_s3
async def test_a_server_that_comes_back_soon_is_waited_for(tmp_path: Path) -> None:
    with s3_server.running(tmp_path) as server:
        async with opened(server) as store:
            writer = store.writer()
            await fill(writer, SOME)
            server.kill()
            back = asyncio.get_running_loop().call_later(0.5, server.start)
            segment = await writer.finish()
            back.cancel()
            writer.keep()
            blocks = store.read(segment.location, 0, segment.size)
            content = await anext(blocks)
            server.kill()
            asyncio.get_running_loop().call_later(0.5, server.start)
            async for block in blocks:
                content += block
            assert content == SOME


@on_s3
@pytest.mark.usefixtures("impatient")
async def test_a_server_killed_during_a_download(tmp_path: Path) -> None:
    with s3_server.running(tmp_path) as server:
        async with opened(server) as store:
            segment = await put(store, SOME)
            blocks = store.read(segment.location, 0, segment.size)
            assert SOME.startswith(await anext(blocks))
            server.kill()
            with pytest.raises(StoreUnavailable):
                _ = [block async for block in blocks]


class Line:
    """A line to a server that can be slow, silent, or break after some bytes of an answer."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.down_limits: list[int] = []
        self.up_limits: list[int] = []
        self.silent = False
        self.delay_s = 0.0
        self.cuts = 0

    async def __aenter__(self) -> "Line":
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.port)
        pipes = [
            asyncio.create_task(self.pipe(reader, up_writer, self.up_limits)),
            asyncio.create_task(self.pipe(up_reader, writer, self.down_limits)),
        ]
        await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
        for pipe in pipes:
            pipe.cancel()
        await asyncio.gather(*pipes, return_exceptions=True)
        writer.close()
        up_writer.close()

    async def pipe(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, limits: list[int]) -> None:
        passed = 0
        while data := await source.read(1 << 16):
            while self.silent:
                await asyncio.sleep(0.05)
            await asyncio.sleep(self.delay_s)
            passed += len(data)
            if limits and passed > limits[0]:
                limits.pop(0)
                self.cuts += 1
                return
            sink.write(data)
            await sink.drain()


@pytest.fixture
async def line(on_loopback: S3Server) -> AsyncIterator[Line]:
    async with Line(on_loopback.port) as line:
        yield line


@on_s3
async def test_a_line_that_breaks_during_a_download(on_loopback: S3Server, line: Line) -> None:
    async with opened(on_loopback, prefix="broken-down", s3_endpoint=line.url) as store:
        segment = await put(store, SOME)
        line.down_limits += [3 * MIB, 100, 2 * MIB, 5 * MIB]
        assert await got(store, segment) == SOME
        assert line.cuts == 4


@on_s3
async def test_a_line_that_breaks_during_an_upload(on_loopback: S3Server, line: Line) -> None:
    async with opened(on_loopback, prefix="broken-up", s3_endpoint=line.url) as store:
        line.up_limits += [3 * MIB, 100, 2 * MIB]
        assert await got(store, await put(store, SOME)) == SOME
        assert line.cuts == 3


@on_s3
@pytest.mark.usefixtures("impatient")
async def test_a_line_that_breaks_again_and_again(on_loopback: S3Server, line: Line) -> None:
    async with opened(on_loopback, prefix="broken", s3_endpoint=line.url) as store:
        segment = await put(store, SOME)
        line.down_limits += [3 * MIB] + 100 * [1000]
        with pytest.raises(StoreUnavailable, match="S3 broke off its answer"):
            await got(store, segment)
        line.down_limits.clear()
        line.up_limits += 100 * [MIB // 2]
        writer = store.writer()
        with pytest.raises(StoreUnavailable):
            await finished(writer, SOME)
        line.up_limits.clear()
        await writer.discard()
        assert below(store, on_loopback.objects() + on_loopback.unfinished()) == [segment.location]


@on_s3
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("what", ["check", "size", "read", "write", "finish", "list", "remove"])
async def test_a_server_that_says_nothing(
    on_loopback: S3Server, line: Line, what: str, request: pytest.FixtureRequest
) -> None:
    async with opened(on_loopback, prefix=f"silent-{request.node.callspec.id}", s3_endpoint=line.url) as store:
        segment = await put(store, SOME)
        writer = store.writer()
        doing: dict[str, Callable[[], Awaitable[Any]]] = {
            "check": store.check,
            "size": lambda: store.size(segment.location),
            "read": lambda: got(store, segment),
            "write": lambda: fill(writer, SOME + SOME),
            "finish": lambda: finished(writer, b"some"),
            "list": lambda: listed(store),
            "remove": lambda: store.remove(segment.location),
        }
        line.silent = True
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match=r"not answer in time|takes no bytes|cannot be reached|broke off"):
            await doing[what]()
        assert time.monotonic() - began < 15
        line.silent = False
        await writer.discard()
        await asyncio.sleep(0.2)  # what was on the line when it fell silent arrives now, after all
        for left in await listed(store):
            if left != segment:
                await store.remove(left.location)
        assert set(below(store, on_loopback.objects() + on_loopback.unfinished())) <= {segment.location}
        await store.check()


@on_s3
async def test_a_slow_line(on_loopback: S3Server, line: Line) -> None:
    async with opened(on_loopback, prefix="slow", s3_endpoint=line.url) as store:
        line.delay_s = 0.005
        assert await got(store, await put(store, SOME)) == SOME


@on_s3
@pytest.mark.usefixtures("impatient")
async def test_a_full_disk_of_the_server(tmp_path: Path) -> None:
    with s3_server.running(tmp_path, disk_mib=32) as server:
        async with opened(server) as store:
            segment = await put(store, SOME[: 4 * MIB])
            for content in (SOME + SOME, 6 * SOME):
                writer = store.writer()
                with pytest.raises(OSError, match="No space left") as full:
                    await finished(writer, content)
                assert full.value.errno == errno.ENOSPC
                await writer.discard()
                assert below_all(server) == [segment.location]
            assert await got(store, await put(store, SOME[: 4 * MIB])) == SOME[: 4 * MIB]


def below_all(server: S3Server) -> list[str]:
    return [key for key in server.objects() + server.unfinished() if key.startswith("objects/")]
