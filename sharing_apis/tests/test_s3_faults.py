"""An S3 server that is killed, gone, slow or wrong: what was answered is there, what was not is not there."""

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest
from faults import MIB, Client, Load, Server, audit_of, begin_upload, places, sha256, status_of, upload
from s3_server import S3Server, on_s3, running


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[S3Server]:
    with running(tmp_path / "s3") as server:
        yield server


@on_s3
def test_an_s3_server_killed_at_random_moments(bucket: S3Server, tmp_path: Path) -> None:
    settings = places(tmp_path, **bucket.settings)
    server = Server(settings, tmp_path / "log")
    moments = random.Random(24)  # noqa: S311 (moments)
    with server:
        with Load([server.url], clients=4, what="s3").running() as load:
            for _ in range(5):
                time.sleep(moments.uniform(0.2, 0.6))
                bucket.kill()
                time.sleep(moments.uniform(0, 0.3))
                bucket.start()
        server.stop()
    assert audit_of(settings).live == load.answered


@on_s3
@pytest.mark.slow
@pytest.mark.timeout(200)
def test_an_s3_server_gone_and_back(bucket: S3Server, tmp_path: Path) -> None:
    settings = places(tmp_path, **bucket.settings)
    server = Server(settings, tmp_path / "log")
    with server, httpx.Client(base_url=server.url, timeout=150, verify=False) as api:
        assert upload(api, b"a" * MIB, version="0").status_code == 200
        with begin_upload(api) as connection:
            connection.settimeout(150)
            bucket.kill()
            connection.sendall(b"x" * 4 * MIB)
            assert status_of(connection) == 503
        assert api.get("/api/v1/model/1").status_code == api.get("/ready").status_code == 503
        assert api.get("/api/v1/model/1/data").status_code == api.get("/live").status_code == 200
        bucket.start()
        client = Client(server.url, "back")
        assert client.ask("GET", "/api/v1/model/1").content == b"a" * MIB
        client.ask("GET", "/ready")
        client.close()
        assert upload(api, b"y" * 8 * MIB).status_code == 200
        server.stop()
    assert set(audit_of(settings).live.values()) == {sha256(b"a" * MIB), sha256(b"y" * 8 * MIB)}


class Line:
    """A line to a server, which slows down, breaks off answers, or answers by itself that it has no time."""

    def __init__(self, port: int, seed: int) -> None:
        self._port = port
        self._chance = random.Random(seed)  # noqa: S311 (faults)
        self.faults = 0.0
        """How many of the connections and blocks go wrong."""
        self.cuts = self.refusals = 0

    @contextlib.contextmanager
    def serving(self) -> Iterator[str]:
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        server = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._carry, "127.0.0.1", 0), loop).result()
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            asyncio.run_coroutine_threadsafe(self._end(server), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    async def _end(self, server: asyncio.Server) -> None:
        server.close()
        carrying = asyncio.all_tasks() - {asyncio.current_task()}
        for task in carrying:
            task.cancel()
        await asyncio.gather(*carrying, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._chance.random() < 2 * self.faults:
            self.refusals += 1
            await reader.read(1 << 16)
            body = b"<Error><Code>SlowDown</Code><Message>later</Message></Error>"
            writer.write(
                b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nConnection: close\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
            )
            writer.close()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        pipes = [
            asyncio.create_task(self._pipe(reader, far_writer)),
            asyncio.create_task(self._pipe(far_reader, writer)),
        ]
        try:
            await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in (writer, far_writer):
                each.transport.abort()
            await asyncio.wait(pipes)

    async def _pipe(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 16):
                if self._chance.random() < self.faults:
                    await asyncio.sleep(0.1)
                if self._chance.random() < self.faults / 3:
                    self.cuts += 1
                    sink.write(data[: len(data) // 2])
                    await sink.drain()
                    return
                sink.write(data)
                await sink.drain()


@on_s3
@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_bad_line_to_s3(bucket: S3Server, tmp_path: Path) -> None:
    """Slow, broken off in the middle of bodies, refused: what is answered is right, what is not is not there."""
    line = Line(bucket.port, 25)
    with line.serving() as url:
        settings = places(tmp_path, **bucket.settings | {"s3_endpoint": url})
        server = Server(settings, tmp_path / "log")
        with server:
            with Load([server.url], clients=4, what="bad").running() as load:
                for faults in (0.02, 0.1, 0.2):
                    line.faults = faults
                    time.sleep(3)
                line.faults = 0
            server.stop()
        assert line.cuts > 20
        assert line.refusals > 5
        assert len(load.records) > 10
        assert audit_of(settings).live == load.answered
