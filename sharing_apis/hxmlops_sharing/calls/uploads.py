"""Files on their way out: read once and hashed meanwhile, as parts of a form."""

import base64
import hashlib
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from hxmlops_sharing.calls.errors import SharingError
from hxmlops_sharing.calls.wire import BLOCK, Body

OCTET_STREAM = "application/octet-stream"


class OutgoingFile:
    """A file to send, from any offset and as often as it takes; each byte of it is hashed once.

    `declared` is its digest where that is known before. OSError when it cannot be read.
    """

    def __init__(self, path: Path, declared: str | None = None) -> None:
        if declared is not None and not re.fullmatch("sha256:[0-9a-f]{64}", declared):
            raise SharingError(f"{declared[:100]!r} is no digest: give sha256: and 64 hexadecimal digits")
        self.path = path
        self.declared = declared
        self._file = path.open("rb")
        self._began_as = self._facts()
        self.size = self._began_as[0]
        self._digest = hashlib.sha256()
        self._hashed = 0

    def blocks(self, start: int = 0) -> Iterator[bytes]:
        self.hash_up_to(start)
        for position in range(start, self.size, BLOCK):
            yield self._read(position, min(BLOCK, self.size - position))

    def hash_up_to(self, stop: int) -> None:
        """Read what was not sent by us, or not by this process."""
        while self._hashed < stop:
            self._read(self._hashed, min(BLOCK, stop - self._hashed))

    def sha256(self) -> str:
        """Of the whole file. SharingError when it was changed since it was opened."""
        self.hash_up_to(self.size)
        if self._facts() != self._began_as:
            raise self._changed()
        return f"sha256:{self._digest.hexdigest()}"

    def known_by(self) -> str:
        """Tells whether this is still the file of which an earlier process has sent the beginning."""
        return self.declared or "-".join(map(str, (*self._began_as, self.path.absolute())))

    def close(self) -> None:
        self._file.close()

    def _read(self, position: int, count: int) -> bytes:
        self._file.seek(position)
        block = self._file.read(count)
        if len(block) < count:
            raise self._changed()
        if position <= self._hashed < position + count:
            self._digest.update(memoryview(block)[self._hashed - position :])
            self._hashed = position + count
        return block

    def _facts(self) -> tuple[int, int]:
        found = os.fstat(self._file.fileno())
        return found.st_size, found.st_mtime_ns

    def _changed(self) -> SharingError:
        return SharingError(f"{self.path} was changed while it was sent: send it again when it is complete")


class Form:
    """multipart/form-data of texts and files, whose length is known before."""

    def __init__(self, texts: Mapping[str, str], files: Mapping[str, OutgoingFile]) -> None:
        self._boundary = secrets.token_hex(16)
        self._parts: list[bytes | OutgoingFile] = []
        for name, text in texts.items():
            self._parts += [self._head(f'name="{name}"'), text.encode(), b"\r\n"]
        for name, file in files.items():
            declared = f"\r\nContent-Digest: {_structured(file.declared)}" if file.declared else ""
            head = f'name="{name}"; filename="{name}"\r\nContent-Type: {OCTET_STREAM}{declared}'
            self._parts += [self._head(head), file, b"\r\n"]
        self._parts.append(f"--{self._boundary}--\r\n".encode())
        self.length = sum(part.size if isinstance(part, OutgoingFile) else len(part) for part in self._parts)

    def body(self, sent: Callable[[int], None]) -> Body:
        return Body(self._blocks(), self.length, f"multipart/form-data; boundary={self._boundary}", sent)

    def _head(self, rest: str) -> bytes:
        return f"--{self._boundary}\r\nContent-Disposition: form-data; {rest}\r\n\r\n".encode()

    def _blocks(self) -> Iterator[bytes]:
        """Small parts go together: each block is a packet, at least."""
        small = b""
        for part in self._parts:
            if isinstance(part, bytes):
                small += part
                continue
            yield small
            small = b""
            yield from part.blocks()
        yield small


def _structured(sha256: str) -> str:
    """The value of Content-Digest (RFC 9530)."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(sha256.removeprefix('sha256:'))).decode()}:"
