"""HTTP/1.1 at little cost to the client: bodies by sendfile, answers into one buffer."""

import os
import re
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

MIB = 1 << 20
TIMEOUT_S = 600
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Answer:
    """An answer; of a body that was only counted, `body` is its beginning."""

    status: int
    head: bytes
    body: bytes
    size: int

    def header(self, name: str) -> str:
        """A header's value; empty where there is none."""
        found = re.search(rf"\r\n{name}: *([^\r]*)".encode(), self.head, re.IGNORECASE)
        return found[1].decode() if found else ""

    def ok(self) -> "Answer":
        """RuntimeError with the server's words unless it is a success."""
        if not 200 <= self.status < 300:
            raise RuntimeError(f"{self.status}: {self.body[:500]!r}")
        return self


@dataclass(frozen=True)
class Part:
    """`size` bytes of a file from `offset`, all of them `times` over."""

    path: Path
    size: int
    offset: int = 0
    times: int = 1


def request(method: str, path: str, headers: Mapping[str, str], length: int | None = None) -> bytes:
    """A request's head."""
    named = {"Host": "127.0.0.1"} | dict(headers)
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in named.items())]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return "\r\n".join([*lines, "", ""]).encode()


FORM = {"Content-Type": "multipart/form-data; boundary=border"}


def form(fields: Mapping[str, str], file: Sequence[bytes | memoryview | Part]) -> list[bytes | memoryview | Part]:
    """The body of a FORM: these texts, and a file."""
    texts = "".join(
        f'--border\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )
    before = texts + '--border\r\nContent-Disposition: form-data; name="file"; filename="model"\r\n\r\n'
    return [before.encode(), *file, b"\r\n--border--\r\n"]


class Connection:
    """One connection, kept open between requests."""

    def __init__(self, port: int, headers: Mapping[str, str] | None = None) -> None:
        self.headers = dict(headers or {})
        self.socket = socket.create_connection(("127.0.0.1", port))  # no timeout: sendfile wants a blocking socket
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self.socket.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", TIMEOUT_S, 0))
        self._buffer = memoryview(bytearray(MIB))

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def call(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """The answer to a request with a small body."""
        self.send(method, path, None if body is None else [body], headers)
        return self.read()

    def send(
        self,
        method: str,
        path: str,
        body: Sequence[bytes | memoryview | Part] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Send a request whose body is bytes and parts of files."""
        named = self.headers | dict(headers or {})
        length = None
        if body is not None:
            length = sum(piece.size * piece.times if isinstance(piece, Part) else len(piece) for piece in body)
        self.socket.sendall(request(method, path, named, length))
        self.send_body(body or [])

    def send_body(self, body: Sequence[bytes | memoryview | Part]) -> None:
        """Send these bytes and nothing else."""
        for piece in body:
            if isinstance(piece, Part):
                with piece.path.open("rb") as file:
                    self._send_file(file, piece)
            else:
                self.socket.sendall(piece)

    def _send_file(self, file: IO[bytes], part: Part) -> None:
        for _ in range(part.times):
            sent = 0
            while sent < part.size:
                now = os.sendfile(self.socket.fileno(), file.fileno(), part.offset + sent, part.size - sent)
                if not now:
                    raise EOFError(f"{part.path} has fewer bytes")
                sent += now

    def read(self, limit: int | None = None, see: Callable[[memoryview], object] | None = None) -> Answer:
        """The answer; of a body beyond the first block, only its size, unless `see` is shown the bytes as they come.

        With `limit`, gives up after so many bytes.
        """
        got = 0
        while b"\r\n\r\n" not in (begun := bytes(self._buffer[:got])):
            count = self.socket.recv_into(self._buffer[got:])
            if not count:
                raise ConnectionError("hung up before an answer")
            got += count
        head, _, body = begun.partition(b"\r\n\r\n")
        found = _LENGTH.search(head)
        if found is None and b" 204 " not in head[:20]:
            raise ValueError(f"no length: {head!r}")
        length = int(found[1]) if found else 0
        if limit is not None:
            length = min(length, limit)
        small = length <= MIB
        if see is not None:
            see(memoryview(body))
        kept, size = [body], len(body)
        while size < length:
            count = self.socket.recv_into(self._buffer)
            if not count:
                raise ConnectionError(f"hung up after {size} of {length} bytes")
            if see is not None:
                see(self._buffer[:count])
            if small:
                kept.append(bytes(self._buffer[:count]))
            size += count
        return Answer(int(head[9:12]), head, b"".join(kept), size)
