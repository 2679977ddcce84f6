"""What the clients are tested against: servers that lie, lines that break; and both clients behind one face."""

import asyncio
import contextlib
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from hxmlops_sharing.async_client import AsyncSharingClient
from hxmlops_sharing.client import SharingClient, SharingError


class Awaited:
    """The client for asyncio, its calls as those of the other one."""

    def __init__(self, *args: Any, **named: Any) -> None:
        self._client = AsyncSharingClient(*args, **named)
        self._runner = asyncio.Runner()

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._client, name)
        return lambda *args, **named: self._runner.run(call(*args, **named))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._client.close())
        self._runner.close()


CLIENTS = [pytest.param(SharingClient, id="blocking"), pytest.param(Awaited, id="asyncio")]


@contextlib.contextmanager
def refused(status: int | None, message: str, kind: type[SharingError] = SharingError) -> Iterator[None]:
    """Expects a SharingError of one line with this in it."""
    with pytest.raises(kind) as error:
        yield
    assert message in str(error.value).replace("0" * 64, "0")
    assert error.value.status == status
    assert str(error.value).isprintable()


class Hostile:
    """A server that answers each request with the next of these bytes, or lets a function do what it likes.

    After an answer it ends the connection. The last answer is given to all that come later.
    """

    def __init__(
        self, *answers: bytes | Callable[[socket.socket], None], context: ssl.SSLContext | None = None
    ) -> None:
        self._answers = list(answers)
        self._context = context
        self.requests: list[str] = []

    def headers(self, name: str) -> list[str | None]:
        """What each request said in this header field."""
        found = (re.search(rf"^{name}: (.*?)\r$", request, re.MULTILINE | re.IGNORECASE) for request in self.requests)
        return [match[1] if match else None for match in found]

    @contextlib.contextmanager
    def serving(self) -> Iterator[str]:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            thread = threading.Thread(target=self._serve, args=[listening])
            thread.start()
            try:
                scheme = "https" if self._context else "http"
                yield f"{scheme}://127.0.0.1:{listening.getsockname()[1]}"
            finally:
                listening.shutdown(socket.SHUT_RDWR)
                thread.join()

    def _serve(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), self._dressed(connection) as connection:
                self.requests.append(_request(connection))
                answer = self._answers[0] if len(self._answers) == 1 else self._answers.pop(0)
                if isinstance(answer, bytes):
                    connection.sendall(answer)
                else:
                    answer(connection)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1 << 16):  # or our end of it would cut off what we sent
                    pass

    def _dressed(self, connection: socket.socket) -> socket.socket:
        return self._context.wrap_socket(connection, server_side=True) if self._context else connection


def _request(connection: socket.socket) -> str:
    """A request's head; its body is read as far as it has come with it."""
    received = b""
    while b"\r\n\r\n" not in received:
        data = connection.recv(1 << 16)
        if not data:
            raise ConnectionError
        received += data
    return received.partition(b"\r\n\r\n")[0].decode() + "\r\n"


def answer(body: bytes = b"", status: str = "200 OK", length: int | None = None, **headers: object) -> bytes:
    """An HTTP answer; `length` is what it says of its body."""
    fields = {"Content-Length": len(body) if length is None else length, "Connection": "close"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value != "")
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + body


class CuttingProxy:
    """A line to a server that breaks each connection after so many bytes in either direction; counts all of them."""

    def __init__(self, url: str, up: int | None = None, down: int | None = None) -> None:
        host, port = url.removeprefix("http://").split(":")
        self._server = (host, int(port.strip("/")))
        self._limits = {"up": up, "down": down}
        self.carried = {"up": 0, "down": 0}
        self.connections = 0

    def reach(self, url: str) -> None:
        """Lead to another server from now on."""
        host, port = url.removeprefix("http://").split(":")
        self._server = (host, int(port.strip("/")))

    @contextlib.contextmanager
    def serving(self) -> Iterator[str]:
        threads: list[threading.Thread] = []
        with socket.create_server(("127.0.0.1", 0)) as listening:

            def accept() -> None:
                while True:
                    try:
                        connection, _ = listening.accept()
                    except OSError:
                        return
                    self.connections += 1
                    threads.append(threading.Thread(target=self._carry, args=[connection]))
                    threads[-1].start()

            accepting = threading.Thread(target=accept)
            accepting.start()
            try:
                yield f"http://127.0.0.1:{listening.getsockname()[1]}"
            finally:
                listening.shutdown(socket.SHUT_RDWR)
                accepting.join()
                for thread in threads:
                    thread.join()

    def _carry(self, near: socket.socket) -> None:
        with near:
            try:
                far = socket.create_connection(self._server)
            except OSError:
                return
            with far:
                up = threading.Thread(target=self._pump, args=[near, far, "up"])
                up.start()
                self._pump(far, near, "down")
                up.join()

    def _pump(self, source: socket.socket, target: socket.socket, way: str) -> None:
        limit, carried = self._limits[way], 0
        with contextlib.suppress(OSError):
            while limit is None or carried < limit:
                data = source.recv(1 << 16 if limit is None else min(1 << 16, limit - carried))
                if not data:
                    break
                carried += len(data)
                self.carried[way] += len(data)
                target.sendall(data)
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


def parts(folder: Path) -> list[Path]:
    """What unfinished downloads have left in a folder."""
    return sorted(folder.glob(".*.part"))
