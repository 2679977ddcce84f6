"""The client for asyncio: `client`'s calls as coroutines; files are read, written and hashed in threads."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2 as httpx

from hxmlops_sharing.calls.api import RESUMABLE_FROM, Calls, Record
from hxmlops_sharing.calls.downloads import Downloaded, Progress
from hxmlops_sharing.calls.errors import SharingError, WrongBytes
from hxmlops_sharing.calls.link import Link
from hxmlops_sharing.calls.progress import progress_bar
from hxmlops_sharing.calls.wire import Body, Peer, Reply, headers_of, peer_of, timeout_of

__all__ = ["AsyncSharingClient", "Downloaded", "Progress", "Record", "SharingError", "WrongBytes", "progress_bar"]


class AsyncWire:
    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._clients = {True: httpx.AsyncClient(**peer.options(at_home=True))}

    @asynccontextmanager
    async def open(
        self, method: str, url: str, headers: Mapping[str, str], body: Body | None, *, at_home: bool, read_s: float
    ) -> AsyncIterator[Reply]:
        if at_home not in self._clients:
            self._clients[at_home] = httpx.AsyncClient(**self._peer.options(at_home=at_home))
        async with self._clients[at_home].stream(
            method,
            url,
            headers=headers_of(headers, body),
            content=None if body is None else self._sending(body),
            timeout=timeout_of(read_s),
        ) as response:
            yield Reply(response.status_code, response.headers, response.aiter_raw())

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def work[T](self, function: Callable[[], T]) -> T:
        working = asyncio.get_running_loop().run_in_executor(None, function)
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            await asyncio.wait([working])  # it holds files that are closed next
            raise

    async def close(self) -> None:
        for client in self._clients.values():
            await client.aclose()

    async def _sending(self, body: Body) -> AsyncIterator[bytes]:
        while block := await self.work(lambda: next(body.blocks, b"")):
            yield block
            body.sent(len(block))


class AsyncSharingClient(Calls):
    """One sharing API, as `client.SharingClient` takes it."""

    def __init__(
        self,
        url: str,
        token_file: Path | None,
        ca: Path | None = None,
        *,
        certificate: Path | None = None,
        key: Path | None = None,
        resumable_from: int = RESUMABLE_FROM,
        stall_s: float = 60,
    ) -> None:
        peer = peer_of(url, token_file, ca, certificate, key)
        self._wire = AsyncWire(peer)
        super().__init__(Link(peer, self._wire, stall_s), resumable_from)

    async def close(self) -> None:
        await self._wire.close()

    async def __aenter__(self) -> "AsyncSharingClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
