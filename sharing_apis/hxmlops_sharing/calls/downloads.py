"""Downloads: into a partial file, from where it broke off (Range, If-Range), within what was announced."""

import errno
import re
from collections.abc import Callable
from dataclasses import dataclass

import httpx2 as httpx

from hxmlops_evidence.errors import one_line
from hxmlops_sharing.calls import patience
from hxmlops_sharing.calls.errors import SharingError, WrongBytes
from hxmlops_sharing.calls.link import Busy, Link
from hxmlops_sharing.calls.partial import Partial
from hxmlops_sharing.calls.patience import WORTH_A_TRY, Pace, Patience
from hxmlops_sharing.calls.wire import BLOCK, Reply

MAX_DOWNLOAD = 1 << 40
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

type Progress = Callable[[int, int | None], None] | None
"""Told the bytes so far and all, None when unknown."""


@dataclass(frozen=True)
class Downloaded:
    """`receipts`: what to ask the API for, an entry for each answer that the bytes came in."""

    size: int
    receipts: tuple[str, ...]


class Download:
    """One file on its way in. `run` may be repeated: it goes on behind what is there."""

    def __init__(self, link: Link, path: str, partial: Partial, max_bytes: int | None, progress: Progress) -> None:
        self._link = link
        self._path = path
        self._partial = partial
        self._limit = MAX_DOWNLOAD if max_bytes is None else max_bytes
        self._progress = progress
        self._etag = ""
        self._total: int | None = None
        self._answers = 0
        self.receipts: list[str] = []

    async def run(self) -> None:
        """Until all bytes are there. SharingError when they do not come, OSError when they cannot be kept."""
        left = Patience(patience.TRANSFER_PAUSES_S)
        furthest = self._partial.size
        while True:
            try:
                if await self._attempt():
                    return
                problem: SharingError = self._broken("the server's answers do not go together")
                pause = left.pause()
            except Busy as busy:
                problem, pause = busy.refusal, left.pause(busy.asked_s)
            except httpx.TransportError as error:
                problem, pause = self._broken(one_line(str(error)) or type(error).__name__), left.pause()
                if not self._answers and isinstance(error, httpx.ConnectError):
                    problem = self._link.unreachable(error)
            except OSError as error:
                error.filename = error.filename or str(self._partial.path)
                if error.errno in DISK_FULL:
                    self._partial.remove()
                raise
            if self._partial.size >= furthest + WORTH_A_TRY:
                furthest = self._partial.size
                left.renew()
                pause = left.pause()
            if pause is None:
                raise problem from None
            await self._link.wire.sleep(pause)

    async def again(self) -> None:
        """From the start: what was put together from several answers is not what it should be."""
        await self._drop()
        await self.run()

    async def _attempt(self) -> bool:
        """One request. False when its answer does not go on from what is there, which is dropped then."""
        start = self._partial.size
        headers = {"Range": f"bytes={start}-"} if start else {}
        if start and self._etag:
            headers["If-Range"] = self._etag
        async with self._link.open("GET", self._path, headers=headers, read_s=self._link.stall_s) as reply:
            if reply.status == 416 and start:
                if re.sub(r"\s", "", reply.headers.get("content-range", "")) == f"bytes*/{start}":
                    return True
                return await self._drop()
            await self._link.check("GET", self._path, reply)
            if reply.status not in (200, 206):
                raise SharingError(f"{self._link.where(self._path)} answers {reply.status}: is this a sharing API?")
            if reply.status == 206 and not self._goes_on(reply, start):
                return await self._drop()
            if reply.status == 200 and start:
                await self._drop()
            self._note(reply)
            await self._receive(reply)
        return True

    def _goes_on(self, reply: Reply, start: int) -> bool:
        """Whether a partial answer continues what is there."""
        match = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", reply.headers.get("content-range", ""))
        if not match or int(match[1]) != start:
            return False
        total = None if match[3] == "*" else int(match[3])
        if total is not None and int(match[2]) != total - 1:
            return False
        etag = reply.headers.get("etag", "")
        same = not (self._etag and etag) or etag == self._etag
        return same and (self._total is None or total in (None, self._total))

    async def _drop(self) -> bool:
        await self._link.wire.work(self._partial.restart)
        self._etag, self._total, self._answers = "", None, 0
        self.receipts.clear()
        return False

    def _note(self, reply: Reply) -> None:
        """What an answer says of the bytes it begins to send."""
        self._answers += 1
        etag = reply.headers.get("etag", "")
        self._etag = "" if etag.startswith("W/") else etag
        length = reply.headers.get("content-length", "")
        if re.fullmatch(r"\d{1,18}", length, re.ASCII):
            self._total = self._partial.size + int(length)
        total = self._total
        if total is not None and total > self._limit:
            raise SharingError(
                f"{self._link.where(self._path)} announces {total} bytes, more than the {self._limit} allowed here"
            )
        if total is not None:
            self._partial.make_room(total - self._partial.size)
        if reply.receipt:
            self.receipts.append(reply.receipt)

    @property
    def is_pieced_together(self) -> bool:
        return self._answers > 1 or self._partial.began_with > 0

    async def _receive(self, reply: Reply) -> None:
        """Write what comes. What came before a connection broke is kept."""
        batch: list[bytes] = []
        waiting, most = 0, self._limit if self._total is None else self._total
        pace = Pace(self._link.stall_s)
        try:
            async for block in reply.blocks:
                pace.check(len(block))
                batch.append(block)
                waiting += len(block)
                if self._partial.size + waiting > most:
                    batch.clear()
                    raise SharingError(
                        f"{self._link.where(self._path)} sends more than {most} bytes: it was cut off, tell its owner"
                    )
                if waiting >= BLOCK:
                    await self._write(batch)
                    waiting = 0
        finally:
            await self._write(batch)
        if self._total is not None and self._partial.size < self._total:
            raise httpx.RemoteProtocolError("the answer ended too early")

    async def _write(self, batch: list[bytes]) -> None:
        blocks = tuple(batch)
        batch.clear()
        if blocks:
            await self._link.wire.work(lambda: self._partial.write(blocks))
            if self._progress:
                self._progress(self._partial.size, self._total)

    def _broken(self, reason: str) -> SharingError:
        done, total = self._partial.size, "?" if self._total is None else self._total
        return SharingError(
            f"{self._link.where(self._path)} broke off after {done} of {total} bytes ({reason}): "
            "what came is kept, try again later"
        )


async def verified(download: Download, partial: Partial, sha256: str, link: Link) -> None:
    """Receive all bytes. WrongBytes, with nothing kept, when they have another digest."""
    await download.run()
    if partial.sha256 != sha256 and download.is_pieced_together:
        await download.again()
    if partial.sha256 != sha256:
        partial.remove()
        raise WrongBytes(f"{link.peer.url} answered other bytes than {sha256}: use none of them, tell its owner")


def key_of(sha256: str) -> str:
    """What a partial file of this artifact is known by."""
    return sha256.removeprefix("sha256:")[:16]
