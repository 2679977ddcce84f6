"""Resumable uploads (tus 1.0): each file on its own, from where the server has it, also by another process later."""

import base64
import json
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2 as httpx

from hxmlops_evidence.errors import one_line
from hxmlops_sharing.calls import patience
from hxmlops_sharing.calls.errors import SharingError
from hxmlops_sharing.calls.link import Busy, Link
from hxmlops_sharing.calls.patience import WORTH_A_TRY, Patience
from hxmlops_sharing.calls.uploads import OutgoingFile
from hxmlops_sharing.calls.wire import Body, Reply

TUS = {"Tus-Resumable": "1.0.0"}
CHUNK = "application/offset+octet-stream"
GONE = (403, 404, 410)
ELSEWHERE = (409, 423)
"""The server's offset is another one, or our last connection has not ended for it yet."""


async def is_offered(link: Link) -> bool:
    """Whether the API takes resumable uploads; it is asked once. An original HX-MLOps does not."""
    if link.offers_resuming is None:
        try:
            answer = await link.call("OPTIONS", "/files", bare=True)
            versions = answer.headers.get("tus-version", "")
        except SharingError as error:
            if error.status is None or error.status in (401, 403, 429) or error.status >= 500:
                raise
            versions = ""
        link.offers_resuming = "1.0.0" in re.split(r"[,\s]+", versions)
    return link.offers_resuming


class Resume:
    """Remembers unfinished uploads in a file, for the next process; without a path, nothing."""

    def __init__(self, path: Path | None, link: Link) -> None:
        self._path = path
        self._url = link.peer.url

    def find(self, file: OutgoingFile) -> str | None:
        upload = self._read().get(file.known_by())
        return upload if isinstance(upload, str) and _ID.fullmatch(upload) else None

    def note(self, file: OutgoingFile, upload: str) -> None:
        if self._path:
            self._write({**self._read(), file.known_by(): upload})

    def forget(self) -> None:
        if self._path:
            self._path.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any]:
        """What an earlier process has noted for this API; a file that is damaged says nothing."""
        if self._path is None:
            return {}
        try:
            noted = json.loads(self._path.read_bytes())
            return dict(noted["uploads"]) if noted["url"] == self._url else {}
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return {}

    def _write(self, uploads: dict[str, str]) -> None:
        assert self._path  # noqa: S101
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:  # noqa: PTH123
            json.dump({"url": self._url, "uploads": uploads}, file)
        temporary.replace(self._path)


class ResumableUpload:
    """One file on its way to the server's upload with the id `upload`."""

    def __init__(self, link: Link, file: OutgoingFile, resume: Resume, sent: Callable[[int], None]) -> None:
        self._link = link
        self._file = file
        self._resume = resume
        self._sent = sent
        self._upload = resume.find(file)
        self._offset: int | None = None  # not known
        self._confirmed = 0

    async def run(self) -> str:
        """The upload's id, when the server has all bytes. SharingError when it does not take them."""
        left = Patience(patience.TRANSFER_PAUSES_S)
        furthest = 0
        while True:
            try:
                if await self._attempt():
                    return str(self._upload)
                problem, pause = self._broken("the server has another part of it"), left.pause()
            except Busy as busy:
                problem, pause = busy.refusal, left.pause(busy.asked_s)
                self._offset = None
            except httpx.TransportError as error:
                problem, pause = self._broken(one_line(str(error)) or type(error).__name__), left.pause()
                self._offset = None
            if self._confirmed >= furthest + WORTH_A_TRY:
                furthest = self._confirmed
                left.renew()
                pause = left.pause()
            if pause is None:
                raise problem from None
            await self._link.wire.sleep(pause)

    async def discard(self) -> None:
        """Tell the server that nobody will use it. What it does not hear, it finds out when the upload expires."""
        with suppress(SharingError):
            await self._link.call("DELETE", f"/files/{self._upload}", headers=TUS, pauses_s=(), bare=True)

    async def _attempt(self) -> bool:
        """Ask for the server's offset, or begin, and send the rest. False when it has to be asked again."""
        if self._upload is None:
            await self._create()
        elif self._offset is None and not (await self._ask() and await self._patch(self._offset or 0, 0)):
            return False
        start = self._offset or 0
        await self._link.wire.work(lambda: self._file.hash_up_to(start))
        self._sent(start)
        if start == self._file.size:
            return True
        await self._patch(start, self._file.size - start)
        return self._offset == self._file.size

    async def _patch(self, start: int, length: int) -> bool:
        """Send bytes; without any, find out whether the server is ready for those at `start`.

        It may still be busy with what our last connection carried: all that we sent meanwhile would be refused.
        """
        path = f"/files/{self._upload}"
        headers = {**TUS, "Upload-Offset": str(start)}
        body = Body(self._file.blocks(start) if length else iter(()), length, CHUNK, self._count(start))
        async with self._link.open("PATCH", path, headers=headers, body=body) as reply:
            if reply.status in ELSEWHERE:
                self._offset = None
                return False
            if reply.status in GONE:
                return self._lost()
            await self._link.check("PATCH", path, reply)
            self._offset = self._offset_of(reply)
        return self._offset == start + length

    async def _create(self) -> None:
        headers = {
            **TUS,
            "Upload-Length": str(self._file.size),
            "Upload-Metadata": f"filename {base64.b64encode(self._file.path.name.encode()).decode()}",
        }
        async with self._link.open("POST", "/files", headers=headers) as reply:
            await self._link.check("POST", "/files", reply)
            upload = re.fullmatch(r"(?:.*/)?([^/?#]+)/?", reply.headers.get("location", ""))
        if upload is None or not _ID.fullmatch(upload[1]):
            raise SharingError(f"{self._link.where('/files')} names no upload: is this a sharing API?")
        self._upload, self._offset = upload[1], 0
        await self._link.wire.work(lambda: self._resume.note(self._file, str(self._upload)))

    async def _ask(self) -> bool:
        path = f"/files/{self._upload}"
        async with self._link.open("HEAD", path, headers=TUS) as reply:
            if reply.status in GONE:
                return self._lost()
            if reply.status in ELSEWHERE:
                return False
            await self._link.check("HEAD", path, reply)
            self._offset = self._offset_of(reply)
        return True

    def _lost(self) -> bool:
        """The server does not know the upload any more: another one is begun."""
        self._upload, self._offset = None, None
        return False

    def _offset_of(self, reply: Reply) -> int:
        offset = reply.headers.get("upload-offset", "")
        if not re.fullmatch(r"\d{1,18}", offset, re.ASCII) or int(offset) > self._file.size:
            raise SharingError(f"{self._link.where('/files')} names no offset within the file: is this a sharing API?")
        self._confirmed = max(self._confirmed, int(offset))
        return int(offset)

    def _count(self, start: int) -> Callable[[int], None]:
        position = start

        def sent(count: int) -> None:
            nonlocal position
            position += count
            self._sent(position)

        return sent

    def _broken(self, reason: str) -> SharingError:
        done = self._confirmed
        return SharingError(
            f"{self._link.peer.url} did not take {self._file.path} ({done} of {self._file.size} bytes are there, "
            f"{reason}): try again later"
        )


_ID = re.compile(r"[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,127}")
